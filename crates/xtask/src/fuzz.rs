//! `cargo xtask fuzz`: coverage-guided fuzzing of everything that reads what others wrote.
//!
//! Belongs here: building the targets in `fuzz/` with the pinned stable toolchain, running them,
//! reading off what they did. Belongs elsewhere: the targets.
//! Must hold: what is found on the way lands below `target/`; only `--keep` changes the repository.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use crate::{
    packages,
    task::{self, Failure, Tried, cargo, target, workspace},
};

/// libFuzzer is C++; `libfuzzer-sys` brings its source.
const PACKAGES: [&str; 1] = ["g++"];

/// LLVM's coverage for libFuzzer. Both flags are stable, so no nightly compiler and no cargo-fuzz
/// is needed; without AddressSanitizer, because the targets are safe Rust almost everywhere.
const RUSTFLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 --cfg fuzzing";

/// A run that takes longer hangs: far above the waits that targets themselves bound.
const HANG_SECONDS: u32 = 60;
/// Targets that run at a time: each uses a processor and a little of another.
const AT_ONCE_MAX: usize = 2;
/// Longest input that is made, in bytes.
const INPUT_BYTES_MAX: u32 = 2000;

/// What `cargo xtask fuzz` accepts.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these targets
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Add to the corpora in the repository what reaches more
    #[arg(long)]
    keep: bool,
    /// Only name the targets
    #[arg(long)]
    list: bool,
}

/// Runs the targets, or names them.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let all = targets()?;
    if args.list {
        all.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if let Some(unknown) = args.targets.iter().find(|name| !all.contains(name)) {
        let all = all.join(", ");
        return Err(Failure(format!("no target {unknown}; there are {all}")));
    }
    run_for(&args.targets, args.seconds, args.keep)
}

/// The named targets, or all, for so many seconds each; two at a time where there are processors for
/// it. Once one has found something no other is begun.
pub(crate) fn run_for(names: &[String], seconds: u32, keep: bool) -> Result<(), Failure> {
    packages::need(&PACKAGES)?;
    let binaries = build()?;
    let mut wanted = targets()?;
    wanted.retain(|name| names.is_empty() || names.contains(name));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(wanted.into_iter().collect::<VecDeque<_>>());
    let next = || waiting.lock().ok()?.pop_front();
    let work = || {
        let mut table = Vec::new();
        while let Some(name) = next() {
            let line = Target::new(&name, &binaries).and_then(|target| target.fuzz(seconds, keep));
            if line.is_err()
                && let Ok(mut waiting) = waiting.lock()
            {
                waiting.clear();
            }
            table.push(line?);
        }
        Ok(table)
    };
    let tables: Vec<Result<Vec<String>, Failure>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..processors.min(AT_ONCE_MAX))
            .map(|_| scope.spawn(work))
            .collect();
        let died = |_| Err(Failure("a thread of the runs panicked".to_owned()));
        let ended = workers.into_iter().map(|worker| worker.join());
        ended.map(|table| table.unwrap_or_else(died)).collect()
    });
    let mut table = Vec::new();
    for part in tables {
        table.extend(part?);
    }
    table.sort();
    println!(
        "{:<12} {:>12} {:>10} {:>8}",
        "target", "executions", "coverage", "inputs"
    );
    table.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn folder() -> PathBuf {
    workspace().join("fuzz")
}

/// Every file in `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>, Failure> {
    let folder = folder().join("fuzz_targets");
    let entries = fs::read_dir(&folder).tried(format_args!("cannot list {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".rs")?.to_owned())
        })
        .collect();
    names.sort();
    Ok(names)
}

/// Builds all targets; where the binaries are.
fn build() -> Result<PathBuf, Failure> {
    let triple = host_triple()?;
    let to = target().join("fuzz");
    // A target triple keeps the flags away from build scripts and procedural macros.
    let mut build = cargo(&[
        "build",
        "--quiet",
        "--release",
        "--bins",
        "--target",
        &triple,
    ]);
    build
        .current_dir(folder())
        .env("CARGO_TARGET_DIR", &to)
        .env("RUSTFLAGS", RUSTFLAGS);
    task::run(&mut build)?;
    Ok(to.join(triple).join("release"))
}

