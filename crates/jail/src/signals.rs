//! What this process does about signals. As PID 1 of its namespace it would otherwise ignore all
//! that have no handler, and whoever stops its cgroup would wait out a timeout.

#![allow(unsafe_code, reason = "signal handlers have no safe wrapper")]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;

/// The descriptor of an event that is raised instead of ending, if somebody has something to finish.
static INSTEAD: AtomicI32 = AtomicI32::new(-1);
/// The status to end with then.
static STATUS: AtomicI32 = AtomicI32::new(0);

/// From now on HUP, INT and TERM end the process with status 128 + number, and QUIT with 2, as
/// they end the reference. XFSZ is ignored: a client's write beyond a limit gets its `EFBIG`.
///
/// # Errors
/// The host's errno.
pub fn exit_on_signals() -> Result<(), Errno> {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    for signal in ENDING {
        handle(signal)?;
    }
    Ok(())
}

/// The same without XFSZ, and without those that whoever has started us wants ignored: for a
/// process that will start a program, which inherits what is ignored.
///
/// # Errors
/// The host's errno.
pub fn exit_unless_ignored() -> Result<(), Errno> {
    for signal in ENDING {
        // SAFETY: all zeroes is a valid `sigaction`.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: nothing is changed, and `now` lives.
        unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) };
        if now.sa_sigaction != libc::SIG_IGN {
            handle(signal)?;
        }
    }
    Ok(())
}

/// The next signal that would end the process raises `event` instead, once; whoever waits for it
/// ends the process with [`status_asked_for`]. A second signal ends it at once.
pub fn raise_instead(event: OwnedFd) {
    INSTEAD.store(event.into_raw_fd(), Ordering::Release);
}

/// The status of the signal that has raised the event, if one has.
pub fn status_asked_for() -> Option<i32> {
    let status = STATUS.load(Ordering::Acquire);
    (status != 0).then_some(status)
}

const ENDING: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT];

fn handle(signal: libc::c_int) -> Result<(), Errno> {
    let handler = leave as extern "C" fn(libc::c_int);
    // SAFETY: all zeroes is a valid `sigaction`: nothing blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // For the case that the process goes on for a moment.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` lives, and its handler only makes a call that is allowed in one.
    if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
    }
    Ok(())
}

/// Lets through the signals that end a process, for one whose parent keeps them from itself
/// ([`wait_for_termination`]): what is blocked is inherited.
pub fn unblock() {
    // SAFETY: all zeroes is a set that `sigemptyset` may overwrite; it outlives all calls here.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above; the numbers are valid, and the old mask is not asked for.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in ENDING {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// For a process that ends in its own time: from now on HUP, INT and TERM only make the descriptor
/// readable. Before any thread starts; programs that are started inherit that they are blocked.
///
/// # Errors
/// The host's errno.
pub fn wait_for_termination() -> Result<OwnedFd, Errno> {
    // SAFETY: all zeroes is a set that `sigemptyset` may overwrite; it outlives all calls here.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above; the numbers are valid, and the old mask is not asked for.
    let fd = unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
    }
    // SAFETY: the call has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

extern "C" fn leave(signal: libc::c_int) {
    let status = if signal == libc::SIGQUIT {
        2
    } else {
        128 + signal
    };
    let event = INSTEAD.swap(-1, Ordering::AcqRel);
    if event >= 0 {
        STATUS.store(status, Ordering::Release);
        let one = 1_u64;
        let bytes = size_of_val(&one);
        // SAFETY: `one` lives, and the descriptor is never closed. Allowed in a handler.
        if unsafe { libc::write(event, (&raw const one).cast(), bytes) } > 0 {
            return;
        }
    }
    // SAFETY: `_exit` may be called from a signal handler; nothing of ours has to be tidied.
    unsafe { libc::_exit(status) }
}
