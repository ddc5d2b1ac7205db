//! Directories: entries made, linked, removed, renamed, listed.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, RawDir, RenameFlags, SeekFrom};
use rustix::io;
use rustix::path::DecInt;
use wire::msg::dir::{Dirent, DirentsWriter};
use wire::{Errno, Name, Owner, Text};

use crate::undo::Undo;
use crate::{DescriptorDir, Kind, Pinned, attr, errno, retry, walk};

/// Makes a directory and pins it.
///
/// # Errors
/// The host's; `INVAL` if `dir` was removed. What cannot be handed over is removed again.
pub fn mkdir_at(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    owner: Owner,
    permissions: u16,
) -> Result<Pinned, Errno> {
    let mode = Mode::from_raw_mode(u32::from(permissions & 0o7777));
    retry(|| rustix::fs::mkdirat(dir, name.as_bytes(), mode))?;
    let undo = Undo::new(|| _ = rustix::fs::unlinkat(dir, name.as_bytes(), AtFlags::REMOVEDIR));
    let made = adopt(dir, name, Kind::Directory, owner)?;
    undo.keep();
    Ok(made)
}

/// What [`mknod_at`] makes beside regular files.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// An overlay's whiteouts: character devices 0:0.
    pub whiteouts: bool,
    /// FIFOs and the files of sockets.
    pub special_files: bool,
}

/// Makes an empty regular file, or one of these kinds, and pins it.
///
/// # Errors
/// The host's; `PERM` for any other type: the client then makes a FIFO or socket of its own.
pub fn mknod_at(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    owner: Owner,
    mode: u16,
    device: (u32, u32),
    kinds: Kinds,
) -> Result<Pinned, Errno> {
    let (file_type, kind) = match (u32::from(mode) & 0o170_000, device) {
        (0o100_000, _) => (FileType::RegularFile, Kind::Regular),
        (0o010_000, _) if kinds.special_files => (FileType::Fifo, Kind::Fifo),
        (0o140_000, _) if kinds.special_files => (FileType::Socket, Kind::Socket),
        (0o020_000, (0, 0)) if kinds.whiteouts => {
            (FileType::CharacterDevice, Kind::CharacterDevice)
        }
        _ => return Err(Errno::PERM),
    };
    let permissions = Mode::from_raw_mode(u32::from(mode & 0o7777));
    retry(|| rustix::fs::mknodat(dir, name.as_bytes(), file_type, permissions, 0))?;
    let undo = unlink_again(dir, name);
    let made = adopt(dir, name, kind, owner)?;
    undo.keep();
    Ok(made)
}

/// Makes a symbolic link and pins it.
///
/// # Errors
/// The host's; `NOENT` for an empty target.
pub fn symlink_at(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    owner: Owner,
    target: &[u8],
) -> Result<Pinned, Errno> {
    retry(|| rustix::fs::symlinkat(target, dir, name.as_bytes()))?;
    let undo = unlink_again(dir, name);
    let made = adopt(dir, name, Kind::Symlink, owner)?;
    undo.keep();
    Ok(made)
}

/// Gives the file behind `target` another name, and pins it under that.
///
/// # Errors
/// The host's; `INVAL` if the file or the directory was deleted.
pub fn link_at(
    fds: &DescriptorDir,
    target: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: Name<'_>,
) -> Result<Pinned, Errno> {
    let number = DecInt::from_fd(target);
    // The descriptor's entry is itself a link: following it ends at the file, even at a symlink.
    let follow = AtFlags::SYMLINK_FOLLOW;
    retry(|| rustix::fs::linkat(fds, number.as_c_str(), dir, name.as_bytes(), follow))?;
    let undo = unlink_again(dir, name);
    let made = walk::walk(dir, name)?;
    undo.keep();
    Ok(made)
}

/// Removes a name.
///
/// # Errors
/// The host's; `INVAL` for flags other than none or `AT_REMOVEDIR`.
pub fn unlink_at(dir: BorrowedFd<'_>, name: Name<'_>, flags: u32) -> Result<(), Errno> {
    let flags = AtFlags::from_bits_retain(flags);
    if !AtFlags::REMOVEDIR.contains(flags) {
        return Err(Errno::INVAL);
    }
    retry(|| rustix::fs::unlinkat(dir, name.as_bytes(), flags))
}

/// Moves a name.
///
/// # Errors
/// The host's.
pub fn rename_at(
    old: (BorrowedFd<'_>, Name<'_>),
    new: (BorrowedFd<'_>, Name<'_>),
    flags: u32,
) -> Result<(), Errno> {
    let (old_name, new_name) = (old.1.as_bytes(), new.1.as_bytes());
    if flags == 0 {
        return retry(|| rustix::fs::renameat(old.0, old_name, new.0, new_name));
    }
    let flags = RenameFlags::from_bits_retain(flags);
    retry(|| rustix::fs::renameat_with(old.0, old_name, new.0, new_name, flags))
}

/// Pins what was just made and gives it its owner. Something of another type that took its place
/// meanwhile is refused: a control id's type never changes.
fn adopt(dir: BorrowedFd<'_>, name: Name<'_>, kind: Kind, owner: Owner) -> Result<Pinned, Errno> {
    let made = walk::walk(dir, name)?;
    if made.kind != kind {
        return Err(Errno::EXIST);
    }
    given_to(owner, made)
}

/// Gives what was just made its owner, if it is not that already: most files are made by whom they
/// shall belong to, and need no second look.
pub(crate) fn given_to(owner: Owner, made: Pinned) -> Result<Pinned, Errno> {
    if is_owned_by(owner, &made) {
        return Ok(made);
    }
    attr::chown(made.fd.as_fd(), owner)?;
    walk::pinned(made.fd)
}

