//! An open directory: what was listed of it, under positions that stay.
//!
//! A server's listing has one position and no way back to another, so what came is kept until the
//! directory is closed or rewound.

use client::{Client, Entry};
use wire::{Errno, FdId, Name};

/// Bytes of host records asked for at a time.
const GETDENTS_BYTES: i32 = 65_536;
/// Most bytes of names kept for one open directory: some ten million entries.
const NAMES_BYTES_MAX: usize = 256 << 20;

/// Bytes of the longest name that every kernel takes from a FUSE server.
const NAME_LENGTH_MAX: usize = 1024;

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
    /// The server's; `NOMEM` for a directory that does not end; `IO` for an entry whose name none can be.
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

    /// What the kernel would not take in an answer must not get there: it takes none of the entries
    /// behind it then, which we would have counted as looked up for ever. Nor `.` and `..`, which it
    /// does not count.
    fn keep(&mut self, more: Vec<Entry>) -> Result<(), Errno> {
        let taken =
            |entry: &Entry| entry.name.len() <= NAME_LENGTH_MAX && Name::new(&entry.name).is_ok();
        if !more.iter().all(taken) {
            return Err(Errno::IO);
        }
        self.names_bytes += more.iter().map(|entry| entry.name.len() + 1).sum::<usize>();
        if self.names_bytes > NAMES_BYTES_MAX {
            return Err(Errno::NOMEM);
        }
        self.entries.extend(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8]) -> Entry {
        Entry {
            ino: 1,
            dev_minor: 0,
            dev_major: 0,
            off: 0,
            kind: 8,
            name: name.to_vec(),
        }
    }

    #[test]
    fn a_listing_with_a_name_that_none_can_be_is_refused_whole() {
        let long = [b'x'; NAME_LENGTH_MAX + 1];
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &long] {
            let mut listing = Listing::default();
            let kept = listing.keep(vec![entry(b"good"), entry(name)]);
            assert_eq!(kept, Err(Errno::IO), "{}", name.escape_ascii());
            assert!(listing.entries.is_empty());
        }
        let mut listing = Listing::default();
        let names = [&b"..."[..], b"\xff\n", &long[1..]];
        assert_eq!(listing.keep(names.map(entry).to_vec()), Ok(()));
        assert_eq!(listing.entries.len(), names.len());
    }
}
