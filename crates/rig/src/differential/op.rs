//! Requests as the test thinks of them: ids are references to what an earlier step made, so the
//! same request can be put to two servers, and replayed with other steps left out.

use wire::msg::attr::{FStat, FStatFS, SetStat};
use wire::msg::data::{FAllocate, FSync, PRead, PWrite};
use wire::msg::dir::{
    Getdents64, LinkAt, MkdirAt, MknodAt, RenameAt, RenameAt2, SymlinkAt, UnlinkAt,
};
use wire::msg::open::{Flush, OpenAt, OpenCreateAt};
use wire::msg::session::Close;
use wire::msg::socket::{Accept, BindAt, Connect, ConnectWithCreds, Listen};
use wire::msg::walk::{ReadLinkAt, Walk};
use wire::msg::xattr::{FGetXattr, FListXattr, FRemoveXattr, FSetXattr};
use wire::{Array, Encode, FdId, Mid, NewNode, Owner, Text, TextsBuf, Timespec};

/// An id, by where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ref {
    /// The id of the first Mount.
    Root,
    /// An id that an earlier step made: which step, which of its ids.
    Made(u32, u8),
    /// A number that nobody gave out.
    Raw(u64),
}

/// One step of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number in the sequence it was drawn in; kept when other steps are deleted.
    pub number: u32,
    /// Over the channel instead of the socket.
    pub channel: bool,
    /// What is asked.
    pub op: Op,
    /// What is wrong with the payload.
    pub twist: Twist,
}

/// How a payload is spoilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Twist {
    /// It is not.
    None,
    /// Only this many thousandths of it are sent.
    Cut(u16),
    /// Bytes follow it.
    Longer(u8),
}

/// Bytes that print readably.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.len() > 80 {
            return write!(
                f,
                "\"{}\"...{} bytes",
                self.0[..16].escape_ascii(),
                self.0.len()
            );
        }
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Head of a request that makes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct New {
    /// Where.
    pub dir: Ref,
    /// Whose; `u32::MAX` keeps.
    pub uid: u32,
    /// Whose; `u32::MAX` keeps.
    pub gid: u32,
    /// Which mode.
    pub mode: u16,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "variants and fields are the protocol's, see `wire::msg`"
)]
pub enum Op {
    Mount,
    FStat(Ref),
    SetStat {
        id: Ref,
        mask: u32,
        mode: u32,
        uid: u32,
        gid: u32,
        size: u64,
        nanoseconds: i64,
    },
    Walk(Ref, Vec<Bytes>),
    WalkStat(Ref, Vec<Bytes>),
    OpenAt(Ref, u32),
    OpenCreateAt(New, u32, Bytes),
    Close(Vec<Ref>),
    FSync(Vec<Ref>),
    PWrite {
        open: Ref,
        offset: u64,
        data: Bytes,
    },
    PRead {
        open: Ref,
        offset: u64,
        count: u32,
    },
    MkdirAt(New, Bytes),
    MknodAt {
        new: New,
        device: (u32, u32),
        name: Bytes,
    },
    SymlinkAt {
        new: New,
        name: Bytes,
        target: Bytes,
    },
    LinkAt {
        dir: Ref,
        target: Ref,
        name: Bytes,
    },
    FStatFS(Ref),
    FAllocate {
        open: Ref,
        mode: u64,
        offset: u64,
        length: u64,
    },
    ReadLinkAt(Ref),
    Flush(Ref),
    Connect(Ref, u32),
    ConnectWithCreds(Ref, u32),
    UnlinkAt {
        dir: Ref,
        flags: u32,
        name: Bytes,
    },
    RenameAt {
        from: (Ref, Bytes),
        to: (Ref, Bytes),
    },
    RenameAt2 {
        from: (Ref, Bytes),
        to: (Ref, Bytes),
        flags: u32,
    },
    Getdents64(Ref, i32),
    FGetXattr {
        id: Ref,
        size: u32,
        name: Bytes,
    },
    FSetXattr {
        id: Ref,
        flags: u32,
        name: Bytes,
        value: Bytes,
    },
    FListXattr(Ref, u64),
    FRemoveXattr(Ref, Bytes),
    BindAt {
        new: New,
        kind: u32,
        name: Bytes,
    },
    Listen(Ref, i32),
    Accept(Ref),
    /// Any message with any payload.
    Any(u16, Bytes),
}

