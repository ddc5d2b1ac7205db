//! Mounts that only one test sees.
#![allow(
    unsafe_code,
    reason = "a thread's own mount namespace has no safe form"
)]

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::must;

/// Runs the body on a thread with a mount namespace of its own, which ends with it. Gofers that it
/// starts see its mounts.
///
/// # Panics
/// Without privileges, or with the body.
pub fn in_own_mounts(body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let flags = UnshareFlags::NEWNS | UnshareFlags::FS;
            // SAFETY: only this thread's root, working directory and mounts become its own;
            // descriptors stay shared.
            must(unsafe { unshare_unsafe(flags) }, "a mount namespace");
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            must(mount_change("/", private), "private mounts");
            body();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
