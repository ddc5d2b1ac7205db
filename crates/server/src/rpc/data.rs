//! Data: FSync, PWrite, PRead, FAllocate. Bytes go between the kernel and the message's own room.

use channel::Bulk;
use host::{data, errno};
use wire::Errno;
use wire::limits::{PREAD_REPLY_FIXED_BYTES, PWRITE_FIXED_BYTES};
use wire::msg::data::{FAllocate, FSync, PRead, PReadReply, PWrite, PWriteReply};

use crate::connection::Connection;
use crate::reply::Reply;

pub(crate) fn fsync(conn: &Connection, req: &FSync<'_>) -> Result<(), Errno> {
    let mut result = Ok(());
    for id in req.ids.iter() {
        let synced = conn.fds.open(id).and_then(|open| data::fsync(open.host()));
        result = result.and(synced);
    }
    result
}

pub(crate) fn pwrite(
    conn: &Connection,
    req: PWrite,
    payload_bytes: usize,
    bulk: &mut Bulk<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let wanted = req.num_bytes as usize;
    if payload_bytes.saturating_sub(PWRITE_FIXED_BYTES) < wanted {
        return Err(Errno::IO);
    }
    let open = conn.fds.open(req.open)?;
    if !open.flags.writes() {
        return Err(Errno::BADF);
    }
    let count = match wanted {
        0 => 0,
        _ => bulk
            .pwrite(open.host(), PWRITE_FIXED_BYTES, wanted, start(req.offset)?)
            .map_err(errno)?,
    };
    reply.encode(&PWriteReply {
        count: count as u64,
    });
    Ok(())
}

pub(crate) fn pread(
    conn: &Connection,
    req: PRead,
    bulk: &mut Bulk<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let open = conn.fds.open(req.open)?;
    if !open.flags.reads() {
        return Err(Errno::BADF);
    }
    let wanted = req.count as usize;
    if wanted.saturating_add(PREAD_REPLY_FIXED_BYTES) > conn.payload_bytes_max() {
        return Err(Errno::NOBUFS);
    }
    let count = match wanted {
        // Nothing is asked of the host, as in `pwrite`: any offset is fine.
        0 => 0,
        _ => bulk
            .pread(
                open.host(),
                PREAD_REPLY_FIXED_BYTES,
                wanted,
                start(req.offset)?,
            )
            .map_err(errno)?,
    };
    reply.encode(&PReadReply {
        num_bytes: count as u64,
    });
    reply.bulk_bytes = count;
    Ok(())
}

/// Where a transfer begins: the host knows signed offsets only.
fn start(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_| Errno::INVAL)
}

pub(crate) fn fallocate(conn: &Connection, req: FAllocate) -> Result<(), Errno> {
    let open = conn.fds.open(req.open)?;
    if !open.flags.writes() {
        return Err(Errno::BADF);
    }
    data::fallocate(open.host(), req.mode, req.offset, req.length)
}
