//! Taking turns and shutting down, in every order in which the threads can run (loom).
//!
//! The product's own `turns.rs` is compiled here once more, over a window and a futex that loom
//! knows: a lost wake-up shows as a deadlock, a thread that runs on for ever as too many branches.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the crate uses what the model does not"
)]

#[path = "../src/place.rs"]
mod place;
#[path = "../src/turns.rs"]
mod turns;
#[path = "../src/wait.rs"]
mod wait;

/// In place of `src/sync.rs`.
mod sync {
    use std::sync::atomic::Ordering;

    pub(crate) use loom::sync::Arc;
    use loom::sync::atomic::fence;
    pub(crate) use loom::thread::yield_now;
    pub(crate) use std::sync::atomic::Ordering::{Release, SeqCst};

    /// Loom orders atomics more loosely than `SeqCst` promises; a fence on each side makes up for it.
    fn ordered<T>(access: impl FnOnce() -> T) -> T {
        fence(SeqCst);
        let result = access();
        fence(SeqCst);
        result
    }

    #[derive(Debug)]
    pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> bool {
            ordered(|| self.0.load(order))
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            ordered(|| self.0.store(value, order));
        }
    }

    /// A word with those who wait for it to change.
    #[derive(Debug)]
    pub(crate) struct AtomicU32 {
        value: loom::sync::atomic::AtomicU32,
        queue: loom::sync::Mutex<()>,
        wakes: loom::sync::Condvar,
    }

    impl AtomicU32 {
        pub(crate) fn new(value: u32) -> Self {
            Self {
                value: loom::sync::atomic::AtomicU32::new(value),
                queue: loom::sync::Mutex::new(()),
                wakes: loom::sync::Condvar::new(),
            }
        }

        pub(crate) fn load(&self, order: Ordering) -> u32 {
            ordered(|| self.value.load(order))
        }

        pub(crate) fn store(&self, value: u32, order: Ordering) {
            ordered(|| self.value.store(value, order));
        }

        pub(crate) fn swap(&self, value: u32, order: Ordering) -> u32 {
            ordered(|| self.value.swap(value, order))
        }

        pub(crate) fn compare_exchange(
            &self,
            current: u32,
            new: u32,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u32, u32> {
            ordered(|| self.value.compare_exchange(current, new, success, failure))
        }
    }

    pub(crate) fn park_timeout(_: std::time::Duration) {
        yield_now();
    }

    /// The kernel's promise: comparing and going to sleep is one step for those who wake.
    pub(crate) mod futex {
        use rustix::io::Errno;
        pub(crate) use rustix::thread::futex::Flags;

        use super::{AtomicU32, SeqCst};

        pub(crate) fn wait(
            word: &AtomicU32,
            _: Flags,
            expected: u32,
            _forever: Option<()>,
        ) -> Result<(), Errno> {
            let queue = word.queue.lock().unwrap_or_else(|e| e.into_inner());
            if word.load(SeqCst) != expected {
                return Err(Errno::AGAIN);
            }
            drop(word.wakes.wait(queue));
            Ok(())
        }

        pub(crate) fn wake(word: &AtomicU32, _: Flags, threads: u32) -> Result<usize, Errno> {
            let _queue = word.queue.lock().unwrap_or_else(|e| e.into_inner());
            match threads {
                1 => word.wakes.notify_one(),
                _ => word.wakes.notify_all(),
            }
            Ok(0)
        }
    }
}

/// In place of `src/window.rs`: the words that turns are taken with.
mod window {
    use crate::sync::{Arc, AtomicU32};

    #[derive(Debug)]
    pub(crate) struct Mapping {
        state: AtomicU32,
        data_len: AtomicU32,
    }

    impl Mapping {
        pub(crate) fn word32(&self, at: usize) -> &AtomicU32 {
            match at {
                0 => &self.state,
                4 => &self.data_len,
                _ => panic!("no word at {at}"),
            }
        }
    }

    /// One side's view of the memory that both share.
    #[derive(Debug, Clone)]
    pub(crate) struct Window(Arc<Mapping>);

