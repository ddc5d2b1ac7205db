//! From one protocol's words to the other's: attributes, times, errnos, owners. Pure functions.
//!
//! Must hold: whatever a server says, the result is one that the kernel takes. A reply it refuses
//! leaves an application waiting for ever.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use wire::msg::attr::SetStat;
use wire::{Errno, FdId, Owner, Statx, StatxTime, Timespec};

/// Largest errno that the kernel takes from a FUSE server, plus one.
const ERRNO_END: u32 = 512;
const NANOSECONDS: u32 = 1_000_000_000;
/// `utimensat(2)`: the host's present time.
const UTIME_NOW: i64 = 0x3fff_ffff;
/// Bits of a mode that say what kind of file it is.
const TYPE_BITS: u16 = 0o170_000;
/// Bit of a directory whose new files get its group.
const SETGID: u16 = 0o2000;

/// What an application sees of a server's errno. `ENOSYS` would make the kernel stop asking for
/// the whole mount, which is ours to decide.
pub(crate) fn errno(errno: Errno) -> fuser::Errno {
    match errno {
        Errno::NOSYS => fuser::Errno::EOPNOTSUPP,
        other if (1..ERRNO_END).contains(&other.raw()) => {
            fuser::Errno::from_i32(i32::try_from(other.raw()).unwrap_or(5))
        }
        _ => fuser::Errno::EIO,
    }
}

/// The kind of file that a mode says.
///
/// # Errors
/// `IO` for no known kind.
pub(crate) fn kind(mode: u16) -> Result<FileType, Errno> {
    Ok(match mode & TYPE_BITS {
        0o010_000 => FileType::NamedPipe,
        0o020_000 => FileType::CharDevice,
        0o040_000 => FileType::Directory,
        0o060_000 => FileType::BlockDevice,
        0o100_000 => FileType::RegularFile,
        0o120_000 => FileType::Symlink,
        0o140_000 => FileType::Socket,
        _ => return Err(Errno::IO),
    })
}

/// The kind of file that a directory's entry says, if it does.
pub(crate) const fn entry_kind(dirent: u8) -> Option<FileType> {
    Some(match dirent {
        1 => FileType::NamedPipe,
        2 => FileType::CharDevice,
        4 => FileType::Directory,
        6 => FileType::BlockDevice,
        8 => FileType::RegularFile,
        10 => FileType::Symlink,
        12 => FileType::Socket,
        _ => return None,
    })
}

/// How owners of files look in the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// As the server says.
    #[default]
    AsServed,
    /// Everything is root's, and nothing is given to anybody: for a namespace with one user in it.
    AllRoot,
}

impl Owners {
    pub(crate) const fn seen(self, id: u32) -> u32 {
        match self {
            Self::AsServed => id,
            Self::AllRoot => 0,
        }
    }

    /// Who shall own what `uid` and `gid` make in a directory of this mode.
    pub(crate) const fn of_new(self, uid: u32, gid: u32, directory_mode: u16) -> Owner {
        match self {
            Self::AllRoot => Owner::KEEP,
            Self::AsServed if directory_mode & SETGID != 0 => Owner { uid, gid: u32::MAX },
            Self::AsServed => Owner { uid, gid },
        }
    }
}

/// Attributes as the kernel wants them, under the number `ino`.
///
/// # Errors
/// `IO` for a file of no known kind.
pub(crate) fn attributes(stat: &Statx, ino: u64, owners: Owners) -> Result<FileAttr, Errno> {
    Ok(FileAttr {
        ino: INodeNo(ino),
        // The kernel takes no more, and shows an error instead.
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        mtime: time(stat.mtime),
        ctime: time(stat.ctime),
        crtime: time(stat.btime),
        kind: kind(stat.mode)?,
        perm: stat.mode & !TYPE_BITS,
        nlink: stat.nlink,
        uid: owners.seen(stat.uid),
        gid: owners.seen(stat.gid),
        rdev: device(stat.rdev_major, stat.rdev_minor),
        blksize: stat.blksize,
        flags: 0,
    })
}