/// Whether giving it to `owner` would change nothing but its time.
fn is_owned_by(owner: Owner, made: &Pinned) -> bool {
    /// What the kernel shows for ids that our user namespace has no number for.
    const OVERFLOW: u32 = 65_534;
    let is = |wanted, id| wanted == u32::MAX || (wanted == id && id != OVERFLOW);
    // Of anything but a directory, giving it away clears these bits, to whomever.
    let clears = made.kind != Kind::Directory && made.stat.mode & 0o6000 != 0;
    let nothing = owner == Owner::KEEP;
    nothing || (is(owner.uid, made.stat.uid) && is(owner.gid, made.stat.gid) && !clears)
}

fn unlink_again<'d>(dir: BorrowedFd<'d>, name: Name<'d>) -> Undo<impl FnMut() + use<'d>> {
    Undo::new(move || _ = rustix::fs::unlinkat(dir, name.as_bytes(), AtFlags::empty()))
}

/// Whether entries of a directory can lie on another device than the directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// No: the directory's own device number and the host's entry tell an entry's identity.
    One,
    /// Perhaps (mount points below, overlay, btrfs): every entry is looked at.
    Several,
}

/// Bytes read from the host in one call.
const LISTING_BYTES: usize = 32 << 10;
/// Room for one record with the longest name Linux knows; below it the host may say `EINVAL`.
const RECORD_BYTES_MAX: usize = 280;

/// Goes back to a directory's start.
///
/// # Errors
/// The host's.
pub fn rewind(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    retry(|| rustix::fs::seek(dir, SeekFrom::Start(0))).map(|_| ())
}

/// Appends the next entries of a directory, without `.` and `..`, until `record_bytes` of the
/// host's records were reported or the directory ends.
///
/// # Errors
/// The host's, if it comes before the first entry; later it ends the list.
pub fn list(
    dir: BorrowedFd<'_>,
    record_bytes: usize,
    devices: Devices,
    out: &mut DirentsWriter<'_, '_>,
) -> Result<(), Errno> {
    let own = attr::stat(dir)?;
    let mut room = [MaybeUninit::uninit(); LISTING_BYTES];
    let mut left = record_bytes;
    while left > 0 {
        let length = left.min(LISTING_BYTES);
        match list_once(dir, &mut room[..length], (&own, devices), out) {
            Ok(0) => break,
            Ok(reported) => left = left.saturating_sub(reported),
            // No room for the next record: what is there is the answer.
            Err(io::Errno::INVAL) if length < RECORD_BYTES_MAX => break,
            Err(error) if out.is_empty() => return Err(errno(error)),
            Err(_) => break,
        }
    }
    Ok(())
}

/// One call to the host. Returns the bytes of the records reported; 0 at the end. A call that
/// returned only `.` and `..` is repeated.
fn list_once(
    dir: BorrowedFd<'_>,
    room: &mut [MaybeUninit<u8>],
    about: (&wire::Statx, Devices),
    out: &mut DirentsWriter<'_, '_>,
) -> io::Result<usize> {
    let mut host = RawDir::new(dir, room);
    let mut reported = 0;
    while let Some(entry) = host.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(io::Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            reported += record_bytes(name.len());
            if !out.push(&dirent(dir, &entry, about)) {
                break;
            }
        }
        if host.is_buffer_empty() && reported > 0 {
            break;
        }
    }
    Ok(reported)
}

/// Bytes of `struct linux_dirent64` for a name: 19 in front, a NUL behind, rounded up to 8.
const fn record_bytes(name: usize) -> usize {
    (19 + name + 1).next_multiple_of(8)
}

fn dirent<'e>(
    dir: BorrowedFd<'_>,
    entry: &'e rustix::fs::RawDirEntry<'_>,
    (own, devices): (&wire::Statx, Devices),
) -> Dirent<'e> {
    let name = entry.file_name().to_bytes();
    let mut dirent = Dirent {
        ino: entry.ino(),
        dev_minor: own.dev_minor,
        dev_major: own.dev_major,
        off: entry.next_entry_cookie(),
        kind: type_number(entry.file_type()),
        name: Text(name),
    };
    if devices == Devices::Several || entry.file_type() == FileType::Unknown {
        // An entry removed in between keeps what the directory said of it.
        if let Ok(stat) = attr::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            dirent.ino = stat.ino;
            dirent.dev_minor = stat.dev_minor;
            dirent.dev_major = stat.dev_major;
            dirent.kind = (stat.mode >> 12) as u8;
        }
    }
    dirent
}

/// `DT_*`, which are the type bits of a mode; 0 where the file system does not say.
fn type_number(file_type: FileType) -> u8 {
    match file_type {
        FileType::Unknown => 0,
        known => (known.as_raw_mode() >> 12) as u8,
    }
}

/// Whether a file system keeps all its files on one device number. Mount points are another
/// matter: the caller knows of those.
///
/// # Errors
/// The host's.
pub fn devices_of(dir: BorrowedFd<'_>) -> Result<Devices, Errno> {
    /// ext2 to ext4, XFS, tmpfs: `statfs(2)`'s magic numbers.
    const ONE_DEVICE: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];
    let magic = attr::statfs(dir)?.kind;
    Ok(if ONE_DEVICE.contains(&magic) {
        Devices::One
    } else {
        Devices::Several
    })
}

/// Removes a file that was made but cannot be handed over, as best we can.
pub fn take_back(dir: BorrowedFd<'_>, name: Name<'_>) {
    drop(unlink_again(dir, name));
}

/// Removes a directory that was made but cannot be handed over, as best we can.
pub fn take_back_directory(dir: BorrowedFd<'_>, name: Name<'_>) {
    let _best_effort = rustix::fs::unlinkat(dir, name.as_bytes(), AtFlags::REMOVEDIR);
}
