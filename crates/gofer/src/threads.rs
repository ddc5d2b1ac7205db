//! What each serving thread does first, whoever started the process.

use std::os::fd::AsFd;
use std::sync::Arc;

use jail::ThreadJail;
use server::{Mount, OnThread};

/// Confines a thread to its mount, and gives the pages back that only that and the start-up needed. Each
/// does, for it starts when its client first speaks, and no one knows which is the last.
pub(crate) fn tighten(threads: ThreadJail) -> OnThread {
    Arc::new(move |mount: &Mount| {
        let tightened = threads.tighten(mount.root.as_fd(), mount.readonly);
        tightened.map_err(|error| error.to_string())?;
        jail::pages::give_back();
        Ok(())
    })
}
