//! `--profile-cpu-fd`: a CPU profile in the format of pprof, while the process serves.
//!
//! Belongs here: collecting samples and bringing them into the file again and again, since the
//! usual end of a gofer is `SIGKILL`. Belongs elsewhere: taking samples (`jail::sampler`), the
//! file's format (`format`).
//! Must hold: a process without the flag has no thread, no timer and no memory for it; a file that
//! cannot be written costs the profile and nothing else.

mod format;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use jail::sampler::{PERIOD_NANOSECONDS, Sampler};
use jail::signals;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::log::Log;
use format::{Mapping, Profile};

/// How often samples are fetched, and the file written if there are new ones.
const INTERVAL: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// Different stacks that are kept; samples of further ones are counted as lost. Some megabytes.
const STACKS_MAX: usize = 20_000;

/// What has to be got ready while the process may still do so.
#[derive(Debug)]
pub(crate) struct Prepared {
    file: File,
    mappings: Vec<Mapping>,
    end: OwnedFd,
}

impl Prepared {
    /// Looks at where the program lies, while procfs is there.
    ///
    /// # Errors
    /// The descriptor is not a file, or the host's.
    pub(crate) fn new(file: OwnedFd) -> std::io::Result<Prepared> {
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other(
                "only a regular file can be written again and again",
            ));
        }
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Prepared {
            file,
            mappings: Mapping::all(&std::fs::read_to_string("/proc/self/maps")?),
            end,
        })
    }

    /// Starts the timer; before the seal.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn sample(self) -> Result<Sampling, Errno> {
        Ok(Sampling {
            sampler: Sampler::start()?,
            prepared: self,
        })
    }
}

/// The timer runs.
#[derive(Debug)]
pub(crate) struct Sampling {
    prepared: Prepared,
    sampler: Sampler,
}

impl Sampling {
    /// Starts the thread that writes; after the seal.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn record(self, log: &Arc<Log>) -> std::io::Result<Recording> {
        let end = self.prepared.end.try_clone()?;
        let recorder = Recorder {
            sampler: self.sampler,
            file: self.prepared.file,
            mappings: self.prepared.mappings,
            end: self.prepared.end,
            log: Arc::clone(log),
            stacks: BTreeMap::new(),
            lost: 0,
            began: (SystemTime::now(), Instant::now()),
        };
        let raised = end.try_clone()?;
        let thread = std::thread::Builder::new()
            .name("profile".to_owned())
            .spawn(|| recorder.run())?;
        // A signal that ends the process shall not end it before the file is written.
        signals::raise_instead(raised);
        Ok(Recording { thread, end })
    }
}

/// The file is being written.
#[derive(Debug)]
pub(crate) struct Recording {
    thread: JoinHandle<()>,
    end: OwnedFd,
}

impl Recording {
    /// Writes what there is; nothing is written afterwards.
    pub(crate) fn finish(self) {
        // Fails if a signal has raised the event already, and then the thread ends as well.
        _ = rustix::io::write(&self.end, &1_u64.to_ne_bytes());
        // It does not panic; if it did, that has been logged.
        _ = self.thread.join();
    }
}

struct Recorder {
    sampler: Sampler,
    file: File,
    mappings: Vec<Mapping>,
    end: OwnedFd,
    log: Arc<Log>,
    stacks: BTreeMap<Vec<u64>, u64>,
    lost: u64,
    began: (SystemTime, Instant),
}

impl Recorder {
    fn run(mut self) {
        let mut working = self.write();
        while !self.ends() {
            if self.fetch() && working {
                working = self.write();
            }
        }
        self.fetch();
        if working {
            self.write();
        }
        if let Some(status) = signals::status_asked_for() {
            std::process::exit(status);
        }
    }

    /// Waits for the end, but not for long.
    fn ends(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.end.as_fd(), PollFlags::IN)];
        poll(&mut polled, Some(&INTERVAL)).is_ok_and(|ready| ready > 0)
    }

    /// Takes what was sampled since the last time; whether that is anything.
    fn fetch(&mut self) -> bool {
        let mut any = false;
        let (stacks, lost) = (&mut self.stacks, &mut self.lost);
        self.sampler.fetch(|stack| {
            any = true;
            if let Some(count) = stacks.get_mut(stack) {
                *count += 1;
            } else if stacks.len() < STACKS_MAX {
                stacks.insert(stack.to_vec(), 1);
            } else {
                *lost += 1;
            }
        });
        any
    }

    /// Brings all there is into the file; whether that worked. In one call, and never shorter than
    /// before, so that `SIGKILL` at any moment leaves a whole profile but for a moment within it.
    fn write(&self) -> bool {
        let profile = Profile {
            mappings: &self.mappings,
            stacks: &self.stacks,
            period_nanoseconds: PERIOD_NANOSECONDS,
            began: self
                .began
                .0
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or(Duration::ZERO),
            lasted: self.began.1.elapsed(),
            comment: format!(
                "gofer {}; samples lost: {}",
                env!("CARGO_PKG_VERSION"),
                self.lost + self.sampler.lost()
            ),
        };
        let written = self.file.write_all_at(&profile.encode(), 0);
        if let Err(error) = &written {
            self.log.warning(format_args!(
                "--profile-cpu-fd: writing the profile: {error}; it stays as it is"
            ));
        }
        written.is_ok()
    }
}
