//! What a call that no row of the table allows leads to: one line in the log, then the end of the
//! whole process, as if the kernel had killed it at once.
//!
//! The filter traps: the kernel does not carry the call out, and delivers `SIGSYS` to the thread.
//! The handler reports, then makes a forbidden call itself: within its own handler `SIGSYS` is
//! blocked, and for a blocked signal of this kind the kernel puts the default action in force and
//! kills the process, the first one of a namespace too.
//! Must hold: nothing here waits, takes a lock or allocates, since the call may have been made
//! anywhere; a thread that blocks the signal is killed without the line; nobody replaces the
//! handler after the seal, for the table lets no thread change that signal.

#![allow(unsafe_code, reason = "signal handlers have no safe wrapper")]

use std::fmt;
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::call_names;

/// `si_code` of a signal that a filter caused.
const SYS_SECCOMP: libc::c_int = 1;

/// Exit status after a signal of this kind that somebody sent, as the reference's.
const STATUS_CRASH: libc::c_int = 2;

/// A call that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The call's number on this architecture.
    pub number: i64,
    /// Its name, if it has one.
    pub name: Option<&'static str>,
    /// The kernel's number of the thread that has made it.
    pub thread: i32,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.unwrap_or("unknown");
        write!(
            f,
            "system call {} ({name}) of thread {} is forbidden: the process ends",
            self.number, self.thread
        )
    }
}

/// Tells of a violation. Called in a signal handler: it may neither wait nor allocate nor panic.
pub type Report = fn(&Violation);

static REPORT: OnceLock<Report> = OnceLock::new();

/// `siginfo_t` of a `SIGSYS`.
#[repr(C)]
struct SystemCallSignal {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    _align: libc::c_int,
    _instruction: *const libc::c_void,
    number: libc::c_int,
    _architecture: libc::c_uint,
}

/// From now on a violation is told to `report` before the process ends. Once, before the seal.
///
/// # Errors
/// The host's errno; `ALREADY` the second time.
pub fn tell(report: Report) -> Result<(), Errno> {
    REPORT.set(report).map_err(|_| Errno::ALREADY)?;
    // SAFETY: all zeroes is a valid `sigaction`: no flags, nothing blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler = end as extern "C" fn(libc::c_int, *const SystemCallSignal, *const libc::c_void);
    action.sa_sigaction = handler as libc::sighandler_t;
    // On a stack of its own where the thread has one: its stack may be what is wrong.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the mask lives in `action`, which lives on; its handler only does what one may.
    let set = unsafe {
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    if set == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

extern "C" fn end(
    _signal: libc::c_int,
    info: *const SystemCallSignal,
    _context: *const libc::c_void,
) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `siginfo_t`, which for this signal has at
    // least the fields named.
    let (code, number) = unsafe { ((*info).code, (*info).number) };
    if code == SYS_SECCOMP {
        let violation = Violation {
            number: number.into(),
            name: call_names::name(number.into()),
            // SAFETY: a plain call.
            thread: unsafe { libc::gettid() },
        };
        if let Some(report) = REPORT.get() {
            report(&violation);
        }
        let nothing = std::ptr::null::<libc::c_char>();
        // SAFETY: forbidden in every sealed process, so that the kernel kills this one here. Before
        // the seal it fails, as nothing is named.
        unsafe { libc::syscall(libc::SYS_execve, nothing, nothing, nothing) };
    }
    // SAFETY: may be called from a signal handler; nothing of ours has to be tidied.
    unsafe { libc::_exit(STATUS_CRASH) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_call_and_thread() {
        let violation = |name| Violation {
            number: 165,
            name,
            thread: 7,
        };
        assert_eq!(
            violation(Some("mount")).to_string(),
            "system call 165 (mount) of thread 7 is forbidden: the process ends"
        );
        assert!(violation(None).to_string().contains("165 (unknown)"));
    }
}
