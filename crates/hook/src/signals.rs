//! Signals sent to us on the way to the program we stand in for (`runsc`, a command), and job
//! control.
//!
//! The program shares our process group, so what a terminal sends reaches it without us. What a
//! person or a supervisor sends to our number reaches only us, and is passed on.

#![allow(
    unsafe_code,
    reason = "signal masks and sigwaitinfo have no safe wrapper"
)]

use std::{
    io,
    mem::MaybeUninit,
    os::unix::process::{CommandExt, ExitStatusExt},
    panic,
    process::{Command, ExitStatus},
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst},
    thread,
};

use crate::{HookError, Pid, ptrace};

/// Taken from our own hands and passed on. The stops among them are answered by stopping after
/// the program has, so that a shell sees one job that stops as a whole.
const RELAYED: [i32; 15] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGWINCH,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGURG,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Wakes the relaying thread when there is nothing left to relay to.
const WAKE: i32 = libc::SIGCHLD;

/// What to do with a signal that reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// It is ours alone: pass it on.
    Yes,
    /// The terminal sent it to the whole process group.
    No,
}

/// Judges a signal by its `si_code`.
///
/// A terminal that hangs up tells only the session's leader; if that is us, the program must hear it.
#[must_use]
pub fn forward(signal: i32, code: i32, session_leader: bool) -> Forward {
    let from_kernel = code == libc::SI_KERNEL;
    if from_kernel && !(signal == libc::SIGHUP && session_leader) {
        return Forward::No;
    }
    Forward::Yes
}

/// What the thread that follows a program and the one that relays signals to it tell each other.
pub struct Relay {
    /// The mask we were called with, for the program to start with.
    pub(crate) mask: libc::sigset_t,
    /// The program, 0 before it exists and after it has ended.
    program: AtomicI32,
    /// What came before it existed, by number.
    early: AtomicU64,
    /// The program is stopped.
    stopped: AtomicBool,
    /// Somebody wants the job to stop.
    stop_wanted: AtomicBool,
    done: AtomicBool,
}

impl Relay {
    /// From now on signals have a receiver, until the program has ended (0).
    pub fn relay_to(&self, pid: Pid) {
        self.program.store(pid, SeqCst);
        self.deliver();
    }

    /// Passes on what came too early, now that there may be somebody to pass it on to. Whoever sees
    /// both, a signal and a receiver, does it; both sides look after they have told.
    fn deliver(&self) {
        let program = self.program.load(SeqCst);
        if program == 0 {
            return;
        }
        let early = self.early.swap(0, SeqCst);
        for signal in RELAYED
            .into_iter()
            .filter(|signal| early >> signal & 1 == 1)
        {
            ptrace::kill(program, signal);
        }
    }

    /// Lets a program that is to be started have the signals that are kept from us, as whoever has
    /// started us wanted it.
    pub fn unmask(&self, program: &mut Command) {
        let mask = self.mask;
        // SAFETY: between fork and exec this makes one call that is allowed there, on memory that the
        // closure owns.
        unsafe {
            program.pre_exec(move || {
                libc::sigprocmask(libc::SIG_SETMASK, &mask, null_mut());
                Ok(())
            });
        }
    }

    /// Whether the program is stopped: then we stop too, if the whole job was meant.
    pub fn set_stopped(&self, stopped: bool) {
        self.stopped.store(stopped, SeqCst);
        self.stop_together();
    }

    /// Each side calls this after its half of the news; the second one finds both.
    fn stop_together(&self) {
        if self.stopped.load(SeqCst) && self.stop_wanted.swap(false, SeqCst) {
            ptrace::kill(std::process::id().cast_signed(), libc::SIGSTOP);
        }
    }

    fn handle(&self, signal: i32, code: i32) {
        // SAFETY: no memory is involved.
        let leader = unsafe { libc::getsid(0) == libc::getpid() };
        let stops = matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        // A shell continues the whole group; only if the program still stands was it us alone.
        let heard = signal == libc::SIGCONT && !self.stopped.load(SeqCst);
        if stops || signal == libc::SIGCONT {
            self.stop_wanted.store(stops, SeqCst);
        }
        if !heard && forward(signal, code, leader) == Forward::Yes {
            self.early.fetch_or(1 << signal, SeqCst);
            self.deliver();
        }
        self.stop_together();
    }
}

