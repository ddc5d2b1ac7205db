//! Leaving the host: the last attributes, the pivot, the mounts list.
//!
//! Belongs here: everything between "the tree stands" and "the host is gone". Belongs elsewhere:
//! making the tree (`build`), what follows (`stage`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Resource, Rlimit, chroot, fchdir, getrlimit, pivot_root, setrlimit, umask};

use crate::attributes::{holders, submounts};
use crate::build::Built;
use crate::error::Doing;
use crate::mount_options::bits;
use crate::mounts::{self, Kernel};
use crate::plan::Plan;
use crate::stage::{Connection, Report, Rooted};
use crate::walk;
use crate::{Error, landed};

/// The tree stands; the host is still there.
#[derive(Debug)]
pub struct Mounted {
    pub(crate) plan: Plan,
    pub(crate) warnings: Vec<String>,
    pub(crate) rootless: bool,
    pub(crate) kernel: Kernel,
    pub(crate) built: Built,
}

impl Mounted {
    /// Makes the root read-only if it is to be, enters it, lets go of the host, tells the sandbox
    /// where everything landed.
    ///
    /// # Errors
    /// The host refused a step; the reader of the mounts list is gone.
    pub fn enter(mut self) -> Result<Rooted, Error> {
        if self.plan.root_readonly && self.plan.options.setup_root {
            self.restrict_root()?;
        }
        // Under directfs the sandbox lists directories itself.
        let mount_holders = if self.plan.options.directfs {
            None
        } else {
            holders(self.built.root.as_fd())
        };
        let (descriptor_dir, detached) =
            mounts::descriptor_directory(self.kernel).doing(|| "opening /proc/self/fd")?;
        if !detached {
            self.warnings.push(
                "the own descriptor directory could not be mounted apart; procfs stays reachable \
                 through it"
                    .to_owned(),
            );
        }
        self.leave_host()?;
        // From here on the relative path "N" is the file behind descriptor N.
        fchdir(&descriptor_dir).doing(|| "entering the own descriptor directory")?;
        self.send_list(&descriptor_dir)?;
        self.limit_descriptors()?;
        // Modes arrive from the sandbox with the application's mask already applied.
        umask(Mode::empty());
        let connections = self.connections(&descriptor_dir)?;
        let Self {
            plan,
            warnings,
            rootless,
            kernel,
            built,
        } = self;
        Ok(Rooted {
            options: plan.options,
            warnings,
            rootless,
            root: built.root,
            connections,
            mount_holders,
            descriptor_dir,
            report: Report {
                kernel,
                detached,
                ..Report::default()
            },
        })
    }

    /// Read-only, no set-id, no devices: for the root mount and what was mounted below the image,
    /// not for volumes. Attributes are only added, so a `noexec` image needs no permission to stay.
    fn restrict_root(&self) -> Result<(), Error> {
        let flags = bits::RDONLY | bits::NOSUID | bits::NODEV;
        let path = &self.plan.options.spec.root.path;
        let root = self.built.root.as_fd();
        self.kernel
            .restrict(root, flags)
            .doing(|| format!("making {path} read-only"))?;
        for below in submounts(root, &self.built.added)? {
            self.kernel
                .restrict(below.as_fd(), flags)
                .doing(|| format!("making a mount below {path} read-only"))?;
        }
        Ok(())
    }

    fn leave_host(&self) -> Result<(), Error> {
        fchdir(&self.built.root).doing(|| "entering the served root")?;
        if self.plan.options.unsafe_nonroot || !self.plan.options.setup_root {
            return chroot(".").doing(|| "chroot into the served root");
        }
        pivot_root(".", ".")
            .doing(|| "pivot_root into the served root")
            .map_err(|error| {
                error.with_remedy(
                    "the present root must be a mount with a parent; an initramfs is none",
                )
            })?;
        unmount(".", UnmountFlags::DETACH).doing(|| "detaching the host's root")
    }

