//! The first process of a sandbox of the engine `fuse`: mounts what the command shall see, lets go
//! of the host, starts the command, and waits for everybody.
//!
//! Belongs here: what is mounted where, and being process 1. Elsewhere: namespaces and what the
//! command may not (`jail`), who answers for the mounts (`fuse`).
//! Must hold: when the command starts, nothing of the host is mounted here but the trees that
//! gofers serve and a handful of devices; this process has no more rights than the command.

use std::convert::Infallible;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use hook::Relay;
use mount::Options;
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::net::{AddressFamily, SendFlags, SocketType};
use rustix::process::{WaitOptions, chdir, pivot_root, umask, wait};

use super::words::Teller;

/// Where the trees are put together, before the host is gone: the first of these that there is.
const STAGES: [&str; 5] = ["/tmp", "/run", "/mnt", "/var", "/home"];
/// The devices that the command gets: they are the same everywhere and hold nothing.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Names in `/dev` for what a process has open.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// Exit status of a command that is not there, and of one that cannot be executed, as shells have
/// it.
const STATUS_NOT_FOUND: i32 = 127;
const STATUS_NOT_EXECUTABLE: i32 = 126;

/// One tree to mount in the sandbox.
#[derive(Debug)]
pub(super) struct Tree {
    /// Where; the root for the first.
    pub(super) destination: PathBuf,
    /// Whether it is a directory, or a single file.
    pub(super) directory: bool,
    /// How whoever answers for it will mount it.
    pub(super) options: Options,
}

/// What the sandbox is made of.
#[derive(Debug)]
pub(super) struct Plan<'p> {
    pub(super) root: Tree,
    /// Whether what is written to the root reaches the host.
    pub(super) writable: bool,
    pub(super) binds: Vec<Tree>,
    pub(super) args: &'p [String],
    pub(super) env: &'p [String],
    pub(super) workdir: &'p str,
    /// Whether there is a network namespace.
    pub(super) network: bool,
}

/// Runs the sandbox; the exit status of its first process.
pub(super) fn run(plan: &Plan<'_>, devices: Vec<OwnedFd>, control: OwnedFd) -> u8 {
    let teller = Teller(control);
    let Err(why) = sandbox(plan, devices, &teller);
    if let Some(why) = why {
        teller.failed(&why);
    }
    1
}

/// Says why there is no command; or nothing, if whoever listened is gone.
type Failed = Option<String>;

fn failed<E: std::fmt::Display>(doing: impl Into<String>) -> impl FnOnce(E) -> Failed {
    move |error| Some(format!("{}: {error}", doing.into()))
}

fn sandbox(plan: &Plan<'_>, devices: Vec<OwnedFd>, teller: &Teller) -> Result<Infallible, Failed> {
    jail::signals::exit_unless_ignored().map_err(failed("signal handlers"))?;
    let mask = umask(Mode::from_raw_mode(0o022));
    let mut devices = devices.into_iter();
    let few = devices_of_the_host();
    let root = stage(plan, &mut devices, teller)?;
    chdir(&root).map_err(failed("entering the sandbox's root"))?;
    pivot_root(".", ".").map_err(failed(
        "pivot_root into the sandbox's root (the present root must be a mount with a parent; an \
         initramfs is none)",
    ))?;
    chdir("/").map_err(failed("entering the sandbox's root"))?;
    // While the host's are still there: the kernel wants to see that nothing of them was hidden.
    mount_kernel_trees(plan.network)?;
    mount_devices(few)?;
    for tree in &plan.binds {
        let device = devices.next().ok_or(None)?;
        make_place(tree)?;
        place(tree, &tree.destination, device, teller)?;
    }
    unmount(".", UnmountFlags::DETACH).map_err(failed("detaching the host's root"))?;
    forbid_user_namespaces()?;
    rustix::system::sethostname(b"gofer").map_err(failed("naming the machine"))?;
    if plan.network {
        raise_loopback().map_err(failed("raising the loopback interface"))?;
    }
    chdir(plan.workdir).map_err(failed(format!("cannot start in {}", plan.workdir)))?;
    umask(mask);
    jail::command::restrict_command().map_err(failed("restricting the command"))?;
    let status = hook::while_forwarding(|relay| command(plan, teller, relay));
    teller.ended(status.map_err(failed("signals"))??);
    // Everybody else in here dies with this process.
    std::process::exit(0)
}

