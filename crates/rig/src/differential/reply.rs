//! Replies taken apart into what can be compared.

use client::Answer;
use wire::msg::attr::{FStatFSReply, SetStatReply};
use wire::msg::data::{PReadReply, PWriteReply};
use wire::msg::dir::Getdents64Reply;
use wire::msg::open::{OpenAtReply, OpenCreateAtReply};
use wire::msg::session::{ErrorReply, MountReply};
use wire::msg::socket::{AcceptReply, BindAtReply};
use wire::msg::walk::{ReadLinkAtReply, WalkReply, WalkStatReply};
use wire::msg::xattr::{FGetXattrReply, FListXattrReply};
use wire::{Decode, FdId, Inode, Malformed, Mid, Reader, Statx};

use super::op::Bytes;

/// A reply, by kinds of content.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The errno, 0 for success.
    pub errno: u32,
    /// New ids.
    pub ids: Vec<FdId>,
    /// Attributes.
    pub stats: Vec<Statx>,
    /// Plain numbers.
    pub numbers: Vec<u64>,
    /// Strings and data.
    pub texts: Vec<Bytes>,
    /// Directory entries: inode, device, type, name.
    pub entries: Vec<(u64, (u32, u32), u8, Bytes)>,
    /// How many descriptors came along.
    pub fds: usize,
}

impl Reply {
    /// Takes a reply apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(mid: Mid, answer: &Answer) -> Result<Self, String> {
        let mut reply = Self {
            fds: answer.fds.len(),
            ..Self::default()
        };
        if answer.mid == Mid::ERROR {
            let error = ErrorReply::from_payload(&answer.payload);
            reply.errno = error.map_err(|_| "a short error reply")?.errno;
            if reply.errno == 0 {
                return Err("an error reply without an error".to_owned());
            }
            return Ok(reply);
        }
        if answer.mid != mid {
            return Err(format!("a reply to {}", answer.mid));
        }
        let left = reply.read(mid, &answer.payload);
        match left {
            Err(Malformed) => Err("a reply that ends too early".to_owned()),
            Ok(0) => Ok(reply),
            Ok(left) => Err(format!("a reply with {left} bytes too many")),
        }
    }

    fn inode(&mut self, inode: Inode) {
        self.ids.push(inode.control);
        self.stats.push(inode.stat);
    }

    /// Reads a successful reply; the number of bytes left over.
    fn read(&mut self, mid: Mid, payload: &[u8]) -> Result<usize, Malformed> {
        let mut r = Reader::new(payload);
        match mid {
            Mid::MOUNT => {
                let reply = MountReply::decode(&mut r)?;
                self.inode(reply.root);
                self.numbers.push(reply.max_message_size.into());
                // Which messages are listed is a difference of releases, not of replies.
            }
            Mid::FSTAT => self.stats.push(Statx::decode(&mut r)?),
            Mid::SET_STAT => {
                let reply = SetStatReply::decode(&mut r)?;
                self.numbers
                    .extend([reply.failure_mask, reply.failure_errno].map(u64::from));
            }
            Mid::WALK => {
                let reply = WalkReply::decode(&mut r)?;
                self.numbers.push(reply.status.into());
                reply.inodes.iter().for_each(|inode| self.inode(inode));
            }
            Mid::WALK_STAT => self.stats = WalkStatReply::decode(&mut r)?.stats.iter().collect(),
            Mid::OPEN_AT => self.ids.push(OpenAtReply::decode(&mut r)?.open),
            Mid::OPEN_CREATE_AT => {
                let reply = OpenCreateAtReply::decode(&mut r)?;
                self.inode(reply.child);
                self.ids.push(reply.open);
            }
            Mid::PWRITE => self.numbers.push(PWriteReply::decode(&mut r)?.count),
            Mid::PREAD => {
                let bytes = PReadReply::decode(&mut r)?.num_bytes;
                self.texts.push(Bytes(r.bytes(bytes as usize)?.to_vec()));
            }
            Mid::MKDIR_AT | Mid::MKNOD_AT | Mid::SYMLINK_AT | Mid::LINK_AT => {
                let inode = Inode::decode(&mut r)?;
                self.inode(inode);
            }
            Mid::FSTATFS => {
                let reply = FStatFSReply::decode(&mut r)?;
                // What is free changes under other programs' hands.
                let numbers = [reply.kind, reply.block_size as u64, reply.name_length];
                self.numbers.extend(numbers);
            }
            Mid::READ_LINK_AT => self.text(ReadLinkAtReply::decode(&mut r)?.target.bytes()),
            Mid::GETDENTS64 => {
                self.entries = Getdents64Reply::decode(&mut r)?
                    .iter()
                    .map(|entry| {
                        let device = (entry.dev_major, entry.dev_minor);
                        (
                            entry.ino,
                            device,
                            entry.kind,
                            Bytes(entry.name.bytes().to_vec()),
                        )
                    })
                    .collect();
            }
            Mid::FGET_XATTR => self.text(FGetXattrReply::decode(&mut r)?.value.bytes()),
            Mid::FLIST_XATTR => {
                for name in FListXattrReply::decode(&mut r)?.names.iter() {
                    self.text(name.bytes());
                }
            }
            Mid::BIND_AT => {
                let reply = BindAtReply::decode(&mut r)?;
                self.inode(reply.child);
                self.ids.push(reply.bound);
            }
            Mid::ACCEPT => self.text(AcceptReply::decode(&mut r)?.peer.bytes()),
            _ => {}
        }
        Ok(r.rest().len())
    }

    fn text(&mut self, bytes: &[u8]) {
        self.texts.push(Bytes(bytes.to_vec()));
    }
}
