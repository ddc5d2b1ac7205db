//! FSync, PWrite, PRead, FAllocate.

use wire::limits::{PREAD_REPLY_FIXED_BYTES, PWRITE_FIXED_BYTES};
use wire::msg::data::{FAllocate, FSync, PRead, PReadReply, PWrite, PWriteReply};
use wire::{Array, Decode, Errno, FdId, Mid, Reader};

use crate::line::encode;
use crate::{Client, Error, Violation};

impl Client {
    /// One PRead; how many bytes of `into` were filled. 0 is the end of the file.
    ///
    /// # Errors
    /// The server's errno (`NOBUFS` if `into` is longer than a message), or what it did wrong.
    pub fn pread(&self, open: FdId, offset: u64, into: &mut [u8]) -> Result<usize, Error> {
        let count = u32::try_from(into.len()).map_err(|_| Errno::NOBUFS)?;
        let request = PRead {
            offset,
            open,
            count,
        };
        self.ask(
            Mid::PREAD,
            |out| encode(&request, out),
            |payload, _| {
                let mut reader = Reader::new(payload);
                let told = PReadReply::decode(&mut reader)?.num_bytes;
                let bytes = usize::try_from(told).map_err(|_| Violation::TooMany)?;
                let room = into.get_mut(..bytes).ok_or(Violation::TooMany)?;
                room.copy_from_slice(reader.bytes(bytes)?);
                Ok(bytes)
            },
        )
    }

    /// One PWrite; how many bytes were written.
    ///
    /// # Errors
    /// The server's errno, `TooLong` if `from` does not fit into a message, or what it did wrong.
    pub fn pwrite(&self, open: FdId, offset: u64, from: &[u8]) -> Result<usize, Error> {
        let num_bytes = u32::try_from(from.len()).map_err(|_| Errno::NOBUFS)?;
        let fill = |out: &mut Vec<u8>| {
            encode(
                &PWrite {
                    offset,
                    open,
                    num_bytes,
                },
                out,
            );
            out.extend_from_slice(from);
        };
        self.ask(Mid::PWRITE, fill, |payload, _| {
            let told = PWriteReply::from_payload(payload)?.count;
            match usize::try_from(told) {
                Ok(bytes) if bytes <= from.len() => Ok(bytes),
                _ => Err(Violation::TooMany.into()),
            }
        })
    }

    /// Most bytes of one PRead.
    #[must_use]
    pub fn pread_bytes_max(&self) -> usize {
        (self.payload_bytes_max() as usize).saturating_sub(PREAD_REPLY_FIXED_BYTES)
    }

    /// Most bytes of one PWrite.
    #[must_use]
    pub fn pwrite_bytes_max(&self) -> usize {
        (self.payload_bytes_max() as usize).saturating_sub(PWRITE_FIXED_BYTES)
    }

    /// Reads until `into` is full or the file ends; how many bytes there were.
    ///
    /// # Errors
    /// As [`Client::pread`]; what was read before is lost.
    pub fn read_at(&self, open: FdId, offset: u64, into: &mut [u8]) -> Result<usize, Error> {
        let most = self.pread_bytes_max();
        let mut done = 0;
        while done < into.len() {
            let end = into.len().min(done + most);
            let at = offset.checked_add(done as u64).ok_or(Errno::INVAL)?;
            match self.pread(open, at, &mut into[done..end])? {
                0 => break,
                bytes => done += bytes,
            }
        }
        Ok(done)
    }

    /// Writes in pieces until all is written or the server takes no more; how many bytes it took.
    ///
    /// # Errors
    /// As [`Client::pwrite`].
    pub fn write_at(&self, open: FdId, offset: u64, from: &[u8]) -> Result<usize, Error> {
        let most = self.pwrite_bytes_max();
        let mut done = 0;
        while done < from.len() {
            let end = from.len().min(done + most);
            let at = offset.checked_add(done as u64).ok_or(Errno::INVAL)?;
            match self.pwrite(open, at, &from[done..end])? {
                0 => break,
                bytes => done += bytes,
            }
        }
        Ok(done)
    }

    /// Writes open files back to their device.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn fsync(&self, open: &[FdId]) -> Result<(), Error> {
        self.tell(
            Mid::FSYNC,
            &FSync {
                ids: Array::new(open),
            },
        )
    }

    /// Reserves room in a file.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn fallocate(&self, request: &FAllocate) -> Result<(), Error> {
        self.tell(Mid::FALLOCATE, request)
    }
}
