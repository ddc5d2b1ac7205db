//! The stages, in the only order the compiler accepts.
//!
//! Belongs here: what happens when, and why then. Belongs elsewhere: how a mount is made
//! (`mounts`), a name is walked (`walk`), a filter is built (`seccomp`).
//! Must hold: one thread until the last stage; after [`Mounted::enter`] nothing of the host but the
//! served trees and the descriptors we hold can be reached.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, FileType, Mode, OFlags, access, openat, readlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, chroot, fchdir, pivot_root, set_dumpable_behavior,
    setrlimit, umask,
};

use crate::attributes::submounts;
use crate::error::Doing;
use crate::landlock::{LandlockReport, Tree};
use crate::mount_options::{self, bits};
use crate::mounts::{self, Kernel, Material};
use crate::plan::{Dialect, Options, Plan, Volume};
use crate::seccomp::Wants;
use crate::spec::Mount;
use crate::thread::ThreadJail;
use crate::walk::{Lost, Making, Place, find, find_or_make, is_directory, mount_id, pin_host};
use crate::{Error, capabilities, landed, landlock, rpc, seccomp, sync};

/// Where somebody else has left the served root for us (`--setup-root=false`).
const READY_ROOT: &str = "/root";

/// Mode of mount points and what leads to them; the inherited umask is taken off.
const MOUNT_POINT_MODE: u32 = 0o777;

/// Mode of a working directory that has to be made.
const WORKING_DIRECTORY_MODE: u32 = 0o755;

/// Warnings travel along from stage to stage until the binary takes them.
macro_rules! warnings {
    ($($stage:ident),*) => { $(
        impl $stage {
            /// Lines for the log since the last call.
            pub fn warnings(&mut self) -> Vec<String> {
                std::mem::take(&mut self.warnings)
            }
        }
    )* };
}
warnings!(Starting, Synced, Mounted, Rooted, Confined, Sealed);

/// Nothing has happened yet.
#[derive(Debug)]
pub struct Starting {
    plan: Plan,
    warnings: Vec<String>,
}

impl Starting {
    /// The first stage.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            warnings: Vec::new(),
        }
    }

    /// Waits until the parent has done everything that needs us untouched, then takes on the ids of
    /// the new user namespace, if its maps have only now been written.
    ///
    /// # Errors
    /// A sync socket delivered something; ids refused; the process has threads already.
    pub fn wait(mut self) -> Result<Synced, Error> {
        demand_one_thread()?;
        let descriptors = &mut self.plan.descriptors;
        let userns = descriptors.sync_userns.take();
        let rootless = userns.is_some();
        for (flag, fd) in [
            ("sync-chroot-fd", descriptors.sync_chroot.take()),
            ("sync-nvproxy-fd", descriptors.sync_nvproxy.take()),
            ("sync-userns-fd", userns),
        ] {
            if let Some(fd) = fd {
                sync::wait_for_end(flag, fd)?;
            }
        }
        if rootless {
            take_ids(&self.plan.options)?;
        }
        Ok(Synced {
            plan: self.plan,
            warnings: self.warnings,
            rootless,
        })
    }
}

fn demand_one_thread() -> Result<(), Error> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .map(Iterator::count)
        .unwrap_or(1);
    if tasks == 1 {
        return Ok(());
    }
    Err(Error::Parent(format!(
        "the set-up needs a process with one thread, not {tasks}"
    )))
}

fn take_ids(options: &Options) -> Result<(), Error> {
    use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
    let gid = rustix::process::Gid::from_raw(options.ids.gid);
    let uid = rustix::process::Uid::from_raw(options.ids.uid);
    set_thread_res_gid(gid, gid, gid).doing(|| format!("setgid({})", options.ids.gid))?;
    set_thread_res_uid(uid, uid, uid).doing(|| format!("setuid({})", options.ids.uid))?;
    // Changing ids takes this away; the parent still needs `/proc/<pid>`.
    set_dumpable_behavior(DumpableBehavior::Dumpable).doing(|| "staying dumpable")
}

