//! OpenAt, OpenCreateAt, Flush.

use std::os::fd::OwnedFd;

use wire::msg::open::{Flush, OpenAt, OpenAtReply, OpenCreateAt, OpenCreateAtReply};
use wire::{Decode, FdId, Inode, Mid, NewNode};

use crate::dir::text;
use crate::line::encode;
use crate::session::fresh;
use crate::{Client, Error};

/// An open file.
#[derive(Debug)]
pub struct Opened {
    /// The open id.
    pub id: FdId,
    /// The file itself, if the server donated it.
    pub donated: Option<OwnedFd>,
}

/// A file that was made and opened.
#[derive(Debug)]
pub struct Created {
    /// The file.
    pub child: Inode,
    /// The open file.
    pub opened: Opened,
}

impl Client {
    /// Opens a file. Of the flags only access mode and `O_TRUNC` count.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn open_at(&self, id: FdId, flags: u32) -> Result<Opened, Error> {
        self.ask(
            Mid::OPEN_AT,
            |out| encode(&OpenAt { id, flags }, out),
            |payload, fds| {
                let id = fresh(OpenAtReply::from_payload(payload)?.open)?;
                Ok(Opened {
                    id,
                    donated: fds.into_iter().next(),
                })
            },
        )
    }

    /// Makes a regular file and opens it.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn open_create_at(&self, new: NewNode, name: &[u8], flags: u32) -> Result<Created, Error> {
        let request = OpenCreateAt {
            new,
            flags,
            name: text(name)?,
        };
        self.ask(
            Mid::OPEN_CREATE_AT,
            |out| encode(&request, out),
            |payload, fds| {
                let reply = OpenCreateAtReply::from_payload(payload)?;
                fresh(reply.child.control)?;
                let opened = Opened {
                    id: fresh(reply.open)?,
                    donated: fds.into_iter().next(),
                };
                Ok(Created {
                    child: reply.child,
                    opened,
                })
            },
        )
    }

    /// Tells the server that a writable file is about to be closed. Few servers list it.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn flush(&self, open: FdId) -> Result<(), Error> {
        self.tell(Mid::FLUSH, &Flush { open })
    }
}
