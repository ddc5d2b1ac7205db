//! Into the jail with one directory: no container, no bundle, no parent that made namespaces.
//!
//! Belongs here: how far this process can get away from the host, with the privileges it has, and
//! getting there. Belongs elsewhere: what follows ([`Rooted::confine`] and on), who starts us.
//! Must hold: one thread; the directory is the one we were given, wherever its name has gone since.

#![allow(unsafe_code, reason = "unshare has no safe form")]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Resource, Rlimit, chroot, fchdir, getrlimit, pivot_root, setrlimit, umask};
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};

use crate::Error;
use crate::attributes::{holders, submounts};
use crate::capabilities::{self, FILE_OWNERSHIP};
use crate::error::Doing;
use crate::mount_options::bits;
use crate::mounts::{self, Kernel};
use crate::plan::{Dialect, MountCalls, Options};
use crate::spec::Spec;
use crate::stage::{Connection, Report, Rooted};
use crate::walk::Place;

/// Where the tree hangs in the otherwise empty root.
const MOUNT_POINT: &str = "tree";
const PIN: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// One directory, and who is to be served from it.
#[derive(Debug)]
pub struct Directory {
    /// The directory, opened by whoever was told its name.
    pub dir: OwnedFd,
    /// One connection each.
    pub sockets: Vec<OwnedFd>,
    /// What logs call it.
    pub path: Vec<u8>,
    /// Are writes refused?
    pub readonly: bool,
    /// May a process without privileges make itself a user namespace? It is then out of reach of
    /// all other files, but sees the owner of files that are not its own user's as 65534.
    pub user_namespace: bool,
    /// Most descriptors this process may hold, if its hard limit is not lower.
    pub descriptors_max: u64,
}

/// What keeps the host's other files away, beside Landlock and seccomp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// They are not mounted: a mount namespace that holds the served tree alone.
    Mounts {
        /// Is it that of a user namespace, in which nobody has privileges over the host?
        user_namespace: bool,
    },
    /// The served tree is the root directory.
    Chroot,
    /// Nothing beside them.
    Host,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mounts {
                user_namespace: false,
            } => "mount namespace",
            Self::Mounts {
                user_namespace: true,
            } => "user and mount namespace",
            Self::Chroot => "chroot",
            Self::Host => "none",
        })
    }
}

impl Directory {
    /// Leaves the host behind as well as this process's privileges allow: a mount namespace; else
    /// one in a user namespace of its own, if that is allowed; else a `chroot`; else nothing, and
    /// [`seal`](crate::Confined::seal) then insists on Landlock.
    ///
    /// # Errors
    /// The host refused something that it had no reason to refuse; more than one thread.
    pub fn enter(self) -> Result<Rooted, Error> {
        crate::stage::demand_one_thread()?;
        // What we are in when new namespaces are made is found again in them.
        fchdir(&self.dir).doing(|| "entering the directory")?;
        let own_mounts = self.own_mounts()?;
        // Only now: who may not mount is not told whether the calls exist.
        let kernel = Kernel::probe(MountCalls::Detect);
        let Entered {
            ground,
            root,
            mount_holders,
            descriptor_dir: (descriptor_dir, detached),
        } = match own_mounts {
            Some(user_namespace) if kernel.trees => self.leave_mounts(kernel, user_namespace)?,
            _ => self.stay_or_chroot(kernel)?,
        };
        fchdir(&descriptor_dir).doing(|| "entering the own descriptor directory")?;
        umask(Mode::empty());
        limit_descriptors(self.descriptors_max)?;
        reduce_capabilities(own_mounts == Some(true))?;
        let mut warnings = Vec::new();
        if !detached {
            warnings.push("procfs stays reachable through the own descriptor directory".to_owned());
        }
        Ok(Rooted {
            options: Options {
                directfs: false,
                apply_caps: false,
                whiteouts: true,
                ..Options::new(Dialect::V2024, Spec::default())
            },
            warnings,
            rootless: false,
            connections: self.connections(&root)?,
            root,
            mount_holders,
            descriptor_dir,
            report: Report {
                kernel,
                detached,
                ground,
                ..Report::default()
            },
        })
    }

    /// Makes a mount namespace; whether a user namespace had to be made with it, or `None` if
    /// neither may be.
    fn own_mounts(&self) -> Result<Option<bool>, Error> {
        match unshare(UnshareFlags::NEWNS) {
            Ok(()) => return Ok(Some(false)),
            Err(Errno::PERM) => {}
            Err(errno) => return Err(Error::host("making a mount namespace", errno)),
        }
        if !self.user_namespace || rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        Ok(own_user_namespace()?.then_some(true))
    }