/// The parent has finished; the mount namespace is ours to change.
#[derive(Debug)]
pub struct Synced {
    plan: Plan,
    warnings: Vec<String>,
    rootless: bool,
}

impl Synced {
    /// Builds the served tree: root, volumes with their attributes, devices, working directory.
    /// The host can still be reached afterwards: createContainer hooks belong between this stage
    /// and the next.
    ///
    /// # Errors
    /// The host refused a step; the message names source, destination and, if known, a way out.
    pub fn mount(mut self) -> Result<Mounted, Error> {
        let kernel = Kernel::probe(self.plan.options.mount_calls);
        let mut built = if self.plan.options.setup_root {
            build(&mut self.plan, kernel, &mut self.warnings)?
        } else {
            find_built(&mut self.plan)?
        };
        // The service works in the old tree; nobody may hold its socket beyond.
        drop(self.plan.descriptors.rpc.take());
        if self.plan.descriptors.dev_io.is_some() {
            built.devices =
                find(built.root.as_fd(), "/dev").map_err(|lost| lost_on("/dev", lost))?;
        }
        Ok(Mounted {
            plan: self.plan,
            warnings: self.warnings,
            rootless: self.rootless,
            kernel,
            built,
        })
    }
}

/// The tree as it stands: handles on the roots, held since they were mounted.
#[derive(Debug)]
struct Built {
    root: OwnedFd,
    volumes: Vec<OwnedFd>,
    /// Directory of the device connection.
    devices: Option<Place>,
    /// Numbers of all mounts that are not part of the image.
    added: BTreeSet<u64>,
}

/// A volume looked up on the host, before anything is attached: no source can lead into what we
/// build.
struct Held {
    material: Material,
    directory: bool,
}

fn build(plan: &mut Plan, kernel: Kernel, warnings: &mut Vec<String>) -> Result<Built, Error> {
    mounts::stop_propagation()
        .doing(|| "making all mounts slaves of the host's")
        .map_err(|error| {
            error.with_remedy("does a seccomp or AppArmor profile around runsc forbid mounts?")
        })?;
    let root = hold_root(plan, kernel)?;
    let spec = &plan.options.spec;
    let service = plan.descriptors.rpc.as_ref();
    let held: Vec<Held> = plan
        .volumes
        .iter()
        .map(|volume| hold_volume(&spec.mounts[volume.index], volume, kernel, service))
        .collect::<Result<_, _>>()?;
    let devices = hold_devices(plan, kernel, warnings)?;

    let root = attach_root(plan, kernel, root)?;
    let mut built = Built {
        root,
        volumes: Vec::new(),
        devices: None,
        added: BTreeSet::new(),
    };
    for (volume, held) in plan.volumes.iter().zip(held) {
        let mounted = attach_volume(&built, &spec.mounts[volume.index], held, kernel)?;
        built
            .added
            .insert(mount_id(&mounted).doing(|| "reading a mount's number")?);
        built.volumes.push(mounted);
    }
    // Only now: mount points inside volumes had to be made.
    for (volume, mounted) in plan.volumes.iter().zip(&built.volumes).rev() {
        restrict_volume(volume, mounted.as_fd(), &built.added, kernel)
            .map_err(|error| about(&spec.mounts[volume.index], error))?;
    }
    attach_devices(plan, kernel, &mut built, devices, warnings)?;
    make_working_directory(plan, &built, warnings)?;
    Ok(built)
}

fn about(mount: &Mount, error: Error) -> Error {
    match error {
        Error::Host {
            doing,
            errno,
            remedy,
        } => {
            let doing = format!("mount {} on {}: {doing}", mount.source, mount.destination);
            Error::Host {
                doing,
                errno,
                remedy,
            }
        }
        other => other,
    }
}

fn lost_on(path: &str, lost: Lost) -> Error {
    let doing = format!("destination {path}, at component {:?}", lost.component);
    let remedy = match lost.errno {
        Errno::ROFS => Some(
            "the mount point is missing and its file system is read-only; make it \
                             in the image",
        ),
        Errno::LOOP => Some("too many symbolic links"),
        Errno::NOTDIR => Some("something on the way is not a directory"),
        _ => None,
    };
    Error::Host {
        doing,
        errno: lost.errno,
        remedy,
    }
}

