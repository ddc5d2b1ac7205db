//! Where the process spends its processor time: its stack, a hundred times in each second of it.
//!
//! Belongs here: the timer, its signal, and what the handler notes down. Belongs elsewhere: what
//! becomes of it (the binary's `profile`).
//! Must hold: nothing of this exists in a process that nobody profiles; the handler takes no lock,
//! allocates nothing and makes no system call, since it interrupts any code at all; the sealed
//! process needs no call for it that it would not have otherwise.

#![allow(
    unsafe_code,
    reason = "signal handlers, timers and unwinding have no safe wrapper"
)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use rustix::io::Errno;

/// Processor time from one sample to the next.
pub const PERIOD_NANOSECONDS: u64 = 10_000_000;
/// Innermost calls that are kept of each stack.
pub const FRAMES_MAX: usize = 48;
/// Samples that wait to be fetched; later ones are counted and lost. Two seconds of five threads.
const SLOTS: usize = 1024;

/// A slot's states: free, being written by one handler, to be fetched.
const FREE: u8 = 0;
const CLAIMED: u8 = 1;
const READY: u8 = 2;

struct Slot {
    state: AtomicU8,
    frames: AtomicUsize,
    addresses: [AtomicU64; FRAMES_MAX],
}

/// What handlers write and one thread reads.
struct Buffer {
    slots: Box<[Slot]>,
    next: AtomicUsize,
    lost: AtomicU64,
}

static BUFFER: OnceLock<Buffer> = OnceLock::new();

/// The samples of this process.
#[derive(Debug, Clone, Copy)]
pub struct Sampler(());

impl Sampler {
    /// Starts the timer. Once, and before the seal, which forbids what it takes.
    ///
    /// # Errors
    /// The host's errno; `ALREADY` the second time.
    pub fn start() -> Result<Sampler, Errno> {
        BUFFER.set(Buffer::default()).map_err(|_| Errno::ALREADY)?;
        // What the unwinder sets up the first time must not happen in a handler.
        let mut frames = Frames::default();
        frames.unwind();
        install_handler()?;
        let period = libc::timeval {
            tv_sec: 0,
            tv_usec: (PERIOD_NANOSECONDS / 1000).cast_signed(),
        };
        let timer = libc::itimerval {
            it_interval: period,
            it_value: period,
        };
        // SAFETY: `timer` lives; the old value is not asked for.
        let set =
            unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
        outcome(set)?;
        Ok(Sampler(()))
    }

    /// Hands over the stacks noted down since the last time: each the addresses of instructions,
    /// innermost first, and at least one.
    pub fn fetch(self, mut each: impl FnMut(&[u64])) {
        let slots = BUFFER.get().map(|buffer| &buffer.slots[..]);
        for slot in slots.into_iter().flatten() {
            if slot.state.load(Ordering::Acquire) != READY {
                continue;
            }
            let mut stack = [0; FRAMES_MAX];
            let frames = slot.frames.load(Ordering::Relaxed).min(FRAMES_MAX);
            for (to, from) in stack.iter_mut().zip(&slot.addresses) {
                *to = from.load(Ordering::Relaxed);
            }
            slot.state.store(FREE, Ordering::Release);
            each(&stack[..frames]);
        }
    }

    /// Samples for which there was no room.
    pub fn lost(self) -> u64 {
        BUFFER
            .get()
            .map_or(0, |buffer| buffer.lost.load(Ordering::Relaxed))
    }
}

impl Default for Buffer {
    fn default() -> Self {
        let slot = || Slot {
            state: AtomicU8::new(FREE),
            frames: AtomicUsize::new(0),
            addresses: [const { AtomicU64::new(0) }; FRAMES_MAX],
        };
        Self {
            slots: (0..SLOTS).map(|_| slot()).collect(),
            next: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        }
    }
}

impl Buffer {
    fn put(&self, stack: &[u64]) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % SLOTS;
        let slot = self.slots.get(at).filter(|slot| {
            let (free, mine) = (FREE, CLAIMED);
            let claimed =
                slot.state
                    .compare_exchange(free, mine, Ordering::Acquire, Ordering::Relaxed);
            claimed.is_ok()
        });
        let Some(slot) = slot else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        for (to, from) in slot.addresses.iter().zip(stack) {
            to.store(*from, Ordering::Relaxed);
        }
        slot.frames.store(stack.len(), Ordering::Relaxed);
        slot.state.store(READY, Ordering::Release);
    }
}

