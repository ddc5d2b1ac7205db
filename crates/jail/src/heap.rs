//! The C library's heap, told beforehand what it would otherwise find out by opening files.
//!
//! glibc reads `/proc/sys/vm/overcommit_memory` when a thread's heap first shrinks, and before
//! 2.33 `/sys/devices/system/cpu/online` when threads first share heaps: paths, which no thread
//! of a sealed process may open. So its heaps never shrink by themselves; large buffers are
//! mappings of their own and go back to the kernel when freed, whatever is decided here.
#![allow(unsafe_code, reason = "mallopt has no safe form")]

use crate::Error;

/// How many heaps threads share. Each grows to the most that its threads ever held at a time and
/// stays there, so with many of them a process that serves for hours grows for hours. A request in
/// the steady state takes little from a heap, and that from its thread's own cache.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;
/// Larger pieces are mappings of their own, in bytes: the buffers of messages, which would leave
/// holes of many sizes in a heap. They live as long as their thread.
#[cfg(target_env = "gnu")]
const PIECE_BYTES_MAX: i32 = 16 << 10;

/// Settles it, while nothing else runs.
///
/// # Errors
/// The C library does not know one of its own parameters.
#[cfg(target_env = "gnu")]
pub(crate) fn settle() -> Result<(), Error> {
    // Longer than a thread's heap can be.
    for (parameter, value) in [
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_ARENA_MAX, HEAPS),
        (libc::M_MMAP_THRESHOLD, PIECE_BYTES_MAX),
    ] {
        // SAFETY: two plain numbers; no memory is handed over.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            return Err(Error::Seal(format!("mallopt({parameter}, {value})")));
        }
    }
    Ok(())
}

/// Other C libraries open nothing.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn settle() -> Result<(), Error> {
    Ok(())
}
