//! Suites and programs that other people wrote, and a directory for them that is there twice: as
//! the host has it, and through a `gofer mount`.
//!
//! Belongs here: running one of them in a directory, and what it says. Belongs elsewhere: which
//! outcome is right (the tests).

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::{
    runsc::text,
    stage::{Stage, skip},
};

/// The configuration of `pjdfstest`: all that Linux has, and two users that every Debian has.
pub const PJDFSTEST: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = REMOUNT
[dummy_auth]
entries = [[\"daemon\", \"daemon\"], [\"games\", \"games\"]]
";

/// The operations of `fsx`, all that it knows.
pub const FSX: &str = "\
[weights]
close_open = 1.0
invalidate = 1.0
mapread = 1.0
mapwrite = 1.0
read = 1.0
write = 1.0
truncate = 1.0
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 0.5
posix_fadvise = 0.5
sendfile = 1.0
punch_hole = 0.5
copy_file_range = 1.0
";

/// The configuration of `pjdfstest`, with or without tests that remount.
#[must_use]
pub fn pjdfstest_configuration(remount: bool) -> String {
    PJDFSTEST.replace("REMOUNT", &remount.to_string())
}

/// How a test of `pjdfstest` ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed, and this is what it said.
    Failed(String),
    /// It was not run.
    Skipped,
}

/// How each test of `pjdfstest` ended, by name.
#[derive(Clone, Debug, Default)]
pub struct Verdicts(BTreeMap<String, Verdict>);

impl Verdicts {
    /// Reads what the suite printed.
    ///
    /// # Panics
    /// If it did not come to its end, or counted other than we do.
    #[must_use]
    pub fn read(printed: &str) -> Self {
        let mut verdicts = BTreeMap::new();
        let mut lines = printed.lines().peekable();
        while let Some(line) = lines.next() {
            let mut words = line.split_whitespace();
            let (Some(name), Some(word), None) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let verdict = match word {
                "ok" => Verdict::Passed,
                "skipped" => Verdict::Skipped,
                "FAILED" => Verdict::Failed(lines.peek().map_or("", |l| l.trim()).to_owned()),
                _ => continue,
            };
            verdicts.insert(name.to_owned(), verdict);
        }
        let found = Self(verdicts);
        let (passed, failed, skipped) = found.counts();
        let summary = printed.lines().find(|line| line.starts_with("Summary:"));
        let says = |count: usize, word: &str| {
            summary.is_some_and(|line| line.contains(&format!(" {count} {word}")))
        };
        assert!(
            says(passed, "passed") && says(failed, "failed") && says(skipped, "skipped"),
            "{passed} passed, {failed} failed and {skipped} skipped in:\n{printed}"
        );
        found
    }

    /// Takes over how the tests of another run ended.
    pub fn replace(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many passed, failed, were skipped.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |is: fn(&Verdict) -> bool| self.0.values().filter(|verdict| is(verdict)).count();
        (
            count(|verdict| *verdict == Verdict::Passed),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| *verdict == Verdict::Skipped),
        )
    }

    /// The names of those that passed.
    pub fn passed(&self) -> impl Iterator<Item = &str> {
        let passed = self
            .0
            .iter()
            .filter(|(_, verdict)| **verdict == Verdict::Passed);
        passed.map(|(name, _)| name.as_str())
    }

    /// The names of those that failed, and what they said.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, verdict)| match verdict {
            Verdict::Failed(said) => Some((name.as_str(), said.as_str())),
            _ => None,
        })
    }

    /// How a test ended.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Verdict> {
        self.0.get(name)
    }
}

/// A directory beside the one that is served and mounted, and room for what a suite needs besides.
#[derive(Debug)]
pub struct Twin {
    folder: TempDir,
    gofer: PathBuf,
}

