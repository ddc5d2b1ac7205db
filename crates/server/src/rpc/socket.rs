//! Sockets: Connect, ConnectWithCreds, BindAt, Listen, Accept.

use std::os::fd::AsFd;
use std::sync::Arc;

use host::{Kind, socket};
use wire::msg::socket::{
    Accept, AcceptReply, BindAt, BindAtReply, Connect, ConnectWithCreds, Listen,
};
use wire::{Errno, FdId, Inode, Text};

use crate::connection::Connection;
use crate::reply::{Donation, Reply};
use crate::table::{Bound, Control, Entry};

pub(crate) fn connect(conn: &Connection, req: Connect, reply: &mut Reply) -> Result<(), Errno> {
    let target = connectable(conn, req.id)?;
    reply.donate(Donation::Owned(socket::connect(
        target.host(),
        req.sock_type,
    )?));
    Ok(())
}

/// Connects with the application's own rights. Where the process cannot take them on, the request
/// fails: going on with its own would pass the host's access checks by.
pub(crate) fn connect_with_creds(
    conn: &Connection,
    req: ConnectWithCreds,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let target = connectable(conn, req.id)?;
    let connected = match conn.connect_as() {
        _ if is_own(req.uid, req.gid) => socket::connect(target.host(), req.sock_type)?,
        Some(connect_as) => connect_as(target.host(), req.sock_type, req.uid, req.gid)?,
        None => return Err(Errno::PERM),
    };
    reply.donate(Donation::Owned(connected));
    Ok(())
}

fn is_own(uid: u32, gid: u32) -> bool {
    rustix::process::geteuid().as_raw() == uid && rustix::process::getegid().as_raw() == gid
}

fn connectable(conn: &Connection, id: FdId) -> Result<Arc<Control>, Errno> {
    let target = conn.fds.control(id)?;
    if target.kind != Kind::Socket {
        return Err(Errno::NOTSOCK);
    }
    if host::attr::is_unlinked(target.host())? {
        return Err(Errno::INVAL);
    }
    if !conn.policy().host_uds.open {
        return Err(Errno::PERM);
    }
    Ok(target)
}

pub(crate) fn bind_at(conn: &Connection, req: BindAt<'_>, reply: &mut Reply) -> Result<(), Errno> {
    let name = req.name.name()?;
    let parent = conn.fds.control(req.new.dir)?;
    let dir = parent.directory()?;
    if host::attr::is_unlinked(dir)? {
        return Err(Errno::INVAL);
    }
    if !conn.policy().host_uds.create {
        // The client then makes a socket in memory.
        return Err(Errno::PERM);
    }
    let (child, socket) = socket::bind_at(
        dir,
        name,
        req.new.owner,
        req.new.permissions(),
        req.sock_type,
    )?;
    let bound = Arc::new(Bound { socket });
    let control = Arc::new(Control::new(child.fd, child.kind));
    let ids = conn
        .fds
        .insert_two(Entry::Control(control), Entry::Bound(Arc::clone(&bound)));
    let (control, id) = ids.inspect_err(|_| host::dir::take_back(dir, name))?;
    reply.made.extend([control, id]);
    reply.donate(Donation::Bound(bound));
    reply.encode(&BindAtReply {
        child: Inode {
            control,
            stat: child.stat,
        },
        bound: id,
    });
    Ok(())
}

pub(crate) fn listen(conn: &Connection, req: Listen) -> Result<(), Errno> {
    let bound = conn.fds.bound(req.bound)?;
    socket::listen(bound.socket.as_fd(), req.backlog)
}

pub(crate) fn accept(conn: &Connection, req: Accept, reply: &mut Reply) -> Result<(), Errno> {
    let bound = conn.fds.bound(req.bound)?;
    reply.donate(Donation::Owned(socket::accept(bound.socket.as_fd())?));
    // The host's addresses stay on the host.
    reply.encode(&AcceptReply { peer: Text(b"") });
    Ok(())
}
