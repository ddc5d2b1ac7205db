//! A client's side of a channel that keeps no promise: it owns the window's bytes and does with
//! them what the fuzzer says.
//!
//! Must hold: waits are bounded. A server that does not react to a proper hand over is a finding.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;

/// Bytes of a window.
const WINDOW_BYTES: usize = 2 << 20;
const CLIENT_ACTIVE: u32 = 0;
const SERVER_ACTIVE: u32 = 1;
/// How long to wait at once. Waits are counted, not timed: a machine that stands still is no finding.
const WAIT: futex::Timespec = futex::Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};
/// Waits that a server may take for a proper request. Far above what a busy machine needs.
const WAITS_STUCK: u32 = 20_000;
/// Waits for a server whose window was scribbled on.
const WAITS_WILD: u32 = 20;

/// A mapped window.
#[derive(Debug)]
struct Memory {
    base: *mut u8,
}

// SAFETY: the mapping lives until drop and is only ever accessed through atomics.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at < WINDOW_BYTES);
        // SAFETY: aligned, inside the mapping, which lives as long as `self`.
        unsafe { AtomicU32::from_ptr(self.base.add(at).cast()) }
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < WINDOW_BYTES);
        // SAFETY: inside the mapping, which lives as long as `self`.
        unsafe { AtomicU8::from_ptr(self.base.add(at)) }
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        for (nth, byte) in bytes.iter().enumerate().take(WINDOW_BYTES - at) {
            self.byte(at + nth).store(*byte, Ordering::Relaxed);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: exactly what `mmap` gave; nobody borrows from `self`.
        unsafe { munmap(self.base.cast(), WINDOW_BYTES) }.expect("an unmapped window");
    }
}

/// Our side of one channel.
pub struct Peer {
    memory: Arc<Memory>,
    /// Kept so that the server can send descriptors; never read, so that it also fills up.
    _fd_socket: OwnedFd,
    /// The window was, or is being, scribbled on: nothing is promised any more.
    pub wild: bool,
    scribbler: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Peer {
    /// Maps what a Channel reply offers.
    pub fn new(memory: &OwnedFd, fd_socket: OwnedFd, offset: u64) -> Self {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let (null, shared) = (std::ptr::null_mut(), MapFlags::SHARED);
        // SAFETY: a null hint lets the kernel choose free addresses.
        let base = unsafe { mmap(null, WINDOW_BYTES, access, shared, memory, offset) };
        let base = base.expect("a window").cast();
        Self {
            memory: Arc::new(Memory { base }),
            _fd_socket: fd_socket,
            wild: false,
            scribbler: None,
        }
    }

    /// Puts any datagram into the window and any state before it, and waits for the server.
    pub fn hand_over(&mut self, state: u32, length: u32, datagram: &[u8]) {
        self.memory.put(16, datagram);
        self.memory.word(4).store(length, Ordering::SeqCst);
        self.memory.word(0).store(state, Ordering::SeqCst);
        self.wake();
        self.await_server();
    }

    /// Shakes hands as every client does.
    pub fn shake_hands(&mut self) {
        self.hand_over(SERVER_ACTIVE, 3, b"{}\n");
        assert_eq!(self.state(), CLIENT_ACTIVE, "the handshake was refused");
    }

    /// A proper request; what came back, unless nothing can be expected.
    pub fn ask(&mut self, mid: u16, payload: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut datagram = mid.to_le_bytes().to_vec();
        datagram.extend_from_slice(&[0, 0]);
        datagram.extend_from_slice(payload);
        self.hand_over(SERVER_ACTIVE, datagram.len() as u32, &datagram);
        if self.wild {
            return None;
        }
        assert_eq!(
            self.state(),
            CLIENT_ACTIVE,
            "a proper request ended the channel"
        );
        let length = self.memory.word(4).load(Ordering::SeqCst) as usize;
        assert!(
            (4..=WINDOW_BYTES - 16).contains(&length),
            "a reply of {length} bytes"
        );
        let bytes = |from: usize, to: usize| {
            let byte = |at| self.memory.byte(at).load(Ordering::Relaxed);
            (from..to).map(byte).collect::<Vec<u8>>()
        };
        let mid = u16::from_le_bytes([bytes(16, 17)[0], bytes(17, 18)[0]]);
        Some((mid, bytes(20, 16 + length)))
    }

    /// Overwrites words of the window, again and again, from another thread.
    pub fn scribble(&mut self, words: Vec<(u32, u32)>) {
        self.wild = true;
        self.rest();
        let (memory, going) = (Arc::clone(&self.memory), Arc::new(AtomicBool::new(true)));
        let go_on = Arc::clone(&going);
        let scribble = move || {
            while go_on.load(Ordering::Relaxed) {
                for &(at, value) in &words {
                    let at = at as usize % WINDOW_BYTES / 4 * 4;
                    memory.word(at).store(value, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        };
        self.scribbler = Some((going, std::thread::spawn(scribble)));
    }

    /// Stops scribbling and lets the server finish what it has read, as far as it can be seen.
    pub fn calm(&mut self) {
        self.rest();
        self.wake();
        if self.wild {
            self.await_server();
        }
    }

    fn rest(&mut self) {
        if let Some((going, thread)) = self.scribbler.take() {
            going.store(false, Ordering::Relaxed);
            thread.join().expect("the scribbler");
        }
    }

    fn state(&self) -> u32 {
        self.memory.word(0).load(Ordering::SeqCst)
    }

    fn wake(&self) {
        futex::wake(self.memory.word(0), futex::Flags::empty(), i32::MAX as u32)
            .expect("a wake-up");
    }

    fn await_server(&mut self) {
        let waits = if self.wild { WAITS_WILD } else { WAITS_STUCK };
        for _ in 0..waits {
            if self.state() != SERVER_ACTIVE {
                return;
            }
            let flags = futex::Flags::empty();
            _ = futex::wait(self.memory.word(0), flags, SERVER_ACTIVE, Some(&WAIT));
        }
        assert!(self.wild, "the server does not answer on a channel");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.rest();
    }
}
