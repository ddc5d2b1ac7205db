//! The page of counters shared by a gofer and `gofer do --stats`: which slot holds what.
//!
//! The slots of message ids and of the first `Mount` are the server's.

use channel::Counters;
use rustix::time::{ClockId, clock_gettime};

/// Environment variable that names the file of counters. It comes from whoever starts `runsc`.
pub(crate) const VARIABLE: &str = "GOFER_STATS";

/// Slots of this crate: moments in microseconds of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    /// The process has read its flags.
    Started = server::FIRST_MOUNT_SLOT as isize + 1,
    /// The list of mounts is written: the sandbox goes on.
    MountsListed,
}

/// Notes that a moment has come, the first time.
pub(crate) fn mark(counters: Option<&Counters>, slot: Slot) {
    if let Some(counters) = counters
        && counters.load(slot as usize) == 0
    {
        counters.add(slot as usize, microseconds());
    }
}

fn microseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The monotonic clock never shows a negative time.
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}
