//! What can be seen of containers from the host: processes, mounts, files left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long the host gets to finish what it does on its own (reaping, unmounting). Generous: it
/// is only spent in full when a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `true`; what it waited for ends up in the panic.
///
/// # Panics
/// If it does not come true in time.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// One process of the host.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// The words of its command line.
    pub arguments: Vec<String>,
}

impl Process {
    /// The binary it runs, if it still runs.
    #[must_use]
    pub fn executable(&self) -> Option<PathBuf> {
        executable(self.pid)
    }
}

/// The binary a process runs; none for one that has ended or is a zombie.
#[must_use]
pub fn executable(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// All processes with a command line (no kernel threads, no zombies).
///
/// # Panics
/// If `/proc` cannot be read.
#[must_use]
pub fn processes() -> Vec<Process> {
    let numbers = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words = line.split(|byte| *byte == 0);
            let arguments: Vec<String> = words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            (!line.is_empty()).then_some(Process { pid, arguments })
        })
        .collect()
}

/// The gofers whose command line names `mark` (a state folder, a bundle, a data root).
#[must_use]
pub fn gofers_of(mark: &Path) -> Vec<Process> {
    let mut found = processes_of(mark);
    found.retain(|process| process.arguments[0] == "runsc-gofer");
    found
}

/// The processes whose command line names `mark`, ourselves excluded.
#[must_use]
pub fn processes_of(mark: &Path) -> Vec<Process> {
    let mark = mark.to_string_lossy();
    let us = rustix::process::getpid().as_raw_nonzero().get();
    let mut found = processes();
    found.retain(|process| {
        process.pid != us && process.arguments.iter().any(|word| word.contains(&*mark))
    });
    found
}

/// The lines of our own mount table that name `mark`.
///
/// # Panics
/// If `/proc` cannot be read.
#[must_use]
pub fn mounts_of(mark: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mark = mark.to_string_lossy();
    let named = table.lines().filter(|line| line.contains(&*mark));
    named.map(str::to_owned).collect()
}

/// Everything below a folder, as relative paths, sorted.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(path.clone());
            }
            found.extend(path.strip_prefix(folder).ok().map(Path::to_path_buf));
        }
    }
    found.sort();
    found
}
