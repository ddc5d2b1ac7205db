//! Open: OpenAt, OpenCreateAt.

use std::sync::Arc;

use host::{Kind, open as host_open};
use wire::msg::open::{OpenAt, OpenAtReply, OpenCreateAt, OpenCreateAtReply};
use wire::{Errno, Inode, OpenFlags};

use crate::connection::Connection;
use crate::reply::{Donation, Reply};
use crate::table::{Control, Entry, Open};

pub(crate) fn open_at(conn: &Connection, req: OpenAt, reply: &mut Reply) -> Result<(), Errno> {
    let flags = OpenFlags::from_wire(req.flags);
    flags.check_read_only(conn.mount.readonly)?;
    let control = conn.fds.control(req.id)?;
    may_open(conn, &control, flags)?;
    let fd = host_open::open(conn.descriptors(), control.host(), control.kind, flags)?;
    let open = Arc::new(Open::new(fd, control.kind, flags));
    donate(conn, &control, &open, reply)?;
    let id = conn.fds.insert(Entry::Open(open))?;
    reply.made.push(id);
    reply.encode(&OpenAtReply { open: id });
    Ok(())
}

fn may_open(conn: &Connection, control: &Control, flags: OpenFlags) -> Result<(), Errno> {
    let policy = conn.policy();
    match control.kind {
        Kind::Directory if flags.is_more_than_reading() => Err(Errno::ISDIR),
        Kind::Symlink => Err(Errno::INVAL),
        Kind::Fifo if !policy.host_fifo => Err(Errno::PERM),
        Kind::Socket if !policy.host_uds.open => Err(Errno::PERM),
        Kind::CharacterDevice if !conn.mount.character_devices => Err(Errno::PERM),
        _ => Ok(()),
    }
}

/// Gives the client the file itself where that helps it. The mount point's directory gets a
/// description of its own: its position must not be moved under the server's listings.
fn donate(
    conn: &Connection,
    control: &Control,
    open: &Arc<Open>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    match control.kind {
        Kind::Regular | Kind::Fifo | Kind::CharacterDevice => {
            reply.donate(Donation::Open(Arc::clone(open)));
        }
        Kind::Directory if control.is_root && conn.policy().donate_mount => {
            reply.donate(Donation::Owned(host_open::open_directory(control.host())?));
        }
        Kind::Directory | Kind::Symlink | Kind::Socket => {}
    }
    Ok(())
}

pub(crate) fn open_create_at(
    conn: &Connection,
    req: OpenCreateAt<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let name = req.name.name()?;
    let flags = OpenFlags::from_wire(req.flags);
    let parent = conn.fds.control(req.new.dir)?;
    let dir = parent.directory()?;
    let made = host_open::create(
        conn.descriptors(),
        dir,
        name,
        req.new.owner,
        req.new.permissions(),
        flags,
    );
    let (child, file) = made.map_err(|errno| conn.creation_errno(dir, errno))?;
    let open = Arc::new(Open::new(file, child.kind, flags));
    let control = Arc::new(Control::new(child.fd, child.kind));
    let ids = conn
        .fds
        .insert_two(Entry::Control(control), Entry::Open(Arc::clone(&open)));
    let (control, id) = ids.inspect_err(|_| host::dir::take_back(dir, name))?;
    reply.made.extend([control, id]);
    reply.donate(Donation::Open(open));
    reply.encode(&OpenCreateAtReply {
        child: Inode {
            control,
            stat: child.stat,
        },
        open: id,
    });
    Ok(())
}
