//! A reply on its way: payload and donated descriptors, put together in private memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use wire::msg::session::ErrorReply;
use wire::{Encode, Errno, FdId, Mid, Writer};

use crate::table::{Bound, Open};

/// A descriptor for the client. It is sent, and so copied by the kernel: what the server keeps
/// using itself needs no duplicate.
#[derive(Debug)]
pub(crate) enum Donation {
    Owned(OwnedFd),
    Open(Arc<Open>),
    Bound(Arc<Bound>),
}

impl AsFd for Donation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Owned(fd) => fd.as_fd(),
            Self::Open(open) => open.host(),
            Self::Bound(bound) => bound.socket.as_fd(),
        }
    }
}

/// Buffers of one serving thread. They live as long as it does, so that a request in the steady
/// state allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// The payload; for `PRead` only what stands in front of the data.
    pub(crate) payload: Vec<u8>,
    /// Bytes of data behind the payload, which lie in the transport's own memory already.
    pub(crate) bulk_bytes: usize,
    /// Descriptors to donate, in order.
    pub(crate) donations: Vec<Donation>,
    /// Room for a handler.
    pub(crate) scratch: Vec<u8>,
    /// Room for the ids a handler made, in case it must take them back.
    pub(crate) made: Vec<FdId>,
}

/// Larger buffers are given back after the request that needed them, in bytes.
pub(crate) const KEEP_BYTES: usize = 128 << 10;

impl Reply {
    /// Forgets everything of the last request, its descriptors first of all.
    pub(crate) fn clear(&mut self) {
        self.donations.clear();
        self.bulk_bytes = 0;
        self.made.clear();
        for buffer in [&mut self.payload, &mut self.scratch] {
            buffer.clear();
            buffer.shrink_to(KEEP_BYTES);
        }
    }

    pub(crate) fn writer(&mut self) -> Writer<'_> {
        Writer::new(&mut self.payload)
    }

    pub(crate) fn encode(&mut self, message: &impl Encode) {
        message.encode(&mut self.writer());
    }

    pub(crate) fn donate(&mut self, fd: Donation) {
        self.donations.push(fd);
    }

    /// Turns it into the reply that says why the request failed.
    pub(crate) fn fail(&mut self, errno: Errno) -> Mid {
        self.clear();
        self.encode(&ErrorReply::new(errno));
        Mid::ERROR
    }

    /// Bytes that travel as payload.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload.len() + self.bulk_bytes
    }
}
