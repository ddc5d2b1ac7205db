//! The one call that safe crates do not offer: a child in namespaces of its own, all made at once.
#![allow(
    unsafe_code,
    reason = "clone3 with namespaces, and what runs between it and execve, have no safe form"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::null;

/// Everything the child needs, prepared: between clone and exec it must not allocate.
#[derive(Debug)]
pub(crate) struct Plan<'p> {
    /// `CLONE_NEW*`.
    pub(crate) namespaces: u64,
    /// Whether it leads a session of its own.
    pub(crate) setsid: bool,
    /// Whether it becomes id 0 of its namespace once `go` says so.
    pub(crate) become_root: bool,
    /// Whether it keeps its capabilities beyond exec, though it is not id 0 yet.
    pub(crate) ambient: bool,
    /// Whether every call it makes is told to us.
    pub(crate) watched: bool,
    /// Read end and write end of a pipe: the child waits for a byte.
    pub(crate) go: (&'p OwnedFd, &'p OwnedFd),
    /// Descriptors for 0, 1, 2, 3 and so on. Their own numbers must all be above that range.
    pub(crate) fds: &'p [OwnedFd],
    pub(crate) program: &'p CStr,
    pub(crate) argv: &'p [CString],
    /// `NAME=value` each.
    pub(crate) environment: &'p [CString],
}

/// Starts the program; the child's id in our namespace.
pub(crate) fn spawn(plan: &Plan<'_>) -> io::Result<libc::pid_t> {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        let each = texts.iter().map(|text| text.as_ptr());
        each.chain([null()]).collect()
    };
    let (argv, environment) = (pointers(plan.argv), pointers(plan.environment));
    let fds: Vec<RawFd> = plan.fds.iter().map(AsRawFd::as_raw_fd).collect();
    let (go_read, go_write) = (plan.go.0.as_raw_fd(), plan.go.1.as_raw_fd());
    // SAFETY: all-zero bytes are a valid `clone_args`: no flags, null pointers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = plan.namespaces;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM and with a null stack this is a fork: the child continues here on a
    // copy of our memory. `args` is valid for its size.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid > 0 {
        return Ok(pid as libc::pid_t);
    }
    // SAFETY: we are the child, alone on a copy of a process that had other threads. From here on
    // only system calls are made, on numbers and buffers that were prepared before the clone; no
    // lock is taken and nothing is allocated. Either execve or _exit ends this block.
    unsafe {
        libc::close(go_write);
        let mut byte = 0_u8;
        let told = libc::read(go_read, (&raw mut byte).cast(), 1);
        let mut well = told == 1;
        if plan.become_root {
            well &= libc::syscall(libc::SYS_setgid, 0) == 0;
            well &= libc::syscall(libc::SYS_setuid, 0) == 0;
        }
        if plan.setsid {
            well &= libc::setsid() >= 0;
        }
        for (number, &fd) in fds.iter().enumerate() {
            well &= libc::dup3(fd, number as RawFd, 0) >= 0;
        }
        if plan.ambient {
            well &= keep_capabilities();
        }
        if plan.watched {
            well &= crate::watch::tell_of_every_call();
        }
        if well {
            loop {
                libc::execve(plan.program.as_ptr(), argv.as_ptr(), environment.as_ptr());
                // A child of another thread holds a copy of the descriptor through which the
                // program was written, for the moment until its own execve.
                if *libc::__errno_location() != libc::ETXTBSY {
                    break;
                }
                libc::sched_yield();
            }
        }
        libc::_exit(126)
    }
}

/// What a parent that is not root leaves its gofer: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER,
/// FSETID, SETGID, SETUID, SETPCAP, SYS_CHROOT, SYS_ADMIN.
const AMBIENT: u64 = 0x1f | 0xc0 | 1 << 8 | 1 << 18 | 1 << 21;

/// Makes them inheritable and ambient. Only system calls, as between clone and exec.
fn keep_capabilities() -> bool {
    /// Version 3 of the interface: two words a set.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    let low = AMBIENT as u32;
    // Effective, permitted, inheritable, twice.
    let sets = [low, low, low, 0, 0, 0];
    // SAFETY: header and sets have the lengths that this version of the call reads.
    let mut well = unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), sets.as_ptr()) == 0 };
    for number in (0..32).filter(|number| AMBIENT >> number & 1 == 1) {
        // SAFETY: plain numbers.
        well &= unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                number as libc::c_ulong,
                0,
                0,
            )
        } == 0;
    }
    well
}