impl Twin {
    /// Mounts with these options. Nothing, and a line that says so, where FUSE cannot be had.
    ///
    /// # Panics
    /// If it cannot be mounted; under `CI=true` also if there is no FUSE.
    #[must_use]
    pub fn new(stage: &Stage, options: &[&str]) -> Option<Self> {
        let Some(gofer) = stage.gofer.clone() else {
            return skip("a Go gofer cannot be mounted");
        };
        if !Path::new("/dev/fuse").exists() {
            return skip("no /dev/fuse");
        }
        // Not below the workspace, which other users may not be let into.
        let folder = tempfile::Builder::new().prefix("suite-").tempdir();
        let folder = folder.expect("a folder can be made for temporary files");
        for name in ["", "bare", "served", "mounted"] {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).expect("a new folder can be written to");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .expect("a folder of ours can be opened to others");
        }
        let twin = Self { folder, gofer };
        must(
            Command::new(&twin.gofer)
                .args(["mount", "--allow-other"])
                .args(options)
                .args([twin.served(), twin.mounted()]),
        );
        Some(twin)
    }

    /// A directory of the host's.
    #[must_use]
    pub fn bare(&self) -> PathBuf {
        self.folder.path().join("bare")
    }

    /// The directory that is served, on the same file system.
    #[must_use]
    pub fn served(&self) -> PathBuf {
        self.folder.path().join("served")
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Writes a file that is in neither directory.
    ///
    /// # Panics
    /// If the file system refuses.
    #[must_use]
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("a folder of ours can be written to");
        path
    }

    /// Runs `pjdfstest` in a directory.
    ///
    /// # Panics
    /// If it does not come to its end.
    #[must_use]
    pub fn pjdfstest(&self, stage: &Stage, dir: &Path, remount: bool) -> Verdicts {
        let configuration = self.file("pjdfstest.toml", &pjdfstest_configuration(remount));
        let mut suite = Command::new(stage.suites().join("pjdfstest"));
        suite
            .arg("-c")
            .arg(configuration)
            .arg("-p")
            .arg(dir)
            // Any other file system.
            .args(["-s", "/dev/shm"])
            .args(remount.then_some("erofs"))
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
        if remount {
            // `mount` would look for a program named like the file system's type, which is to
            // remount it; what remounts is the kernel.
            let shim = self.file(
                "mount",
                "#!/bin/sh\nexec /usr/bin/mount --internal-only \"$@\"\n",
            );
            fs::set_permissions(shim, fs::Permissions::from_mode(0o755))
                .expect("a file of ours can be made executable");
            let path = std::env::var("PATH").unwrap_or_default();
            suite.env("PATH", format!("{}:{path}", self.folder.path().display()));
        }
        let output = suite.output().expect("pjdfstest can be started");
        Verdicts::read(&text(&output.stdout))
    }

    /// Runs `fsx` on a file in a directory.
    ///
    /// # Panics
    /// If it finds something wrong.
    pub fn fsx(&self, stage: &Stage, dir: &Path, seed: u32, operations: u32) {
        let configuration = self.file("fsx.toml", FSX);
        let printed = must(
            Command::new(stage.suites().join("fsx"))
                .arg("-f")
                .arg(configuration)
                .args(["-S", &seed.to_string(), "-N", &operations.to_string(), "-P"])
                .arg(self.folder.path())
                .arg(dir.join("fsx")),
        );
        assert!(printed.contains("A-OK"), "{printed}");
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let ended = Command::new(&self.gofer)
            .arg("umount")
            .arg(self.mounted())
            .status();
        // In a panic already: what it was about is to be read, not this.
        if !std::thread::panicking() {
            assert!(ended.is_ok_and(|status| status.success()), "still in use");
        }
    }
}

/// Runs a command, without input, that must succeed; what it printed.
///
/// # Panics
/// If it fails; the message holds what it printed.
pub fn must(command: &mut Command) -> String {
    let output = outcome(command);
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{printed}",
        output.status
    );
    printed
}

/// Runs a command, without input.
///
/// # Panics
/// If it cannot be started.
pub fn outcome(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|cause| panic!("cannot start {command:?}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::{Verdict, Verdicts};

    #[test]
    fn what_the_suite_prints_is_read_line_by_line() {
        let printed = "\
a::one          ok
a::two  FAILED
\tassertion failed: it is so
b::three   skipped
\trequires features: chflags

Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total
";
        let verdicts = Verdicts::read(printed);
        assert_eq!(verdicts.counts(), (1, 1, 1));
        assert_eq!(verdicts.passed().collect::<Vec<_>>(), ["a::one"]);
        let failed: Vec<_> = verdicts.failed().collect();
        assert_eq!(failed, [("a::two", "assertion failed: it is so")]);
        assert_eq!(verdicts.of("b::three"), Some(&Verdict::Skipped));
    }
}