/// As many connections to the kernel's FUSE as there are mounts to be. To be opened in the user
/// namespace whose mounts they will be.
pub(super) fn open_devices(plan: &Plan<'_>) -> Result<Vec<OwnedFd>, String> {
    let open = || File::options().read(true).write(true).open("/dev/fuse");
    let trees = 0..=plan.binds.len();
    let devices: Result<Vec<OwnedFd>, _> = trees.map(|_| open().map(OwnedFd::from)).collect();
    devices.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "load the kernel module fuse (`modprobe fuse`)",
            ErrorKind::PermissionDenied => "let this user use it (`chmod 666 /dev/fuse`)",
            _ => "is the kernel's fuse there?",
        };
        format!("cannot open /dev/fuse: {error}; {remedy}, or install runsc for the other engine")
    })
}

/// Copies of the mounts of the host's devices. What the host has not, the command has not.
fn devices_of_the_host() -> Vec<(&'static str, OwnedFd)> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = |name| {
        let tree = open_tree(CWD, Path::new("/dev").join(name), flags).ok()?;
        Some((name, tree))
    };
    DEVICES.into_iter().filter_map(clone).collect()
}

/// Mounts the root somewhere; where.
fn stage(
    plan: &Plan<'_>,
    devices: &mut impl Iterator<Item = OwnedFd>,
    teller: &Teller,
) -> Result<PathBuf, Failed> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed("making all mounts private"))?;
    let stage = STAGES.iter().map(Path::new).find(|path| path.is_dir());
    let stage = stage.ok_or_else(|| Some(format!("the machine has none of {STAGES:?}")))?;
    tmpfs(stage, "mode=755")?;
    let [tree, upper, work, root] = ["tree", "upper", "work", "root"].map(|name| stage.join(name));
    for dir in [&tree, &upper, &work, &root] {
        make_dir(dir)?;
    }
    let device = devices.next().ok_or(None)?;
    if plan.writable {
        place(&plan.root, &root, device, teller)?;
        return Ok(root);
    }
    place(&plan.root, &tree, device, teller)?;
    let layers = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        tree.display(),
        upper.display(),
        work.display()
    );
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount_with("overlay", &root, flags, &layers).map_err(|errno| {
        Some(format!(
            "cannot lay an overlay in memory over the tree: {errno}; it takes the kernel's overlay \
             file system and Linux 5.11. Without it there is --writable, with which writes reach \
             the host, and the engine runsc"
        ))
    })?;
    Ok(root)
}

/// Mounts a tree and hands its device to whoever answers for it.
fn place(tree: &Tree, point: &Path, device: OwnedFd, teller: &Teller) -> Result<(), Failed> {
    mount::place(device.as_fd(), tree.directory, point, &tree.options)
        .map_err(|error| Some(error.to_string()))?;
    teller.mounted(device.as_fd()).map_err(|_| None)
}

/// The place of a bind, made if it is missing: in memory, unless the root is writable.
fn make_place(tree: &Tree) -> Result<(), Failed> {
    let path = &tree.destination;
    if tree.directory {
        return make_dir(path);
    }
    path.parent().map_or(Ok(()), make_dir)?;
    match path.exists() {
        true => Ok(()),
        false => File::create_new(path)
            .map(|_| ())
            .map_err(failed(format!("making {} for a --bind", path.display()))),
    }
}

/// Paths of processes and of the kernel, in place of the host's.
fn mount_kernel_trees(network: bool) -> Result<(), Failed> {
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    make_dir(Path::new("/proc"))?;
    mount_with("proc", Path::new("/proc"), flags, "").map_err(|errno| {
        Some(format!(
            "cannot mount /proc: {errno}; inside of a container whose own /proc is partly hidden \
             the kernel refuses it: run this outside, or let the container see all of /proc"
        ))
    })?;
    let sys = Path::new("/sys");
    make_dir(sys)?;
    // It shows the network's devices, so it belongs to the network's namespace. Without it there is
    // an empty directory: the host's own is not to show.
    let shown = network && mount_with("sysfs", sys, flags | MountFlags::RDONLY, "").is_ok();
    if !shown {
        tmpfs(sys, "mode=555,size=4k")?;
    }
    Ok(())
}

