//! Descriptors shared out among connections, so that one client cannot take them from the others.
//!
//! Belongs here: who may hold how many. Belongs elsewhere: what is held (`table`).
//!
//! Every id holds one descriptor. Half of what the process may have open is promised to the
//! connections in equal parts; the other half is common, first come, first served. So a container
//! whose root does all the work gets more than half of everything, and a volume whose neighbour
//! takes all it can still has its own part.

use std::sync::atomic::Ordering::Relaxed;

use wire::Errno;

use crate::options::Policy;
use crate::sync::{Arc, AtomicUsize};

/// Descriptors of the process itself: standard streams, logs, the descriptor directory, counters,
/// the broker's, what `run` waits with.
const PROCESS_DESCRIPTORS: usize = 32;
/// Descriptors of a connection itself: its socket, its mount point, the one to donate, its memory
/// file.
const CONNECTION_DESCRIPTORS: usize = 4;
/// Descriptors that a serving thread holds during one request, beyond those of ids: a file being
/// opened, its parent, two donations, and one of an id that another thread has closed meanwhile.
const THREAD_DESCRIPTORS: usize = 5;
/// What a connection is promised at least, whatever the limit: enough to start a container. Where
/// the limit is lower than that, the host's `EMFILE` decides.
pub(crate) const PROMISED_MIN: usize = 16;

/// Descriptors that belong to no connection yet.
#[derive(Debug)]
struct Common(AtomicUsize);

impl Common {
    /// # Errors
    /// `MFILE` if none is left.
    fn take(&self) -> Result<(), Errno> {
        let taken = self
            .0
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        taken.map(|_| ()).map_err(|_| Errno::MFILE)
    }

    fn give_back(&self, count: usize) {
        self.0.fetch_add(count, Relaxed);
    }
}

/// What the connections of one process share.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    common: Arc<Common>,
    promised: usize,
    ids_max: usize,
}

impl Shares {
    /// Shares out what the policy lets the process have open.
    pub(crate) fn new(policy: &Policy, connections: usize) -> Self {
        let connections = connections.max(1);
        // One thread for each channel, one for the socket; each channel has a socket of its own.
        let channels = policy.channels_max;
        let threads = channels.saturating_add(1);
        let own = threads
            .saturating_mul(THREAD_DESCRIPTORS)
            .saturating_add(channels)
            .saturating_add(CONNECTION_DESCRIPTORS);
        let all = policy
            .descriptors_max
            .saturating_sub(PROCESS_DESCRIPTORS)
            .saturating_sub(own.saturating_mul(connections));
        let promised = (all / 2 / connections).max(PROMISED_MIN);
        let common = all.saturating_sub(promised.saturating_mul(connections));
        Self {
            common: Arc::new(Common(AtomicUsize::new(common))),
            promised,
            ids_max: policy.ids_max,
        }
    }

    /// The budget of one more connection.
    pub(crate) fn budget(&self) -> Budget {
        Budget {
            shares: self.clone(),
            held: 0,
        }
    }
}

/// What one connection holds, and may hold. Dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Budget {
    shares: Shares,
    held: usize,
}

impl Budget {
    /// Counts one more id.
    ///
    /// # Errors
    /// `MFILE` if the connection holds as many as it may, or its own part is used up and nothing
    /// common is left.
    pub(crate) fn take(&mut self) -> Result<(), Errno> {
        if self.held >= self.shares.ids_max {
            return Err(Errno::MFILE);
        }
        if self.held >= self.shares.promised {
            self.shares.common.take()?;
        }
        self.held += 1;
        Ok(())
    }

    /// Counts one less.
    pub(crate) fn give_back(&mut self) {
        if self.held > self.shares.promised {
            self.shares.common.give_back(1);
        }
        self.held = self.held.saturating_sub(1);
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let beyond = self.held.saturating_sub(self.shares.promised);
        self.shares.common.give_back(beyond);
    }
}
