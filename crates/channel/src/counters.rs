//! Numbers that one process counts and another reads: a shared page of counters.
//!
//! Belongs here: the page. Belongs elsewhere: what each slot counts (`server`).

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{fstat, ftruncate};
use rustix::io::Errno;

use crate::mapping::Mapping;

/// Counters in one file: as many as fit into the smallest page.
pub const COUNTERS_MAX: usize = COUNTERS_BYTES / 8;
const COUNTERS_BYTES: usize = 4096;

/// A page of counters, mapped from the start of a file that its owner keeps at least a page long.
#[derive(Debug)]
pub struct Counters {
    page: Mapping,
}

impl Counters {
    /// Maps the counters in `file`, lengthening it to one page if it is shorter.
    ///
    /// # Errors
    /// The host's errno.
    pub fn map(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        if fstat(file)?.st_size < COUNTERS_BYTES as i64 {
            ftruncate(file, COUNTERS_BYTES as u64)?;
        }
        Ok(Self {
            page: Mapping::shared(file, 0, COUNTERS_BYTES)?,
        })
    }

    /// Adds `n` to a counter; a slot that does not exist counts nothing.
    pub fn add(&self, slot: usize, n: u64) {
        if slot < COUNTERS_MAX {
            self.page.word64(slot * 8).fetch_add(n, Relaxed);
        }
    }

    /// Reads a counter; 0 if the slot does not exist.
    #[must_use]
    pub fn load(&self, slot: usize) -> u64 {
        if slot < COUNTERS_MAX {
            self.page.word64(slot * 8).load(Relaxed)
        } else {
            0
        }
    }
}
