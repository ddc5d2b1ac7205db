//! Opening and creating files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use wire::{Errno, Name, OpenFlags, Owner};

use crate::undo::Undo;
use crate::{DescriptorDir, Kind, Pinned, dir, retry, walk};

/// Opens the file behind an `O_PATH` descriptor. The result never waits: a FIFO without a peer
/// opens at once for reading and answers `NXIO` for writing.
///
/// # Errors
/// The host's; `NXIO` for a socket.
pub fn open(
    fds: &DescriptorDir,
    fd: BorrowedFd<'_>,
    kind: Kind,
    flags: OpenFlags,
) -> Result<OwnedFd, Errno> {
    if kind == Kind::Directory {
        return open_directory(fd);
    }
    fds.reopen(fd, host_flags(flags))
}

/// A descriptor of a directory whose entries can be read, with a position of its own.
///
/// # Errors
/// The host's.
pub fn open_directory(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(dir, c".", flags, Mode::empty()))
}

/// The protocol's flags are Linux's. `O_NONBLOCK` keeps FIFOs and devices from holding a thread, and
/// is what the client expects on a donated descriptor; `O_NOCTTY` keeps a terminal from becoming
/// ours.
fn host_flags(flags: OpenFlags) -> OFlags {
    OFlags::from_bits_retain(flags.bits()) | OFlags::NONBLOCK | OFlags::NOCTTY
}

/// Makes the regular file `name` in `parent` and opens it.
///
/// # Errors
/// The host's; `EXIST` if the name is taken. A file that cannot be handed over is removed again.
pub fn create(
    fds: &DescriptorDir,
    parent: BorrowedFd<'_>,
    name: Name<'_>,
    owner: Owner,
    permissions: u16,
    flags: OpenFlags,
) -> Result<(Pinned, OwnedFd), Errno> {
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(u32::from(permissions & 0o7777));
    // Opened the way the client wants it: creation grants any access, whatever the mode says.
    let open = host_flags(flags).difference(OFlags::TRUNC);
    let file = retry(|| rustix::fs::openat(parent, name.as_bytes(), create | open, mode))?;
    let undo = Undo::new(|| _ = rustix::fs::unlinkat(parent, name.as_bytes(), AtFlags::empty()));
    let fd = fds.reopen(file.as_fd(), OFlags::PATH)?;
    let pinned = dir::given_to(owner, walk::pinned(fd)?)?;
    undo.keep();
    Ok((pinned, file))
}
