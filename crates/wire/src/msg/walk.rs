//! Walk: Walk 5, WalkStat 6, ReadLinkAt 19.

use super::message;
use crate::{Array, Encode, FdId, Inode, Statx, Text, Texts, Writer};

message! {
    /// Requests 5 and 6: look up components, one below the other.
    Walk<'a> {
        /// Control id to start from.
        dir: FdId = id,
        /// The components.
        path: Texts<'a> = block,
    }
}

/// Every component was walked.
pub const WALK_SUCCESS: u8 = 0;
/// The next component does not exist.
pub const WALK_COMPONENT_MISSING: u8 = 1;
/// Components remain after a symbolic link.
pub const WALK_COMPONENT_SYMLINK: u8 = 2;

message! {
    /// Reply 5.
    WalkReply<'a> {
        /// One of the `WALK_*` numbers.
        status: u8 = u8,
        /// A new control id for each component walked.
        inodes: Array<'a, Inode> = block,
    }
}

message! {
    /// Reply 6: attributes, no ids.
    WalkStatReply<'a> {
        /// Attributes of each component reached.
        stats: Array<'a, Statx> = block,
    }
}

message! {
    /// Request 19.
    ReadLinkAt {
        /// Control id of a symbolic link.
        id: FdId = id,
    }
}

message! {
    /// Reply 19.
    ReadLinkAtReply<'a> {
        /// Where the link points.
        target: Text<'a> = text,
    }
}

/// Writes a [`WalkReply`] whose length is not known yet.
#[derive(Debug)]
pub struct WalkReplyWriter<'w, 'b> {
    out: &'w mut Writer<'b>,
    start: usize,
    count: u16,
}

impl<'w, 'b> WalkReplyWriter<'w, 'b> {
    /// Starts the reply.
    pub fn new(out: &'w mut Writer<'b>) -> Self {
        let start = out.len();
        out.padding(3);
        Self {
            out,
            start,
            count: 0,
        }
    }

    /// Appends one component's inode; false if the count is full.
    #[must_use]
    pub fn push(&mut self, inode: &Inode) -> bool {
        let Some(count) = self.count.checked_add(1) else {
            return false;
        };
        inode.encode(self.out);
        self.count = count;
        true
    }

    /// Ends the reply.
    pub fn finish(self, status: u8) {
        self.out.set_u8(self.start, status);
        self.out.set_u16(self.start + 1, self.count);
    }
}

/// Writes a [`WalkStatReply`] whose length is not known yet.
#[derive(Debug)]
pub struct WalkStatReplyWriter<'w, 'b> {
    out: &'w mut Writer<'b>,
    start: usize,
    count: u16,
}

impl<'w, 'b> WalkStatReplyWriter<'w, 'b> {
    /// Starts the reply.
    pub fn new(out: &'w mut Writer<'b>) -> Self {
        let start = out.len();
        out.padding(2);
        Self {
            out,
            start,
            count: 0,
        }
    }

    /// Appends one component's attributes; false if the count is full.
    #[must_use]
    pub fn push(&mut self, stat: &Statx) -> bool {
        let Some(count) = self.count.checked_add(1) else {
            return false;
        };
        stat.encode(self.out);
        self.count = count;
        true
    }

    /// Ends the reply.
    pub fn finish(self) {
        self.out.set_u16(self.start, self.count);
    }
}
