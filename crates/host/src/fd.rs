//! How the host's files are held: pinned by `O_PATH` descriptors, reached again by their number.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io;
use rustix::path::DecInt;
use wire::{Errno, Statx};

/// Type of a file, as the protocol distinguishes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A Unix socket's file.
    Socket,
    /// A FIFO.
    Fifo,
    /// A character device.
    CharacterDevice,
}

impl Kind {
    /// The type in the mode of `stat`.
    ///
    /// # Errors
    /// `PERM` for what is never served: block devices.
    pub const fn of(stat: &Statx) -> Result<Self, Errno> {
        match stat.mode & 0o170_000 {
            0o100_000 => Ok(Self::Regular),
            0o040_000 => Ok(Self::Directory),
            0o120_000 => Ok(Self::Symlink),
            0o140_000 => Ok(Self::Socket),
            0o010_000 => Ok(Self::Fifo),
            0o020_000 => Ok(Self::CharacterDevice),
            _ => Err(Errno::PERM),
        }
    }
}

/// A file pinned by an `O_PATH` descriptor, and what it looked like when it was pinned.
#[derive(Debug)]
pub struct Pinned {
    /// The descriptor.
    pub fd: OwnedFd,
    /// The attributes.
    pub stat: Statx,
    /// The type.
    pub kind: Kind,
}

/// The host's errno as it travels.
#[must_use]
pub fn errno(error: io::Errno) -> Errno {
    Errno::new(error.raw_os_error().unsigned_abs())
}

/// Repeats a call that a signal interrupted, and turns its error into one that travels.
///
/// # Errors
/// The host's errno, never `EINTR`.
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(io::Errno::INTR) => {}
            result => return result.map_err(errno),
        }
    }
}

/// The process's own descriptor directory, `/proc/self/fd`, as a mount of its own: the relative
/// path `N` inside it names exactly the file behind descriptor N, whatever became of its names.
///
/// A few calls take no directory descriptor (extended attributes, `connect`, `bind`). For them it
/// is also the working directory: [`DescriptorDir::enter`].
#[derive(Debug)]
pub struct DescriptorDir(OwnedFd);

impl DescriptorDir {
    /// Wraps a descriptor of the directory.
    #[must_use]
    pub const fn new(dir: OwnedFd) -> Self {
        Self(dir)
    }

    /// Makes it the working directory of the whole process.
    ///
    /// # Errors
    /// The host's.
    pub fn enter(&self) -> Result<(), Errno> {
        rustix::process::fchdir(&self.0).map_err(errno)
    }

    /// Opens the file behind `fd` anew.
    ///
    /// # Errors
    /// The host's.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let number = DecInt::from_fd(fd);
        retry(|| {
            rustix::fs::openat(
                &self.0,
                number.as_c_str(),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
            )
        })
    }
}

impl AsFd for DescriptorDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
