//! Making mounts on descriptors: clone a tree, attach it, restrict it.
//!
//! Belongs here: the calls of Linux 5.2 (`open_tree`, `move_mount`) and 5.12 (`mount_setattr`).
//! Belongs elsewhere: the older ways (`fallback`), what goes where (`stage`).

#![allow(
    unsafe_code,
    reason = "mount_setattr and two probes have no safe wrapper"
)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    open_tree,
};

use crate::fallback;
use crate::mount_options::bits;
use crate::plan::MountCalls;
use crate::walk::Place;

/// Which of the newer mount calls work here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernel {
    /// `open_tree`, `move_mount`, `fsopen`.
    pub(crate) trees: bool,
    /// `mount_setattr`.
    pub(crate) attributes: bool,
}

/// Something to be mounted, held by descriptor since it was looked up.
#[derive(Debug)]
pub(crate) enum Material {
    /// A detached mount.
    Tree(OwnedFd),
    /// A place on the host, still to be bound.
    Source { fd: OwnedFd, recursive: bool },
}

impl Kernel {
    pub(crate) fn probe(calls: MountCalls) -> Self {
        let detect = calls == MountCalls::Detect;
        Self {
            trees: detect && exists(libc::SYS_open_tree) && exists(libc::SYS_move_mount),
            attributes: detect && exists(libc::SYS_mount_setattr),
        }
    }

    /// Takes hold of what lies at `source`, with all that is mounted below it if `recursive`.
    pub(crate) fn hold(self, source: OwnedFd, recursive: bool) -> Result<Material, Errno> {
        if !self.trees {
            return Ok(Material::Source {
                fd: source,
                recursive,
            });
        }
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        open_tree(&source, "", flags).map(Material::Tree)
    }

    /// Attaches `material` at `place`; the result is a handle on the root of the new mount.
    pub(crate) fn attach(self, material: Material, place: &Place) -> Result<OwnedFd, Errno> {
        match material {
            Material::Tree(tree) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
                    | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                move_mount(&tree, "", &place.fd, "", flags)?;
                Ok(tree)
            }
            Material::Source { fd, recursive } => fallback::bind(fd, recursive, place),
        }
    }

    /// Adds the attributes of a flag word to one mount. Never takes one away, so it cannot fail on
    /// attributes that are locked, whatever they are.
    pub(crate) fn restrict(self, mount: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
        if !self.attributes {
            return fallback::restrict(mount, flags);
        }
        let (set, clear) = attributes(flags);
        match set_attributes(mount, set, clear) {
            // The access-time mode is the one attribute that has to replace another; where it is
            // locked, the others still count.
            Err(Errno::PERM) if !clear.is_empty() => {
                let others = set.difference(MountAttrFlags::MOUNT_ATTR__ATIME);
                set_attributes(mount, others, MountAttrFlags::empty())
            }
            other => other,
        }
    }

    /// An empty tmpfs: the root of a container whose own root the sandbox reads itself.
    pub(crate) fn tmpfs(self) -> Result<OwnedFd, Errno> {
        let host_root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if !self.trees {
            return fallback::tmpfs(&host_root);
        }
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "source", "runsc-root")?;
        fsconfig_set_string(context.as_fd(), "mode", "0755")?;
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let tree = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        self.attach(
            Material::Tree(tree),
            &Place {
                fd: host_root,
                named: None,
            },
        )
    }
}

/// Changes propagation of a mount, and of those below it if the word says so.
pub(crate) fn propagate(mount: BorrowedFd<'_>, word: u32) -> Result<(), Errno> {
    let flags = MountPropagationFlags::from_bits_retain(word);
    mount_change(proc_path(mount), flags)
}

/// Makes all we came with receive mounts from outside and never send any.
pub(crate) fn stop_propagation() -> Result<(), Errno> {
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
}

/// Our own descriptor directory as a mount of its own that hangs nowhere: `..` leads nowhere, and
/// it stays when `/proc` goes. The second value is false if only the plain directory could be had.
pub(crate) fn descriptor_directory(kernel: Kernel) -> Result<(OwnedFd, bool), Errno> {
    const OWN: &str = "/proc/self/fd";
    if kernel.trees {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if let Ok(tree) = open_tree(CWD, OWN, flags) {
            return Ok((tree, true));
        }
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(OWN, flags, Mode::empty()).map(|fd| (fd, false))
}

/// The name under which `mount(2)` finds exactly this object.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A flag word as what `mount_setattr` sets and clears.
fn attributes(flags: u32) -> (MountAttrFlags, MountAttrFlags) {
    const PLAIN: &[(u32, MountAttrFlags)] = &[
        (bits::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (bits::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (bits::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (bits::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (bits::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ];
    let set = PLAIN
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .fold(MountAttrFlags::empty(), |set, (_, attribute)| {
            set | *attribute
        });
    let all_access_times = MountAttrFlags::MOUNT_ATTR__ATIME;
    if flags & bits::NOATIME != 0 {
        (set | MountAttrFlags::MOUNT_ATTR_NOATIME, all_access_times)
    } else if flags & bits::STRICTATIME != 0 {
        (
            set | MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            all_access_times,
        )
    } else if flags & bits::RELATIME != 0 {
        (set, all_access_times)
    } else {
        (set, MountAttrFlags::empty())
    }
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    set: MountAttrFlags,
    clear: MountAttrFlags,
) -> Result<(), Errno> {
    let wish = MountAttr {
        set: set.bits().into(),
        clear: clear.bits().into(),
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the kernel reads the empty string and `size_of` bytes of `wish`; both outlive the
    // call, and nothing is written to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const wish,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// Does the kernel know the call, and is it let through? Asked with a descriptor that cannot be.
fn exists(call: libc::c_long) -> bool {
    // SAFETY: -1 is no descriptor, so each of the probed calls fails before it does or reads
    // anything; the null pointers make sure of it.
    let result = unsafe { libc::syscall(call, -1, 0, libc::AT_EMPTY_PATH, 0, 0) };
    result == 0 || !matches!(last_errno(), Errno::NOSYS | Errno::PERM)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
