//! Bulk data: bytes that go between a file and a message without passing through us.
//!
//! Belongs here: `pread` and `pwrite` into and out of a message, wherever that lies.
//! Belongs elsewhere: which file and which range (`server`).
#![allow(
    unsafe_code,
    reason = "the kernel gets addresses of shared memory, where no slice may be"
)]

use std::cell::RefCell;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::copy_nonoverlapping;

use rustix::io::Errno;

use crate::processor::copies_badly_to_odd_addresses;
use crate::window::{PAYLOAD_AT, Window};

/// The kernel copies a file's pages with a string instruction. Some processors
/// ([`copies_badly_to_odd_addresses`]) take far longer for that if the target is not a multiple of
/// this many bytes; for the others a second copy would be the dearer way.
const KERNEL_COPIES_WELL_AT: usize = 32;
/// Below that a detour does not pay.
const DETOUR_FROM_BYTES: usize = 512;
/// Bytes that take the detour at once: they are still in the innermost caches when they go on.
const DETOUR_BYTES: usize = 32 << 10;
/// The C library copies as little as this at once with vector moves, to any address; from twice as
/// much on it may use the same string instruction.
const VECTOR_COPY_BYTES: usize = 2 << 10;
/// Bytes that caches move at once, on all processors that matter here.
const LINE_BYTES: usize = 64;

/// Where what is read waits for its copy to an address that the kernel would be slow with.
#[derive(Debug)]
#[repr(align(64))]
struct Detour([u8; DETOUR_BYTES]);

thread_local! {
    /// Made with the first long read of a thread: most never do one.
    static DETOUR: RefCell<Option<Box<Detour>>> = const { RefCell::new(None) };
}

/// The room for one message's payload, in the window or in private memory.
#[derive(Debug)]
pub struct Bulk<'a> {
    base: *mut u8,
    bytes: usize,
    _room: PhantomData<&'a mut [u8]>,
}

impl<'a> Bulk<'a> {
    /// A payload in private memory, as the socket has it.
    #[must_use]
    pub fn private(room: &'a mut [u8]) -> Self {
        Self {
            base: room.as_mut_ptr(),
            bytes: room.len(),
            _room: PhantomData,
        }
    }

    /// The payload area of a window, while it is our turn.
    pub(crate) fn shared(window: &'a Window) -> Self {
        let bytes = window.payload_bytes_max();
        let base = window
            .mapping()
            .span(PAYLOAD_AT, bytes)
            .expect("a window has a payload area");
        Self {
            base,
            bytes,
            _room: PhantomData,
        }
    }

    /// Bytes in this room.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Says that the first `bytes` will be replaced as soon as the host has answered: the other side's
    /// CPU gives their cache lines away meanwhile, so that nobody has to wait for them then. What is in
    /// these bytes is lost.
    ///
    /// Worth it for what is answered before the client sleeps. Atomic operations wait until all lines
    /// have come, so it is for the last thing before the system call.
    pub fn claim(&mut self, bytes: usize) {
        let (mut at, bytes) = (0, bytes.min(self.bytes));
        while at < bytes {
            let byte = self.base.wrapping_add(at);
            // SAFETY: inside the room, which is borrowed mutably for us alone or shared memory that
            // nobody holds a reference to. Volatile, since a value that is written again is no use
            // to the compiler.
            unsafe { byte.write_volatile(0) };
            at += LINE_BYTES - byte.addr() % LINE_BYTES;
        }
    }

