//! Mounting, and the life of a mount.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use client::Client;
use fuser::{Config, MountOption, Notifier, Session, SessionACL};
use rustix::mount::MountFlags;
use thiserror::Error;
use wire::Inode;

use crate::Options;
use crate::chores::Worker;
use crate::kernel::Kernel;
use crate::nodes::Nodes;
use crate::tree::Tree;

/// What lists of mounts call the type: `fuse`, and what it is of that.
const SUBTYPE: &str = "gofer";

/// Why nothing is mounted.
#[derive(Debug, Error)]
pub enum MountError {
    /// There is no way to the kernel's FUSE.
    #[error(
        "cannot open /dev/fuse: {0} (is the kernel's `fuse` there, and are we allowed to use it?)"
    )]
    Device(#[source] io::Error),
    /// The mount point.
    #[error("cannot mount on {path}: {cause}")]
    Point {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// Without privileges a helper mounts.
    #[error(
        "cannot mount on {path} without privileges: {cause} (it takes `fusermount3`, from the package fuse3, and a mount point that is yours)"
    )]
    Helper {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A mounted tree, not served yet: whoever looks at it waits.
#[derive(Debug)]
pub struct Mounted {
    session: Session<Kernel>,
    worker: JoinHandle<()>,
}

/// What answers the kernel, and what does its chores.
struct Parts {
    kernel: Kernel,
    worker: JoinHandle<()>,
    notifier: Arc<OnceLock<Notifier>>,
}

fn parts(client: Client, root: &Inode, options: &Options) -> Result<Parts, MountError> {
    let (chores, work) = mpsc::channel();
    let client = Arc::new(client);
    let nodes = Arc::new(Nodes::new(root, chores.clone()));
    let notifier = Arc::new(OnceLock::new());
    let worker = Worker {
        client: Arc::clone(&client),
        notifier: Arc::clone(&notifier),
        nodes: Arc::downgrade(&nodes),
    };
    let worker = worker.start(work).map_err(MountError::Thread)?;
    let tree = Tree::new(client, nodes, options.clone(), chores);
    Ok(Parts {
        kernel: Kernel(Arc::new(tree)),
        worker,
        notifier,
    })
}

/// Mounts the tree below `root` on `point`.
///
/// # Errors
/// See [`MountError`].
pub fn mount(
    client: Client,
    root: &Inode,
    point: &Path,
    options: &Options,
) -> Result<Mounted, MountError> {
    let parts = parts(client, root, options)?;
    let session = attach(parts.kernel, root, point, options)?;
    // Set once; nobody else has it.
    _ = parts.notifier.set(session.notifier());
    Ok(Mounted {
        session,
        worker: parts.worker,
    })
}

/// The tree below `root` for a connection that somebody else has made: an opened `/dev/fuse` that is
/// mounted, or what speaks as one. One thread answers; the kernel's first message is waited for.
///
/// # Errors
/// See [`MountError`].
pub fn on_device(
    client: Client,
    root: &Inode,
    device: OwnedFd,
    options: &Options,
) -> Result<Mounted, MountError> {
    let parts = parts(client, root, options)?;
    let session = Session::from_fd(parts.kernel, device, SessionACL::All, Config::default())
        .map_err(MountError::Device)?;
    // Set once; nobody else has it.
    _ = parts.notifier.set(session.notifier());
    Ok(Mounted {
        session,
        worker: parts.worker,
    })
}

impl Mounted {
    /// Answers the kernel until the tree is unmounted.
    ///
    /// # Errors
    /// The host's.
    pub fn serve(self) -> io::Result<()> {
        let ended = self.session.run();
        // The session held all that could give it work.
        let worker = self.worker.join();
        ended.and_then(|()| worker.map_err(|_| io::Error::other("a thread panicked")))
    }
}

fn attach(
    kernel: Kernel,
    root: &Inode,
    point: &Path,
    options: &Options,
) -> Result<Session<Kernel>, MountError> {
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let failed = |cause| MountError::Point {
        path: point.to_owned(),
        cause,
    };
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(MountError::Device)?;
    match by_ourselves(&device, root, point, options) {
        Ok(()) => {
            // The kernel knows who may look inside.
            let acl = SessionACL::All;
            Session::from_fd(kernel, OwnedFd::from(device), acl, config).map_err(failed)
        }
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            by_helper(kernel, point, options, config)
        }
        Err(cause) => Err(failed(cause)),
    }
}

/// `mount(2)`.
fn by_ourselves(device: &File, root: &Inode, point: &Path, options: &Options) -> io::Result<()> {
    let mode = u32::from(root.stat.mode) & 0o170_000;
    let is_directory = std::fs::metadata(point)?.is_dir();
    if is_directory != (mode == 0o040_000) {
        return Err(io::Error::other(
            "a directory is mounted on a directory, a file on a file",
        ));
    }
    let mut data = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::geteuid(),
        rustix::process::getegid()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
    if options.readonly {
        flags |= MountFlags::RDONLY;
    }
    let data = CString::new(data).map_err(io::Error::other)?;
    let kind = format!("fuse.{SUBTYPE}");
    let mounted = rustix::mount::mount(
        options.source.as_str(),
        point,
        kind.as_str(),
        flags,
        data.as_c_str(),
    );
    mounted.map_err(io::Error::from)
}

/// `fusermount3`, which may what we may not.
fn by_helper(
    kernel: Kernel,
    point: &Path,
    options: &Options,
    mut config: Config,
) -> Result<Session<Kernel>, MountError> {
    config.mount_options = vec![
        MountOption::FSName(options.source.clone()),
        MountOption::Subtype(SUBTYPE.to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    if options.readonly {
        config.mount_options.push(MountOption::RO);
    }
    if options.allow_other {
        config.acl = SessionACL::All;
    }
    Session::new(kernel, point, &config).map_err(|cause| MountError::Helper {
        path: point.to_owned(),
        cause,
    })
}
