//! Walk: from a directory to a file in it, and reading links.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use wire::{Errno, Name, Statx};

use crate::{Kind, Pinned, attr, retry};

/// Opens nothing, follows nothing: just pins what has this name now.
const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Pins the file that has `name` in `dir`.
///
/// # Errors
/// The host's; `NOENT` if there is none.
pub fn pin_fd(dir: BorrowedFd<'_>, name: Name<'_>) -> Result<OwnedFd, Errno> {
    retry(|| rustix::fs::openat(dir, name.as_bytes(), PIN, Mode::empty()))
}

/// Pins the file that has `name` in `dir` and looks at it.
///
/// # Errors
/// The host's; `NOENT` if there is none; `PERM` for a block device.
pub fn walk(dir: BorrowedFd<'_>, name: Name<'_>) -> Result<Pinned, Errno> {
    pinned(pin_fd(dir, name)?)
}

/// Looks at a file that is pinned already.
///
/// # Errors
/// The host's; `PERM` for a block device.
pub fn pinned(fd: OwnedFd) -> Result<Pinned, Errno> {
    use std::os::fd::AsFd;
    let stat = attr::stat(fd.as_fd())?;
    let kind = Kind::of(&stat)?;
    Ok(Pinned { fd, stat, kind })
}

/// Attributes of the file that has `name` in `dir`, without opening it.
///
/// # Errors
/// The host's; `NOENT` if there is none; `PERM` for a block device.
pub fn stat_name(dir: BorrowedFd<'_>, name: Name<'_>) -> Result<(Statx, Kind), Errno> {
    let stat = attr::statx(dir, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = Kind::of(&stat)?;
    Ok((stat, kind))
}

/// Where a symbolic link points, appended to `target` (its content is replaced).
///
/// # Errors
/// The host's; `INVAL` if `link` is not a symbolic link.
pub fn read_link(link: BorrowedFd<'_>, target: &mut Vec<u8>) -> Result<(), Errno> {
    // Longest target of Linux: a page, the final NUL included.
    target.resize(4096, 0);
    let length = retry(|| rustix::fs::readlinkat_raw(link, c"", &mut target[..]))?;
    if length == target.len() {
        return Err(Errno::NAMETOOLONG);
    }
    target.truncate(length);
    Ok(())
}
