//! One shared mapping of a file: the only place that turns addresses into memory.
//!
//! Belongs here: `mmap`, `munmap`, bounds, copies in and out.
//! Belongs elsewhere: what lies at which offset (`window`, `turns`, `counters`).
//! Must hold: no reference to bytes of the mapping is ever made, except to atomics.
#![allow(
    unsafe_code,
    reason = "memory that another process writes has no safe type"
)]

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Part of a file, mapped readable, writable and shared; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `base` is an address that stays mapped until drop, in every thread alike. All access goes
// through atomics or copies, which other processes race with anyway.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; methods take `&self` and make no reference to plain bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` of `file` from `offset`, a multiple of the page size.
    pub(crate) fn shared(file: BorrowedFd<'_>, offset: u64, bytes: usize) -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose free addresses, so nothing of ours is replaced.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                bytes,
                access,
                MapFlags::SHARED,
                file,
                offset,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, bytes })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The 32-bit word at `at`.
    ///
    /// # Panics
    /// If the word is misaligned or outside: `at` is always a constant of ours.
    pub(crate) fn word32(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.bytes);
        // SAFETY: in bounds and aligned (the base is page aligned), mapped as long as `self`, and
        // accessed in this process through atomics only.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// The 64-bit word at `at`; as [`Mapping::word32`].
    pub(crate) fn word64(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.bytes);
        // SAFETY: as in `word32`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// The address of `len` bytes from `at`, if all of them are inside.
    pub(crate) fn span(&self, at: usize, len: usize) -> Option<*mut u8> {
        let end = at.checked_add(len)?;
        (end <= self.bytes).then(|| self.base.as_ptr().wrapping_add(at))
    }

    /// Writes `data` at `at`; false, and nothing written, if it does not fit.
    pub(crate) fn copy_in(&self, at: usize, data: &[u8]) -> bool {
        let Some(to) = self.span(at, data.len()) else {
            return false;
        };
        // SAFETY: `span` put the target inside the mapping. `data` is private memory, because no
        // slice over the mapping exists, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
        true
    }

    /// Replaces `into` by the `len` bytes from `at`; false, and `into` empty, if they are not inside.
    pub(crate) fn copy_out(&self, at: usize, len: usize, into: &mut Vec<u8>) -> bool {
        into.clear();
        let Some(from) = self.span(at, len) else {
            return false;
        };
        into.reserve(len);
        // SAFETY: `span` put the source inside the mapping, `reserve` made room in private memory,
        // so they do not overlap. The peer can race us: every byte copied is still a valid `u8`.
        unsafe {
            ptr::copy_nonoverlapping(from, into.as_mut_ptr(), len);
            into.set_len(len);
        }
        // The compiler may not replace a later look at the copy by a second look at the window.
        compiler_fence(Ordering::SeqCst);
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let base: *mut c_void = self.base.as_ptr().cast();
        // SAFETY: exactly what `mmap` gave, and nobody borrows from it: `self` is being dropped.
        // An error (there is none to expect) would only leave it mapped.
        _ = unsafe { munmap(base, self.bytes) };
    }
}