fn mount_devices(few: Vec<(&str, OwnedFd)>) -> Result<(), Failed> {
    let dev = Path::new("/dev");
    make_dir(dev)?;
    tmpfs(dev, "mode=755")?;
    for (name, tree) in few {
        let path = dev.join(name);
        File::create_new(&path).map_err(failed(format!("making {}", path.display())))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&tree, "", CWD, &path, flags)
            .map_err(failed(format!("mounting {}", path.display())))?;
    }
    let (pts, shm) = (dev.join("pts"), dev.join("shm"));
    make_dir(&pts)?;
    make_dir(&shm)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_with("devpts", &pts, flags, "newinstance,ptmxmode=0666,mode=620")
        .map_err(failed("mounting /dev/pts"))?;
    tmpfs(&shm, "mode=1777")?;
    for (target, link) in LINKS {
        symlink(target, link).map_err(failed(format!("making {link}")))?;
    }
    Ok(())
}

fn tmpfs(point: &Path, options: &str) -> Result<(), Failed> {
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount_with("tmpfs", point, flags, options)
        .map_err(failed(format!("mounting memory on {}", point.display())))
}

fn mount_with(kind: &str, point: &Path, flags: MountFlags, options: &str) -> Result<(), Errno> {
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(kind, point, kind, flags, options.as_c_str())
}

fn make_dir(path: &Path) -> Result<(), Failed> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(failed(format!("making {} in the sandbox", path.display())))
}

/// In a user namespace of its own the command would be offered far more of the kernel.
fn forbid_user_namespaces() -> Result<(), Failed> {
    const LIMIT: &str = "/proc/sys/user/max_user_namespaces";
    match std::fs::write(LIMIT, "0") {
        // A kernel without user namespaces would not have come this far; one without the limit is
        // older than the rest of what was needed.
        Err(error) => Err(failed(format!("writing {LIMIT}"))(error)),
        Ok(()) => Ok(()),
    }
}

/// By protocol 0 of netlink, routing: `RTM_NEWLINK` for interface 1, which is up afterwards: 127.0.0.1 works.
fn raise_loopback() -> Result<(), Errno> {
    const LENGTH: u32 = 32;
    const NEW_LINK: u16 = 16;
    const REQUEST: u16 = 1;
    const UP: u32 = 1;
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    let mut message = Vec::with_capacity(LENGTH as usize);
    // `nlmsghdr`: length, type, flags, sequence, port.
    message.extend(LENGTH.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // `ifinfomsg`: family and padding, type, index, flags, which of them are meant.
    message.extend([0; 4]);
    message.extend(1_i32.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    rustix::net::send(&socket, &message, SendFlags::NOSIGNAL).map(|_| ())
}

/// Starts the command and waits for everybody, until it has ended; its status.
fn command(plan: &Plan<'_>, teller: &Teller, relay: &Relay) -> Result<i32, Failed> {
    let Some((program, args)) = plan.args.split_first() else {
        return Err(Some("no command".to_owned()));
    };
    let variables = plan
        .env
        .iter()
        .filter_map(|variable| variable.split_once('='));
    let mut child = Command::new(program);
    child.args(args).env_clear().envs(variables);
    relay.unmask(&mut child);
    let child = match child.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("gofer: cannot run {program}: {error}");
            let status = match error.kind() {
                ErrorKind::NotFound => STATUS_NOT_FOUND,
                _ => STATUS_NOT_EXECUTABLE,
            };
            return Ok(status << 8);
        }
    };
    let number = child.id().cast_signed();
    relay.relay_to(number);
    teller.running().map_err(|_| None)?;
    let ended = wait_for_all(number, teller, relay);
    relay.relay_to(0);
    ended
}

/// Every orphan in here becomes this process's child.
fn wait_for_all(command: i32, teller: &Teller, relay: &Relay) -> Result<i32, Failed> {
    loop {
        let changed = match wait(WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
            Ok(changed) => changed,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed("waiting for the command")(errno)),
        };
        let Some((pid, status)) = changed else {
            continue;
        };
        if pid.as_raw_pid() != command {
            continue;
        }
        let status = ExitStatus::from_raw(status.as_raw());
        let stopped = status.stopped_signal().is_some();
        if stopped || status.continued() {
            relay.set_stopped(stopped);
            teller.stopped(stopped);
        } else {
            return Ok(status.into_raw());
        }
    }
}
