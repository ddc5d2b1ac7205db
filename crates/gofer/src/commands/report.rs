//! What `gofer do --stats` tells: requests by kind, start-up, memory, and whose gofer it was.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use channel::Counters;
use wire::Mid;

use super::Failure;
use crate::stats::Slot;

/// How long the sampler sleeps between two looks at the gofer.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// The shared page of counters.
#[derive(Debug)]
pub(super) struct Report {
    path: PathBuf,
    counters: Counters,
}

/// What `/proc` last said of the gofer while it lived.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Whether the gofer executes this very binary; unknown if nobody could look.
    ours: Option<bool>,
    resident_kib: u64,
    anonymous_kib: u64,
}

impl Report {
    /// # Errors
    /// The file cannot be opened or mapped.
    pub(super) fn new(path: PathBuf) -> Result<Report, Failure> {
        let opened = File::options().read(true).write(true).open(&path);
        let counters = opened.and_then(|file| Ok(Counters::map(file.as_fd())?));
        match counters {
            Ok(counters) => Ok(Report { path, counters }),
            Err(cause) => Err(Failure::File {
                what: "cannot count in",
                path,
                cause,
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the table to stderr.
    pub(super) fn print(&self, sample: Sample) {
        eprint!("{}", self.table(&sample));
    }

    fn table(&self, sample: &Sample) -> String {
        let mut requests: Vec<(u64, String)> = (0..server::FIRST_MOUNT_SLOT as u16)
            .map(|id| (self.counters.load(id.into()), format!("{:?}", Mid(id))))
            .filter(|(count, _)| *count > 0)
            .collect();
        requests.sort_by(|a, b| b.cmp(a));
        let total: u64 = requests.iter().map(|(count, _)| count).sum();
        let mut text = format!("gofer: {total} requests served\n");
        for (count, name) in requests {
            text += &format!("  {count:>9}  {name}\n");
        }
        text += &format!("start-up     {}\n", self.start_up());
        text += &format!(
            "memory       {} KiB resident, {} KiB anonymous\n",
            sample.resident_kib, sample.anonymous_kib
        );
        text + &format!(
            "executable   {}\n",
            match sample.ours {
                Some(true) => "/proc/PID/exe is this gofer",
                Some(false) => "/proc/PID/exe is NOT this gofer",
                None => "unknown: the gofer ended before anybody could look",
            }
        )
    }

    fn start_up(&self) -> String {
        let since_start = |slot: usize| {
            let (started, then) = (
                self.counters.load(Slot::Started as usize),
                self.counters.load(slot),
            );
            match then.checked_sub(started) {
                Some(microseconds) if started != 0 => {
                    format!("{}.{:02} ms", microseconds / 1000, microseconds % 1000 / 10)
                }
                _ => "never".to_owned(),
            }
        };
        format!(
            "{} to the mount list, {} to the first Mount answered",
            since_start(Slot::MountsListed as usize),
            since_start(server::FIRST_MOUNT_SLOT)
        )
    }
}

/// A thread that looks at the gofer again and again: after its end nothing is left to see.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    done: AtomicBool,
    last: Mutex<Sample>,
}

impl Sampler {
    /// From now on looks at this process. To be called on a thread that blocks the signals which
    /// are passed on to runsc: a new thread that does not would take them.
    pub(super) fn watch(&mut self, pid: i32) {
        let shared = Arc::clone(&self.shared);
        let proc = Path::new("/proc").join(pid.to_string());
        // Without the thread the table knows less, that is all.
        self.thread = std::thread::Builder::new()
            .spawn(move || shared.look_until_done(&proc))
            .ok();
    }

    /// Ends the thread; returns the last look that showed something.
    pub(super) fn stop(self) -> Sample {
        self.shared.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            _ = thread.join();
        }
        self.shared
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Shared {
    fn look_until_done(&self, proc: &Path) {
        while !self.done.load(Ordering::Relaxed) {
            self.look(proc);
            std::thread::sleep(SAMPLE_EVERY);
        }
    }

    /// Keeps what can be read; a gofer that is sealed or gone shows less.
    fn look(&self, proc: &Path) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
        if let (Ok(theirs), Ok(ours)) = (
            identity(&proc.join("exe")),
            identity(Path::new("/proc/self/exe")),
        ) {
            last.ours = Some(theirs == ours);
        }
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let rollup = std::fs::read_to_string(proc.join("smaps_rollup")).unwrap_or_default();
        let resident = kib(&rollup, "Rss:").or_else(|| kib(&status, "VmRSS:"));
        let anonymous = kib(&rollup, "Anonymous:").or_else(|| kib(&status, "RssAnon:"));
        if let (Some(resident), Some(anonymous)) = (resident, anonymous) {
            (last.resident_kib, last.anonymous_kib) = (resident, anonymous);
        }
    }
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()
        .filter(|kib| *kib > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;

    #[test]
    fn the_table_names_requests_times_memory_and_executable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let report = Report::new(file.path().to_owned()).unwrap();
        report.counters.add(usize::from(Mid::WALK.0), 7);
        report.counters.add(Slot::Started as usize, 1_000_000);
        report.counters.add(Slot::MountsListed as usize, 1_002_345);
        let sample = Sample {
            ours: Some(true),
            resident_kib: 1200,
            anonymous_kib: 300,
        };
        let table = report.table(&sample);
        assert!(
            table.starts_with("gofer: 7 requests served\n          7  "),
            "{table}"
        );
        assert!(
            table.contains("2.34 ms to the mount list, never to the first"),
            "{table}"
        );
        assert!(
            table.contains("1200 KiB resident, 300 KiB anonymous"),
            "{table}"
        );
    }

    #[test]
    fn our_own_memory_can_be_seen() {
        let shared = Shared::default();
        shared.look(Path::new("/proc/self"));
        let sample = shared.last.lock().unwrap().clone();
        assert_eq!(sample.ours, Some(true));
        assert!(sample.resident_kib >= sample.anonymous_kib && sample.anonymous_kib > 0);
    }
}
