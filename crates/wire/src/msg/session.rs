//! Session: Error 0, Mount 1, Channel 2, Close 9.

use super::message;
use crate::{Array, Errno, FdId, Inode};

message! {
    /// Reply 0: the request failed.
    ErrorReply { /// Linux's error number.
        errno: u32 = u32, }
}

impl ErrorReply {
    /// The reply that says `errno`.
    #[must_use]
    pub const fn new(errno: Errno) -> Self {
        Self { errno: errno.raw() }
    }
}

message! {
    /// Reply 1. May donate a descriptor on the mount point.
    MountReply<'a> {
        /// The mount point.
        root: Inode = block,
        /// Longest payload the server takes, in bytes.
        max_message_size: u32 = u32,
        /// Message ids the client may use.
        supported: Array<'a, u16> = block,
    }
}

message! {
    /// Reply 2. Donates the memory file and a descriptor socket, in this order.
    ChannelReply {
        /// Where the window starts in the memory file, in bytes.
        data_offset: i64 = i64,
        /// The window's length in bytes.
        data_length: u64 = u64,
    }
}

message! {
    /// Request 9: forget these ids. Unknown ones are ignored.
    Close<'a> {
        /// The ids.
        ids: Array<'a, FdId> = block,
    }
}
