//! The one match over message ids.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use channel::Bulk;
use wire::{Decode, Errno, Mid};

use crate::connection::Connection;
use crate::reply::Reply;
use crate::rpc::{attr, data, dir, open, session, socket, walk, xattr};

/// Message ids clients may use. `Flush` is left out: there is nothing to do for it, and unlisted
/// clients skip it. `BindAt` must be listed even where sockets are off (`lisafs.md`, section 11).
pub(crate) const SUPPORTED: [u16; 32] = {
    let mut ids = [0; 32];
    let mut next = 0;
    let mut mid = Mid::MOUNT.0;
    while mid <= Mid::RENAME_AT2.0 {
        if mid != Mid::FLUSH.0 {
            ids[next] = mid;
            next += 1;
        }
        mid += 1;
    }
    ids
};

/// A request as the transport hands it over.
pub(crate) struct Request<'a> {
    pub(crate) mid: Mid,
    /// The payload in private memory; of `PWrite` only what stands in front of the data.
    pub(crate) head: &'a [u8],
    /// Bytes of the whole payload.
    pub(crate) payload_bytes: usize,
}

/// Answers one request: the reply's message id, everything else is in `reply`. `bulk` is the room
/// for data in the message itself.
pub(crate) fn dispatch(
    conn: &Arc<Connection>,
    request: &Request<'_>,
    bulk: &mut Bulk<'_>,
    reply: &mut Reply,
) -> Mid {
    let mid = request.mid;
    reply.clear();
    conn.count(mid);
    // Handlers keep their promises in types that undo themselves, so a panic leaves nothing half
    // done that others see; the request fails, the connection lives on.
    let handled = catch_unwind(AssertUnwindSafe(|| handle(conn, request, bulk, reply)));
    let mut result = handled.unwrap_or(Err(Errno::REMOTEIO));
    if result.is_ok() && reply.payload_bytes() > conn.payload_bytes_max() {
        result = Err(Errno::IO);
    }
    conn.observe(mid, result);
    match result {
        Ok(()) => mid,
        Err(errno) => {
            conn.fds.remove(reply.made.drain(..));
            reply.fail(errno)
        }
    }
}

/// Requests that a read-only connection refuses before looking at them. (`OpenAt` looks.)
const fn changes(mid: Mid) -> bool {
    matches!(
        mid,
        Mid::SET_STAT
            | Mid::OPEN_CREATE_AT
            | Mid::PWRITE
            | Mid::MKDIR_AT
            | Mid::MKNOD_AT
            | Mid::SYMLINK_AT
            | Mid::LINK_AT
            | Mid::FALLOCATE
            | Mid::UNLINK_AT
            | Mid::RENAME_AT
            | Mid::FSET_XATTR
            | Mid::FREMOVE_XATTR
            | Mid::BIND_AT
            | Mid::RENAME_AT2
    )
}

fn handle(
    conn: &Arc<Connection>,
    request: &Request<'_>,
    bulk: &mut Bulk<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let &Request {
        mid,
        head: payload,
        payload_bytes,
    } = request;
    if conn.is_closing() {
        return Err(Errno::CONNRESET);
    }
    if conn.mount.readonly && changes(mid) {
        return Err(Errno::ROFS);
    }
    match mid {
        Mid::MOUNT => session::mount(conn, reply),
        Mid::CHANNEL => session::channel(conn, reply),
        Mid::CLOSE => session::close(conn, &decode(payload)?),
        Mid::WALK => walk::walk(conn, decode(payload)?, reply),
        Mid::WALK_STAT => walk::walk_stat(conn, decode(payload)?, bulk, reply),
        Mid::READ_LINK_AT => walk::read_link_at(conn, decode(payload)?, reply),
        Mid::OPEN_AT => open::open_at(conn, decode(payload)?, reply),
        Mid::OPEN_CREATE_AT => open::open_create_at(conn, decode(payload)?, reply),
        Mid::FSTAT => attr::fstat(conn, decode(payload)?, bulk, reply),
        Mid::SET_STAT => attr::set_stat(conn, decode(payload)?, reply),
        Mid::FSTATFS => attr::fstatfs(conn, decode(payload)?, reply),
        Mid::FSYNC => data::fsync(conn, &decode(payload)?),
        Mid::PWRITE => data::pwrite(conn, decode(payload)?, payload_bytes, bulk, reply),
        Mid::PREAD => data::pread(conn, decode(payload)?, bulk, reply),
        Mid::FALLOCATE => data::fallocate(conn, decode(payload)?),
        Mid::MKDIR_AT => dir::mkdir_at(conn, decode(payload)?, reply),
        Mid::MKNOD_AT => dir::mknod_at(conn, decode(payload)?, reply),
        Mid::SYMLINK_AT => dir::symlink_at(conn, decode(payload)?, reply),
        Mid::LINK_AT => dir::link_at(conn, decode(payload)?, reply),
        Mid::UNLINK_AT => dir::unlink_at(conn, decode(payload)?),
        Mid::RENAME_AT => dir::rename_at(conn, decode(payload)?),
        Mid::RENAME_AT2 => dir::rename_at2(conn, decode(payload)?),
        Mid::GETDENTS64 => dir::getdents64(conn, decode(payload)?, reply),
        Mid::FGET_XATTR => xattr::fget_xattr(conn, decode(payload)?, reply),
        Mid::FSET_XATTR => xattr::fset_xattr(conn, decode(payload)?),
        Mid::FLIST_XATTR => xattr::flist_xattr(conn, decode(payload)?, reply),
        Mid::FREMOVE_XATTR => xattr::fremove_xattr(conn, decode(payload)?),
        Mid::CONNECT => socket::connect(conn, decode(payload)?, reply),
        Mid::CONNECT_WITH_CREDS => socket::connect_with_creds(conn, decode(payload)?, reply),
        Mid::BIND_AT => socket::bind_at(conn, decode(payload)?, reply),
        Mid::LISTEN => socket::listen(conn, decode(payload)?),
        Mid::ACCEPT => socket::accept(conn, decode(payload)?, reply),
        _ => Err(Errno::OPNOTSUPP),
    }
}

fn decode<'a, T: Decode<'a>>(payload: &'a [u8]) -> Result<T, Errno> {
    T::from_payload(payload).map_err(|_malformed| Errno::IO)
}
