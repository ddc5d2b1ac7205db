//! Data: FSync 10, PWrite 11, PRead 12, FAllocate 18.

use super::message;
use crate::{Array, FdId};

message! {
    /// Request 10.
    FSync<'a> {
        /// Open ids.
        ids: Array<'a, FdId> = block,
    }
}

message! {
    /// Request 11 without its data, which follow in the payload.
    PWrite {
        /// Where in the file, in bytes.
        offset: u64 = u64,
        /// Open id.
        open: FdId = id,
        /// How many bytes follow.
        num_bytes: u32 = u32,
    }
}

message! {
    /// Reply 11.
    PWriteReply {
        /// Bytes written.
        count: u64 = u64,
    }
}

message! {
    /// Request 12.
    PRead {
        /// Where in the file, in bytes.
        offset: u64 = u64,
        /// Open id.
        open: FdId = id,
        /// How many bytes are wanted.
        count: u32 = u32 pad 4,
    }
}

message! {
    /// Reply 12 without its data, which follow in the payload.
    PReadReply {
        /// How many bytes follow.
        num_bytes: u64 = u64,
    }
}

message! {
    /// Request 18.
    FAllocate {
        /// Open id.
        open: FdId = id,
        /// Mode of `fallocate(2)`; the low 32 bits count.
        mode: u64 = u64,
        /// Start, in bytes.
        offset: u64 = u64,
        /// Length, in bytes.
        length: u64 = u64,
    }
}
