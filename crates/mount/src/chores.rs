//! What no request waits for: closing ids, and asking the kernel to forget files when there are too
//! many. One thread, which ends when nobody can give it work any more.
//!
//! Must hold: only this thread asks the kernel to forget. The kernel may hold a directory's lock
//! until a request is answered, so a thread that answers requests must not wait for it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use client::Client;
use fuser::{INodeNo, Notifier};
use wire::FdId;

use crate::nodes::Nodes;

/// Ids in one Close, as other clients have it.
const CLOSE_IDS_MAX: usize = 100;

/// How long something may wait for more of its kind.
const GATHER: Duration = Duration::from_millis(1);

/// Something to do.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Close an id.
    Close(FdId),
    /// Ask the kernel to forget up to that many files.
    Shed(usize),
}

pub(crate) struct Worker {
    pub(crate) client: Arc<Client>,
    /// Known once the kernel is connected.
    pub(crate) notifier: Arc<OnceLock<Notifier>>,
    /// Weak, since the table can give us work.
    pub(crate) nodes: Weak<Nodes>,
}

impl Worker {
    pub(crate) fn start(self, chores: Receiver<Chore>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("chores".to_owned())
            .spawn(move || self.run(&chores))
    }

    fn run(&self, chores: &Receiver<Chore>) {
        let mut ids = Vec::with_capacity(CLOSE_IDS_MAX);
        while let Ok(first) = chores.recv() {
            // Ids come one by one, as the kernel forgets; a request and two wake-ups for each cost more
            // than what is done with them.
            std::thread::sleep(GATHER);
            let mut shed = 0;
            for chore in std::iter::once(first).chain(chores.try_iter().take(CLOSE_IDS_MAX - 1)) {
                match chore {
                    Chore::Close(id) => ids.push(id),
                    Chore::Shed(count) => shed = shed.max(count),
                }
            }
            // Fails only with the connection, and then every id is gone.
            _ = self.client.close(&ids);
            ids.clear();
            self.shed(shed);
        }
    }

    fn shed(&self, count: usize) {
        let (Some(nodes), Some(notifier)) = (self.nodes.upgrade(), self.notifier.get()) else {
            return;
        };
        let idle = match count {
            0 => Vec::new(),
            count => nodes.idle(count),
        };
        drop(nodes);
        for (directory, name) in idle {
            // A kernel that does not know the name any more has forgotten the file already.
            _ = notifier.inval_entry(INodeNo(directory), OsStr::from_bytes(&name));
        }
    }
}
