//! What the operator decided: everything a server does differently, never taken from a message.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use channel::{Counters, Wait};
use host::DescriptorDir;
use wire::{Errno, Mid, Statx};

/// What clients may do with Unix sockets of the host (`--host-uds`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostUds {
    /// Connect to sockets that exist.
    pub open: bool,
    /// Make new ones.
    pub create: bool,
}

/// Connects to a pinned socket file as somebody else: socket file, type, uid, gid.
pub type ConnectAs =
    Arc<dyn Fn(BorrowedFd<'_>, u32, u32, u32) -> Result<OwnedFd, Errno> + Send + Sync>;

/// Called at the start of each thread that serves the mount, before it reads a byte of the client.
/// An error ends the connection.
pub type OnThread = Arc<dyn Fn(&Mount) -> Result<(), String> + Send + Sync>;

/// Told how each request ended. Costs time: only for debug logs.
pub type Observer = Arc<dyn Fn(&Mount, Mid, Result<(), Errno>) + Send + Sync>;

/// Told which connection was not served, and why.
pub type OnFailure = Arc<dyn Fn(&str) + Send + Sync>;

/// Policies of a server.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Unix sockets of the host.
    pub host_uds: HostUds,
    /// Whether FIFOs of the host may be opened (`--host-fifo=open`).
    pub host_fifo: bool,
    /// Whether MknodAt makes an overlay's whiteouts. Since v2026-08.
    pub whiteouts: bool,
    /// Whether MknodAt makes FIFOs and the files of sockets. No server of gVisor's does: a sandbox
    /// has its own.
    pub special_files: bool,
    /// Whether the mount point itself is donated (`--directfs`).
    pub donate_mount: bool,
    /// Descriptors the process may have open (`RLIMIT_NOFILE`). Half of them is promised to the
    /// connections in equal parts, the rest is for whoever asks first; past that, `EMFILE`.
    pub descriptors_max: usize,
    /// Ids one connection may hold, each of which is a descriptor; past that, `EMFILE`.
    pub ids_max: usize,
    /// Channels one connection may ever make; past that, `ENOMEM`. Each costs a thread, a window
    /// of 2 MiB and, while a request runs, at most three messages of 2 MiB (request, data, reply);
    /// the socket costs the same without the window. So this also bounds what is buffered.
    pub channels_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            host_uds: HostUds::default(),
            host_fifo: false,
            whiteouts: true,
            special_files: false,
            donate_mount: false,
            descriptors_max: usize::MAX,
            ids_max: usize::MAX,
            // Every client asks for 2 to 4.
            channels_max: 4,
        }
    }
}

/// A server's configuration.
pub struct Options {
    /// What clients may do.
    pub policy: Policy,
    /// The process's own descriptor directory; it must also be the working directory.
    pub descriptors: DescriptorDir,
    /// Which directories hold mount points.
    pub mount_points: MountPoints,
    /// How to connect as somebody else; without it only the process's own ids are served.
    pub connect_as: Option<ConnectAs>,
    /// Runs first on each serving thread.
    pub on_thread: Option<OnThread>,
    /// Is told of each request.
    pub observer: Option<Observer>,
    /// Counts requests by message id.
    pub counters: Option<Arc<Counters>>,
    /// Is told why a connection was not served.
    pub on_failure: Option<OnFailure>,
    /// What a channel does before it sleeps.
    pub wait: Wait,
}

impl Options {
    /// Options that serve files with the default policies and nothing else.
    #[must_use]
    pub fn new(descriptors: DescriptorDir) -> Self {
        Self {
            policy: Policy::default(),
            descriptors,
            mount_points: MountPoints::Unknown,
            connect_as: None,
            on_thread: None,
            observer: None,
            counters: None,
            on_failure: None,
            wait: Wait::adaptive(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Which directories of the served trees hold mount points, whose entries lie on other devices.
#[derive(Clone, Debug)]
pub enum MountPoints {
    /// Any directory may.
    Unknown,
    /// Only these: device (major, minor) and inode number.
    In(HashSet<(u32, u32, u64)>),
}

impl MountPoints {
    /// Whether the directory holds a mount point, as far as is known.
    #[must_use]
    pub fn may_be_in(&self, dir: &Statx) -> bool {
        match self {
            Self::Unknown => true,
            Self::In(dirs) => dirs.contains(&(dir.dev_major, dir.dev_minor, dir.ino)),
        }
    }
}

/// One mount: what one connection serves.
#[derive(Debug)]
pub struct Mount {
    /// The mount point, `O_PATH`, held since it was set up.
    pub root: OwnedFd,
    /// What the `Mount` reply donates, if the policy says so; otherwise `root` itself.
    pub donated: Option<OwnedFd>,
    /// Where it is in the container, for logs.
    pub path: Vec<u8>,
    /// Whether requests that change something are refused.
    pub readonly: bool,
    /// Whether character devices may be opened.
    pub character_devices: bool,
}
