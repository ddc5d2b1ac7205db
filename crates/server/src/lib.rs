//! What one client holds and may do: connections, the table of ids, a handler for every request.
//!
//! Belongs here: who may ask what, in which order it is checked, what an id stands for.
//! Belongs elsewhere: layouts (`wire`), transports (`channel`), system calls (`host`).
//! Must hold: a bad request gets an errno, a broken transport ends its connection only, and nothing
//! a client sends makes the server panic, wait for the client, or grow beyond its budgets.
//!
//! There is no tree of names: a control id is a pinned file, and the kernel keeps its name. See
//! `ARCHITECTURE.md`.
#![forbid(unsafe_code)]

mod budget;
mod connection;
mod dispatch;
mod options;
mod reply;
mod rpc;
mod serve;
mod sync;
mod table;
#[cfg(test)]
mod tests;

pub use connection::FIRST_MOUNT_SLOT;
pub use options::{
    ConnectAs, HostUds, Mount, MountPoints, Observer, OnFailure, OnThread, Options, Policy,
};
pub use serve::Server;
