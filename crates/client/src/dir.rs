//! MkdirAt, MknodAt, SymlinkAt, LinkAt, UnlinkAt, RenameAt, RenameAt2, Getdents64.

use std::collections::VecDeque;

use wire::limits::COUNT_MAX;
use wire::msg::dir::{
    Getdents64, Getdents64Reply, LinkAt, MkdirAt, MknodAt, RenameAt, RenameAt2, SymlinkAt, UnlinkAt,
};
use wire::{Decode, Encode, Errno, FdId, Inode, Mid, NewNode, Owner, Text};

use crate::line::encode;
use crate::session::fresh;
use crate::{Client, Error};

/// Bytes of host records that known clients ask for at a time.
const GETDENTS_BYTES: i32 = 65536;
/// Flag of UnlinkAt that removes a directory.
const AT_REMOVEDIR: u32 = 0x200;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
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
    pub name: Vec<u8>,
}

/// A string that fits into a message.
pub(crate) fn text(bytes: &[u8]) -> Result<Text<'_>, Error> {
    if bytes.len() > COUNT_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    Ok(Text(bytes))
}

impl Client {
    fn make(&self, mid: Mid, request: &impl Encode) -> Result<Inode, Error> {
        let inode: Inode = self.fetch(mid, request)?;
        fresh(inode.control)?;
        Ok(inode)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn mkdir_at(&self, new: NewNode, name: &[u8]) -> Result<Inode, Error> {
        self.make(
            Mid::MKDIR_AT,
            &MkdirAt {
                new,
                name: text(name)?,
            },
        )
    }

    /// Makes a file whose type stands in the mode.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn mknod_at(
        &self,
        new: NewNode,
        name: &[u8],
        major: u32,
        minor: u32,
    ) -> Result<Inode, Error> {
        self.make(
            Mid::MKNOD_AT,
            &MknodAt {
                new,
                minor,
                major,
                name: text(name)?,
            },
        )
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn symlink_at(
        &self,
        dir: FdId,
        owner: Owner,
        name: &[u8],
        target: &[u8],
    ) -> Result<Inode, Error> {
        let (name, target) = (text(name)?, text(target)?);
        self.make(
            Mid::SYMLINK_AT,
            &SymlinkAt {
                dir,
                owner,
                name,
                target,
            },
        )
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn link_at(&self, dir: FdId, target: FdId, name: &[u8]) -> Result<Inode, Error> {
        self.make(
            Mid::LINK_AT,
            &LinkAt {
                dir,
                target,
                name: text(name)?,
            },
        )
    }

    /// Removes a name; `flags` as the host takes them.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn unlink_at(&self, dir: FdId, name: &[u8], flags: u32) -> Result<(), Error> {
        self.tell(
            Mid::UNLINK_AT,
            &UnlinkAt {
                dir,
                flags,
                name: text(name)?,
            },
        )
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn rmdir_at(&self, dir: FdId, name: &[u8]) -> Result<(), Error> {
        self.unlink_at(dir, name, AT_REMOVEDIR)
    }

    /// Moves a file, replacing what has the new name.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn rename_at(
        &self,
        (old_dir, old_name): (FdId, &[u8]),
        (new_dir, new_name): (FdId, &[u8]),
    ) -> Result<(), Error> {
        let (old_name, new_name) = (text(old_name)?, text(new_name)?);
        self.tell(
            Mid::RENAME_AT,
            &RenameAt {
                old_dir,
                new_dir,
                old_name,
                new_name,
            },
        )
    }

    /// Moves a file as `flags` (`RENAME_*`) say.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn rename_at2(
        &self,
        (old_dir, old_name): (FdId, &[u8]),
        (new_dir, new_name): (FdId, &[u8]),
        flags: u32,
    ) -> Result<(), Error> {
        let (old_name, new_name) = (text(old_name)?, text(new_name)?);
        self.tell(
            Mid::RENAME_AT2,
            &RenameAt2 {
                old_dir,
                new_dir,
                old_name,
                new_name,
                flags,
            },
        )
    }

    /// One Getdents64. An empty answer is the end; a negative count starts anew.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn getdents64(&self, dir: FdId, count: i32) -> Result<Vec<Entry>, Error> {
        let request = Getdents64 { dir, count };
        self.ask(
            Mid::GETDENTS64,
            |out| encode(&request, out),
            |payload, _| {
                let reply = Getdents64Reply::from_payload(payload)?;
                let owned = reply.iter().map(|entry| Entry {
                    ino: entry.ino,
                    dev_minor: entry.dev_minor,
                    dev_major: entry.dev_major,
                    off: entry.off,
                    kind: entry.kind,
                    name: entry.name.bytes().to_vec(),
                });
                Ok(owned.collect())
            },
        )
    }

    /// The entries of an open directory, from its start. A hostile server can make this endless.
    #[must_use]
    pub fn read_dir(&self, dir: FdId) -> ReadDir<'_> {
        let (count, pending) = (Some(-GETDENTS_BYTES), VecDeque::new());
        ReadDir {
            client: self,
            dir,
            count,
            pending,
        }
    }
}

/// Iterates over a directory.
#[derive(Debug)]
pub struct ReadDir<'c> {
    client: &'c Client,
    dir: FdId,
    /// What to ask for next; none at the end.
    count: Option<i32>,
    pending: VecDeque<Entry>,
}

impl Iterator for ReadDir<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pending.is_empty() {
            let count = self.count.take()?;
            match self.client.getdents64(self.dir, count) {
                Ok(entries) if entries.is_empty() => {}
                Ok(entries) => {
                    self.pending = entries.into();
                    self.count = Some(GETDENTS_BYTES);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.pending.pop_front().map(Ok)
    }
}
