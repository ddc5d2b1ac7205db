//! Walk: Walk, WalkStat, ReadLinkAt.

use std::os::fd::AsFd;

use channel::Bulk;
use host::{Kind, walk as host_walk};
use wire::limits::{INODE_BYTES, STATX_BYTES};
use wire::msg::walk::{
    ReadLinkAt, ReadLinkAtReply, WALK_COMPONENT_MISSING, WALK_COMPONENT_SYMLINK, WALK_SUCCESS,
    Walk, WalkReplyWriter, WalkStatReplyWriter,
};
use wire::{Errno, Inode, Name, Text, Writer};

use crate::connection::Connection;
use crate::reply::Reply;
use crate::table::{Control, Entry};

pub(crate) fn walk(conn: &Connection, req: Walk<'_>, reply: &mut Reply) -> Result<(), Errno> {
    let start = conn.fds.control(req.dir)?;
    start.directory()?;
    if 3 + req.path.len() * INODE_BYTES > conn.payload_bytes_max() {
        return Err(Errno::IO);
    }
    let Reply { payload, made, .. } = reply;
    let mut writer = Writer::new(payload);
    let mut inodes = WalkReplyWriter::new(&mut writer);
    let mut reached = start;
    for component in req.path.iter() {
        let name = component.name()?;
        if reached.kind == Kind::Symlink {
            inodes.finish(WALK_COMPONENT_SYMLINK);
            return Ok(());
        }
        let child = match host_walk::walk(reached.host(), name) {
            Ok(child) => child,
            Err(Errno::NOENT) => {
                inodes.finish(WALK_COMPONENT_MISSING);
                return Ok(());
            }
            Err(errno) => return Err(errno),
        };
        let control = std::sync::Arc::new(Control::new(child.fd, child.kind));
        let id = conn
            .fds
            .insert(Entry::Control(std::sync::Arc::clone(&control)))?;
        made.push(id);
        if !inodes.push(&Inode {
            control: id,
            stat: child.stat,
        }) {
            return Err(Errno::IO);
        }
        reached = control;
    }
    inodes.finish(WALK_SUCCESS);
    Ok(())
}

pub(crate) fn walk_stat(
    conn: &Connection,
    req: Walk<'_>,
    bulk: &mut Bulk<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let start = conn.fds.control(req.dir)?;
    let mut components = req.path.iter();
    let from_start = components.clone().next() == Some(Text(b""));
    if from_start {
        components.next();
    }
    let names = req.path.len() - usize::from(from_start);
    if start.kind != Kind::Directory && names > 0 {
        return Err(Errno::NOTDIR);
    }
    // All names are checked before the host is asked for any.
    for component in components.clone() {
        component.name()?;
    }
    let reply_bytes = 2 + req.path.len() * STATX_BYTES;
    if reply_bytes > conn.payload_bytes_max() {
        return Err(Errno::IO);
    }
    let mut writer = reply.writer();
    let mut stats = WalkStatReplyWriter::new(&mut writer);
    if from_start {
        push(&mut stats, &host::attr::stat(start.host())?)?;
    }
    let mut held = None;
    let mut names = components
        .filter_map(|component| component.name().ok())
        .peekable();
    while let Some(name) = names.next() {
        let dir = held.as_ref().map_or(start.host(), AsFd::as_fd);
        let last = names.peek().is_none();
        // Below a first component the client sleeps by now.
        if last && held.is_none() {
            bulk.claim(reply_bytes);
        }
        match stat_step(dir, name, last) {
            Ok(step) => {
                push(&mut stats, &step.0)?;
                match step.1 {
                    Some(next) => held = Some(next),
                    None => break,
                }
            }
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(errno),
        }
    }
    stats.finish();
    Ok(())
}

/// One component's attributes, and the file itself if there is more to look up below it.
fn stat_step(
    dir: std::os::fd::BorrowedFd<'_>,
    name: Name<'_>,
    last: bool,
) -> Result<(wire::Statx, Option<std::os::fd::OwnedFd>), Errno> {
    if last {
        return host_walk::stat_name(dir, name).map(|(stat, _kind)| (stat, None));
    }
    let child = host_walk::walk(dir, name)?;
    let next = (child.kind != Kind::Symlink).then_some(child.fd);
    Ok((child.stat, next))
}

fn push(stats: &mut WalkStatReplyWriter<'_, '_>, stat: &wire::Statx) -> Result<(), Errno> {
    if stats.push(stat) {
        Ok(())
    } else {
        Err(Errno::IO)
    }
}

pub(crate) fn read_link_at(
    conn: &Connection,
    req: ReadLinkAt,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let link = conn.fds.control(req.id)?;
    if link.kind != Kind::Symlink {
        return Err(Errno::INVAL);
    }
    let Reply {
        payload, scratch, ..
    } = reply;
    host_walk::read_link(link.host(), scratch)?;
    wire::Encode::encode(
        &ReadLinkAtReply {
            target: Text(scratch),
        },
        &mut Writer::new(payload),
    );
    Ok(())
}
