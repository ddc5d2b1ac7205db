//! Directories: MkdirAt 13, MknodAt 14, SymlinkAt 15, LinkAt 16, UnlinkAt 22, RenameAt 23,
//! Getdents64 24, RenameAt2 33. Replies that only carry the new file are a [`crate::Inode`].

use super::message;
use crate::{
    Decode, Encode, FdId, Malformed, NewNode, Owner, Reader, Text, Writer, limits::COUNT_MAX,
};

message! {
    /// Request 13.
    MkdirAt<'a> {
        /// Where, whose, which mode.
        new: NewNode = block,
        /// Name in the directory.
        name: Text<'a> = text,
    }
}

message! {
    /// Request 14.
    MknodAt<'a> {
        /// Where, whose, which mode; here the type bits count.
        new: NewNode = block,
        /// Minor device number.
        minor: u32 = u32,
        /// Major device number.
        major: u32 = u32,
        /// Name in the directory.
        name: Text<'a> = text,
    }
}

/// Request 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymlinkAt<'a> {
    /// Control id of the directory.
    pub dir: FdId,
    /// Owner of the link.
    pub owner: Owner,
    /// Name in the directory.
    pub name: Text<'a>,
    /// What the link shall hold.
    pub target: Text<'a>,
}

impl<'a> Decode<'a> for SymlinkAt<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let dir = r.id()?;
        let owner = Owner {
            uid: r.u32()?,
            gid: r.u32()?,
        };
        Ok(Self {
            dir,
            owner,
            name: r.text()?,
            target: r.text()?,
        })
    }
}

impl Encode for SymlinkAt<'_> {
    fn encode(&self, w: &mut Writer<'_>) {
        w.id(self.dir);
        w.u32(self.owner.uid);
        w.u32(self.owner.gid);
        w.text(self.name);
        w.text(self.target);
    }
}

message! {
    /// Request 16.
    LinkAt<'a> {
        /// Control id of the directory.
        dir: FdId = id,
        /// Control id of the file.
        target: FdId = id,
        /// Name in the directory.
        name: Text<'a> = text,
    }
}

message! {
    /// Request 22.
    UnlinkAt<'a> {
        /// Control id of the directory.
        dir: FdId = id,
        /// 0, or `AT_REMOVEDIR`.
        flags: u32 = u32,
        /// Name in the directory.
        name: Text<'a> = text,
    }
}

message! {
    /// Request 23.
    RenameAt<'a> {
        /// Control id of the directory the file leaves.
        old_dir: FdId = id,
        /// Control id of the directory it enters.
        new_dir: FdId = id,
        /// Its name there.
        old_name: Text<'a> = text,
        /// Its name here.
        new_name: Text<'a> = text,
    }
}

message! {
    /// Request 33.
    RenameAt2<'a> {
        /// As in [`RenameAt`].
        old_dir: FdId = id,
        /// As in [`RenameAt`].
        new_dir: FdId = id,
        /// As in [`RenameAt`].
        old_name: Text<'a> = text,
        /// As in [`RenameAt`].
        new_name: Text<'a> = text,
        /// `RENAME_*` flags.
        flags: u32 = u32,
    }
}

message! {
    /// Request 24.
    Getdents64 {
        /// Open id of a directory.
        dir: FdId = id,
        /// Bytes of host records wanted; negative: from the start again.
        count: i32 = i32 pad 4,
    }
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// Inode number.
    pub ino: u64,
    /// Minor number of the device.
    pub dev_minor: u32,
    /// Major number of the device.
    pub dev_major: u32,
    /// The host's position behind this entry.
    pub off: u64,
    /// `DT_*`.
    pub kind: u8,
    /// The entry's name.
    pub name: Text<'a>,
}

impl<'a> Decode<'a> for Dirent<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            ino: r.u64()?,
            dev_minor: r.u32()?,
            dev_major: r.u32()?,
            off: r.u64()?,
            kind: r.u8()?,
            name: r.text()?,
        })
    }
}

impl Encode for Dirent<'_> {
    fn encode(&self, w: &mut Writer<'_>) {
        w.u64(self.ino);
        w.u32(self.dev_minor);
        w.u32(self.dev_major);
        w.u64(self.off);
        w.u8(self.kind);
        w.text(self.name);
    }
}

/// Reply 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Getdents64Reply<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Getdents64Reply<'a> {
    /// Number of entries. None means the end of the directory.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether the directory has ended.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Dirent<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        core::iter::from_fn(move || Dirent::decode(&mut reader).ok())
    }
}

impl<'a> Decode<'a> for Getdents64Reply<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = r.u16()?;
        let start = r.rest();
        for _ in 0..count {
            Dirent::decode(r)?;
        }
        Ok(Self {
            count,
            bytes: &start[..start.len() - r.rest().len()],
        })
    }
}

impl Encode for Getdents64Reply<'_> {
    fn encode(&self, w: &mut Writer<'_>) {
        w.u16(self.count);
        w.bytes(self.bytes);
    }
}

/// Writes a [`Getdents64Reply`] whose length is not known yet.
#[derive(Debug)]
pub struct DirentsWriter<'w, 'b> {
    out: &'w mut Writer<'b>,
    start: usize,
    count: u16,
}

impl<'w, 'b> DirentsWriter<'w, 'b> {
    /// Starts the reply.
    pub fn new(out: &'w mut Writer<'b>) -> Self {
        let start = out.len();
        out.u16(0);
        Self {
            out,
            start,
            count: 0,
        }
    }

    /// Appends an entry; false, and nothing is appended, if the count is full or the name too long.
    #[must_use]
    pub fn push(&mut self, entry: &Dirent<'_>) -> bool {
        if entry.name.0.len() > COUNT_MAX {
            return false;
        }
        let Some(count) = self.count.checked_add(1) else {
            return false;
        };
        entry.encode(self.out);
        self.count = count;
        true
    }

    /// Number of entries so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none so far.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the reply so far.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.out.len() - self.start
    }

    /// Ends the reply.
    pub fn finish(self) {
        self.out.set_u16(self.start, self.count);
    }
}
