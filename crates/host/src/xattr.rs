//! Extended attributes, of files of any type. Their calls take a path or a descriptor opened for
//! data; a pinned file has neither, so they go through the working directory, which is the
//! [`crate::DescriptorDir`].

use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::path::DecInt;
use wire::limits::{COUNT_MAX, XATTR_BYTES_MAX};
use wire::{Errno, TextsBuf};

use crate::retry;

/// Bytes that nearly all values and lists fit into.
const SHORT_BYTES: usize = 256;

/// An attribute's value, into `value` (its content is replaced). A `room` of 0 or beyond Linux's
/// longest asks for any length.
///
/// # Errors
/// The host's; `RANGE` if the value needs more room, `NODATA` if there is none, `TOOBIG` if it is
/// too long to travel.
pub fn get(fd: BorrowedFd<'_>, name: &[u8], room: u32, value: &mut Vec<u8>) -> Result<(), Errno> {
    let number = DecInt::from_fd(fd);
    let length = into_room(value, clamp(u64::from(room)), |room| {
        retry(|| rustix::fs::getxattr(number.as_c_str(), name, &mut *room))
    })?;
    if length > COUNT_MAX {
        return Err(Errno::TOOBIG);
    }
    value.truncate(length);
    Ok(())
}

/// Sets an attribute. `flags` are `XATTR_CREATE` and `XATTR_REPLACE`, checked by the host.
///
/// # Errors
/// The host's.
pub fn set(fd: BorrowedFd<'_>, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
    let number = DecInt::from_fd(fd);
    let flags = XattrFlags::from_bits_retain(flags);
    retry(|| rustix::fs::setxattr(number.as_c_str(), name, value, flags))
}

/// The names of all attributes. A `room` of 0 or beyond Linux's longest asks for any length;
/// `scratch` is overwritten.
///
/// # Errors
/// The host's; `RANGE` if the host's list needs more room.
pub fn list(fd: BorrowedFd<'_>, room: u64, scratch: &mut Vec<u8>) -> Result<TextsBuf, Errno> {
    let number = DecInt::from_fd(fd);
    let length = into_room(scratch, clamp(room), |room| {
        retry(|| rustix::fs::listxattr(number.as_c_str(), &mut *room))
    })?;
    let names = scratch[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.collect())
}

/// Removes an attribute.
///
/// # Errors
/// The host's; `NODATA` if there is none.
pub fn remove(fd: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let number = DecInt::from_fd(fd);
    retry(|| rustix::fs::removexattr(number.as_c_str(), name))
}

/// Asks with little room, and with all of it only if that does not do: room has to be cleared before
/// each request, 64 KiB of it for a client that names no length.
fn into_room(
    buffer: &mut Vec<u8>,
    room: usize,
    mut ask: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    buffer.clear();
    buffer.resize(room.min(SHORT_BYTES), 0);
    match ask(buffer) {
        Err(Errno::RANGE) if room > SHORT_BYTES => {
            buffer.resize(room, 0);
            ask(buffer)
        }
        result => result,
    }
}

fn clamp(room: u64) -> usize {
    match usize::try_from(room) {
        Ok(room) if (1..=XATTR_BYTES_MAX).contains(&room) => room,
        _ => XATTR_BYTES_MAX,
    }
}
