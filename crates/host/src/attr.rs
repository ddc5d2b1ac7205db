//! Attributes: what a file is, and changing it.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, StatxFlags, Timestamps, Uid};
use rustix::path::{Arg, DecInt};
use wire::msg::attr::FStatFSReply;
use wire::{Errno, Owner, Statx, StatxTime, Timespec};

use crate::fchmodat2::fchmodat2;
use crate::{DescriptorDir, Kind, errno, retry};

/// What the protocol's structure has room for.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Attributes of the file behind a descriptor.
///
/// # Errors
/// The host's.
pub fn stat(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    statx(fd, c"", AtFlags::EMPTY_PATH)
}

pub(crate) fn statx<P: Arg + Copy>(
    fd: BorrowedFd<'_>,
    path: P,
    flags: AtFlags,
) -> Result<Statx, Errno> {
    retry(|| rustix::fs::statx(fd, path, flags, WANTED)).map(|host| from_host(&host))
}

fn from_host(host: &rustix::fs::Statx) -> Statx {
    Statx {
        // What else the kernel reports (mount id, alignment) has no field here.
        mask: host.stx_mask & WANTED.bits(),
        blksize: host.stx_blksize,
        attributes: 0,
        nlink: host.stx_nlink,
        uid: host.stx_uid,
        gid: host.stx_gid,
        mode: host.stx_mode,
        padding: 0,
        ino: host.stx_ino,
        size: host.stx_size,
        blocks: host.stx_blocks,
        attributes_mask: 0,
        atime: time(host.stx_atime),
        btime: time(host.stx_btime),
        ctime: time(host.stx_ctime),
        mtime: time(host.stx_mtime),
        rdev_major: host.stx_rdev_major,
        rdev_minor: host.stx_rdev_minor,
        dev_major: host.stx_dev_major,
        dev_minor: host.stx_dev_minor,
    }
}

const fn time(host: rustix::fs::StatxTimestamp) -> StatxTime {
    StatxTime {
        seconds: host.tv_sec,
        nanoseconds: host.tv_nsec,
        padding: 0,
    }
}

/// Whether no name leads to the file any more.
///
/// # Errors
/// The host's.
pub fn is_unlinked(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    stat(fd).map(|stat| stat.nlink == 0)
}

/// `fchmod(2)` of the file behind an `O_PATH` descriptor.
///
/// # Errors
/// The host's; `OPNOTSUPP` for a symbolic link.
pub fn chmod(
    fds: &DescriptorDir,
    fd: BorrowedFd<'_>,
    kind: Kind,
    permissions: u32,
) -> Result<(), Errno> {
    if kind == Kind::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    let mode = Mode::from_raw_mode(permissions & 0o7777);
    if let Some(result) = fchmodat2(fd, mode) {
        return result.map_err(errno);
    }
    let number = DecInt::from_fd(fd);
    retry(|| rustix::fs::chmodat(fds, number.as_c_str(), mode, AtFlags::empty()))
}

/// `ftruncate(2)` of the file behind an `O_PATH` descriptor.
///
/// # Errors
/// The host's; for what has no length what opening it to write gives, without waiting for anybody:
/// `ISDIR`, `LOOP`, `NXIO`, `INVAL`.
pub fn truncate(
    fds: &DescriptorDir,
    fd: BorrowedFd<'_>,
    kind: Kind,
    size: u64,
) -> Result<(), Errno> {
    match kind {
        Kind::Regular => {
            let writable = fds.reopen(fd, OFlags::WRONLY | OFlags::NONBLOCK)?;
            retry(|| rustix::fs::ftruncate(&writable, size))
        }
        Kind::Directory => Err(Errno::ISDIR),
        Kind::Symlink => Err(Errno::LOOP),
        Kind::Socket => Err(Errno::NXIO),
        Kind::Fifo | Kind::CharacterDevice => Err(Errno::INVAL),
    }
}

/// `utimensat(2)` of the file behind an `O_PATH` descriptor, of any type. `None` leaves a time alone.
///
/// # Errors
/// The host's; `INVAL` for nanoseconds out of range.
pub fn set_times(
    fds: &DescriptorDir,
    fd: BorrowedFd<'_>,
    atime: Option<Timespec>,
    mtime: Option<Timespec>,
) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: host_time(atime),
        last_modification: host_time(mtime),
    };
    let number = DecInt::from_fd(fd);
    // Through the descriptor directory: every kernel takes this for links and sockets too, while
    // `AT_EMPTY_PATH` came with Linux 5.8.
    retry(|| rustix::fs::utimensat(fds, number.as_c_str(), &times, AtFlags::empty()))
}

fn host_time(time: Option<Timespec>) -> rustix::fs::Timespec {
    match time {
        Some(time) => rustix::fs::Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds,
        },
        None => rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
    }
}

/// `fchownat(2)` of the file behind a descriptor, which may be `O_PATH`.
///
/// # Errors
/// The host's.
pub fn chown(fd: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
    if owner == Owner::KEEP {
        return Ok(());
    }
    let uid = (owner.uid != u32::MAX).then(|| Uid::from_raw(owner.uid));
    let gid = (owner.gid != u32::MAX).then(|| Gid::from_raw(owner.gid));
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    retry(|| rustix::fs::chownat(fd, c"", uid, gid, flags))
}

/// `fstatfs(2)`.
///
/// # Errors
/// The host's.
pub fn statfs(fd: BorrowedFd<'_>) -> Result<FStatFSReply, Errno> {
    let host = rustix::fs::fstatfs(fd).map_err(errno)?;
    Ok(FStatFSReply {
        kind: host.f_type as u64,
        block_size: host.f_bsize as i64,
        blocks: host.f_blocks,
        blocks_free: host.f_bfree,
        blocks_available: host.f_bavail,
        files: host.f_files,
        files_free: host.f_ffree,
        name_length: host.f_namelen as u64,
    })
}
