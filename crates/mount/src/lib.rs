//! A kernel mount of a server's tree: FUSE on one side, LISAFS on the other.
//!
//! Belongs here: what the kernel's operations mean in requests, and mounting. Belongs elsewhere:
//! requests (`client`), starting a server, command lines.
//! Must hold: neither the server nor applications can make this panic, hang or grow without bound;
//! permissions are checked by the kernel, with the attributes that the server reports.
#![forbid(unsafe_code)]

mod chores;
mod data;
mod kernel;
mod listing;
mod nodes;
mod session;
mod translate;
mod tree;

use std::time::Duration;

pub use session::{MountError, Mounted, adopt, mount, on_device, place};
pub use translate::Owners;

/// How a tree is mounted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether the kernel refuses changes by itself.
    pub readonly: bool,
    /// Whether other users than the one who mounts may look inside.
    pub allow_other: bool,
    /// How long the kernel believes attributes.
    pub attributes_for: Duration,
    /// How long the kernel believes that a name leads to a file.
    pub names_for: Duration,
    /// Whether the kernel keeps file data. Without it every read asks the host.
    pub page_cache: bool,
    /// Whether the kernel may read and write donated files by itself, where it can.
    pub passthrough: bool,
    /// How owners look.
    pub owners: Owners,
    /// Threads that answer the kernel.
    pub threads: usize,
    /// Files known at a time above which the kernel is asked to forget some. Each costs the server
    /// a descriptor.
    pub files_max: usize,
    /// What lists of mounts call the source.
    pub source: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readonly: false,
            allow_other: false,
            attributes_for: Duration::from_secs(1),
            names_for: Duration::from_secs(1),
            page_cache: true,
            passthrough: true,
            owners: Owners::AsServed,
            threads: 4,
            files_max: 49_152,
            source: "gofer".to_owned(),
        }
    }
}

impl Options {
    /// How long the kernel believes both a name and the attributes behind it.
    fn entries_for(&self) -> Duration {
        self.attributes_for.min(self.names_for)
    }
}
