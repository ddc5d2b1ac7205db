//! Unix sockets of the host: connecting to them, and putting new ones into a directory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::path::DecInt;
use wire::{Errno, Name, Owner};

use crate::undo::Undo;
use crate::{Kind, Pinned, attr, retry, walk};

/// Longest path in a socket address, in bytes, without the NUL behind it.
const PATH_BYTES_MAX: usize = 107;

/// The types a client may ask for, by their numbers on the wire.
const TYPES: [SocketType; 3] = [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET];

fn type_of(number: u32) -> Option<SocketType> {
    TYPES.into_iter().find(|kind| kind.as_raw() == number)
}

/// A new socket that never waits and is not inherited.
fn new_socket(kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    retry(|| rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None))
}

/// Connects to the socket behind an `O_PATH` descriptor, named by its number in the working
/// directory: no length limit of paths, and no other file can be meant. Type 0 tries all.
///
/// # Errors
/// The host's, `AGAIN` if the listener's queue is full; `NXIO` for an unknown type.
pub fn connect(fd: BorrowedFd<'_>, sock_type: u32) -> Result<OwnedFd, Errno> {
    if sock_type != 0 {
        return connect_as(fd, type_of(sock_type).ok_or(Errno::NXIO)?);
    }
    let mut result = Err(Errno::PROTOTYPE);
    for kind in TYPES {
        result = connect_as(fd, kind);
        if !matches!(result, Err(Errno::PROTOTYPE)) {
            break;
        }
    }
    result
}

fn connect_as(fd: BorrowedFd<'_>, kind: SocketType) -> Result<OwnedFd, Errno> {
    let socket = new_socket(kind)?;
    let number = DecInt::from_fd(fd);
    let address = SocketAddrUnix::new(number.as_c_str()).map_err(crate::errno)?;
    retry(|| rustix::net::connect(&socket, &address))?;
    Ok(socket)
}

/// Makes a socket, binds it to `name` in `dir` and pins the file.
///
/// # Errors
/// The host's, `ADDRINUSE` if the name is taken; `NXIO` for an unknown type; `INVAL` if the name
/// does not fit an address. What cannot be handed over is removed again.
pub fn bind_at(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    owner: Owner,
    permissions: u16,
    sock_type: u32,
) -> Result<(Pinned, OwnedFd), Errno> {
    let mut path = dir.as_raw_fd().to_string().into_bytes();
    path.push(b'/');
    path.extend_from_slice(name.as_bytes());
    if path.len() > PATH_BYTES_MAX {
        return Err(Errno::INVAL);
    }
    let address = SocketAddrUnix::new(path.as_slice()).map_err(crate::errno)?;
    let socket = new_socket(type_of(sock_type).ok_or(Errno::NXIO)?)?;
    // The socket's mode becomes the file's.
    retry(|| {
        rustix::fs::fchmod(
            &socket,
            Mode::from_raw_mode(u32::from(permissions & 0o7777)),
        )
    })?;
    retry(|| rustix::net::bind(&socket, &address))?;
    let undo = Undo::new(|| _ = rustix::fs::unlinkat(dir, name.as_bytes(), AtFlags::empty()));
    let fd = walk::pin_fd(dir, name)?;
    attr::chown(fd.as_fd(), owner)?;
    let made = walk::pinned(fd)?;
    if made.kind != Kind::Socket {
        return Err(Errno::EXIST);
    }
    undo.keep();
    Ok((made, socket))
}

/// `listen(2)`.
///
/// # Errors
/// The host's.
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> Result<(), Errno> {
    retry(|| rustix::net::listen(socket, backlog))
}

/// `accept4(2)`, not waiting: also if the client, whose descriptor shares our file description, has
/// made the socket one that waits.
///
/// # Errors
/// The host's; `AGAIN` if nobody is there.
pub fn accept(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    if !is_ready(socket)? {
        return Err(Errno::AGAIN);
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    retry(|| rustix::net::accept_with(socket, flags))
}

/// Whether anything is to be had at once: a peer, or an error.
fn is_ready(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A socket that does not listen is ready to be written to, or has hung up: its error is told.
    let interest = PollFlags::IN | PollFlags::OUT;
    let mut fds = [PollFd::from_borrowed_fd(socket, interest)];
    retry(|| poll(&mut fds, Some(&at_once))).map(|ready| ready > 0)
}
