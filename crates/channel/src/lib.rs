//! How bytes and descriptors cross between two processes that distrust each other.
//!
//! Belongs here: the stream socket, the shared window, whose turn it is, bulk data, both sides.
//! Belongs elsewhere: what a message means (`wire`), which file a request names (`host`).
//! Must hold: a peer may write anything at any time; it can end its own channel, nothing else.

pub mod bulk;
pub mod counters;
pub mod endpoint;
mod mapping;
mod place;
mod processor;
pub mod socket;
mod sync;
mod turns;
pub mod wait;
pub mod window;

pub use bulk::Bulk;
pub use counters::Counters;
pub use endpoint::{Client, Offer, Server, Turn};
pub use socket::{Header, Socket, SocketError};
pub use turns::{ChannelError, Closer};
pub use wait::Wait;
pub use window::{Window, WindowFile};
