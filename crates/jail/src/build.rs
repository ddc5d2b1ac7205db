//! Building the served tree: root, volumes, devices, working directory.
//!
//! Belongs here: what goes where, in which order, and the sentence for each refusal. Belongs
//! elsewhere: how one mount is made (`mounts`), how a name is walked (`walk`).
//! Must hold: everything of the host is looked up before the first mount is attached, so that no
//! source can lead into what is being built.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, FileType, access};
use rustix::io::Errno;

use crate::attributes::submounts;
use crate::error::Doing;
use crate::mount_options::{self, bits};
use crate::mounts::{self, Kernel, Material};
use crate::plan::{Dialect, Plan, Volume};
use crate::spec::Mount;
use crate::walk::{Lost, Making, Place, find, find_or_make, is_directory, mount_id, pin_host};
use crate::{Error, rpc};

/// Where somebody else has left the served root for us (`--setup-root=false`).
const READY_ROOT: &str = "/root";

/// Mode of mount points and what leads to them; the inherited umask is taken off.
const MOUNT_POINT_MODE: u32 = 0o777;

/// Mode of a working directory that has to be made.
const WORKING_DIRECTORY_MODE: u32 = 0o755;

/// The tree as it stands: handles on the roots, held since they were mounted.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) root: OwnedFd,
    pub(crate) volumes: Vec<OwnedFd>,
    /// Directory of the device connection.
    pub(crate) devices: Option<Place>,
    /// Numbers of all mounts that are not part of the image.
    pub(crate) added: BTreeSet<u64>,
}

/// A volume looked up on the host, before anything is attached: no source can lead into what we
/// build.
struct Held {
    material: Material,
    directory: bool,
}

pub(crate) fn build(
    plan: &mut Plan,
    kernel: Kernel,
    warnings: &mut Vec<String>,
) -> Result<Built, Error> {
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

pub(crate) fn lost_on(path: &str, lost: Lost) -> Error {
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
pub(crate) fn find_built(plan: &mut Plan) -> Result<Built, Error> {
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
