//! Extended attributes: FGetXattr, FSetXattr, FListXattr, FRemoveXattr; on files of any type.

use host::xattr;
use wire::msg::xattr::{
    FGetXattr, FGetXattrReply, FListXattr, FListXattrReply, FRemoveXattr, FSetXattr,
};
use wire::{Encode, Errno, Text, Writer};

use crate::connection::Connection;
use crate::reply::Reply;

pub(crate) fn fget_xattr(
    conn: &Connection,
    req: FGetXattr<'_>,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let control = conn.fds.control(req.id)?;
    let Reply {
        payload, scratch, ..
    } = reply;
    xattr::get(
        control.host(),
        req.name.without_nul()?,
        req.buf_size,
        scratch,
    )?;
    FGetXattrReply {
        value: Text(scratch),
    }
    .encode(&mut Writer::new(payload));
    Ok(())
}

pub(crate) fn fset_xattr(conn: &Connection, req: FSetXattr<'_>) -> Result<(), Errno> {
    let control = conn.fds.control(req.id)?;
    xattr::set(
        control.host(),
        req.name.without_nul()?,
        req.value.bytes(),
        req.flags,
    )
}

pub(crate) fn flist_xattr(
    conn: &Connection,
    req: FListXattr,
    reply: &mut Reply,
) -> Result<(), Errno> {
    let control = conn.fds.control(req.id)?;
    let Reply {
        payload, scratch, ..
    } = reply;
    let names = xattr::list(control.host(), req.size, scratch)?;
    FListXattrReply {
        names: names.texts(),
    }
    .encode(&mut Writer::new(payload));
    Ok(())
}

pub(crate) fn fremove_xattr(conn: &Connection, req: FRemoveXattr<'_>) -> Result<(), Errno> {
    let control = conn.fds.control(req.id)?;
    xattr::remove(control.host(), req.name.without_nul()?)
}
