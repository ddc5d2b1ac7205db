//! Attributes: FStat, SetStat, FStatFS.

use channel::Bulk;
use host::attr;
use wire::limits::STATX_BYTES;
use wire::msg::attr::{FStat, FStatFS, SetStat, SetStatReply};
use wire::{Errno, Owner};

use crate::connection::Connection;
use crate::reply::Reply;
use crate::table::{Control, Entry};

pub(crate) fn fstat(
    conn: &Connection,
    req: FStat,
    bulk: &mut Bulk<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let entry = conn.fds.entry(req.id)?;
    let file = match &entry {
        Entry::Control(control) => control.host(),
        Entry::Open(open) => open.host(),
        Entry::Bound(_) => return Err(Errno::INVAL),
    };
    bulk.claim(STATX_BYTES);
    let stat = attr::stat(file)?;
    reply.encode(&stat);
    Ok(())
}

pub(crate) fn set_stat(conn: &Connection, req: SetStat, reply: &mut Reply) -> Result<(), Errno> {
    let control = conn.fds.control(req.id)?;
    if req.mask & !SetStat::ALLOWED != 0 {
        return Err(Errno::PERM);
    }
    let mut failures = Failures {
        asked: req.mask,
        mask: 0,
        errno: 0,
    };
    failures.note(SetStat::MODE, || {
        attr::chmod(conn.descriptors(), control.host(), control.kind, req.mode)
    });
    failures.note(SetStat::SIZE, || {
        attr::truncate(conn.descriptors(), control.host(), control.kind, req.size)
    });
    failures.note(SetStat::ATIME | SetStat::MTIME, || {
        set_times(conn, &control, &req)
    });
    failures.note(SetStat::UID | SetStat::GID, || {
        attr::chown(control.host(), owner(&req))
    });
    reply.encode(&SetStatReply {
        failure_mask: failures.mask,
        failure_errno: failures.errno,
    });
    Ok(())
}

/// Which groups of attributes could not be set. One that fails does not stop the others; the first
/// reason is the one told.
struct Failures {
    asked: u32,
    mask: u32,
    errno: u32,
}

impl Failures {
    fn note(&mut self, group: u32, set: impl FnOnce() -> Result<(), Errno>) {
        let asked = self.asked & group;
        if asked == 0 {
            return;
        }
        if let Err(errno) = set() {
            self.mask |= asked;
            if self.errno == 0 {
                self.errno = errno.raw();
            }
        }
    }
}

fn set_times(conn: &Connection, control: &Control, req: &SetStat) -> Result<(), Errno> {
    let atime = (req.mask & SetStat::ATIME != 0).then_some(req.atime);
    let mtime = (req.mask & SetStat::MTIME != 0).then_some(req.mtime);
    attr::set_times(conn.descriptors(), control.host(), atime, mtime)
}

const fn owner(req: &SetStat) -> Owner {
    Owner {
        uid: if req.mask & SetStat::UID != 0 {
            req.uid
        } else {
            u32::MAX
        },
        gid: if req.mask & SetStat::GID != 0 {
            req.gid
        } else {
            u32::MAX
        },
    }
}

pub(crate) fn fstatfs(conn: &Connection, req: FStatFS, reply: &mut Reply) -> Result<(), Errno> {
    let control = conn.fds.control(req.id)?;
    reply.encode(&attr::statfs(control.host())?);
    Ok(())
}