fn host_triple() -> Result<String, Failure> {
    let output = Command::new("rustc")
        .arg("-vV")
        .current_dir(workspace())
        .output();
    let output = output.tried("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let triple = text.lines().find_map(|line| line.strip_prefix("host: "));
    triple
        .map(str::to_owned)
        .ok_or_else(|| Failure("rustc does not say which machine it is for".to_owned()))
}

struct Target {
    name: String,
    binary: PathBuf,
    /// In the repository: small, and only read.
    corpus: PathBuf,
    /// Everything that was ever interesting here.
    found: PathBuf,
    log: PathBuf,
}

impl Target {
    fn new(name: &str, binaries: &Path) -> Result<Self, Failure> {
        let below = target().join("fuzz");
        let target = Self {
            name: name.to_owned(),
            binary: binaries.join(name),
            corpus: folder().join("corpus").join(name),
            found: below.join("corpus").join(name),
            log: below.join(format!("{name}.log")),
        };
        for folder in [&target.corpus, &target.found] {
            fs::create_dir_all(folder).tried(format_args!("cannot make {}", folder.display()))?;
        }
        Ok(target)
    }

    /// Runs it; one line of the table.
    fn fuzz(&self, seconds: u32, keep: bool) -> Result<String, Failure> {
        println!("fuzzing {} for {seconds} s", self.name);
        let limits = [
            format!("-max_total_time={seconds}"),
            format!("-timeout={HANG_SECONDS}"),
            format!("-max_len={INPUT_BYTES_MAX}"),
        ];
        self.start(&limits, &[&self.found, &self.corpus])?;
        if keep {
            // Only inputs that reach new code, not those that reach the same more often: small.
            let merge = ["-set_cover_merge=1", "-use_counters=0"].map(str::to_owned);
            self.start(&merge, &[&self.corpus, &self.found])?;
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let summary = Summary::of(&log).unwrap_or_default();
        Ok(format!(
            "{:<12} {:>12} {:>10} {:>8}",
            self.name, summary.executions, summary.coverage, summary.inputs
        ))
    }

    fn start(&self, options: &[String], corpora: &[&PathBuf]) -> Result<(), Failure> {
        let merging = options.iter().any(|option| option == "-set_cover_merge=1");
        let log = if merging {
            Stdio::null()
        } else {
            let file = fs::File::create(&self.log);
            file.tried(format_args!("cannot write {}", self.log.display()))?
                .into()
        };
        let artifacts = format!("{}/{}-", self.found.with_file_name("").display(), self.name);
        let mut run = Command::new(&self.binary);
        // Targets ignore the signal of a file that grows too long, as the gofer does.
        run.args(["-handle_xfsz=0", "-len_control=0", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={artifacts}"))
            .args(options)
            .args(corpora)
            .current_dir(target())
            .stderr(log);
        task::run(&mut run).map_err(|failure| {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            Failure(format!(
                "{failure}\n{}\nthe input lies at {artifacts}*; to repeat: {} INPUT",
                last_lines(&log, 40),
                self.binary.display()
            ))
        })
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// What libFuzzer's last line of progress says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    executions: u64,
    coverage: u64,
    inputs: u64,
}

impl Summary {
    /// Reads a line as `#4543\tDONE   cov: 1830 ft: 2624 corp: 183/1150b lim: 11 ...`.
    fn of(log: &str) -> Option<Self> {
        let line = log
            .lines()
            .rfind(|line| line.contains("DONE") && line.contains("cov:"))?;
        let mut words = line.split_whitespace();
        let executions = words.next()?.strip_prefix('#')?.parse().ok()?;
        let mut after = |label| {
            let value = words.by_ref().skip_while(|word| *word != label).nth(1)?;
            value.split('/').next()?.parse().ok()
        };
        Some(Self {
            executions,
            coverage: after("cov:")?,
            inputs: after("corp:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_progress_is_understood() {
        let log = "#2\tINITED cov: 1 ft: 1 corp: 1/1b\n\
            #4543\tDONE   cov: 1830 ft: 2624 corp: 183/1150b lim: 11 exec/s: 283 rss: 32Mb\n\
            Done 4543 runs in 16 second(s)\n";
        let summary = Summary {
            executions: 4543,
            coverage: 1830,
            inputs: 183,
        };
        assert_eq!(Summary::of(log), Some(summary));
        assert_eq!(Summary::of("nothing"), None);
    }

    #[test]
    fn every_target_is_declared_and_has_a_corpus() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap_or_default();
        let targets = targets().unwrap_or_default();
        assert!(targets.len() >= 4, "{targets:?}");
        for name in targets {
            assert!(
                manifest.contains(&format!("name = \"{name}\"")),
                "{name} is not declared"
            );
            let corpus = fs::read_dir(folder().join("corpus").join(&name));
            assert!(
                corpus.is_ok_and(|mut files| files.next().is_some()),
                "{name}: no corpus"
            );
        }
    }
}