/// The root's material, or none if the sandbox reads the root itself.
fn hold_root(plan: &Plan, kernel: Kernel) -> Result<Option<(OwnedFd, Material)>, Error> {
    if plan.root_io.is_none() {
        return Ok(None);
    }
    let path = &plan.options.spec.root.path;
    let dir = pin_host(path).doing(|| format!("opening root.path {path}"))?;
    if !is_directory(&dir).doing(|| format!("looking at root.path {path}"))? {
        return Err(Error::host(format!("root.path {path}"), Errno::NOTDIR));
    }
    let copy = dir
        .try_clone()
        .map_err(|_| Error::host("duplicating a descriptor", Errno::MFILE))?;
    let material = kernel
        .hold(copy, true)
        .doing(|| format!("cloning the tree at root.path {path}"))?;
    Ok(Some((dir, material)))
}

/// Mounts the root onto itself, or makes an empty one.
fn attach_root(
    plan: &Plan,
    kernel: Kernel,
    held: Option<(OwnedFd, Material)>,
) -> Result<OwnedFd, Error> {
    let Some((dir, material)) = held else {
        return kernel.tmpfs().doing(|| "making an empty root");
    };
    let path = &plan.options.spec.root.path;
    let named = named_on_host(dir.as_fd());
    let root = kernel
        .attach(material, &Place { fd: dir, named })
        .doing(|| format!("mounting root.path {path} onto itself"))?;
    let word = plan.root_propagation;
    mounts::propagate(root.as_fd(), word).doing(|| {
        format!(
            "propagation {:?} of the root",
            plan.options.spec.linux.rootfs_propagation
        )
    })?;
    Ok(root)
}

/// Parent and name of a host directory, for kernels that need a name to find what was mounted.
fn named_on_host(dir: BorrowedFd<'_>) -> Option<(OwnedFd, Vec<u8>)> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::fs::read_link(mounts::proc_path(dir)).ok()?;
    let name = path.file_name()?.as_bytes().to_vec();
    Some((pin_host(path.parent()?.to_str()?).ok()?, name))
}

fn hold_volume(
    mount: &Mount,
    volume: &Volume,
    kernel: Kernel,
    service: Option<&OwnedFd>,
) -> Result<Held, Error> {
    let recursive = volume.flags & bits::REC != 0;
    let source = match service {
        Some(service) if mount.is_id_mapped() => {
            // What comes back is a detached mount already.
            let tree = rpc::open_mount(service, mount, volume.flags)?;
            let directory = is_directory(&tree).doing(|| "looking at an id-mapped mount")?;
            return Ok(Held {
                material: Material::Tree(tree),
                directory,
            });
        }
        Some(service) if access(mount.source.as_str(), Access::READ_OK).is_err() => {
            rpc::open_mount(service, mount, volume.flags)?
        }
        _ => open_source(mount)?,
    };
    hold(source, recursive, kernel).map_err(|error| about(mount, error))
}

fn open_source(mount: &Mount) -> Result<OwnedFd, Error> {
    let error = match pin_host(&mount.source) {
        Ok(fd) => return Ok(fd),
        Err(errno) => Error::host("opening the source", errno),
    };
    let remedy = match &error {
        Error::Host {
            errno: Errno::NOENT,
            ..
        } => "the source is missing",
        Error::Host {
            errno: Errno::ACCESS,
            ..
        } => {
            "this process may not enter a directory above it; runsc of 2026 and later opens it for us"
        }
        _ => "check the source",
    };
    Err(about(mount, error.with_remedy(remedy)))
}

fn hold(source: OwnedFd, recursive: bool, kernel: Kernel) -> Result<Held, Error> {
    let directory = is_directory(&source).doing(|| "looking at the source")?;
    let material = kernel
        .hold(source, recursive)
        .map_err(|errno| bind_refused(errno, recursive))?;
    Ok(Held {
        material,
        directory,
    })
}