fn install_handler() -> Result<(), Errno> {
    // SAFETY: all zeroes is a valid `sigaction`: no flags, nothing blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler =
        note as extern "C" fn(libc::c_int, *const libc::siginfo_t, *const libc::ucontext_t);
    action.sa_sigaction = handler as libc::sighandler_t;
    // A call that waits goes on waiting.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: `action` lives, and its handler only does what one may.
    outcome(unsafe { libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()) })
}

fn outcome(returned: libc::c_int) -> Result<(), Errno> {
    if returned == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

extern "C" fn note(
    _signal: libc::c_int,
    _info: *const libc::siginfo_t,
    context: *const libc::ucontext_t,
) {
    let Some(buffer) = BUFFER.get() else {
        return;
    };
    // SAFETY: with SA_SIGINFO the kernel passes the interrupted registers.
    let interrupted = unsafe { instruction(&*context) };
    let mut frames = Frames {
        from: interrupted,
        ..Frames::default()
    };
    frames.unwind();
    if frames.count == 0 {
        // Nothing says how to get from there to its caller.
        frames.addresses[0] = interrupted;
        frames.count = 1;
    }
    buffer.put(&frames.addresses[..frames.count]);
}

/// The instruction that was to be next.
#[cfg(target_arch = "x86_64")]
fn instruction(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned()
}

/// The instruction that was to be next.
#[cfg(target_arch = "aarch64")]
fn instruction(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.pc
}

/// A stack on its way into the buffer.
#[repr(C)]
struct Frames {
    /// Calls further in than this one are the handler's.
    from: u64,
    count: usize,
    addresses: [u64; FRAMES_MAX],
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            from: 0,
            count: 0,
            addresses: [0; FRAMES_MAX],
        }
    }
}

/// What the unwinder says to go on, and any other value to stop.
const GO_ON: libc::c_int = 0;
const STOP: libc::c_int = 5;

/// The unwinder's own.
#[repr(C)]
struct UnwindContext {
    _private: [u8; 0],
}

type EachFrame = extern "C" fn(*mut UnwindContext, *mut Frames) -> libc::c_int;

// The unwinder that panics use. It reads the program's own tables and the stack and does not
// allocate; the one lock it takes, of the list of loaded objects, is held by nobody but threads that
// unwind, and the same thread may take it again.
unsafe extern "C" {
    fn _Unwind_Backtrace(each: EachFrame, argument: *mut Frames) -> libc::c_int;
    fn _Unwind_GetIP(context: *mut UnwindContext) -> usize;
}

impl Frames {
    fn unwind(&mut self) {
        // SAFETY: `each` has the type that is called back, with the pointer given here, only
        // before the call returns.
        unsafe { _Unwind_Backtrace(each, std::ptr::from_mut(self)) };
    }

    fn take(&mut self, address: u64) -> libc::c_int {
        if self.count == 0 && address != self.from {
            return GO_ON;
        }
        if address == 0 {
            // What the outermost function of a thread returns to.
            return STOP;
        }
        let Some(to) = self.addresses.get_mut(self.count) else {
            return STOP;
        };
        // A caller's address is where it goes on: the call is before that.
        *to = address.saturating_sub(u64::from(self.count > 0));
        self.count += 1;
        GO_ON
    }
}

extern "C" fn each(context: *mut UnwindContext, frames: *mut Frames) -> libc::c_int {
    // SAFETY: both are what the unwinder was given or gives; nobody else uses `frames` meanwhile.
    unsafe { (*frames).take(_Unwind_GetIP(context) as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_fetched_once_and_what_has_no_room_is_counted() {
        let buffer = Buffer::default();
        for number in 0..SLOTS as u64 + 3 {
            buffer.put(&[number, 7]);
        }
        assert_eq!(buffer.lost.load(Ordering::Relaxed), 3);
        let sampler = Sampler(());
        assert!(BUFFER.set(buffer).is_ok());
        let mut stacks = Vec::new();
        sampler.fetch(|stack| stacks.push(stack.to_vec()));
        assert_eq!(stacks.len(), SLOTS);
        assert_eq!(stacks[5], [5, 7]);
        sampler.fetch(|stack| panic!("{stack:?} twice"));
        assert_eq!(sampler.lost(), 3);
    }

    #[test]
    fn the_stack_that_was_interrupted_starts_where_it_was_and_names_calls() {
        let mut frames = Frames {
            from: 3,
            ..Frames::default()
        };
        assert_eq!(frames.take(1), GO_ON);
        assert_eq!(frames.take(3), GO_ON);
        assert_eq!(frames.take(9), GO_ON);
        assert_eq!(frames.take(0), STOP);
        assert_eq!(frames.addresses[..frames.count], [3, 8]);
        frames.count = FRAMES_MAX;
        assert_eq!(frames.take(9), STOP);
    }
}
