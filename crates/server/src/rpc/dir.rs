//! Directories: MkdirAt, MknodAt, SymlinkAt, LinkAt, UnlinkAt, RenameAt, RenameAt2, Getdents64.

use std::os::fd::BorrowedFd;
use std::sync::PoisonError;

use host::dir::{self, Devices};
use host::{Kind, Name, Pinned};
use wire::msg::dir::{
    DirentsWriter, Getdents64, LinkAt, MkdirAt, MknodAt, RenameAt, RenameAt2, SymlinkAt, UnlinkAt,
};
use wire::{Errno, Inode};

use crate::connection::Connection;
use crate::reply::Reply;
use crate::table::{Control, Entry, Open};

pub(crate) fn mkdir_at(
    conn: &Connection,
    req: MkdirAt<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let name = req.name.name()?;
    let parent = conn.fds.control(req.new.dir)?;
    let dir = parent.directory()?;
    let made = dir::mkdir_at(dir, name, req.new.owner, req.new.permissions());
    hand_over(conn, dir, name, made, reply)
}

pub(crate) fn mknod_at(
    conn: &Connection,
    req: MknodAt<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let name = req.name.name()?;
    let parent = conn.fds.control(req.new.dir)?;
    let dir = parent.directory()?;
    if host::attr::is_unlinked(dir)? {
        return Err(Errno::INVAL);
    }
    let device = (req.major, req.minor);
    let kinds = dir::Kinds {
        whiteouts: conn.policy().whiteouts,
        special_files: conn.policy().special_files,
    };
    let made = dir::mknod_at(dir, name, req.new.owner, req.new.mode, device, kinds);
    hand_over(conn, dir, name, made, reply)
}

pub(crate) fn symlink_at(
    conn: &Connection,
    req: SymlinkAt<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let name = req.name.name()?;
    let parent = conn.fds.control(req.dir)?;
    let dir = parent.directory()?;
    let target = req.target.without_nul()?;
    let made = dir::symlink_at(dir, name, req.owner, target);
    hand_over(conn, dir, name, made, reply)
}

pub(crate) fn link_at(conn: &Connection, req: LinkAt<'_>, reply: &mut Reply) -> Result<(), Errno> {
    let name = req.name.name()?;
    let parent = conn.fds.control(req.dir)?;
    let dir = parent.directory()?;
    let target = conn.fds.control(req.target)?;
    if target.kind == Kind::Directory {
        return Err(Errno::PERM);
    }
    let made = dir::link_at(conn.descriptors(), target.host(), dir, name).map_err(|errno| {
        // The host has no other word for a target without any name left.
        if errno == Errno::NOENT && host::attr::is_unlinked(target.host()) == Ok(true) {
            return Errno::INVAL;
        }
        errno
    });
    hand_over(conn, dir, name, made, reply)
}

/// Gives the client an id for what was just made, or takes it back.
fn hand_over(
    conn: &Connection,
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    made: Result<Pinned, Errno>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let made = made.map_err(|errno| conn.creation_errno(dir, errno))?;
    let control = Control::new(made.fd, made.kind);
    let id = conn.fds.insert(Entry::Control(control.into()));
    let id = id.inspect_err(|_| match made.kind {
        Kind::Directory => dir::take_back_directory(dir, name),
        _ => dir::take_back(dir, name),
    })?;
    reply.made.push(id);
    reply.encode(&Inode {
        control: id,
        stat: made.stat,
    });
    Ok(())
}

pub(crate) fn unlink_at(conn: &Connection, req: UnlinkAt<'_>) -> Result<(), Errno> {
    let name = req.name.name()?;
    let parent = conn.fds.control(req.dir)?;
    let dir = parent.directory()?;
    dir::unlink_at(dir, name, req.flags).map_err(|errno| conn.creation_errno(dir, errno))
}

pub(crate) fn rename_at(conn: &Connection, req: RenameAt<'_>) -> Result<(), Errno> {
    let RenameAt {
        old_dir,
        new_dir,
        old_name,
        new_name,
    } = req;
    rename_at2(
        conn,
        RenameAt2 {
            old_dir,
            new_dir,
            old_name,
            new_name,
            flags: 0,
        },
    )
}

pub(crate) fn rename_at2(conn: &Connection, req: RenameAt2<'_>) -> Result<(), Errno> {
    let (old_name, new_name) = (req.old_name.name()?, req.new_name.name()?);
    let old_parent = conn.fds.control(req.old_dir)?;
    let new_parent = conn.fds.control(req.new_dir)?;
    let (old_dir, new_dir) = (old_parent.directory()?, new_parent.directory()?);
    let renamed = dir::rename_at((old_dir, old_name), (new_dir, new_name), req.flags);
    renamed.map_err(|errno| {
        let errno = conn.creation_errno(old_dir, errno);
        conn.creation_errno(new_dir, errno)
    })
}

/// Most bytes of host records one listing reports. As many of the shortest records still fit the
/// reply's count and its size.
const LISTING_BYTES_MAX: usize = 1 << 20;

pub(crate) fn getdents64(
    conn: &Connection,
    req: Getdents64,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let open = conn.fds.open(req.dir)?;
    if open.kind != Kind::Directory {
        return Err(Errno::NOTDIR);
    }
    let dir = open.host();
    let mut known = open.listing.lock().unwrap_or_else(PoisonError::into_inner);
    if req.count < 0 {
        dir::rewind(dir)?;
    }
    let devices = match *known {
        Some(devices) => devices,
        None => *known.insert(devices_of(conn, &open)?),
    };
    let wanted = (req.count.unsigned_abs() as usize).min(LISTING_BYTES_MAX);
    let mut writer = reply.writer();
    let mut entries = DirentsWriter::new(&mut writer);
    dir::list(dir, wanted, devices, &mut entries)?;
    entries.finish();
    Ok(())
}

fn devices_of(conn: &Connection, open: &Open) -> Result<Devices, Errno> {
    let stat = host::attr::stat(open.host())?;
    if conn.mount_points().may_be_in(&stat) {
        return Ok(Devices::Several);
    }
    dir::devices_of(open.host())
}
