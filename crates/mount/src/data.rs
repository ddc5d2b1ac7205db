//! An open file's data: on the descriptor that the server donated, else by request.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use client::Client;
use rustix::fs::{FallocateFlags, FileType, SeekFrom};
use rustix::io::{Errno as HostErrno, ReadWriteFlags, retry_on_intr};
use wire::msg::data::FAllocate;
use wire::{Errno, FdId};

use crate::nodes::{Held, Node};

/// `lseek(2)`: the next data.
const SEEK_DATA: i32 = 3;
/// `lseek(2)`: the next hole.
const SEEK_HOLE: i32 = 4;
/// Most bytes copied at a time; an application asks for the rest.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// An open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) node: Arc<Node>,
    open: Held,
    donated: Option<OwnedFd>,
}

fn errno(errno: HostErrno) -> Errno {
    Errno::new(errno.raw_os_error().unsigned_abs())
}

/// A donated descriptor, if it is what it should be: of a regular file, whose reads do not wait.
pub(crate) fn usable(donated: Option<OwnedFd>) -> Option<OwnedFd> {
    let fd = donated?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(fd)
}

impl OpenFile {
    pub(crate) const fn new(node: Arc<Node>, open: Held, donated: Option<OwnedFd>) -> Self {
        Self {
            node,
            open,
            donated,
        }
    }

    pub(crate) const fn id(&self) -> FdId {
        self.open.id()
    }

    /// Fills `into` up to the file's end; how many bytes there were.
    pub(crate) fn read(
        &self,
        client: &Client,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, Errno> {
        let Some(fd) = &self.donated else {
            let read = client.read_at(self.id(), offset, into);
            return read.map_err(|error| error.errno());
        };
        let mut done = 0;
        while done < into.len() {
            let at = offset.saturating_add(done as u64);
            match retry_on_intr(|| rustix::io::pread(fd, &mut into[done..], at)) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if done == 0 => return Err(errno(error)),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Writes as much as the host takes. `append`: at the end, wherever that is by now.
    pub(crate) fn write(
        &self,
        client: &Client,
        offset: u64,
        from: &[u8],
        append: bool,
    ) -> Result<usize, Errno> {
        let Some(fd) = &self.donated else {
            let written = client.write_at(self.id(), offset, from);
            return written.map_err(|error| error.errno());
        };
        let mut done = 0;
        while done < from.len() {
            let at = offset.saturating_add(done as u64);
            let rest = &from[done..];
            let once = || match append {
                true => rustix::io::pwritev2(fd, &[IoSlice::new(rest)], at, ReadWriteFlags::APPEND),
                false => rustix::io::pwrite(fd, rest, at),
            };
            match retry_on_intr(once) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if done == 0 => return Err(errno(error)),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    pub(crate) fn sync(&self, client: &Client, data_only: bool) -> Result<(), Errno> {
        match &self.donated {
            Some(fd) if data_only => retry_on_intr(|| rustix::fs::fdatasync(fd)).map_err(errno),
            Some(fd) => retry_on_intr(|| rustix::fs::fsync(fd)).map_err(errno),
            None => client.fsync(&[self.id()]).map_err(|error| error.errno()),
        }
    }

    /// Sets the length if that needs no request; whether it did.
    pub(crate) fn truncate(&self, size: u64) -> Option<Result<(), Errno>> {
        let fd = self.donated.as_ref()?;
        Some(retry_on_intr(|| rustix::fs::ftruncate(fd, size)).map_err(errno))
    }

    pub(crate) fn allocate(
        &self,
        client: &Client,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        if let Some(fd) = &self.donated {
            let mode = FallocateFlags::from_bits_retain(mode);
            return retry_on_intr(|| rustix::fs::fallocate(fd, mode, offset, length))
                .map_err(errno);
        }
        let request = FAllocate {
            open: self.id(),
            mode: mode.into(),
            offset,
            length,
        };
        client.fallocate(&request).map_err(|error| error.errno())
    }

    /// Finds data or a hole. Without the file itself all of it is data, as file systems may say.
    pub(crate) fn seek(&self, client: &Client, offset: u64, whence: i32) -> Result<u64, Errno> {
        if let Some(fd) = &self.donated {
            let from = match whence {
                SEEK_DATA => SeekFrom::Data(offset),
                SEEK_HOLE => SeekFrom::Hole(offset),
                _ => return Err(Errno::INVAL),
            };
            // Moves the position that the server's descriptor shares; neither side uses it.
            return rustix::fs::seek(fd, from).map_err(errno);
        }
        let size = client
            .fstat(self.node.id())
            .map_err(|error| error.errno())?
            .size;
        match whence {
            _ if offset >= size => Err(Errno::NXIO),
            SEEK_DATA => Ok(offset),
            SEEK_HOLE => Ok(size),
            _ => Err(Errno::INVAL),
        }
    }

    /// Copies between two files on the host, without the data coming here.
    pub(crate) fn copy(&self, from: u64, to: (&Self, u64), length: u64) -> Result<usize, Errno> {
        let (Some(source), Some(target)) = (&self.donated, &to.0.donated) else {
            return Err(Errno::OPNOTSUPP);
        };
        let length = usize::try_from(length.min(COPY_BYTES_MAX)).map_err(|_| Errno::INVAL)?;
        let (mut from, mut to) = (from, to.1);
        retry_on_intr(|| {
            rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), length)
        })
        .map_err(errno)
    }
}