    /// Reads from `fd` at `file_offset` into the room at `at`: `len` bytes, or fewer at the end of
    /// the file or before an error.
    ///
    /// # Errors
    /// `FAULT` if the range is not inside the room, `INVAL` for a negative offset, otherwise the
    /// host's errno if it refuses the first piece.
    pub fn pread(
        &mut self,
        fd: BorrowedFd<'_>,
        at: usize,
        len: usize,
        file_offset: i64,
    ) -> Result<usize, Errno> {
        let base = self.span(at, len)?;
        let odd = !base.addr().is_multiple_of(KERNEL_COPIES_WELL_AT);
        if odd && len >= DETOUR_FROM_BYTES && copies_badly_to_odd_addresses() {
            return DETOUR.with_borrow_mut(|detour| {
                let detour = detour.get_or_insert_with(|| Box::new(Detour([0; DETOUR_BYTES])));
                pread_by_detour(fd, &mut detour.0, (base, len), file_offset)
            });
        }
        pieces(len, file_offset, |done, offset| {
            // SAFETY: `span` put all `len` bytes inside memory that lives as long as `self`, and
            // `done` is at most `len`. It is either borrowed mutably for us alone or shared memory
            // that nobody holds a reference to; the kernel writes any bytes, all valid.
            unsafe { libc::pread64(fd.as_raw_fd(), base.add(done).cast(), len - done, offset) }
        })
    }

    /// Writes the room's bytes at `at` to `fd` at `file_offset`: `len` bytes, or fewer before an
    /// error.
    ///
    /// # Errors
    /// As [`Bulk::pread`].
    pub fn pwrite(
        &self,
        fd: BorrowedFd<'_>,
        at: usize,
        len: usize,
        file_offset: i64,
    ) -> Result<usize, Errno> {
        let base = self.span(at, len)?;
        pieces(len, file_offset, |done, offset| {
            // SAFETY: as in `pread`; the kernel reads only, and initialised bytes only, since rooms
            // are made from slices and file mappings. That the peer may change them is its affair.
            unsafe { libc::pwrite64(fd.as_raw_fd(), base.add(done).cast(), len - done, offset) }
        })
    }

    fn span(&self, at: usize, len: usize) -> Result<*mut u8, Errno> {
        let end = at.checked_add(len).ok_or(Errno::FAULT)?;
        if end <= self.bytes {
            Ok(self.base.wrapping_add(at))
        } else {
            Err(Errno::FAULT)
        }
    }
}

/// Reads into `detour`, piece by piece, and copies from there to the `len` bytes at `base`, which
/// [`Bulk::span`] gave for them.
fn pread_by_detour(
    fd: BorrowedFd<'_>,
    detour: &mut [u8; DETOUR_BYTES],
    (base, len): (*mut u8, usize),
    file_offset: i64,
) -> Result<usize, Errno> {
    pieces(len, file_offset, |done, offset| {
        let wanted = (len - done).min(DETOUR_BYTES);
        // SAFETY: the kernel writes at most `wanted` bytes, which `detour` has.
        let read =
            unsafe { libc::pread64(fd.as_raw_fd(), detour.as_mut_ptr().cast(), wanted, offset) };
        let bytes = usize::try_from(read).unwrap_or(0).min(wanted);
        for at in (0..bytes).step_by(VECTOR_COPY_BYTES) {
            let piece = (bytes - at).min(VECTOR_COPY_BYTES);
            // SAFETY: `done + bytes` is at most `len`, so the target is inside the room, to which
            // nobody holds a reference; `detour` is private, so the two do not overlap.
            unsafe { copy_nonoverlapping(detour.as_ptr().add(at), base.add(done + at), piece) };
        }
        read
    })
}

/// Repeats `transfer(done, offset)` until `len` bytes are through or it makes no progress.
fn pieces(
    len: usize,
    file_offset: i64,
    mut transfer: impl FnMut(usize, i64) -> isize,
) -> Result<usize, Errno> {
    let mut done = 0;
    while done < len {
        let moved = i64::try_from(done).map_err(|_| Errno::INVAL)?;
        let Some(offset) = file_offset.checked_add(moved) else {
            break;
        };
        match usize::try_from(transfer(done, offset)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(_) => match last_errno() {
                Errno::INTR => {}
                errno if done == 0 => return Err(errno),
                _ => break,
            },
        }
    }
    Ok(done)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
