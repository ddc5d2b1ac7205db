//! The set-up for kernels (or filters around us) without `open_tree`, `move_mount` or
//! `mount_setattr`: `mount(2)` on `/proc/self/fd/N`, which names exactly the object we hold.
//!
//! What is weaker: after a bind, the new mount has to be opened by its name in the directory we
//! hold; we check that it is the mount just made.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount};

use crate::mount_options::bits;
use crate::mounts::proc_path;
use crate::walk::{Place, mount_id};

const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Binds `source` at `place` and opens the new mount.
pub(crate) fn bind(source: OwnedFd, recursive: bool, place: &Place) -> Result<OwnedFd, Errno> {
    let (from, to) = (proc_path(source.as_fd()), proc_path(place.fd.as_fd()));
    if recursive {
        mount_bind_recursive(from, to)?;
    } else {
        mount_bind(from, to)?;
    }
    let mounted = match &place.named {
        Some((parent, name)) => openat(parent, name, PIN, Mode::empty())?,
        // A mount on the very root of something: `..` of a directory that is its own parent, or
        // whose parent's entry it is, steps onto what covers it.
        None => return Err(Errno::NOTSUP),
    };
    let (expected, found) = (fstat(&source)?, fstat(&mounted)?);
    let same = (expected.st_dev, expected.st_ino) == (found.st_dev, found.st_ino);
    if !same || mount_id(&mounted)? == mount_id(&place.fd)? {
        return Err(Errno::STALE);
    }
    Ok(mounted)
}

/// Remounts with the union of what is there and what is asked.
pub(crate) fn restrict(mounted: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    const KEPT: &[(StatVfsMountFlags, u32)] = &[
        (StatVfsMountFlags::RDONLY, bits::RDONLY),
        (StatVfsMountFlags::NOSUID, bits::NOSUID),
        (StatVfsMountFlags::NODEV, bits::NODEV),
        (StatVfsMountFlags::NOEXEC, bits::NOEXEC),
        (StatVfsMountFlags::NOATIME, bits::NOATIME),
        (StatVfsMountFlags::NODIRATIME, bits::NODIRATIME),
        (StatVfsMountFlags::RELATIME, bits::RELATIME),
    ];
    const ATTRIBUTES: u32 = bits::RDONLY
        | bits::NOSUID
        | bits::NODEV
        | bits::NOEXEC
        | bits::NOATIME
        | bits::NODIRATIME
        | bits::RELATIME;
    let present = fstatvfs(mounted)?.f_flag;
    let union = KEPT
        .iter()
        .filter(|(flag, _)| present.contains(*flag))
        .fold(flags & ATTRIBUTES, |union, (_, bit)| union | bit);
    let flags = MountFlags::BIND | MountFlags::from_bits_retain(union);
    mount_remount(proc_path(mounted), flags, c"")
}

/// A tmpfs over the host's root, found again through `/..`, which steps onto what covers it.
pub(crate) fn tmpfs(host_root: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(
        "runsc-root",
        proc_path(host_root.as_fd()),
        "tmpfs",
        flags,
        Some(c"mode=0755"),
    )?;
    let mounted = openat(host_root, "..", PIN, Mode::empty())?;
    if mount_id(&mounted)? == mount_id(host_root)? {
        Err(Errno::STALE)
    } else {
        Ok(mounted)
    }
}