fn bind_refused(errno: Errno, recursive: bool) -> Error {
    let error = Error::host("binding", errno);
    if errno == Errno::INVAL && !recursive {
        return error.with_remedy(
            "in a user namespace a plain bind of a directory with mounts below it is refused, \
             because it would uncover what they hide; the option rbind helps",
        );
    }
    error
}

fn attach_volume(
    built: &Built,
    mount: &Mount,
    held: Held,
    kernel: Kernel,
) -> Result<OwnedFd, Error> {
    let mounted =
        attach_at(built, &mount.destination, held, kernel).map_err(|error| about(mount, error))?;
    let word = mount_options::propagation(&mount.options);
    if word != 0 {
        mounts::propagate(mounted.as_fd(), word)
            .doing(|| format!("propagation options {:?}", mount.options))
            .map_err(|error| about(mount, error))?;
    }
    Ok(mounted)
}

/// Finds or makes the mount point and attaches there.
fn attach_at(built: &Built, path: &str, held: Held, kernel: Kernel) -> Result<OwnedFd, Error> {
    let leaf = if held.directory {
        FileType::Directory
    } else {
        FileType::RegularFile
    };
    let making = Making {
        leaf,
        mode: MOUNT_POINT_MODE,
    };
    let place = find_or_make(built.root.as_fd(), path, making, kernel.trees)
        .map_err(|lost| lost_on(path, lost))?;
    let directory = is_directory(&place.fd).doing(|| "looking at the mount point")?;
    if directory != held.directory {
        return Err(mismatch(path, directory));
    }
    let recursive = matches!(
        held.material,
        Material::Source {
            recursive: true,
            ..
        }
    );
    let by_clone = matches!(held.material, Material::Tree(_));
    kernel.attach(held.material, &place).map_err(|errno| {
        if by_clone {
            Error::host("attaching", errno)
        } else {
            bind_refused(errno, recursive)
        }
    })
}

fn mismatch(path: &str, destination_is_directory: bool) -> Error {
    let (errno, remedy) = if destination_is_directory {
        (
            Errno::ISDIR,
            "the source is a file, but the destination is a directory",
        )
    } else {
        (
            Errno::NOTDIR,
            "the source is a directory, but the destination is a file",
        )
    };
    Error::host(format!("mount point {path}"), errno).with_remedy(remedy)
}

/// Attributes of one volume: what its options ask, and never set-id. Read-only means all that came
/// along with it, but not other volumes mounted inside.
fn restrict_volume(
    volume: &Volume,
    mounted: BorrowedFd<'_>,
    added: &BTreeSet<u64>,
    kernel: Kernel,
) -> Result<(), Error> {
    let flags = volume.flags | bits::NOSUID;
    kernel
        .restrict(mounted, flags)
        .doing(|| "setting attributes")?;
    if flags & bits::RDONLY == 0 || flags & bits::REC == 0 {
        return Ok(());
    }
    let mut others = added.clone();
    others.remove(&mount_id(mounted).doing(|| "reading a mount's number")?);
    for below in submounts(mounted, &others)? {
        kernel
            .restrict(below.as_fd(), bits::RDONLY | bits::NOSUID)
            .doing(|| "setting attributes of a mount below")?;
    }
    Ok(())
}

fn hold_devices(
    plan: &Plan,
    kernel: Kernel,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Held)>, Error> {
    let mut held = Vec::new();
    for path in &plan.devices {
        let result = pin_host(path)
            .doing(|| format!("opening device {path}"))
            .and_then(|source| hold(source, false, kernel));
        match result {
            Ok(device) => held.push((path.clone(), device)),
            Err(error) => device_failed(plan, path, error, warnings)?,
        }
    }
    Ok(held)
}