    impl Window {
        pub(crate) fn new() -> Self {
            let (state, data_len) = (AtomicU32::new(0), AtomicU32::new(0));
            Self(Arc::new(Mapping { state, data_len }))
        }

        pub(crate) fn mapping(&self) -> &Mapping {
            &self.0
        }

        pub(crate) fn datagram_bytes_max(&self) -> usize {
            4096
        }
    }
}

use loom::thread::spawn;
use turns::{ChannelError, Side, Turns};
use wait::Wait;
use window::Window;

const CLIENT_ACTIVE: u32 = 0;
const SERVER_ACTIVE: u32 = 1;

/// Every order with up to three switches away from a thread that could have gone on.
fn in_every_order(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

fn sides() -> (Window, Turns, Turns) {
    let window = Window::new();
    let client = Turns::new(window.clone(), Side::Client, Wait::asleep());
    let server = Turns::new(window.clone(), Side::Server, Wait::asleep());
    (window, client, server)
}

#[test]
fn a_request_is_received_and_so_is_its_reply() {
    in_every_order(|| {
        let (_, mut client, mut server) = sides();
        let serve = spawn(move || {
            assert_eq!(server.receive(), Ok(7));
            assert_eq!(server.hand_over(9), Ok(()));
            // Kept, because dropping it shuts the channel down.
            server
        });
        assert_eq!(client.hand_over(7), Ok(()));
        assert_eq!(client.receive(), Ok(9));
        serve.join().expect("the server");
    });
}

#[test]
fn a_side_that_waits_is_woken_when_it_is_closed_from_another_thread() {
    in_every_order(|| {
        let (_, _client, mut server) = sides();
        let closer = server.closer();
        let serve = spawn(move || assert_eq!(server.receive(), Err(ChannelError::ShutDown)));
        assert!(closer.close(), "the thread has left its wait");
        serve.join().expect("the server");
    });
}

#[test]
fn both_sides_end_when_one_is_closed_while_it_is_being_asked() {
    in_every_order(|| {
        let (_, mut client, mut server) = sides();
        let closer = server.closer();
        let serve = spawn(
            move || {
                while server.receive().is_ok() && server.hand_over(4).is_ok() {}
            },
        );
        let close = spawn(move || assert!(closer.close()));
        let asked = client.hand_over(7);
        let answered = asked.and_then(|()| client.receive());
        assert!(
            matches!(answered, Ok(4) | Err(ChannelError::ShutDown)),
            "{answered:?}"
        );
        close.join().expect("the closer");
        serve.join().expect("the server");
    });
}

#[test]
fn a_side_ends_when_it_is_closed_though_the_peer_takes_the_shut_down_back() {
    in_every_order(|| {
        let (window, client, mut server) = sides();
        let closer = server.closer();
        let serve = spawn(move || assert!(server.receive().is_err()));
        let hostile = spawn(move || {
            window
                .mapping()
                .word32(0)
                .store(CLIENT_ACTIVE, sync::SeqCst);
        });
        assert!(closer.close(), "the thread has left its wait");
        serve.join().expect("the server");
        hostile.join().expect("the hostile peer");
        drop(client);
    });
}

#[test]
fn a_side_that_the_peer_drops_does_not_wait_for_ever() {
    in_every_order(|| {
        let (_, client, mut server) = sides();
        let serve = spawn(move || assert_eq!(server.receive(), Err(ChannelError::ShutDown)));
        drop(client);
        serve.join().expect("the server");
    });
}

#[test]
fn a_state_that_does_not_exist_ends_the_channel_for_both() {
    in_every_order(|| {
        let (window, mut client, mut server) = sides();
        window.mapping().word32(0).store(77, sync::SeqCst);
        let serve = spawn(move || server.receive());
        let error = client.receive();
        assert!(error.is_err());
        let served = serve.join().expect("the server");
        assert!(served.is_err(), "{served:?}");
        assert_ne!(window.mapping().word32(0).load(sync::SeqCst), SERVER_ACTIVE);
    });
}