/// Follows a program on a thread of its own (when that ends, the kernel lets every tracee go) and
/// relays signals on this one meanwhile. Threads that `follow` starts block those signals too.
///
/// Call it before other threads exist: a thread that does not block the signals would take them.
///
/// # Errors
/// No signals or no thread to be had.
pub fn while_forwarding<T: Send>(follow: impl FnOnce(&Relay) -> T + Send) -> Result<T, HookError> {
    let signals = set(RELAYED.iter().chain([&WAKE]));
    let masked = Masked::new(&signals).map_err(host("sigaction"))?;
    let relay = Relay {
        mask: masked.before,
        program: AtomicI32::new(0),
        early: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        stop_wanted: AtomicBool::new(false),
        done: AtomicBool::new(false),
    };
    // SAFETY: no memory is involved.
    let us = unsafe { libc::pthread_self() };
    thread::scope(|scope| {
        let follower = thread::Builder::new()
            .name("hook".to_owned())
            .spawn_scoped(scope, || {
                let _wake = Wake {
                    relay: &relay,
                    thread: us,
                };
                follow(&relay)
            })
            .map_err(host("clone"))?;
        while !relay.done.load(SeqCst) {
            if let Some((signal, code)) = next_signal(&signals) {
                relay.handle(signal, code);
            }
        }
        let ended = follower.join();
        Ok(ended.unwrap_or_else(|payload| panic::resume_unwind(payload)))
    })
}

/// Ends the relaying when the following thread ends, however that happens.
struct Wake<'a> {
    relay: &'a Relay,
    thread: libc::pthread_t,
}

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.relay.done.store(true, SeqCst);
        // SAFETY: the thread joins ours before it can end. It blocks the signal and waits for it.
        unsafe { libc::pthread_kill(self.thread, WAKE) };
    }
}

/// Waits for one of `signals`: its number and why it came.
fn next_signal(signals: &libc::sigset_t) -> Option<(i32, i32)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: both pointers are to memory that lives through the call.
    let signal = unsafe { libc::sigwaitinfo(signals, info.as_mut_ptr()) };
    // SAFETY: zeroed above: any bytes are a valid `siginfo_t`.
    let info = unsafe { info.assume_init() };
    (signal > 0 && signal != WAKE).then_some((signal, info.si_code))
}

/// The calling thread's mask and `SIGCHLD`'s disposition, put back when dropped.
struct Masked {
    before: libc::sigset_t,
    child_before: libc::sigaction,
}

impl Masked {
    /// Blocks `signals`. `SIGCHLD` must not be ignored (the kernel would reap the program for us), and
    /// must not come at each stop of a tracee.
    fn new(signals: &libc::sigset_t) -> io::Result<Self> {
        let mut before = MaybeUninit::zeroed();
        let mut child_before = MaybeUninit::zeroed();
        // SAFETY: an all-zero sigaction is the default with an empty mask.
        let mut child: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        child.sa_flags = libc::SA_NOCLDSTOP;
        // SAFETY: all pointers are to memory that lives through the calls, which fill the zeroed.
        unsafe {
            if libc::sigaction(libc::SIGCHLD, &child, child_before.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, signals, before.as_mut_ptr());
            Ok(Self {
                before: before.assume_init(),
                child_before: child_before.assume_init(),
            })
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: both values came from the same calls.
        unsafe {
            libc::sigaction(libc::SIGCHLD, &self.child_before, null_mut());
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, null_mut());
        }
    }
}

fn set<'a>(signals: impl Iterator<Item = &'a i32>) -> libc::sigset_t {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: `sigemptyset` initialises the set; every number is a signal's.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

fn host(call: &'static str) -> impl Fn(io::Error) -> HookError {
    move |cause| HookError::Host { call, cause }
}

/// Ends this process as `status` says: with the same code, or by the same signal.
pub fn die_like(status: ExitStatus) -> ! {
    if let Some(signal) = status.signal() {
        let fatal = set([signal].iter());
        let no_core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: all pointers are to memory that lives through the calls.
        unsafe {
            // The core worth keeping is the one `runsc` left.
            libc::setrlimit(libc::RLIMIT_CORE, &no_core);
            libc::signal(signal, libc::SIG_DFL);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &fatal, null_mut());
            libc::raise(signal);
        }
        // Only where the signal does not kill us (init of a PID namespace): what a shell says.
        std::process::exit(128 + signal);
    }
    std::process::exit(status.code().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_terminal_sent_is_not_doubled() {
        assert_eq!(forward(libc::SIGINT, libc::SI_KERNEL, true), Forward::No);
        assert_eq!(forward(libc::SIGINT, libc::SI_USER, true), Forward::Yes);
        assert_eq!(forward(libc::SIGTERM, libc::SI_QUEUE, false), Forward::Yes);
    }

    #[test]
    fn a_hangup_that_only_the_session_leader_hears_is_passed_on() {
        assert_eq!(forward(libc::SIGHUP, libc::SI_KERNEL, true), Forward::Yes);
        assert_eq!(forward(libc::SIGHUP, libc::SI_KERNEL, false), Forward::No);
    }
}
