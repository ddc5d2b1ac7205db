//! Attributes: FStat 3 (its reply is a [`crate::Statx`]), SetStat 4, FStatFS 17.

use super::message;
use crate::{FdId, Timespec};

message! {
    /// Request 3.
    FStat {
        /// Control or open id.
        id: FdId = id,
    }
}

message! {
    /// Request 4.
    SetStat {
        /// Control id.
        id: FdId = id,
        /// Which attributes to set, `STATX_*` bits.
        mask: u32 = u32,
        /// Permissions; type bits may be present.
        mode: u32 = u32,
        /// Owner.
        uid: u32 = u32,
        /// Group.
        gid: u32 = u32,
        /// Length in bytes.
        size: u64 = u64,
        /// Last access.
        atime: Timespec = block,
        /// Last change of the content.
        mtime: Timespec = block,
    }
}

impl SetStat {
    /// Bit of the permissions.
    pub const MODE: u32 = 0x2;
    /// Bit of the owner.
    pub const UID: u32 = 0x8;
    /// Bit of the group.
    pub const GID: u32 = 0x10;
    /// Bit of the last access.
    pub const ATIME: u32 = 0x20;
    /// Bit of the last change.
    pub const MTIME: u32 = 0x40;
    /// Bit of the length.
    pub const SIZE: u32 = 0x200;
    /// All bits that may be asked for.
    pub const ALLOWED: u32 =
        Self::MODE | Self::UID | Self::GID | Self::ATIME | Self::MTIME | Self::SIZE;
}

message! {
    /// Reply 4.
    SetStatReply {
        /// Attributes that could not be set.
        failure_mask: u32 = u32,
        /// Why, or 0.
        failure_errno: u32 = u32,
    }
}

message! {
    /// Request 17.
    FStatFS {
        /// Control id.
        id: FdId = id,
    }
}

message! {
    /// Reply 17.
    FStatFSReply {
        /// Magic number of the file system.
        kind: u64 = u64,
        /// Bytes of a block.
        block_size: i64 = i64,
        /// Blocks in all.
        blocks: u64 = u64,
        /// Blocks free.
        blocks_free: u64 = u64,
        /// Blocks free for everybody.
        blocks_available: u64 = u64,
        /// Inodes in all.
        files: u64 = u64,
        /// Inodes free.
        files_free: u64 = u64,
        /// Longest name, in bytes.
        name_length: u64 = u64,
    }
}
