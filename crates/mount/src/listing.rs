//! An open directory: what was listed of it, under positions that stay.
//!
//! A server's listing has one position and no way back to another, so what came is kept until the
//! directory is closed or rewound.

use client::{Client, Entry};
use wire::{Errno, FdId};

/// Bytes of host records asked for at a time.
const GETDENTS_BYTES: i32 = 65_536;
/// Most bytes of names kept for one open directory: some ten million entries.
const NAMES_BYTES_MAX: usize = 256 << 20;

/// What was listed so far.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    entries: Vec<Entry>,
    names_bytes: usize,
    ended: bool,
}

impl Listing {
    /// Forgets everything, so that the next entries are asked for anew.
    pub(crate) fn rewind(&mut self) {
        *self = Self::default();
    }

    /// The entry at a position, which counts from 0 after the last rewind.
    ///
    /// # Errors
    /// The server's; `NOMEM` for a directory that does not end.
    pub(crate) fn at(
        &mut self,
        position: usize,
        client: &Client,
        directory: FdId,
    ) -> Result<Option<&Entry>, Errno> {
        while position >= self.entries.len() && !self.ended {
            let count = match self.entries.is_empty() {
                true => -GETDENTS_BYTES,
                false => GETDENTS_BYTES,
            };
            let more = client
                .getdents64(directory, count)
                .map_err(|error| error.errno())?;
            self.ended = more.is_empty();
            self.keep(more)?;
        }
        Ok(self.entries.get(position))
    }

    fn keep(&mut self, more: Vec<Entry>) -> Result<(), Errno> {
        self.names_bytes += more.iter().map(|entry| entry.name.len() + 1).sum::<usize>();
        if self.names_bytes > NAMES_BYTES_MAX {
            return Err(Errno::NOMEM);
        }
        self.entries.extend(more);
        Ok(())
    }
}
