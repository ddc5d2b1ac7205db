//! Trying out what this kernel, and whatever filters are around us, let the jail do.
//!
//! Belongs here: one try per feature, by doing it, never by a version number. Belongs elsewhere:
//! what is printed (`gofer`).
//! Must hold: each try runs in a process of its own with one thread, which ends after it: some
//! tries cannot be undone.

#![allow(
    unsafe_code,
    reason = "leaving namespaces and being traced have no safe form"
)]

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat2, statx};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getegid, geteuid, pidfd_open};
use rustix::thread::UnshareFlags;

use crate::mount_options::bits;
use crate::mounts::{self, Kernel, Material};
use crate::plan::MountCalls;
use crate::seccomp::{self, Wants};
use crate::walk::{Place, pin_host};
use crate::{Error, landlock};

/// Something of the kernel that a protection is made of.
#[derive(Debug, Clone, Copy)]
pub struct Feature {
    /// Its name, as the kernel's manual has it.
    pub name: &'static str,
    /// What is done without it.
    pub without: &'static str,
    /// Does a forbidden call end the process afterwards?
    pub seals: bool,
    attempt: fn(&Path) -> Result<String, Error>,
}

/// All that is tried.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "user namespaces",
        without: "only root can start a gofer",
        seals: false,
        attempt: user_namespace,
    },
    Feature {
        name: "mount namespaces",
        without: "no start: the served root cannot be made private",
        seals: false,
        attempt: |_| own_namespaces().map(nothing),
    },
    Feature {
        name: "openat2",
        without: "paths are walked one component at a time",
        seals: false,
        attempt: |_| path_inside_a_root(),
    },
    Feature {
        name: "statx mount ids",
        without: "mount ids are read from /proc/self/fdinfo",
        seals: false,
        attempt: |_| mount_ids(),
    },
    Feature {
        name: "open_tree and move_mount",
        without: "mount(2) on /proc/self/fd/N; the descriptor directory keeps procfs reachable",
        seals: false,
        attempt: attach,
    },
    Feature {
        name: "mount_setattr",
        without: "a remount with the union of attributes; a noexec image cannot be made read-only",
        seals: false,
        attempt: restrict,
    },
    Feature {
        name: "pidfd",
        without: "a v2026-08 gofer does not wait for its sandbox's end",
        seals: false,
        attempt: |_| pidfd(),
    },
    Feature {
        name: "seccomp filters",
        without: "no start: nothing would bound the calls that are left",
        seals: true,
        attempt: |_| filter(),
    },
    Feature {
        name: "Landlock",
        without: "a thread is kept in its mount by seccomp and the private root alone",
        seals: false,
        attempt: |_| domain(),
    },
];

impl Feature {
    /// Tries it, in a process that ends afterwards; `scratch` is an empty directory. What is said
    /// of a success is for people.
    ///
    /// # Errors
    /// It cannot be used here.
    pub fn attempt(&self, scratch: &Path) -> Result<String, Error> {
        (self.attempt)(scratch)
    }
}

/// Moves this process, which has one thread, into namespaces as a parent makes them for a gofer.
/// Without privileges it becomes root of a user namespace with one id.
///
/// # Errors
/// The host refused them.
pub fn own_namespaces() -> Result<(), Error> {
    let refused = |errno| Error::host("making namespaces", errno);
    if !geteuid().is_root() {
        become_root_of_a_user_namespace()?;
    }
    let all =
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWNET;
    // SAFETY: one thread, and descriptors stay shared with nobody: only namespaces change.
    unsafe { rustix::thread::unshare_unsafe(all) }.map_err(refused)?;
    mounts::stop_propagation().map_err(|errno| Error::host("making mounts private", errno))
}

fn become_root_of_a_user_namespace() -> Result<(), Error> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // SAFETY: one thread; only the user namespace changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|errno| Error::host("making a user namespace", errno))?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Error::host(format!("writing {file}"), errno)
        })?;
    }
    Ok(())
}

