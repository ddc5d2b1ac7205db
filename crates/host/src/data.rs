//! Data: what concerns a file's content but carries none.

use std::os::fd::BorrowedFd;

use rustix::fs::FallocateFlags;
use wire::Errno;

use crate::retry;

/// `fsync(2)`.
///
/// # Errors
/// The host's.
pub fn fsync(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    retry(|| rustix::fs::fsync(fd))
}

/// `fallocate(2)` with mode 0. Clients send no other mode, and others would need more trust: they
/// can punch holes and shift data under a donated mapping.
///
/// # Errors
/// The host's; `OPNOTSUPP` for any other mode.
pub fn fallocate(fd: BorrowedFd<'_>, mode: u64, offset: u64, length: u64) -> Result<(), Errno> {
    // Only the low half counts, as the reference has it.
    if mode & u64::from(u32::MAX) != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    retry(|| rustix::fs::fallocate(fd, FallocateFlags::empty(), offset, length))
}
