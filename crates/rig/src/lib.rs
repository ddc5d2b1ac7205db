//! Test support: a temporary tree, a server and a client over a real connection, and a parent that
//! starts any gofer the way `runsc` does.
//!
//! Belongs here: what several crates' tests need and no product needs.
//! Belongs elsewhere: what is tested.
//!
//! A server serves from its process's own descriptor directory. So the first [`Rig`] makes
//! `/proc/self/fd` the working directory **of the whole test process**, and clears its umask, as a
//! gofer does at its start. Tests must not use relative paths.
//!
//! With `RIG_GOFER` naming a gofer's binary, rigs are served by that process instead, sealed as
//! `runsc` would have it; only what its flags cannot say stays with a server of the test's own.
#![deny(unsafe_code)]

pub mod differential;
#[cfg(target_arch = "x86_64")]
mod inject;
pub mod mount_service;
pub mod mounts;
pub mod parent;
pub mod refused;
mod sealed;
mod spawn;
pub mod watch;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::thread::JoinHandle;

use client::{Client, Line};
use host::DescriptorDir;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use server::{HostUds, Mount, Options, Policy, Server};
use tempfile::TempDir;
use wire::{FdId, Inode, NewNode, Owner};

/// What a rig's server allows.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Whether the connection is read-only.
    pub readonly: bool,
    /// Whether character devices may be opened.
    pub character_devices: bool,
    /// Everything else.
    pub policy: Policy,
}

impl Default for Setup {
    /// Writable, with all policies on except the donation of the mount point.
    fn default() -> Self {
        let host_uds = HostUds {
            open: true,
            create: true,
        };
        let policy = Policy {
            host_uds,
            host_fifo: true,
            ..Policy::default()
        };
        Self {
            readonly: false,
            character_devices: true,
            policy,
        }
    }
}

/// A temporary directory, served, and a client that has mounted it.
#[derive(Debug)]
pub struct Rig {
    tree: TempDir,
    root: Inode,
    donated: Option<OwnedFd>,
    /// Dropped before the server is waited for: that is what ends the server.
    client: Option<Client>,
    server: Option<JoinHandle<()>>,
    /// Its process, if it is not ours.
    pid: Option<Pid>,
}

impl Rig {
    /// An empty directory, writable, with all policies on.
    ///
    /// # Panics
    /// If the host refuses anything, as do all constructors here.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Setup::default())
    }

    /// An empty directory, served as told.
    #[must_use]
    pub fn with(setup: Setup) -> Self {
        let tree = must(tempfile::tempdir(), "a temporary directory");
        Self::serving(tree, setup)
    }

    /// A directory with content, served as told.
    #[must_use]
    pub fn serving(tree: TempDir, setup: Setup) -> Self {
        let (socket, pid, server) = start(tree.path(), setup);
        let (client, mounted) = must(Client::connect(socket), "Mount");
        let (root, donated) = (mounted.root, mounted.donated);
        Self {
            tree,
            root,
            donated,
            client: Some(client),
            server: Some(server),
            pid,
        }
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        // Taken only in `drop`.
        self.client
            .as_ref()
            .expect("a rig has its client until it is dropped")
    }

    /// The control id of the root directory.
    #[must_use]
    pub const fn root(&self) -> FdId {
        self.root.control
    }

    /// What the answer to Mount said about the root.
    #[must_use]
    pub const fn root_inode(&self) -> Inode {
        self.root
    }

    /// The descriptor that the answer to Mount donated.
    #[must_use]
    pub const fn donated(&self) -> Option<&OwnedFd> {
        self.donated.as_ref()
    }

    /// The process that serves, if it is not the test's own.
    #[must_use]
    pub const fn server(&self) -> Option<Pid> {
        self.pid
    }

    /// Where the tree lies on the host.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.tree.path()
    }

    /// Where a file of the tree lies on the host.
    #[must_use]
    pub fn host(&self, name: &str) -> PathBuf {
        self.tree.path().join(name)
    }

    /// The names in the root directory, as the host lists them, sorted.
    #[must_use]
    pub fn host_names(&self) -> Vec<String> {
        let entries = must(std::fs::read_dir(self.path()), "the tree");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            must(entry, "an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// The head of a request that makes a file in the root directory; the owner stays as it comes.
    #[must_use]
    pub const fn new_node(&self, mode: u16) -> NewNode {
        NewNode {
            dir: self.root(),
            owner: Owner::KEEP,
            mode,
        }
    }

    /// Both ways to the server: its socket, and a channel opened for this.
    #[must_use]
    pub fn lines(&self) -> [Line; 2] {
        let line = self.client().open_channel(channel::Wait::asleep());
        [Line::Socket, must(line, "a channel")]
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.client.take());
        if let Some(server) = self.server.take() {
            let ended = server.join();
            // A second panic while a test is failing would hide the first.
            assert!(
                std::thread::panicking() || ended.is_ok(),
                "the server panicked"
            );
        }
    }
}

/// Starts a server for one tree, or whatever file it is; the client's socket and the server's thread.
#[must_use]
pub fn serve(tree: &Path, setup: Setup) -> (OwnedFd, JoinHandle<()>) {
    let (socket, _, server) = start(tree, setup);
    (socket, server)
}

fn start(tree: &Path, setup: Setup) -> (OwnedFd, Option<Pid>, JoinHandle<()>) {
    become_server_like();
    if let Some(gofer) = sealed::wanted(tree, &setup) {
        let (socket, pid, server) = sealed::serve(&gofer, tree, &setup);
        return (socket, Some(pid), server);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = must(rustix::fs::open(tree, flags, Mode::empty()), "the tree");
    let (ours, theirs) = pair();
    let donated = setup.policy.donate_mount.then(|| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        must(rustix::fs::open(tree, flags, Mode::empty()), "the tree")
    });
    let mount = Mount {
        root,
        donated,
        path: b"/".to_vec(),
        readonly: setup.readonly,
        character_devices: setup.character_devices,
    };
    let mut options = Options::new(DescriptorDir::new(own_descriptors()));
    options.policy = setup.policy;
    let server = Server::new(options);
    let serve = move || must(server.run(vec![(theirs, mount)]), "the server");
    (ours, None, std::thread::spawn(serve))
}

fn own_descriptors() -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    must(
        rustix::fs::open("/proc/self/fd", flags, Mode::empty()),
        "/proc/self/fd",
    )
}

fn become_server_like() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        must(
            rustix::process::fchdir(own_descriptors().as_fd()),
            "the working directory",
        );
        rustix::process::umask(Mode::empty());
    });
}

/// A connected pair of stream sockets.
#[must_use]
pub fn pair() -> (OwnedFd, OwnedFd) {
    let made = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    must(made, "a pair of sockets")
}

/// What a test needs and has no plan without.
fn must<T, E: std::fmt::Debug>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}
