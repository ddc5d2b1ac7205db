//! Connect, ConnectWithCreds, BindAt, Listen, Accept.

use std::os::fd::OwnedFd;

use wire::msg::socket::{
    Accept, AcceptReply, BindAt, BindAtReply, Connect, ConnectWithCreds, Listen,
};
use wire::{Decode, Encode, FdId, Inode, Mid, NewNode, Owner};

use crate::dir::text;
use crate::line::encode;
use crate::{Client, Error, Violation};

/// A socket bound to a name.
#[derive(Debug)]
pub struct Bound {
    /// The socket's file.
    pub child: Inode,
    /// The bound socket id.
    pub id: FdId,
    /// The socket itself, for polling.
    pub socket: OwnedFd,
}

fn first(fds: Vec<OwnedFd>) -> Result<OwnedFd, Error> {
    fds.into_iter()
        .next()
        .ok_or(Error::Protocol(Violation::NoDescriptor))
}

impl Client {
    fn donated(&self, mid: Mid, request: &impl Encode) -> Result<OwnedFd, Error> {
        self.ask(mid, |out| encode(request, out), |_, fds| first(fds))
    }

    /// A socket connected to the socket file.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn connect_to(&self, id: FdId, sock_type: u32) -> Result<OwnedFd, Error> {
        self.donated(Mid::CONNECT, &Connect { id, sock_type })
    }

    /// A socket connected under the given ids.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn connect_with_creds(
        &self,
        id: FdId,
        sock_type: u32,
        Owner { uid, gid }: Owner,
    ) -> Result<OwnedFd, Error> {
        self.donated(
            Mid::CONNECT_WITH_CREDS,
            &ConnectWithCreds {
                id,
                sock_type,
                uid,
                gid,
            },
        )
    }

    /// Binds a socket to a new name.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong; without a descriptor both ids are closed again.
    pub fn bind_at(&self, new: NewNode, name: &[u8], sock_type: u32) -> Result<Bound, Error> {
        let request = BindAt {
            new,
            sock_type,
            name: text(name)?,
        };
        let (BindAtReply { child, bound }, fd) = self.ask(
            Mid::BIND_AT,
            |out| encode(&request, out),
            |payload, fds| Ok((BindAtReply::from_payload(payload)?, first(fds))),
        )?;
        let socket = fd.inspect_err(|_| {
            // The bind has failed already; ids that stay open cost the server, not us.
            _ = self.close(&[child.control, bound]);
        })?;
        if child.control == FdId(0) || bound == FdId(0) {
            return Err(Violation::NoId.into());
        }
        Ok(Bound {
            child,
            id: bound,
            socket,
        })
    }

    /// Lets a bound socket queue connections.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn listen(&self, bound: FdId, backlog: i32) -> Result<(), Error> {
        self.tell(Mid::LISTEN, &Listen { bound, backlog })
    }

    /// The next connection in the queue.
    ///
    /// # Errors
    /// The server's errno (`AGAIN`: none waits), or what it did wrong.
    pub fn accept(&self, bound: FdId) -> Result<OwnedFd, Error> {
        self.ask(
            Mid::ACCEPT,
            |out| encode(&Accept { bound }, out),
            |payload, fds| {
                AcceptReply::from_payload(payload)?;
                first(fds)
            },
        )
    }
}
