//! `cargo xtask check`: everything that can be judged without running the product.

use std::process::{Command, Stdio};

use crate::{
    task::{self, Failure, Tried, cargo},
    tidy,
};

/// Crates that only the feature `commands` may bring into gofer.
const FOR_PEOPLE: [&str; 9] = [
    "clap",
    "clap_complete",
    "clap_mangen",
    "client",
    "fuser",
    "hook",
    "indicatif",
    "mount",
    "tempfile",
];

/// The project's rules, formatting, lints, documentation, licences; the first that fails ends it.
pub(crate) fn run() -> Result<(), Failure> {
    tidy::run()?;
    task::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    task::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    task::run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    minimal()?;
    deny()
}

/// The process that `runsc` starts builds without people's commands, and without what they need.
fn minimal() -> Result<(), Failure> {
    const MINIMAL: [&str; 3] = ["--package", "gofer", "--no-default-features"];
    let mut tree = cargo(&["tree", "--edges", "normal", "--prefix", "none"]);
    let output = tree.args(MINIMAL).output().tried("cannot start cargo")?;
    let tree = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !tree.starts_with("gofer ") {
        return Err(Failure(format!(
            "cargo tree of the minimal build: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let unwanted: Vec<&str> = names.filter(|name| FOR_PEOPLE.contains(name)).collect();
    if !unwanted.is_empty() {
        return Err(Failure(format!(
            "gofer without its default features still needs {unwanted:?}: they belong to the feature \
             `commands`"
        )));
    }
    let mut clippy = cargo(&["clippy"]);
    task::run(clippy.args(MINIMAL).args(["--", "-D", "warnings"]))
}

/// Licences and sources of dependencies, where the tool for it is installed: building it takes
/// longer than everything above.
fn deny() -> Result<(), Failure> {
    let there = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        println!("skipped: cargo-deny is not installed");
        return Ok(());
    }
    task::run(&mut cargo(&[
        "deny", "check", "licenses", "bans", "sources",
    ]))
}
