//! The project's own rules, read off the sources as text: part of `cargo xtask check`.
//!
//! Belongs here: rules no compiler knows. Must hold: a finding names file, line and rule.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::task::{Failure, Tried, workspace};

/// Where `unsafe` may stand, as folders or files below `crates/`.
const UNSAFE_ALLOWED: [&str; 5] = [
    "channel",
    "jail",
    "hook",
    "rig",
    // One call that no library offers.
    "host/src/fchmodat2.rs",
];

/// Pages that say which test shows what, below the workspace.
const NAMING_TESTS: [&str; 7] = [
    "docs/budgets.md",
    "docs/do.md",
    "docs/duties.md",
    "docs/faults.md",
    "docs/jail.md",
    "docs/threat-model.md",
    "docs/weak-spots.md",
];
/// A word in backticks with at least so many underscores is a test's name: a sentence.
const UNDERSCORES_MIN: usize = 4;

/// Looks at every Rust file of the workspace; all findings in one failure.
pub(crate) fn run() -> Result<(), Failure> {
    let crates = workspace().join("crates");
    let mut findings = Vec::new();
    let mut sources = String::new();
    for path in rust_files(&crates)? {
        let text = read(&path)?;
        let name = path.strip_prefix(&crates).unwrap_or(&path).to_path_buf();
        findings.extend(of_file(&name, &text));
        sources.push_str(&text);
    }
    for name in NAMING_TESTS {
        let text = read(&workspace().join(name))?;
        let missing = missing_tests(&text, &sources);
        let finding = |test| format!("{name}: there is no test {test}");
        findings.extend(missing.into_iter().map(finding));
    }
    if findings.is_empty() {
        return Ok(());
    }
    Err(Failure(format!("tidy:\n{}", findings.join("\n"))))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).tried(format_args!("cannot read {}", path.display()))
}

/// Tests that a page names in backticks, and that no source has. `row_05` stands for the one test
/// that begins so.
fn missing_tests<'a>(page: &'a str, sources: &str) -> Vec<&'a str> {
    let quoted = page.split('`').skip(1).step_by(2);
    let names = quoted.filter_map(|word| word.rsplit("::").next());
    let missing = names.filter(|name| {
        let is_row = name.starts_with("row_");
        let is_sentence = name.matches('_').count() >= UNDERSCORES_MIN
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let end = if is_row { "_" } else { "(" };
        (is_row || is_sentence) && !sources.contains(&format!("fn {name}{end}"))
    });
    missing.collect()
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        let entries = fs::read_dir(&folder);
        for entry in entries.tried(format_args!("cannot list {}", folder.display()))? {
            let path = entry.tried("cannot list a folder")?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn of_file(name: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut find = |line: usize, rule: &str| {
        findings.push(format!("crates/{}:{line}: {rule}", name.display()));
    };
    if !text.starts_with("//!") {
        find(
            1,
            "a file begins with `//!`: what belongs here, what elsewhere",
        );
    }
    for (index, line) in text.lines().enumerate() {
        for (found, rule) in of_line(name, line) {
            if found {
                find(index + 1, rule);
            }
        }
    }
    findings
}

fn of_line(name: &Path, line: &str) -> [(bool, &'static str); 2] {
    let code = line.split("//").next().unwrap_or_default();
    let is_unsafe = [" {", " fn", " impl", " extern"]
        .iter()
        .any(|next| code.contains(&format!("{}{next}", "unsafe")));
    let may_be = UNSAFE_ALLOWED.iter().any(|crate_| name.starts_with(crate_));
    [
        (
            is_unsafe && !may_be,
            "`unsafe` lives in channel, jail, hook, rig and one file of host",
        ),
        (
            code.contains(concat!("todo", "!(")),
            "what is not done yet is not in the tree",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_a_page_names_must_exist() {
        let sources = "fn this_is_a_test_s_name() {}\nfn row_05_names() {}\n";
        let page =
            "`this_is_a_test_s_name`, `x::row_05`, `two_words`, `gone_is_a_test_s_name`, `row_06`";
        let missing = missing_tests(page, sources);
        assert_eq!(missing, ["gone_is_a_test_s_name", "row_06"]);
    }

    #[test]
    fn each_rule_finds_its_violation_and_names_the_line() {
        let name = Path::new("server/src/lib.rs");
        assert_eq!(of_file(name, "//! Fine.\nfn main() {}\n"), [""; 0]);
        let bad = concat!("fn main() {\n    uns", "afe { f() }\n    to", "do!();\n}\n");
        let findings = of_file(name, bad);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings[1].starts_with("crates/server/src/lib.rs:2:"));
        assert_eq!(of_file(Path::new("jail/src/x.rs"), bad).len(), 2);
    }
}