impl Op {
    /// The message id.
    #[must_use]
    pub const fn mid(&self) -> Mid {
        match self {
            Self::Mount => Mid::MOUNT,
            Self::FStat(_) => Mid::FSTAT,
            Self::SetStat { .. } => Mid::SET_STAT,
            Self::Walk(..) => Mid::WALK,
            Self::WalkStat(..) => Mid::WALK_STAT,
            Self::OpenAt(..) => Mid::OPEN_AT,
            Self::OpenCreateAt(..) => Mid::OPEN_CREATE_AT,
            Self::Close(_) => Mid::CLOSE,
            Self::FSync(_) => Mid::FSYNC,
            Self::PWrite { .. } => Mid::PWRITE,
            Self::PRead { .. } => Mid::PREAD,
            Self::MkdirAt(..) => Mid::MKDIR_AT,
            Self::MknodAt { .. } => Mid::MKNOD_AT,
            Self::SymlinkAt { .. } => Mid::SYMLINK_AT,
            Self::LinkAt { .. } => Mid::LINK_AT,
            Self::FStatFS(_) => Mid::FSTATFS,
            Self::FAllocate { .. } => Mid::FALLOCATE,
            Self::ReadLinkAt(_) => Mid::READ_LINK_AT,
            Self::Flush(_) => Mid::FLUSH,
            Self::Connect(..) => Mid::CONNECT,
            Self::ConnectWithCreds(..) => Mid::CONNECT_WITH_CREDS,
            Self::UnlinkAt { .. } => Mid::UNLINK_AT,
            Self::RenameAt { .. } => Mid::RENAME_AT,
            Self::RenameAt2 { .. } => Mid::RENAME_AT2,
            Self::Getdents64(..) => Mid::GETDENTS64,
            Self::FGetXattr { .. } => Mid::FGET_XATTR,
            Self::FSetXattr { .. } => Mid::FSET_XATTR,
            Self::FListXattr(..) => Mid::FLIST_XATTR,
            Self::FRemoveXattr(..) => Mid::FREMOVE_XATTR,
            Self::BindAt { .. } => Mid::BIND_AT,
            Self::Listen(..) => Mid::LISTEN,
            Self::Accept(_) => Mid::ACCEPT,
            Self::Any(mid, _) => Mid(*mid),
        }
    }

    /// The ids it names, in wire order.
    #[must_use]
    pub fn refs(&self) -> Vec<Ref> {
        match self {
            Self::Mount | Self::Any(..) => Vec::new(),
            Self::FStat(id)
            | Self::SetStat { id, .. }
            | Self::Walk(id, _)
            | Self::WalkStat(id, _)
            | Self::OpenAt(id, _)
            | Self::PWrite { open: id, .. }
            | Self::PRead { open: id, .. }
            | Self::FStatFS(id)
            | Self::FAllocate { open: id, .. }
            | Self::ReadLinkAt(id)
            | Self::Flush(id)
            | Self::Connect(id, _)
            | Self::ConnectWithCreds(id, _)
            | Self::UnlinkAt { dir: id, .. }
            | Self::Getdents64(id, _)
            | Self::FGetXattr { id, .. }
            | Self::FSetXattr { id, .. }
            | Self::FListXattr(id, _)
            | Self::FRemoveXattr(id, _)
            | Self::Listen(id, _)
            | Self::Accept(id) => vec![*id],
            Self::OpenCreateAt(new, ..)
            | Self::MkdirAt(new, _)
            | Self::MknodAt { new, .. }
            | Self::SymlinkAt { new, .. }
            | Self::BindAt { new, .. } => vec![new.dir],
            Self::Close(ids) | Self::FSync(ids) => ids.clone(),
            Self::LinkAt { dir, target, .. } => vec![*dir, *target],
            Self::RenameAt { from, to } | Self::RenameAt2 { from, to, .. } => vec![from.0, to.0],
        }
    }

