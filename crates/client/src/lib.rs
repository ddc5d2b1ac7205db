//! The protocol from the other side: what the sandbox does, blocking, for any number of threads.
//!
//! Belongs here: requests as methods, the choice of a communicator, checks of what comes back.
//! Belongs elsewhere: layouts (`wire`), transports (`channel`), starting a server (`rig`).
//! Must hold: the server may be hostile; no reply makes us panic, read beyond it, or believe a count
//! larger than what we asked for. Descriptors of a reply that fails a check are closed.
#![forbid(unsafe_code)]

mod attr;
mod data;
mod dir;
mod error;
mod line;
mod open;
mod session;
mod socket;
mod walk;
mod xattr;

pub use dir::{Entry, ReadDir};
pub use error::{Error, TransportError, Violation};
pub use line::{Answer, Line};
pub use open::{Created, Opened};
pub use session::{Mounted, Negotiated};
pub use socket::Bound;
pub use walk::{WalkStatus, Walked};

use std::sync::OnceLock;

use line::Lines;

/// One connection: one mount of one server.
#[derive(Debug)]
pub struct Client {
    lines: Lines,
    negotiated: OnceLock<Negotiated>,
}

impl Client {
    /// A client on a connected `AF_UNIX`, `SOCK_STREAM` socket, before it has said anything. Until
    /// [`Client::mount`] has succeeded it may send anything of at most 1 MiB.
    #[must_use]
    pub fn new(socket: std::os::fd::OwnedFd) -> Self {
        Self {
            lines: Lines::new(socket),
            negotiated: OnceLock::new(),
        }
    }

    /// Connects and mounts.
    ///
    /// # Errors
    /// As [`Client::mount`].
    pub fn connect(socket: impl Into<std::os::fd::OwnedFd>) -> Result<(Self, Mounted), Error> {
        let client = Self::new(socket.into());
        let mounted = client.mount()?;
        Ok((client, mounted))
    }

    /// Ends the connection from any thread: requests in flight fail with a transport error.
    pub fn shutdown(&self) {
        self.lines.shutdown();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shutdown();
    }
}