fn nothing((): ()) -> String {
    String::new()
}

fn host<T>(doing: &'static str, result: Result<T, Errno>) -> Result<T, Error> {
    result.map_err(|errno| Error::host(doing, errno))
}

fn user_namespace(_: &Path) -> Result<String, Error> {
    become_root_of_a_user_namespace().map(nothing)
}

fn path_inside_a_root() -> Result<String, Error> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    host("openat2", openat2(CWD, "/", flags, Mode::empty(), how))?;
    Ok(String::new())
}

fn mount_ids() -> Result<String, Error> {
    let stat = host(
        "statx",
        statx(CWD, "/", AtFlags::empty(), StatxFlags::MNT_ID),
    )?;
    match stat.stx_mask & StatxFlags::MNT_ID.bits() {
        0 => Err(Error::host("statx", Errno::NOTSUP)),
        _ => Ok(String::new()),
    }
}

/// A tree of the scratch directory's, attached to another directory in there.
fn attached(scratch: &Path) -> Result<rustix::fd::OwnedFd, Error> {
    own_namespaces()?;
    let kernel = Kernel::probe(MountCalls::Detect);
    if !kernel.trees {
        return Err(Error::host("open_tree", Errno::NOSYS));
    }
    let top = host(
        "opening a directory",
        pin_host(&scratch.display().to_string()),
    )?;
    match mkdirat(&top, "point", Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::host("making a directory", errno)),
    }
    let point = rustix::fs::openat(&top, "point", OFlags::PATH, Mode::empty());
    let fd = host("opening a directory", point)?;
    let tree = host("open_tree", kernel.hold(top, false))?;
    debug_assert!(matches!(tree, Material::Tree(_)));
    host(
        "move_mount",
        kernel.attach(tree, &Place { fd, named: None }),
    )
}

fn attach(scratch: &Path) -> Result<String, Error> {
    attached(scratch).map(|_| String::new())
}

fn restrict(scratch: &Path) -> Result<String, Error> {
    let tree = attached(scratch)?;
    let kernel = Kernel::probe(MountCalls::Detect);
    if !kernel.attributes {
        return Err(Error::host("mount_setattr", Errno::NOSYS));
    }
    host(
        "mount_setattr",
        kernel.restrict(tree.as_fd(), bits::RDONLY | bits::NOSUID),
    )?;
    match mkdirat(&tree, "more", Mode::RWXU) {
        Err(Errno::ROFS) => Ok(String::new()),
        other => Err(Error::Seal(format!(
            "a read-only mount let a directory be made: {other:?}"
        ))),
    }
}

fn pidfd() -> Result<String, Error> {
    let own = Pid::from_raw(std::process::id().cast_signed()).unwrap_or(Pid::INIT);
    host("pidfd_open", pidfd_open(own, PidfdFlags::empty()))?;
    Ok(String::new())
}

/// The table's filter, over this process; the end of it shows that it works.
fn filter() -> Result<String, Error> {
    host("no_new_privs", rustix::thread::set_no_new_privs(true))?;
    let wants = Wants::default();
    let program = seccomp::allow_list(wants)?;
    seccomp::install_everywhere(&program)?;
    Ok(format!("{} calls left", seccomp::names(wants).len()))
}

fn domain() -> Result<String, Error> {
    host("no_new_privs", rustix::thread::set_no_new_privs(true))?;
    let report = landlock::restrict(&[]).map_err(|error| Error::Seal(error.to_string()))?;
    // The kernel's word is believed only if it holds.
    let opened = rustix::fs::open("/proc/self/status", OFlags::RDONLY, Mode::empty());
    match (report.is_enforced(), opened) {
        (true, Err(Errno::ACCESS)) => Ok(report.to_string()),
        (false, _) => Err(Error::Seal("Landlock is not enforced".to_owned())),
        (true, other) => Err(Error::Seal(format!(
            "a file outside could be opened: {other:?}"
        ))),
    }
}
