//! Whose turn it is in a window: the state word, its futex, and shutting down.
//!
//! Belongs here: waiting, handing over, waking. Belongs elsewhere: what a datagram contains
//! (`endpoint`), how long to spin (`wait`).
//! Must hold: the state word is the peer's to scribble on. Whether *we* have shut down is known from
//! private memory only.

use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

use crate::sync::{Arc, AtomicBool, AtomicU32, Release, SeqCst, futex, park_timeout, yield_now};
use crate::wait::Wait;
use crate::window::Window;

const STATE_AT: usize = 0;
const DATA_LEN_AT: usize = 4;
const CLIENT_ACTIVE: u32 = 0;
const SERVER_ACTIVE: u32 = 1;
const SHUT_DOWN: u32 = 2;

/// Wake-ups sent to a local thread that waits before giving it up. One is enough unless it is still
/// on its way into the wait, or the machine is busy, or the peer has moved our waiter to another
/// futex, out of our reach (`FUTEX_REQUEUE`).
const CLOSE_WAKES_MAX: u32 = 1000;
/// After this many wake-ups we pause between them: a second in all, then the thread is lost.
const CLOSE_WAKES_QUICK: u32 = 100;
const CLOSE_PAUSE: Duration = Duration::from_millis(1);

/// Why a channel ended, or a message did not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// Either side shut the channel down.
    #[error("the channel is shut down")]
    ShutDown,
    /// The peer wrote a state that does not exist, or one that was not its to write.
    #[error("the peer wrote the state {0}")]
    State(u32),
    /// The peer announced a datagram shorter than its header or longer than the window.
    #[error("the peer announced a datagram of {0} bytes")]
    Length(u32),
    /// The peer's part of the handshake is neither a JSON object nor `null`.
    #[error("the peer's handshake is malformed")]
    Handshake,
    /// Our own message does not fit. Nothing was written; it is still our turn.
    #[error("the message does not fit into the window")]
    TooLong,
    /// The host refused a call on the channel's own descriptors or memory.
    #[error("the host refused: {0}")]
    Host(#[from] Errno),
}

/// The side of a channel, by the state in which it may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    fn own(self) -> u32 {
        match self {
            Self::Client => CLIENT_ACTIVE,
            Self::Server => SERVER_ACTIVE,
        }
    }

    fn other(self) -> u32 {
        match self {
            Self::Client => SERVER_ACTIVE,
            Self::Server => CLIENT_ACTIVE,
        }
    }
}

/// What an endpoint and those who may close it share.
#[derive(Debug)]
struct Shared {
    window: Window,
    side: Side,
    /// Set once, by us, never read from the window.
    closed: AtomicBool,
    /// The endpoint's thread is in a futex wait, or about to enter one.
    asleep: AtomicBool,
}

impl Shared {
    fn state(&self) -> &AtomicU32 {
        self.window.mapping().word32(STATE_AT)
    }

    /// How many threads it woke: none if nobody slept.
    fn wake(&self, threads: u32) -> usize {
        // Nothing can be done about an error, and none is documented for a mapped, aligned word.
        futex::wake(self.state(), futex::Flags::empty(), threads).unwrap_or(0)
    }

    fn close(&self) -> bool {
        self.closed.store(true, SeqCst);
        let left = self.rouse();
        // Last, so that a state the peer wrote while our thread left is replaced too.
        if self.state().swap(SHUT_DOWN, SeqCst) != SHUT_DOWN {
            self.wake(i32::MAX as u32);
        }
        left
    }

    /// Wakes the endpoint's thread until it has left its wait. More than one wake-up may be needed:
    /// it may still be on its way into the wait.
    fn rouse(&self) -> bool {
        for wakes in 0..CLOSE_WAKES_MAX {
            if !self.asleep.load(SeqCst) {
                return true;
            }
            self.state().swap(SHUT_DOWN, SeqCst);
            self.wake(i32::MAX as u32);
            // Parking needs no system call that mutexes do not need too.
            if wakes < CLOSE_WAKES_QUICK {
                yield_now()
            } else {
                park_timeout(CLOSE_PAUSE)
            }
        }
        !self.asleep.load(SeqCst)
    }
}