    /// Where it makes a file, and under which name.
    #[must_use]
    pub fn makes(&self) -> Option<(Ref, &Bytes)> {
        match self {
            Self::OpenCreateAt(new, _, name)
            | Self::MkdirAt(new, name)
            | Self::MknodAt { new, name, .. }
            | Self::SymlinkAt { new, name, .. }
            | Self::BindAt { new, name, .. } => Some((new.dir, name)),
            Self::LinkAt { dir, name, .. } => Some((*dir, name)),
            _ => None,
        }
    }

    /// Every name in it.
    #[must_use]
    pub fn names(&self) -> Vec<&Bytes> {
        match self {
            Self::Walk(_, names) | Self::WalkStat(_, names) => names.iter().collect(),
            Self::RenameAt { from, to } | Self::RenameAt2 { from, to, .. } => vec![&from.1, &to.1],
            Self::UnlinkAt { name, .. }
            | Self::FGetXattr { name, .. }
            | Self::FSetXattr { name, .. }
            | Self::FRemoveXattr(_, name) => vec![name],
            Self::SymlinkAt { name, target, .. } => vec![name, target],
            other => other.makes().map(|(_, name)| name).into_iter().collect(),
        }
    }

    /// The same request for a server of v2024, if it says it in other words.
    #[must_use]
    pub fn for_v2024(&self) -> Self {
        match self.clone() {
            Self::RenameAt2 { from, to, flags: 0 } => Self::RenameAt { from, to },
            Self::ConnectWithCreds(id, kind) => Self::Connect(id, kind),
            same => same,
        }
    }

