//! Open: OpenAt 7, OpenCreateAt 8, Flush 20.

use super::message;
use crate::{FdId, Inode, NewNode, Text};

message! {
    /// Request 7.
    OpenAt {
        /// Control id of the file.
        id: FdId = id,
        /// Linux's open flags; only some count, see [`crate::OpenFlags`].
        flags: u32 = u32 pad 4,
    }
}

message! {
    /// Reply 7. May donate the opened file.
    OpenAtReply {
        /// The new open id.
        open: FdId = id,
    }
}

message! {
    /// Request 8: make a regular file and open it.
    OpenCreateAt<'a> {
        /// Where, whose, which mode.
        new: NewNode = block,
        /// As in [`OpenAt`].
        flags: u32 = u32,
        /// Name in the directory.
        name: Text<'a> = text,
    }
}

message! {
    /// Reply 8. May donate the opened file.
    OpenCreateAtReply {
        /// The new file.
        child: Inode = block,
        /// The new open id.
        open: FdId = id,
    }
}

message! {
    /// Request 20: a writable file is about to be closed.
    Flush {
        /// Open id.
        open: FdId = id,
    }
}
