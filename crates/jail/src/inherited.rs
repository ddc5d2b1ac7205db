//! The descriptors that came along through `execve`: the named ones become owned, the others go.
//!
//! Belongs here: the only place that turns a number of the command line into an `OwnedFd`.

#![allow(
    unsafe_code,
    reason = "numbers from the command line become owned descriptors here"
)]

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

use crate::Error;
use crate::error::Doing;

/// Descriptors named by the command line, waiting to be taken. All others are closed: a caller's
/// leak must neither reach the client nor keep alive what somebody waits to see closed.
#[derive(Debug)]
pub struct Inherited {
    waiting: BTreeMap<RawFd, OwnedFd>,
}

impl Inherited {
    /// Takes possession of `numbers`, marks them close-on-exec, closes every other descriptor from
    /// 3 up. Call it before the process opens anything of its own: whatever is open then and not
    /// named here is closed, whoever believes to own it.
    ///
    /// Numbers below 0 mean "not given" and are skipped; 0 to 2 cannot be taken.
    ///
    /// # Errors
    /// A number that is not open, or is given twice.
    pub fn claim(numbers: &[RawFd]) -> Result<Self, Error> {
        let mut waiting = BTreeMap::new();
        for &number in numbers.iter().filter(|number| **number >= 0) {
            if number <= 2 {
                return Err(Error::Parent(format!(
                    "descriptor {number} is one of the standard three and cannot be handed over"
                )));
            }
            mark_close_on_exec(number).doing(|| format!("descriptor {number} of a flag"))?;
            // SAFETY: the number is open (just asked), came from our parent, and the map refuses a
            // second owner below; nothing of this process has opened anything yet.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            if let Some(first) = waiting.insert(number, fd) {
                std::mem::forget(first); // Both own one number; the map's entry goes on owning it.
                return Err(Error::Parent(format!(
                    "descriptor {number} is given to two flags"
                )));
            }
        }
        close_others(waiting.keys().copied())?;
        Ok(Self { waiting })
    }

    /// Hands out descriptor `number`, which the flag `--{flag}` named. Each can be taken once.
    ///
    /// # Errors
    /// The number was not claimed, or was taken before.
    pub fn take(&mut self, flag: &str, number: RawFd) -> Result<OwnedFd, Error> {
        self.waiting.remove(&number).ok_or_else(|| {
            Error::Parent(format!(
                "--{flag}={number}: no such descriptor, or it has another use"
            ))
        })
    }
}

fn mark_close_on_exec(number: RawFd) -> Result<(), Errno> {
    // SAFETY: the borrow ends with this function; a number that is not open only makes the call
    // fail with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(fd, fcntl_getfd(fd)? | FdFlags::CLOEXEC)
}

/// Closes every descriptor from 3 up that is not in `keep` (ascending).
pub(crate) fn close_others(keep: impl Iterator<Item = RawFd>) -> Result<(), Error> {
    let mut first = 3_u32;
    for number in keep {
        let number = number.unsigned_abs();
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Error> {
    // SAFETY: plain numbers; the caller of `claim` promised that nothing in the range is owned.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        Ok(())
    } else {
        close_listed(first, last)
    }
}

/// Linux before 5.9 has no `close_range`: the process's own descriptor directory tells what is open.
fn close_listed(first: u32, last: u32) -> Result<(), Error> {
    let listing = std::fs::read_dir("/proc/self/fd").map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::host("listing /proc/self/fd to close stray descriptors", errno)
    })?;
    let open: Vec<u32> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in open
        .into_iter()
        .filter(|number| (first..=last).contains(number))
    {
        // SAFETY: as in `close_range`; the listing's own descriptor is closed already, which is
        // harmless (EBADF).
        unsafe { libc::close(number as libc::c_int) };
    }
    Ok(())
}