    /// The cleaned mounts list: destinations as they really are, by the descriptors we hold.
    fn send_list(&mut self, descriptor_dir: &OwnedFd) -> Result<(), Error> {
        let dialect = self.plan.options.dialect;
        for (volume, mounted) in self.plan.volumes.iter().zip(&self.built.volumes) {
            let mount = &mut self.plan.options.spec.mounts[volume.index];
            let landed = landing_place(descriptor_dir, mounted)
                .doing(|| format!("finding out where {} landed", mount.destination))?;
            if landed == "/" && walk::clean(&mount.destination) != "/" {
                return Err(Error::Place(format!(
                    "destination {}: the mount point was removed while the root was set up",
                    mount.destination
                )));
            }
            let option = landed::appended_option(dialect, mounted)
                .doing(|| format!("statfs of {landed}"))?;
            mount.options.extend(option.map(str::to_owned));
            mount.destination = landed;
        }
        let list = landed::encode(&self.plan.options.spec.mounts)?;
        match self.plan.descriptors.mounts.take() {
            Some(pipe) => landed::send(pipe, &list),
            None => {
                self.warnings
                    .push("no --mounts-fd: nobody learns where mounts landed".to_owned());
                Ok(())
            }
        }
    }

    /// `--fdlimit`, or without it all that the parent lets us have: the soft limit of 1024 that is
    /// common is meant for programs that use `select`.
    fn limit_descriptors(&mut self) -> Result<(), Error> {
        let Some(limit) = self.plan.options.fd_limit else {
            let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
            let raised = Rlimit {
                current: maximum,
                maximum,
            };
            return setrlimit(Resource::Nofile, raised)
                .doing(|| "raising the soft limit of descriptors to the hard one");
        };
        let both = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        match setrlimit(Resource::Nofile, both) {
            Err(Errno::PERM) => {
                self.warnings.push(format!(
                    "--fdlimit={limit} is above the hard limit; not set"
                ));
                Ok(())
            }
            other => other.doing(|| format!("setting --fdlimit={limit}")),
        }
    }

    fn connections(&mut self, descriptor_dir: &OwnedFd) -> Result<Vec<Connection>, Error> {
        let directfs = self.plan.options.directfs;
        let donated = |root: &OwnedFd| {
            if directfs {
                donation(descriptor_dir, root).map(Some)
            } else {
                Ok(None)
            }
        };
        let mut all = Vec::new();
        if let Some(io) = self.plan.root_io.take() {
            let root = copy(&self.built.root)?;
            all.push(Connection {
                io,
                donated: donated(&root)?,
                root,
                path: b"/".to_vec(),
                readonly: self.plan.root_readonly,
                character_devices: false,
            });
        }
        let volumes = std::mem::take(&mut self.plan.volumes);
        for (volume, root) in volumes
            .into_iter()
            .zip(std::mem::take(&mut self.built.volumes))
        {
            all.push(Connection {
                io: volume.io,
                donated: donated(&root)?,
                root,
                path: self.plan.options.spec.mounts[volume.index]
                    .destination
                    .clone()
                    .into_bytes(),
                readonly: volume.readonly,
                character_devices: false,
            });
        }
        if let Some(io) = self.plan.descriptors.dev_io.take() {
            let place = self.built.devices.take();
            let root = place
                .ok_or_else(|| Error::host("opening /dev", Errno::NOENT))?
                .fd;
            all.push(Connection {
                io,
                donated: donated(&root)?,
                root,
                path: b"/dev".to_vec(),
                readonly: false,
                character_devices: true,
            });
        }
        Ok(all)
    }
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Error> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).doing(|| "duplicating a descriptor")
}

/// Path of a mount's root inside our own root.
fn landing_place(descriptor_dir: &OwnedFd, mounted: &OwnedFd) -> Result<String, Errno> {
    let number = mounted.as_raw_fd().to_string();
    let path = readlinkat(descriptor_dir, number, Vec::new())?;
    Ok(String::from_utf8_lossy(path.as_bytes()).into_owned())
}

/// What a directfs client gets: readable where that is possible, else a plain handle.
fn donation(descriptor_dir: &OwnedFd, root: &OwnedFd) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(
        descriptor_dir,
        root.as_raw_fd().to_string(),
        flags,
        Mode::empty(),
    ) {
        Ok(fd) => Ok(fd),
        Err(_) => copy(root),
    }
}
