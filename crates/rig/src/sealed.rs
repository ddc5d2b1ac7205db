//! The other way to serve: a real gofer, started by [`crate::parent`], confined and sealed.
//!
//! `RIG_GOFER` names its binary. Then every test that uses a [`crate::Rig`] is a test of that
//! process, its jail included, and not of a thread of the test's own.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::process::Pid;
use serde_json::json;
use server::Policy;

use crate::parent::{Dialect, Ended, Parent, write_bundle};
use crate::{Setup, must};

/// Names the gofer to test, if it is not the test's own process that serves.
const VARIABLE: &str = "RIG_GOFER";

/// The gofer to test, if it can serve this: its root is a directory, and no flag sets limits.
pub(crate) fn wanted(tree: &Path, setup: &Setup) -> Option<PathBuf> {
    let gofer = std::env::var_os(VARIABLE)?;
    let usual = Policy::default();
    let by_flags = setup.policy.ids_max == usual.ids_max
        && setup.policy.descriptors_max == usual.descriptors_max
        && setup.policy.channels_max == usual.channels_max
        && tree.is_dir();
    by_flags.then(|| gofer.into())
}

/// Starts it; the client's socket, its process id, and who waits for its end.
pub(crate) fn serve(gofer: &Path, tree: &Path, setup: &Setup) -> (OwnedFd, Pid, JoinHandle<()>) {
    let bundle = must(tempfile::tempdir(), "a bundle");
    let written = write_bundle(bundle.path(), tree, setup.readonly, &json!([]));
    must(written, "config.json");
    let log = bundle.path().join("log");
    let mut parent = Parent::new(gofer, Dialect::V2026_08, bundle.path(), &["lisafs:none"])
        .debug_log(must(std::fs::File::create(&log), "a log"));
    for flag in flags(setup) {
        parent = parent.flag(&flag);
    }
    let mut gofer = must(parent.start(), "the gofer (only root can start one)");
    gofer.release();
    let list = must(gofer.mounts(), "the list of mounts");
    let log = move || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(!list.is_empty(), "the gofer's set-up failed:\n{}", log());
    let socket = must(gofer.take_socket(), "the connection");
    gofer.sentry_exit = None;
    let pid = gofer.pid;
    let wait = move || {
        let ended = must(gofer.wait(), "the gofer's end");
        assert_eq!(ended, Ended::Status(0), "{}", log());
        drop(bundle);
    };
    (socket, pid, std::thread::spawn(wait))
}

fn flags(setup: &Setup) -> [String; 4] {
    let uds = match (setup.policy.host_uds.open, setup.policy.host_uds.create) {
        (false, false) => "none",
        (true, false) => "open",
        (false, true) => "create",
        (true, true) => "all",
    };
    let fifo = if setup.policy.host_fifo {
        "open"
    } else {
        "none"
    };
    let devices = if setup.character_devices {
        "passthrough"
    } else {
        "emulated-only"
    };
    [
        format!("--host-uds={uds}"),
        format!("--host-fifo={fifo}"),
        format!("--directfs={}", setup.policy.donate_mount),
        format!("--character-device-policy={devices}"),
    ]
}
