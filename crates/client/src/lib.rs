//! The protocol from the other side: what the sandbox does, blocking, for any number of threads.
//!
//! Belongs here: requests as methods, the choice of a communicator, checks of what comes back.
//! Belongs elsewhere: layouts (`wire`), transports (`channel`), starting a server (`rig`).
//! Must hold: the server may be hostile; no reply makes us panic, read beyond it, or believe a count
//! larger than what we asked for. Descriptors of a reply that fails a check are closed.
//!
//! A connection is a mount: it begins with the id of the root, and every other id comes from walking
//! from there. Requests may be made from any number of threads; each takes a channel that is idle, or
//! else the socket. An id is only forgotten by [`Client::close`].
//!
//! ```
//! # let tree = tempfile::tempdir()?;
//! # let (socket, server) = rig::serve(tree.path(), rig::Setup::default());
//! use client::Client;
//! use wire::{NewNode, Owner};
//!
//! // `socket` is a connected Unix stream: of `gofer serve`, or of any other server of the protocol.
//! let (client, mounted) = Client::connect(socket)?;
//! // Shared memory in place of the socket, one request at a time on each.
//! client.open_channels(2)?;
//!
//! let new = NewNode { dir: mounted.root.control, owner: Owner::KEEP, mode: 0o644 };
//! let made = client.open_create_at(new, b"greeting", 2 /* O_RDWR */)?;
//! // Longer than a message: cut into as many as it takes.
//! let text = vec![b'!'; 5 << 20];
//! assert_eq!(client.write_at(made.opened.id, 0, &text)?, text.len());
//! client.close(&[made.opened.id, made.child.control])?;
//!
//! let dir = client.open_at(mounted.root.control, 0)?;
//! for entry in client.read_dir(dir.id) {
//!     assert_eq!(entry?.name, b"greeting");
//! }
//! let found = client.find(mounted.root, b"greeting")?;
//! assert_eq!(found.stat.size, 5 << 20);
//! // What the server refuses is an errno.
//! let refused = client.find(mounted.root, b"none").unwrap_err();
//! assert_eq!(refused.errno(), wire::Errno::NOENT);
//!
//! // A file that is opened may come as a descriptor: no more requests for its data.
//! if let Some(file) = client.open_at(found.control, 0)?.donated {
//!     assert_eq!(std::fs::File::from(file).metadata()?.len(), 5 << 20);
//! }
//! # drop(client);
//! # server.join().map_err(|_| "the server panicked")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `cargo run -p client --example ls -- SOCKET PATH`, `cat` and `tree` are small programs with it.
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