fn attach_devices(
    plan: &Plan,
    kernel: Kernel,
    built: &mut Built,
    devices: Vec<(String, Held)>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    if plan.descriptors.dev_io.is_none() {
        return Ok(());
    }
    let making = Making {
        leaf: FileType::Directory,
        mode: MOUNT_POINT_MODE,
    };
    find_or_make(built.root.as_fd(), "/dev", making, kernel.trees)
        .map_err(|lost| lost_on("/dev", lost))?;
    for (path, held) in devices {
        match attach_at(built, &path, held, kernel) {
            Ok(mounted) => {
                built
                    .added
                    .insert(mount_id(&mounted).doing(|| "reading a mount's number")?);
            }
            Err(error) => device_failed(plan, &path, error, warnings)?,
        }
    }
    Ok(())
}

/// A missing device is fatal only for the newest parent; older ones start without it.
fn device_failed(
    plan: &Plan,
    path: &str,
    error: Error,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    if plan.options.dialect == Dialect::V2026 {
        return Err(error);
    }
    warnings.push(format!("device {path} is not offered: {error}"));
    Ok(())
}

/// Gofers before v2026-08 make the first process's working directory.
fn make_working_directory(
    plan: &Plan,
    built: &Built,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let cwd = &plan.options.spec.process.cwd;
    if cwd.is_empty() || plan.options.dialect == Dialect::V2026 {
        return Ok(());
    }
    let making = Making {
        leaf: FileType::Directory,
        mode: WORKING_DIRECTORY_MODE,
    };
    match find_or_make(built.root.as_fd(), cwd, making, true) {
        Ok(_) => Ok(()),
        Err(Lost {
            errno: Errno::ROFS, ..
        }) => {
            warnings.push(format!(
                "process.cwd {cwd} is missing on a read-only mount; not made"
            ));
            Ok(())
        }
        Err(lost) => Err(Error::host(
            format!(
                "making process.cwd {cwd}, at component {:?}",
                lost.component
            ),
            lost.errno,
        )),
    }
}

/// The tree that somebody else has built.
fn find_built(plan: &mut Plan) -> Result<Built, Error> {
    let root =
        pin_host(READY_ROOT).doing(|| format!("opening the ready-made root {READY_ROOT}"))?;
    let mut volumes = Vec::new();
    for volume in &plan.volumes {
        let destination = &plan.options.spec.mounts[volume.index].destination;
        let place = find(root.as_fd(), destination)
            .and_then(|place| {
                place.ok_or(Lost {
                    component: destination.clone(),
                    errno: Errno::NOENT,
                })
            })
            .map_err(|lost| lost_on(destination, lost))?;
        volumes.push(place.fd);
    }
    Ok(Built {
        root,
        volumes,
        devices: None,
        added: BTreeSet::new(),
    })
}

