//! Session: Mount, Channel, Close.

use std::os::fd::AsFd;
use std::sync::Arc;

use host::{errno, walk};
use wire::msg::session::{ChannelReply, Close, MountReply};
use wire::{Array, Errno, Inode};

use crate::connection::Connection;
use crate::dispatch::SUPPORTED;
use crate::reply::{Donation, Reply};
use crate::table::{Control, Entry};

pub(crate) fn mount(conn: &Connection, reply: &mut Reply) -> Result<(), Errno> {
    let root = walk::pinned(conn.mount.root.try_clone().map_err(io_errno)?)?;
    if host::attr::is_unlinked(root.fd.as_fd())? {
        return Err(Errno::NOENT);
    }
    if conn.policy().donate_mount {
        let donated = conn.mount.donated.as_ref().unwrap_or(&conn.mount.root);
        reply.donate(Donation::Owned(donated.try_clone().map_err(io_errno)?));
    }
    let control = conn
        .fds
        .insert(Entry::Control(Control::root(root.fd, root.kind).into()))?;
    reply.made.push(control);
    conn.mounted();
    reply.encode(&MountReply {
        root: Inode {
            control,
            stat: root.stat,
        },
        max_message_size: conn.max_message_size(),
        supported: Array::new(&SUPPORTED),
    });
    Ok(())
}

pub(crate) fn channel(conn: &Arc<Connection>, reply: &mut Reply) -> Result<(), Errno> {
    let offer = conn.add_channel()?;
    reply.donate(Donation::Owned(offer.file));
    reply.donate(Donation::Owned(offer.socket));
    reply.encode(&ChannelReply {
        data_offset: offer.offset,
        data_length: offer.length,
    });
    Ok(())
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "handlers share a shape; this one always succeeds"
)]
pub(crate) fn close(conn: &Connection, req: &Close<'_>) -> Result<(), Errno> {
    conn.fds.remove(req.ids.iter());
    Ok(())
}

fn io_errno(error: std::io::Error) -> Errno {
    rustix::io::Errno::from_io_error(&error).map_or(Errno::IO, errno)
}