/// Shuts one endpoint down, from any thread.
#[derive(Debug, Clone)]
pub struct Closer {
    shared: Arc<Shared>,
}

impl Closer {
    /// Shuts the channel down and wakes both sides. Later operations of the endpoint fail with
    /// [`ChannelError::ShutDown`].
    ///
    /// Returns whether the endpoint's thread is out of its wait. It may not be if the peer is
    /// hostile enough to move our waiter elsewhere (`FUTEX_REQUEUE`): do not join it then. The
    /// window stays mapped until that thread is gone.
    pub fn close(&self) -> bool {
        self.shared.close()
    }
}

/// One side's place in the exchange.
#[derive(Debug)]
pub(crate) struct Turns {
    shared: Arc<Shared>,
    wait: Wait,
}

impl Turns {
    pub(crate) fn new(window: Window, side: Side, wait: Wait) -> Self {
        let (closed, asleep) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            shared: Arc::new(Shared {
                window,
                side,
                closed,
                asleep,
            }),
            wait,
        }
    }

    pub(crate) fn window(&self) -> &Window {
        &self.shared.window
    }

    pub(crate) fn closer(&self) -> Closer {
        Closer {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Ends the channel because of `error`, so that the peer does not wait for ever.
    pub(crate) fn end(&self, error: ChannelError) -> ChannelError {
        self.shared.close();
        error
    }

    /// Waits for our turn; the length of the datagram that is ours to read now, within the window.
    pub(crate) fn receive(&mut self) -> Result<usize, ChannelError> {
        let shared = Arc::as_ref(&self.shared);
        let turned = || shared.state().load(SeqCst) != shared.side.other();
        if !turned() && !self.wait.spin(turned) {
            let begun = self.wait.begin();
            shared.sleep()?;
            self.wait.slept(begun);
        }
        shared.owned().map_err(|error| self.end(error))?;
        let data_len = shared.window.mapping().word32(DATA_LEN_AT).load(SeqCst);
        match usize::try_from(data_len) {
            Ok(bytes) if bytes <= shared.window.datagram_bytes_max() => Ok(bytes),
            _ => Err(self.end(ChannelError::Length(data_len))),
        }
    }

    /// Ends our turn: the datagram of `data_len` bytes is the peer's to read.
    pub(crate) fn hand_over(&mut self, data_len: u32) -> Result<(), ChannelError> {
        let shared = Arc::as_ref(&self.shared);
        if shared.closed.load(SeqCst) {
            return Err(ChannelError::ShutDown);
        }
        shared
            .window
            .mapping()
            .word32(DATA_LEN_AT)
            .store(data_len, Release);
        let (own, other) = (shared.side.own(), shared.side.other());
        match shared.state().compare_exchange(own, other, SeqCst, SeqCst) {
            Ok(_) => {
                // Always: the word does not tell whether the peer sleeps.
                let woken = shared.wake(1) > 0;
                self.wait.answered(woken);
                Ok(())
            }
            Err(SHUT_DOWN) => Err(ChannelError::ShutDown),
            Err(state) => Err(self.end(ChannelError::State(state))),
        }
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    /// Sleeps until the state is no longer the other's, or we are closed.
    fn sleep(&self) -> Result<(), ChannelError> {
        let other = self.side.other();
        self.asleep.store(true, SeqCst);
        let mut result = Ok(());
        // `closed` is looked at after `asleep` was set: a closer either sees us or is seen by us.
        while result.is_ok() && !self.closed.load(SeqCst) && self.state().load(SeqCst) == other {
            result = match futex::wait(self.state(), futex::Flags::empty(), other, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
                Err(errno) => Err(ChannelError::Host(errno)),
            };
        }
        self.asleep.store(false, SeqCst);
        result
    }

    /// Whether the turn is ours.
    fn owned(&self) -> Result<(), ChannelError> {
        if self.closed.load(SeqCst) {
            return Err(ChannelError::ShutDown);
        }
        match self.state().load(SeqCst) {
            state if state == self.side.own() => Ok(()),
            SHUT_DOWN => Err(ChannelError::ShutDown),
            state => Err(ChannelError::State(state)),
        }
    }
}
