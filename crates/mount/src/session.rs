//! Mounting, and the life of a mount.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use client::Client;
use fuser::{Config, MountOption, Session, SessionACL};
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
/// Bits of a mode that say what kind of file it is, and two kinds.
const TYPE_BITS: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

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
    run(client, root, options, |kernel| {
        attach(kernel, root, point, options)
    })
}

/// Puts a mount on `point` that nobody answers for yet: whoever looks at it waits until somebody
/// [`adopt`]s the device, in this process or in another that it is handed to. `device` is
/// `/dev/fuse`, opened in the user namespace in which this is called; that namespace's ids are the
/// ones that the mount speaks of. `directory` is whether a directory is mounted, or another file.
///
/// # Errors
/// The kernel refuses.
pub fn place(
    device: BorrowedFd<'_>,
    directory: bool,
    point: &Path,
    options: &Options,
) -> Result<(), MountError> {
    let kind = if directory { DIRECTORY } else { REGULAR };
    by_ourselves(device, kind, point, options).map_err(|cause| MountError::Point {
        path: point.to_owned(),
        cause,
    })
}

/// Answers for a mount that was [`place`]d.
///
/// # Errors
/// See [`MountError`]; nothing was mounted with this device.
pub fn adopt(
    device: OwnedFd,
    client: Client,
    root: &Inode,
    options: &Options,
) -> Result<Mounted, MountError> {
    run(client, root, options, |kernel| {
        let mut config = config(options);
        // Kernels clone a device only for whoever is in the user namespace in which it was opened.
        config.clone_fd = false;
        Session::from_fd(kernel, device, SessionACL::All, config).map_err(MountError::Device)
    })
}

fn run(
    client: Client,
    root: &Inode,
    options: &Options,
    attach: impl FnOnce(Kernel) -> Result<Session<Kernel>, MountError>,
) -> Result<Mounted, MountError> {
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
    let session = attach(Kernel(Arc::new(tree)))?;
    // Set once; nobody else has it.
    _ = notifier.set(session.notifier());
    Ok(Mounted { session, worker })
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
    run(client, root, options, |kernel| {
        Session::from_fd(kernel, device, SessionACL::All, Config::default())
            .map_err(MountError::Device)
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
    let config = config(options);
    let failed = |cause| MountError::Point {
        path: point.to_owned(),
        cause,
    };
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(MountError::Device)?;
    let kind = u32::from(root.stat.mode) & TYPE_BITS;
    match by_ourselves(device.as_fd(), kind, point, options) {
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

fn config(options: &Options) -> Config {
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    config
}

/// `mount(2)`; `kind` are the bits of a mode that say what kind of file the root is.
fn by_ourselves(
    device: BorrowedFd<'_>,
    kind: u32,
    point: &Path,
    options: &Options,
) -> io::Result<()> {
    let is_directory = std::fs::metadata(point)?.is_dir();
    if is_directory != (kind == DIRECTORY) {
        return Err(io::Error::other(
            "a directory is mounted on a directory, a file on a file",
        ));
    }
    let mut data = format!(
        "fd={},rootmode={kind:o},user_id={},group_id={},default_permissions",
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
    let file_system = format!("fuse.{SUBTYPE}");
    let mounted = rustix::mount::mount(
        options.source.as_str(),
        point,
        file_system.as_str(),
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
