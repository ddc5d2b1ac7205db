//! A process of ours in namespaces of its own: the first of a new world, in which a person's
//! command will run.
//!
//! Belongs here: the fork, the namespaces, the ids. Belongs elsewhere: what that process mounts and
//! starts (`gofer`), what the command may not (`command`).
//! Must hold: one thread when it forks; the process ends when we do, however we end, and holds no
//! descriptor of ours but its end of the control socket.

#![allow(unsafe_code, reason = "fork and unshare have no safe form")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, set_child_subreaper, set_dumpable_behavior,
    set_parent_process_death_signal, waitpid,
};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid, unshare_unsafe,
};
use rustix::time::Timespec;

use crate::Error;
use crate::error::Doing;
use crate::inherited::close_others;

/// How many ids a namespace has that has ids of its own: 0 to 65535, as a machine's.
const IDS: u32 = 65_536;
/// The first host id for them. From here up to 2,147,352,575 neither people nor known container
/// software have any (systemd's list, "Users, Groups, UIDs and GIDs").
const FIRST_HOST_ID: u32 = 0x7000_0000;
/// As many ranges as lie there, so that two worlds at a time hardly ever share one.
const RANGES: u32 = 4094;
/// Longest message about a failure, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// First byte of what a process that fails says: why, in words, follows.
pub const FAILED: u8 = b'e';
/// What the intermediate process says.
const MAP_ME: u8 = b'm';
const FORKED: u8 = b'f';
/// What we say.
const GO: u8 = b'g';

/// Which host ids the new process's user namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostIds {
    /// As many as a machine has, none of which is anybody's: root inside is nobody outside.
    Own {
        /// The host's id of the root user inside.
        first: u32,
    },
    /// One, that of whoever starts it; inside it is the root user.
    Caller,
}

impl HostIds {
    /// The best that this process can have: ids of their own take root's privileges.
    #[must_use]
    pub fn best() -> Self {
        let first = FIRST_HOST_ID + std::process::id() % RANGES * IDS;
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SYS_ADMIN;
        let privileged = capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
        let has = |file: &str| {
            let map = std::fs::read_to_string(file).unwrap_or_default();
            maps(&map, first)
        };
        match privileged && has("/proc/self/uid_map") && has("/proc/self/gid_map") {
            true => Self::Own { first },
            false => Self::Caller,
        }
    }
}

/// Whether a map has the whole range that begins with `first`.
fn maps(map: &str, first: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(length))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        let (first, end) = (u64::from(first), u64::from(first) + u64::from(IDS));
        inside <= first && end <= inside.saturating_add(length)
    })
}

/// The new process, as we see it.
#[derive(Debug)]
pub struct World {
    /// Its number outside. Inside it is 1.
    pub pid: Pid,
    /// Our end of a socket that keeps messages apart.
    pub control: OwnedFd,
}

/// Forks a process into a user, mount, PID, IPC and UTS namespace of its own, and a network
/// namespace if asked for. It runs `inside` as the root user of the first and as process 1 of the
/// third, without debuggers, and exits with what that returns. It is killed when this thread ends.
///
/// `open` is called first, when the namespaces are there and the ids still ours: what it opens is
/// the new user namespace's, and goes to `inside` with the control socket. All other descriptors from
/// 3 up are closed: `inside` must bring none.
///
/// # Errors
/// The host refused a step; more than one thread.
pub fn fork_apart(
    ids: HostIds,
    network: bool,
    open: impl FnOnce() -> Result<Vec<OwnedFd>, String>,
    inside: impl FnOnce(Vec<OwnedFd>, OwnedFd) -> u8,
) -> Result<World, Error> {
    crate::stage::demand_one_thread()?;
    let kind = SocketType::SEQPACKET;
    let (control, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .doing(|| "making a pair of sockets")?;
    // The new process's parent ends at once; it shall be ours.
    set_child_subreaper(Some(rustix::process::getpid()))
        .doing(|| "becoming the parent of our children's children")?;
    let between = fork().doing(|| "starting a process")?;
    let Some(between) = between else {
        drop(control);
        // Whatever happens, this process must not return to where it does not belong.
        let entered = catch_unwind(AssertUnwindSafe(|| {
            enter(ids, network, &theirs, open, inside)
        }));
        if let Ok(Err(error)) = entered {
            tell(&theirs, FAILED, error.to_string().as_bytes());
        }
        exit(1);
    };
    drop(theirs);
    let pid = introduce(ids, between, &control);
    let ended = retry_on_intr(|| waitpid(Some(between), WaitOptions::empty()));
    let pid = pid?;
    ended.doing(|| "waiting for a process")?;
    send(&control, &[GO]).doing(|| "speaking to the process in new namespaces")?;
    Ok(World { pid, control })
}

/// Helps the intermediate process; the number of the one it has started.
fn introduce(ids: HostIds, between: Pid, control: &OwnedFd) -> Result<Pid, Error> {
    let mut said = [0; MESSAGE_BYTES_MAX];
    loop {
        let length = receive(control, &mut said).doing(|| "hearing from a process")?;
        match said.get(..length).unwrap_or_default() {
            [MAP_ME] => {
                map(ids, between)?;
                send(control, &[GO]).doing(|| "speaking to a process")?;
            }
            [FORKED, number @ ..] => {
                let number = number.try_into().map(i32::from_ne_bytes);
                return number
                    .ok()
                    .and_then(Pid::from_raw)
                    .ok_or_else(|| Error::host("starting a process", Errno::CHILD));
            }
            [FAILED, why @ ..] => {
                return Err(Error::Place(String::from_utf8_lossy(why).into_owned()));
            }
            _ => return Err(Error::host("starting a process", Errno::CHILD)),
        }
    }
}

/// Gives a process's user namespace its ids.
fn map(ids: HostIds, process: Pid) -> Result<(), Error> {
    let HostIds::Own { first } = ids else {
        return Ok(());
    };
    for file in ["uid_map", "gid_map"] {
        write_map(
            &format!("/proc/{}/{file}", process.as_raw_pid()),
            &format!("0 {first} {IDS}"),
        )?;
    }
    Ok(())
}

fn write_map(path: &str, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::host(format!("writing {text:?} to {path}"), errno).with_remedy(REMEDY)
    })
}