    /// Mounts the tree, and nothing else, in an empty root.
    fn leave_mounts(&self, kernel: Kernel, user_namespace: bool) -> Result<Entered, Error> {
        mounts::stop_propagation().doing(|| "making all mounts slaves of the host's")?;
        let here = rustix::fs::open(".", PIN, Mode::empty())
            .doing(|| "finding the directory in the new namespace")?;
        let tree = kernel
            .hold(here, true)
            .doing(|| "cloning the mounts of the directory")?;
        let empty = kernel.tmpfs().doing(|| "making an empty root")?;
        let point = make_mount_point(empty.as_fd()).doing(|| "making a mount point")?;
        let root = kernel
            .attach(tree, &point)
            .doing(|| "mounting the directory")?;
        self.restrict(kernel, &root)?;
        kernel
            .restrict(empty.as_fd(), bits::RDONLY)
            .doing(|| "making the empty root read-only")?;
        let entered = Entered {
            ground: Ground::Mounts { user_namespace },
            mount_holders: holders(root.as_fd()),
            descriptor_dir: own_descriptors(kernel)?,
            root,
        };
        fchdir(&empty).doing(|| "entering the empty root")?;
        pivot_root(".", ".")
            .doing(|| "pivot_root into the empty root")
            .map_err(|error| {
                error.with_remedy(
                    "the present root must be a mount with a parent; an initramfs is none",
                )
            })?;
        unmount(".", UnmountFlags::DETACH).doing(|| "detaching the host's root")?;
        Ok(entered)
    }

    /// No devices, no set-id; read-only with all that is mounted inside.
    fn restrict(&self, kernel: Kernel, root: &OwnedFd) -> Result<(), Error> {
        let mut flags = bits::NOSUID | bits::NODEV;
        if self.readonly {
            flags |= bits::RDONLY;
        }
        let below = submounts(root.as_fd(), &std::collections::BTreeSet::new())?;
        for mount in std::iter::once(root).chain(&below) {
            kernel
                .restrict(mount.as_fd(), flags)
                .doing(|| "setting attributes of the directory's mounts")?;
        }
        Ok(())
    }

    fn stay_or_chroot(&self, kernel: Kernel) -> Result<Entered, Error> {
        let root = self.dir.try_clone();
        let root = root.map_err(|_| Error::host("duplicating a descriptor", Errno::MFILE))?;
        let descriptor_dir = own_descriptors(kernel)?;
        // We are in the directory already.
        let ground = match chroot(".") {
            Ok(()) => Ground::Chroot,
            Err(Errno::PERM) => Ground::Host,
            Err(errno) => return Err(Error::host("chroot into the directory", errno)),
        };
        Ok(Entered {
            ground,
            root,
            mount_holders: None,
            descriptor_dir,
        })
    }

    fn connections(self, root: &OwnedFd) -> Result<Vec<Connection>, Error> {
        let connection = |io| {
            let root = rustix::io::fcntl_dupfd_cloexec(root, 3);
            Ok(Connection {
                io,
                root: root.doing(|| "duplicating a descriptor")?,
                donated: None,
                path: self.path.clone(),
                readonly: self.readonly,
                character_devices: false,
            })
        };
        self.sockets.into_iter().map(connection).collect()
    }
}

struct Entered {
    ground: Ground,
    root: OwnedFd,
    mount_holders: Option<Vec<(u32, u32, u64)>>,
    descriptor_dir: (OwnedFd, bool),
}

fn own_descriptors(kernel: Kernel) -> Result<(OwnedFd, bool), Error> {
    mounts::descriptor_directory(kernel).doing(|| "opening /proc/self/fd")
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the table of descriptors is not among what callers of this file unshare, and there is
    // one thread, so no other is left behind in namespaces it did not expect.
    unsafe { unshare_unsafe(flags) }
}

/// A user namespace in which we are who we were, and nobody else is anybody.
fn own_user_namespace() -> Result<bool, Error> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    // Forbidden, or no more of them to be had: the kernel has several words for it.
    if unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).is_err() {
        return Ok(false);
    }
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{0} {0} 1", uid.as_raw())),
        ("gid_map", format!("{0} {0} 1", gid.as_raw())),
    ] {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Error::host(format!("writing {file} of the own user namespace"), errno)
        })?;
    }
    Ok(true)
}

/// What acting on files of any owner needs, if we came with it; nothing where we only hold it over
/// a user namespace of our own: clients then may what our user may.
fn reduce_capabilities(own_user_namespace: bool) -> Result<(), Error> {
    let keep = if own_user_namespace {
        CapabilitySet::empty()
    } else {
        let held = rustix::thread::capabilities(None).doing(|| "reading capabilities")?;
        FILE_OWNERSHIP.intersection(held.permitted)
    };
    capabilities::reduce_to(keep).map(|_nothing_missing| ())
}

/// As many as wanted, or as the hard limit allows.
fn limit_descriptors(wanted: u64) -> Result<(), Error> {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let limit = Some(wanted.min(hard));
    let both = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nofile, both).doing(|| "limiting descriptors")
}

fn make_mount_point(root: BorrowedFd<'_>) -> Result<Place, Errno> {
    mkdirat(root, MOUNT_POINT, Mode::RWXU)?;
    let fd = openat(root, MOUNT_POINT, PIN, Mode::empty())?;
    Ok(Place { fd, named: None })
}
