//! One connection: a mount, the ids its client holds, the channels it has asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use channel::{Closer, WindowFile};
use host::{DescriptorDir, errno};
use std::os::fd::{BorrowedFd, OwnedFd};
use wire::{Errno, Mid, limits};

use crate::budget::Budget;
use crate::options::{ConnectAs, Mount, MountPoints, Options, Policy};
use crate::serve;
use crate::table::FdTable;

/// Bytes of a serving thread's stack; what it never touches costs nothing.
const STACK_BYTES: usize = 256 << 10;

/// Slot of the counters that holds when the first `Mount` was answered, in microseconds of the
/// monotonic clock. The slots of message ids count requests.
pub const FIRST_MOUNT_SLOT: usize = 64;

/// A connection and everything its client may use.
pub(crate) struct Connection {
    options: Arc<Options>,
    pub(crate) mount: Mount,
    pub(crate) fds: FdTable,
    /// Longest payload in either direction, in bytes.
    message_bytes_max: u32,
    closing: AtomicBool,
    channels: Mutex<Channels>,
}

#[derive(Default)]
struct Channels {
    /// One memory file for all windows, made with the first.
    file: Option<WindowFile>,
    made: usize,
    threads: Vec<(Closer, JoinHandle<()>)>,
}

/// What the client of a new channel gets.
pub(crate) struct NewChannel {
    pub(crate) file: OwnedFd,
    pub(crate) socket: OwnedFd,
    pub(crate) offset: i64,
    pub(crate) length: u64,
}

impl Connection {
    pub(crate) fn new(options: Arc<Options>, mount: Mount, budget: Budget) -> Arc<Self> {
        let page_bytes = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        Arc::new(Self {
            options,
            mount,
            fds: FdTable::new(budget),
            message_bytes_max: limits::payload_bytes_max(page_bytes),
            closing: AtomicBool::new(false),
            channels: Mutex::default(),
        })
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.options.policy
    }

    pub(crate) fn descriptors(&self) -> &DescriptorDir {
        &self.options.descriptors
    }

    pub(crate) fn mount_points(&self) -> &MountPoints {
        &self.options.mount_points
    }

    pub(crate) fn connect_as(&self) -> Option<&ConnectAs> {
        self.options.connect_as.as_ref()
    }

    pub(crate) const fn max_message_size(&self) -> u32 {
        self.message_bytes_max
    }

    pub(crate) const fn payload_bytes_max(&self) -> usize {
        self.message_bytes_max as usize
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn count(&self, mid: Mid) {
        if let Some(counters) = &self.options.counters {
            let slot = usize::from(mid.0);
            counters.add(if slot < Mid::COUNT { slot } else { 0 }, 1);
        }
    }

    /// The first `Mount` of the process marks the end of its start-up.
    pub(crate) fn mounted(&self) {
        if let Some(counters) = &self.options.counters
            && counters.load(FIRST_MOUNT_SLOT) == 0
        {
            counters.add(FIRST_MOUNT_SLOT, microseconds());
        }
    }

    pub(crate) fn observe(&self, mid: Mid, result: Result<(), Errno>) {
        if let Some(observer) = &self.options.observer {
            observer(&self.mount, mid, result);
        }
    }

    /// What an errno of the host means for a request that wants to change `dir`: the host calls a
    /// deleted directory missing, the protocol calls it invalid.
    pub(crate) fn creation_errno(&self, dir: BorrowedFd<'_>, errno: Errno) -> Errno {
        if errno == Errno::NOENT && host::attr::is_unlinked(dir) == Ok(true) {
            return Errno::INVAL;
        }
        errno
    }

    /// Makes a channel and the thread that serves it.
    ///
    /// # Errors
    /// `NOMEM` if the client has had as many as it may, or no thread is to be had; `NOSYS` if the
    /// connection is closing; otherwise the host's.
    pub(crate) fn add_channel(self: &Arc<Self>) -> Result<NewChannel, Errno> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closing() {
            return Err(Errno::NOSYS);
        }
        if channels.made >= self.policy().channels_max {
            return Err(Errno::NOMEM);
        }
        channels.made += 1;
        let file = match &channels.file {
            Some(file) => file,
            None => channels.file.insert(WindowFile::new().map_err(errno)?),
        };
        let (endpoint, offer) =
            channel::Server::open(file, self.options.wait.clone()).map_err(errno)?;
        let closer = endpoint.closer();
        let conn = Arc::clone(self);
        let thread = Builder::new()
            .name("channel".into())
            .stack_size(STACK_BYTES)
            .spawn(move || serve::channel(&conn, endpoint))
            .map_err(|_| Errno::NOMEM)?;
        channels.threads.push((closer, thread));
        Ok(NewChannel {
            file: offer.memory,
            socket: offer.fd_socket,
            offset: i64::try_from(offer.offset).map_err(|_| Errno::NOMEM)?,
            length: offer.bytes,
        })
    }

    /// Ends the connection: late requests are refused, channels shut down, their threads awaited.
    pub(crate) fn close(&self) {
        let threads = {
            let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            self.closing.store(true, Ordering::Release);
            std::mem::take(&mut channels.threads)
        };
        let ended: Vec<_> = threads
            .into_iter()
            .map(|(closer, thread)| (closer.close(), thread))
            .collect();
        for (woken, thread) in ended {
            // A thread that the client keeps asleep ends by itself once woken; nobody waits for it.
            if woken {
                let _panicked = thread.join();
            }
        }
    }
}

/// Microseconds of the monotonic clock, as `gofer do --stats` compares them.
fn microseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000) + u64::try_from(now.tv_nsec / 1000).unwrap_or(0)
}
