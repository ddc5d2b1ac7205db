//! The memory that both sides of a channel share, and the file it comes from.
//!
//! Belongs here: the sealed memory file, where each window lies, checks of a foreign window.
//! Belongs elsewhere: whose turn it is in a window (`turns`), messages in it (`endpoint`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::param::page_size;

use crate::mapping::Mapping;

/// Bytes of each window: the largest payload (2 MiB less one page), its headers (20 bytes), rounded
/// up to whole pages. The same for every page size up to 2 MiB.
pub const WINDOW_BYTES: usize = 2 << 20;

/// Where a datagram starts in a window; before it lie the state, the length and 8 reserved bytes.
pub(crate) const DATAGRAM_AT: usize = 16;
/// Where a message's payload starts: after the 4-byte channel header.
pub(crate) const PAYLOAD_AT: usize = DATAGRAM_AT + HEADER_BYTES;
/// Bytes of the channel header.
pub(crate) const HEADER_BYTES: usize = 4;

/// The memory file of one connection, from which its windows are cut.
///
/// Sealed against shrinking, so that no access to a window can fault, and against further seals.
#[derive(Debug)]
pub struct WindowFile {
    file: OwnedFd,
    layout: Mutex<Layout>,
}

#[derive(Debug)]
struct Layout {
    next_window_at: u64,
    file_bytes: u64,
}

impl WindowFile {
    /// Makes an empty memory file and seals it.
    ///
    /// # Errors
    /// The host's errno; a host that refuses the seals is not worked around.
    pub fn new() -> Result<Self, Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("flipcall_packet_windows", flags)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self {
            file,
            layout: Mutex::new(Layout {
                next_window_at: 0,
                file_bytes: 0,
            }),
        })
    }

    /// Cuts the next window: its mapping and its offset in the file.
    ///
    /// # Errors
    /// The host's errno. The same place is then tried again by the next call.
    pub fn add_window(&self) -> Result<(Window, u64), Errno> {
        let mut layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        let at = layout.next_window_at;
        let end = at.checked_add(WINDOW_BYTES as u64).ok_or(Errno::NOMEM)?;
        let file_bytes = doubled_until(layout.file_bytes.max(page_size() as u64), end)?;
        if file_bytes > layout.file_bytes {
            ftruncate(&self.file, file_bytes)?;
            layout.file_bytes = file_bytes;
        }
        let window = Window {
            mapping: Mapping::shared(self.file.as_fd(), at, WINDOW_BYTES)?,
        };
        layout.next_window_at = end;
        Ok((window, at))
    }
}

impl AsFd for WindowFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn doubled_until(mut bytes: u64, end: u64) -> Result<u64, Errno> {
    while bytes < end {
        bytes = bytes.checked_mul(2).ok_or(Errno::NOMEM)?;
    }
    Ok(bytes)
}

/// One mapped window. Its last owner unmaps it.
#[derive(Debug)]
pub struct Window {
    mapping: Mapping,
}

impl Window {
    /// Maps a window that the other side offers, as a client does.
    ///
    /// # Errors
    /// `INVAL` if the length is not between one page and 2^32 − 1, the offset is no multiple of the
    /// page size, or the file is shorter; `PERM` if the file could shrink below our feet; otherwise
    /// the host's errno.
    pub fn map(file: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<Self, Errno> {
        let page = page_size() as u64;
        let end = offset.checked_add(bytes).ok_or(Errno::INVAL)?;
        if bytes < page || bytes > u64::from(u32::MAX) || !offset.is_multiple_of(page) {
            return Err(Errno::INVAL);
        }
        if !fcntl_get_seals(file)?.contains(SealFlags::SHRINK) {
            return Err(Errno::PERM);
        }
        let file_bytes = u64::try_from(fstat(file)?.st_size).map_err(|_| Errno::INVAL)?;
        let bytes = usize::try_from(bytes).map_err(|_| Errno::INVAL)?;
        if file_bytes < end {
            return Err(Errno::INVAL);
        }
        Ok(Self {
            mapping: Mapping::shared(file, offset, bytes)?,
        })
    }

    /// The longest datagram, channel header included. At least a page less 16 bytes.
    #[must_use]
    pub fn datagram_bytes_max(&self) -> usize {
        self.mapping.bytes() - DATAGRAM_AT
    }

    /// The longest payload of a message.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.mapping.bytes() - PAYLOAD_AT
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}