const REMEDY: &str = "user namespaces seem to be restricted: look at the sysctls \
    user.max_user_namespaces, kernel.unprivileged_userns_clone and \
    kernel.apparmor_restrict_unprivileged_userns, or run it as root outside of a container";

/// The intermediate process: makes the namespaces, starts the first process in them, and ends.
fn enter(
    ids: HostIds,
    network: bool,
    control: &OwnedFd,
    open: impl FnOnce() -> Result<Vec<OwnedFd>, String>,
    inside: impl FnOnce(Vec<OwnedFd>, OwnedFd) -> u8,
) -> Result<Infallible, Error> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "tying a process to its parent")?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut namespaces = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS;
    if network {
        namespaces |= UnshareFlags::NEWNET;
    }
    // SAFETY: the table of descriptors is not unshared; there is one thread.
    unsafe { unshare_unsafe(namespaces) }
        .doing(|| "making namespaces")
        .map_err(|error| error.with_remedy(REMEDY))?;
    let opened = open().map_err(Error::Place)?;
    match ids {
        HostIds::Own { .. } => {
            send(control, &[MAP_ME]).doing(|| "asking for ids")?;
            await_go(control)?;
            set_thread_groups(&[]).doing(|| "leaving all groups")?;
        }
        HostIds::Caller => {
            write_map("/proc/self/setgroups", "deny")?;
            write_map("/proc/self/uid_map", &format!("0 {} 1", uid.as_raw()))?;
            write_map("/proc/self/gid_map", &format!("0 {} 1", gid.as_raw()))?;
        }
    }
    let (root, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    set_thread_res_gid(group, group, group).doing(|| "becoming the root group")?;
    set_thread_res_uid(root, root, root).doing(|| "becoming the root user")?;
    match fork().doing(|| "starting the first process in new namespaces")? {
        Some(pid) => {
            tell(control, FORKED, &pid.as_raw_pid().to_ne_bytes());
            exit(0)
        }
        None => first(control, opened, inside),
    }
}

/// The first process: waits until its parent is the one that shall be.
fn first(
    control: &OwnedFd,
    opened: Vec<OwnedFd>,
    inside: impl FnOnce(Vec<OwnedFd>, OwnedFd) -> u8,
) -> ! {
    let ready = || -> Result<OwnedFd, Error> {
        let own = std::iter::once(control).chain(&opened);
        let own: BTreeSet<RawFd> = own.map(AsRawFd::as_raw_fd).collect();
        close_others(own.into_iter())?;
        await_go(control)?;
        set_parent_process_death_signal(Some(Signal::KILL))
            .doing(|| "tying a process to its parent")?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "shutting debuggers out")?;
        if has_ended(control) {
            return Err(Error::host("finding the parent", Errno::CHILD));
        }
        // A number of its own: this process never returns to whoever owns the one we borrow.
        rustix::io::fcntl_dupfd_cloexec(control, 3).doing(|| "duplicating a descriptor")
    };
    match ready() {
        Ok(socket) => exit(inside(opened, socket).into()),
        Err(error) => {
            tell(control, FAILED, error.to_string().as_bytes());
            exit(1)
        }
    }
}

/// Whether the parent was gone before its death could reach us.
fn has_ended(control: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(control, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

fn await_go(control: &OwnedFd) -> Result<(), Error> {
    let mut byte = [0];
    match receive(control, &mut byte).doing(|| "hearing from the parent")? {
        1 if byte == [GO] => Ok(()),
        _ => Err(Error::host("hearing from the parent", Errno::PIPE)),
    }
}

/// The child sees nothing.
fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: one thread, so no lock is held by another that is missing in the child.
    let pid = unsafe { libc::fork() };
    match pid {
        ..0 => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
        }
        number => Ok(Pid::from_raw(number)),
    }
}

/// Ends a forked process without what its parent has set up to be done at the end.
fn exit(status: i32) -> ! {
    // SAFETY: no memory is involved.
    unsafe { libc::_exit(status) }
}

fn receive(control: &OwnedFd, room: &mut [u8]) -> Result<usize, Errno> {
    let (_, length) = retry_on_intr(|| rustix::net::recv(control, &mut *room, RecvFlags::empty()))?;
    Ok(length)
}

fn send(control: &OwnedFd, words: &[u8]) -> Result<(), Errno> {
    retry_on_intr(|| rustix::net::send(control, words, SendFlags::NOSIGNAL)).map(|_| ())
}

/// To whoever still listens.
fn tell(control: &OwnedFd, what: u8, words: &[u8]) {
    let words = words.get(..MESSAGE_BYTES_MAX - 1).unwrap_or(words);
    _ = send(control, &[&[what], words].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_must_be_mapped_whole() {
        let first = FIRST_HOST_ID;
        assert!(maps("         0          0 4294967295\n", first));
        assert!(maps("0 1000 1\n1879048192 100000 65536\n", first));
        assert!(!maps("0 100000 65536\n", first));
        assert!(!maps("1879048192 100000 65535\n", first));
        assert!(!maps("", first));
        assert!(!maps("x y z", first));
    }
}