    /// The payload, with ids as one server numbers them.
    #[must_use]
    pub fn payload(&self, id_of: &dyn Fn(Ref) -> FdId) -> Vec<u8> {
        let ids = |refs: &[Ref]| refs.iter().map(|&id| id_of(id)).collect::<Vec<_>>();
        let texts = |names: &[Bytes]| names.iter().map(|name| &name.0[..]).collect::<TextsBuf>();
        let node = |new: &New| NewNode {
            dir: id_of(new.dir),
            owner: owner(new),
            mode: new.mode,
        };
        match self {
            Self::Mount => Vec::new(),
            Self::FStat(id) => FStat { id: id_of(*id) }.to_payload(),
            &Self::SetStat {
                id,
                mask,
                mode,
                uid,
                gid,
                size,
                nanoseconds,
            } => {
                let time = Timespec {
                    seconds: 1_000_000_000,
                    nanoseconds,
                };
                SetStat {
                    id: id_of(id),
                    mask,
                    mode,
                    uid,
                    gid,
                    size,
                    atime: time,
                    mtime: time,
                }
                .to_payload()
            }
            Self::Walk(dir, names) | Self::WalkStat(dir, names) => Walk {
                dir: id_of(*dir),
                path: texts(names).texts(),
            }
            .to_payload(),
            Self::OpenAt(id, flags) => OpenAt {
                id: id_of(*id),
                flags: *flags,
            }
            .to_payload(),
            Self::OpenCreateAt(new, flags, name) => OpenCreateAt {
                new: node(new),
                flags: *flags,
                name: Text(&name.0),
            }
            .to_payload(),
            Self::Close(refs) => Close {
                ids: Array::new(&ids(refs)),
            }
            .to_payload(),
            Self::FSync(refs) => FSync {
                ids: Array::new(&ids(refs)),
            }
            .to_payload(),
            Self::PWrite { open, offset, data } => {
                let mut payload = PWrite {
                    offset: *offset,
                    open: id_of(*open),
                    num_bytes: data.0.len() as u32,
                }
                .to_payload();
                payload.extend_from_slice(&data.0);
                payload
            }
            Self::PRead {
                open,
                offset,
                count,
            } => PRead {
                offset: *offset,
                open: id_of(*open),
                count: *count,
            }
            .to_payload(),
            Self::MkdirAt(new, name) => MkdirAt {
                new: node(new),
                name: Text(&name.0),
            }
            .to_payload(),
            Self::MknodAt { new, device, name } => MknodAt {
                new: node(new),
                minor: device.1,
                major: device.0,
                name: Text(&name.0),
            }
            .to_payload(),
            Self::SymlinkAt { new, name, target } => SymlinkAt {
                dir: id_of(new.dir),
                owner: owner(new),
                name: Text(&name.0),
                target: Text(&target.0),
            }
            .to_payload(),
            Self::LinkAt { dir, target, name } => LinkAt {
                dir: id_of(*dir),
                target: id_of(*target),
                name: Text(&name.0),
            }
            .to_payload(),
            Self::FStatFS(id) => FStatFS { id: id_of(*id) }.to_payload(),
            Self::FAllocate {
                open,
                mode,
                offset,
                length,
            } => FAllocate {
                open: id_of(*open),
                mode: *mode,
                offset: *offset,
                length: *length,
            }
            .to_payload(),
            Self::ReadLinkAt(id) => ReadLinkAt { id: id_of(*id) }.to_payload(),
            Self::Flush(open) => Flush { open: id_of(*open) }.to_payload(),
            Self::Connect(id, sock_type) => Connect {
                id: id_of(*id),
                sock_type: *sock_type,
            }
            .to_payload(),
            Self::ConnectWithCreds(id, sock_type) => ConnectWithCreds {
                id: id_of(*id),
                sock_type: *sock_type,
                uid: 0,
                gid: 0,
            }
            .to_payload(),
            Self::UnlinkAt { dir, flags, name } => UnlinkAt {
                dir: id_of(*dir),
                flags: *flags,
                name: Text(&name.0),
            }
            .to_payload(),
            Self::RenameAt { from, to } => RenameAt {
                old_dir: id_of(from.0),
                new_dir: id_of(to.0),
                old_name: Text(&from.1.0),
                new_name: Text(&to.1.0),
            }
            .to_payload(),
            Self::RenameAt2 { from, to, flags } => RenameAt2 {
                old_dir: id_of(from.0),
                new_dir: id_of(to.0),
                old_name: Text(&from.1.0),
                new_name: Text(&to.1.0),
                flags: *flags,
            }
            .to_payload(),
            Self::Getdents64(dir, count) => Getdents64 {
                dir: id_of(*dir),
                count: *count,
            }
            .to_payload(),
            Self::FGetXattr { id, size, name } => FGetXattr {
                id: id_of(*id),
                buf_size: *size,
                name: Text(&name.0),
            }
            .to_payload(),
            Self::FSetXattr {
                id,
                flags,
                name,
                value,
            } => FSetXattr {
                id: id_of(*id),
                flags: *flags,
                name: Text(&name.0),
                value: Text(&value.0),
            }
            .to_payload(),
            Self::FListXattr(id, size) => FListXattr {
                id: id_of(*id),
                size: *size,
            }
            .to_payload(),
            Self::FRemoveXattr(id, name) => FRemoveXattr {
                id: id_of(*id),
                name: Text(&name.0),
            }
            .to_payload(),
            Self::BindAt { new, kind, name } => BindAt {
                new: node(new),
                sock_type: *kind,
                name: Text(&name.0),
            }
            .to_payload(),
            Self::Listen(bound, backlog) => Listen {
                bound: id_of(*bound),
                backlog: *backlog,
            }
            .to_payload(),
            Self::Accept(bound) => Accept {
                bound: id_of(*bound),
            }
            .to_payload(),
            Self::Any(_, payload) => payload.0.clone(),
        }
    }
}

const fn owner(new: &New) -> Owner {
    Owner {
        uid: new.uid,
        gid: new.gid,
    }
}

impl Twist {
    /// Spoils a payload.
    pub fn apply(&self, payload: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Cut(thousandths) => {
                payload.truncate(payload.len() * usize::from(*thousandths) / 1000);
            }
            Self::Longer(bytes) => {
                payload.extend(std::iter::repeat_n(0xa5, usize::from(*bytes)));
            }
        }
    }
}