/// The tree stands; the host is still there.
#[derive(Debug)]
pub struct Mounted {
    plan: Plan,
    warnings: Vec<String>,
    rootless: bool,
    kernel: Kernel,
    built: Built,
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
            if landed == "/" && crate::walk::clean(&mount.destination) != "/" {
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

    fn limit_descriptors(&mut self) -> Result<(), Error> {
        let Some(limit) = self.plan.options.fd_limit else {
            return Ok(());
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

/// One connection to serve.
#[derive(Debug)]
pub struct Connection {
    /// The client's socket.
    pub io: OwnedFd,
    /// Root of the served tree, `O_PATH`, held since it was mounted.
    pub root: OwnedFd,
    /// What a directfs client gets.
    pub donated: Option<OwnedFd>,
    /// Where it is in the container.
    pub path: Vec<u8>,
    /// Are writes refused?
    pub readonly: bool,
    /// May device nodes be opened?
    pub character_devices: bool,
}

/// The served root is our root; the host is gone.
#[derive(Debug)]
pub struct Rooted {
    options: Options,
    warnings: Vec<String>,
    rootless: bool,
    root: OwnedFd,
    connections: Vec<Connection>,
    descriptor_dir: OwnedFd,
    report: Report,
}

impl Rooted {
    /// Drops capabilities, forbids new ones, closes `/proc/<pid>` to others.
    ///
    /// # Errors
    /// The host refused.
    pub fn confine(mut self) -> Result<Confined, Error> {
        let credentials = self.options.needs_credentials();
        if self.options.apply_caps {
            let mut keep = capabilities::FILE_OWNERSHIP;
            if credentials {
                keep |= capabilities::CREDENTIALS;
            }
            let missing = capabilities::reduce_to(keep)?;
            if !missing.is_empty() {
                self.warnings
                    .push(format!("capabilities not held, done without: {missing:?}"));
            }
        }
        rustix::thread::set_no_new_privs(true).doing(|| "setting no_new_privs")?;
        // An unprivileged parent still writes our oom_score_adj, which takes a dumpable process.
        if !self.rootless && !self.options.keep_dumpable {
            set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "becoming undumpable")?;
            self.report.undumpable = true;
        }
        Ok(Confined {
            rooted: self,
            credentials,
            warnings: Vec::new(),
        })
    }
}

impl Options {
    fn needs_credentials(&self) -> bool {
        self.dialect == Dialect::V2026 && self.host_uds.open
    }
}

/// Unprivileged, but still free to call anything.
#[derive(Debug)]
pub struct Confined {
    rooted: Rooted,
    credentials: bool,
    warnings: Vec<String>,
}

impl Confined {
    /// Landlock, then seccomp, which forbids all of the above. After this, threads may start and
    /// the first byte of a client may be read.
    ///
    /// # Errors
    /// seccomp refused. A kernel without Landlock is no error; the report says so.
    pub fn seal(self) -> Result<Sealed, Error> {
        let Rooted {
            options,
            warnings,
            connections,
            descriptor_dir,
            mut report,
            root,
            ..
        } = self.rooted;
        let whiteouts = options.dialect == Dialect::V2026;
        let sockets = options.host_uds.open;
        let trees: Vec<Tree<'_>> = connections
            .iter()
            .map(|connection| Tree {
                root: connection.root.as_fd(),
                readonly: connection.readonly,
                devices: connection.character_devices || options.character_devices,
                whiteouts,
                sockets,
            })
            .collect();
        report.landlock = landlock::restrict(&trees).map_err(|e| Error::Seal(e.to_string()))?;
        drop(root);

        let wants = Wants {
            host_open: options.host_uds.open,
            host_create: options.host_uds.create,
            credentials: self.credentials,
            profiling: options.profiling,
            descriptor_directory: descriptor_dir.as_raw_fd().unsigned_abs(),
        };
        let allow_list = seccomp::allow_list(wants)?;
        seccomp::install_everywhere(&seccomp::refuse_clone3()?)?;
        seccomp::install_everywhere(&allow_list)?;
        report.calls = seccomp::names(wants).len();
        let threads = ThreadJail { whiteouts, sockets };
        Ok(Sealed {
            connections,
            descriptor_dir,
            threads,
            report,
            warnings,
        })
    }
}

/// The process as clients meet it.
#[derive(Debug)]
pub struct Sealed {
    /// What to serve: root first, then volumes in spec order, devices last.
    pub connections: Vec<Connection>,
    /// The own descriptor directory, also the working directory.
    pub descriptor_dir: OwnedFd,
    /// For the threads that will serve.
    pub threads: ThreadJail,
    /// What is in force.
    pub report: Report,
    warnings: Vec<String>,
}

/// What is in force; displayed as one line for the log.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    kernel: Kernel,
    /// Is the own descriptor directory a mount of its own?
    pub detached: bool,
    /// Is `/proc/<pid>` closed to others?
    pub undumpable: bool,
    /// How many different system calls are left.
    pub calls: usize,
    /// Landlock.
    pub landlock: LandlockReport,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            kernel: Kernel {
                trees: false,
                attributes: false,
            },
            detached: false,
            undumpable: false,
            calls: 0,
            landlock: LandlockReport {
                abi: 0,
                complete: false,
            },
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |is: bool| if is { "yes" } else { "no" };
        write!(
            f,
            "seccomp: {} calls; Landlock: {}; mounts by descriptor: {}, attributes added only: {}; \
             detached descriptor directory: {}; undumpable: {}",
            self.calls,
            self.landlock,
            yes(self.kernel.trees),
            yes(self.kernel.attributes),
            yes(self.detached),
            yes(self.undumpable)
        )
    }
}