/// What is said of a file of which only the kind is known.
pub(crate) const fn unknown(ino: u64, kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// A device number as the kernel's interfaces of 32 bits have it.
const fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn time(time: StatxTime) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = match time.seconds {
        0.. => UNIX_EPOCH.checked_add(whole),
        _ => UNIX_EPOCH.checked_sub(whole),
    };
    let part = Duration::from_nanos(u64::from(time.nanoseconds.min(NANOSECONDS - 1)));
    second
        .and_then(|second| second.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

/// A time to set.
fn timespec(time: TimeOrNow) -> Timespec {
    let TimeOrNow::SpecificTime(time) = time else {
        return Timespec {
            seconds: 0,
            nanoseconds: UTIME_NOW,
        };
    };
    let (seconds, nanoseconds) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (signed(after.as_secs()), after.subsec_nanos()),
        // Nanoseconds count forward from a second, also before 1970. fuser 0.18 subtracts them
        // on the way in (and not on the way out), so they are taken back the same way.
        Err(before) => {
            let before = before.duration();
            (-signed(before.as_secs()), before.subsec_nanos())
        }
    };
    Timespec {
        seconds,
        nanoseconds: nanoseconds.into(),
    }
}

/// Seconds of a `SystemTime` always fit.
fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// What the kernel wants changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeOrNow>,
    pub(crate) mtime: Option<TimeOrNow>,
}

/// A request for the change.
pub(crate) fn set_stat(id: FdId, change: Change, owners: Owners) -> SetStat {
    let keeps_owners = owners == Owners::AllRoot;
    let (uid, gid) = match keeps_owners {
        true => (None, None),
        false => (change.uid, change.gid),
    };
    let bit = |given: bool, bit: u32| if given { bit } else { 0 };
    SetStat {
        id,
        mask: bit(change.mode.is_some(), SetStat::MODE)
            | bit(uid.is_some(), SetStat::UID)
            | bit(gid.is_some(), SetStat::GID)
            | bit(change.size.is_some(), SetStat::SIZE)
            | bit(change.atime.is_some(), SetStat::ATIME)
            | bit(change.mtime.is_some(), SetStat::MTIME),
        mode: change.mode.unwrap_or(0) & 0o7777,
        uid: uid.unwrap_or(u32::MAX),
        gid: gid.unwrap_or(u32::MAX),
        size: change.size.unwrap_or(0),
        atime: change.atime.map(timespec).unwrap_or_default(),
        mtime: change.mtime.map(timespec).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn no_errno_of_a_server_leaves_an_application_waiting() {
        for raw in (0..2000).chain([u32::MAX, 1 << 31]) {
            let seen = i32::from(errno(Errno::new(raw)));
            assert!((1..512).contains(&seen), "{raw} became {seen}");
            assert_ne!(seen, 38, "{raw} turns an operation off");
        }
        assert_eq!(i32::from(errno(Errno::NOTEMPTY)), 39);
    }

    #[test]
    fn any_time_is_shown_and_any_time_is_set() {
        for seconds in [i64::MIN, -1, 0, 1, i64::MAX] {
            for nanoseconds in [0, 1, 999_999_999, u32::MAX] {
                let shown = time(StatxTime {
                    seconds,
                    nanoseconds,
                    padding: 0,
                });
                let set = timespec(TimeOrNow::SpecificTime(shown));
                assert!(set.nanoseconds < i64::from(NANOSECONDS));
                if (0..=1).contains(&seconds) && nanoseconds < NANOSECONDS {
                    let want = (seconds, i64::from(nanoseconds));
                    assert_eq!((set.seconds, set.nanoseconds), want);
                }
            }
        }
    }

    #[test]
    fn device_numbers_are_those_of_the_kernel_s_headers() {
        for (major, minor) in [(0, 0), (1, 3), (136, 300), (4095, 0xf_ffff)] {
            let want = rustix::fs::makedev(major, minor);
            assert_eq!(u64::from(device(major, minor)), want);
        }
    }

    #[test]
    fn a_setgid_directory_keeps_its_group_and_a_lone_user_gives_nothing_away() {
        let kept = Owner {
            uid: 7,
            gid: u32::MAX,
        };
        assert_eq!(Owners::AsServed.of_new(7, 8, 0o42755), kept);
        assert_eq!(
            Owners::AsServed.of_new(7, 8, 0o40755),
            Owner { uid: 7, gid: 8 }
        );
        assert_eq!(Owners::AllRoot.of_new(7, 8, 0o40755), Owner::KEEP);
        let change = Change {
            uid: Some(1),
            mode: Some(0o100_644),
            ..Change::default()
        };
        let request = set_stat(FdId(1), change, Owners::AllRoot);
        assert_eq!((request.mask, request.mode), (SetStat::MODE, 0o644));
    }

    #[test]
    fn a_file_of_no_kind_is_an_error_not_an_answer() {
        assert_eq!(
            attributes(&Statx::default(), 1, Owners::AsServed).unwrap_err(),
            Errno::IO
        );
    }
}
