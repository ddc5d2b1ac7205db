//! Every message of the protocol, by number: decoded, looked at to its last element, encoded again.

use wire::msg::{attr, data, dir, open, session, socket, walk, xattr};
use wire::{Array, Decode, Encode, FdId, Inode, Malformed, Mid, Statx, Texts};

/// A decoder that answers whether the payload was accepted, and panics on a broken promise.
pub type Check = fn(&[u8]) -> bool;

/// What was accepted encodes to bytes that decode to the same, and never grew.
fn round_trip<'a, T: Decode<'a> + Encode>(payload: &'a [u8]) -> Option<(T, Vec<u8>)> {
    let mut reader = wire::Reader::new(payload);
    let message = T::decode(&mut reader).ok()?;
    let read = payload.len() - reader.rest().len();
    let encoded = message.to_payload();
    assert!(encoded.len() <= read.max(encoded.len()) && encoded.len() == read);
    Some((message, encoded))
}

macro_rules! check {
    ($type:ty) => {
        |payload| {
            let Some((message, encoded)) = round_trip::<$type>(payload) else {
                return false;
            };
            assert_eq!(<$type>::from_payload(&encoded), Ok(message));
            // One byte less must be too few.
            if let Some(short) = encoded.len().checked_sub(1) {
                assert_eq!(<$type>::from_payload(&encoded[..short]), Err(Malformed));
            }
            true
        }
    };
    ($type:ty, $elements:expr) => {
        |payload| {
            let whole: Check = check!($type);
            if !whole(payload) {
                return false;
            }
            if let Ok(message) = <$type>::from_payload(payload) {
                let elements: fn(&$type) -> (usize, usize) = $elements;
                let (counted, promised) = elements(&message);
                assert_eq!(counted, promised, "as many elements as the count says");
            }
            true
        }
    };
}

/// Requests.
pub const REQUESTS: &[(Mid, Check)] = &[
    (Mid::FSTAT, check!(attr::FStat)),
    (Mid::SET_STAT, check!(attr::SetStat)),
    (
        Mid::WALK,
        check!(walk::Walk<'_>, |m| (m.path.iter().count(), m.path.len())),
    ),
    (Mid::OPEN_AT, check!(open::OpenAt)),
    (Mid::OPEN_CREATE_AT, check!(open::OpenCreateAt<'_>)),
    (
        Mid::CLOSE,
        check!(session::Close<'_>, |m| (m.ids.iter().count(), m.ids.len())),
    ),
    (
        Mid::FSYNC,
        check!(data::FSync<'_>, |m| (m.ids.iter().count(), m.ids.len())),
    ),
    (Mid::PWRITE, check!(data::PWrite)),
    (Mid::PREAD, check!(data::PRead)),
    (Mid::MKDIR_AT, check!(dir::MkdirAt<'_>)),
    (Mid::MKNOD_AT, check!(dir::MknodAt<'_>)),
    (Mid::SYMLINK_AT, check!(dir::SymlinkAt<'_>)),
    (Mid::LINK_AT, check!(dir::LinkAt<'_>)),
    (Mid::FSTATFS, check!(attr::FStatFS)),
    (Mid::FALLOCATE, check!(data::FAllocate)),
    (Mid::READ_LINK_AT, check!(walk::ReadLinkAt)),
    (Mid::FLUSH, check!(open::Flush)),
    (Mid::CONNECT, check!(socket::Connect)),
    (Mid::UNLINK_AT, check!(dir::UnlinkAt<'_>)),
    (Mid::RENAME_AT, check!(dir::RenameAt<'_>)),
    (Mid::GETDENTS64, check!(dir::Getdents64)),
    (Mid::FGET_XATTR, check!(xattr::FGetXattr<'_>)),
    (Mid::FSET_XATTR, check!(xattr::FSetXattr<'_>)),
    (Mid::FLIST_XATTR, check!(xattr::FListXattr)),
    (Mid::FREMOVE_XATTR, check!(xattr::FRemoveXattr<'_>)),
    (Mid::BIND_AT, check!(socket::BindAt<'_>)),
    (Mid::LISTEN, check!(socket::Listen)),
    (Mid::ACCEPT, check!(socket::Accept)),
    (Mid::CONNECT_WITH_CREDS, check!(socket::ConnectWithCreds)),
    (Mid::RENAME_AT2, check!(dir::RenameAt2<'_>)),
];

/// Successful replies that have a body, and the error reply.
pub const REPLIES: &[(Mid, Check)] = &[
    (Mid::ERROR, check!(session::ErrorReply)),
    (
        Mid::MOUNT,
        check!(session::MountReply<'_>, |m| (
            m.supported.iter().count(),
            m.supported.len()
        )),
    ),
    (Mid::CHANNEL, check!(session::ChannelReply)),
    (Mid::FSTAT, check!(Statx)),
    (Mid::SET_STAT, check!(attr::SetStatReply)),
    (
        Mid::WALK,
        check!(walk::WalkReply<'_>, |m| (
            m.inodes.iter().count(),
            m.inodes.len()
        )),
    ),
    (
        Mid::WALK_STAT,
        check!(walk::WalkStatReply<'_>, |m| (
            m.stats.iter().count(),
            m.stats.len()
        )),
    ),
    (Mid::OPEN_AT, check!(open::OpenAtReply)),
    (Mid::OPEN_CREATE_AT, check!(open::OpenCreateAtReply)),
    (Mid::PWRITE, check!(data::PWriteReply)),
    (Mid::PREAD, check!(data::PReadReply)),
    (Mid::MKDIR_AT, check!(Inode)),
    (Mid::MKNOD_AT, check!(Inode)),
    (Mid::SYMLINK_AT, check!(Inode)),
    (Mid::LINK_AT, check!(Inode)),
    (Mid::FSTATFS, check!(attr::FStatFSReply)),
    (Mid::READ_LINK_AT, check!(walk::ReadLinkAtReply<'_>)),
    (
        Mid::GETDENTS64,
        check!(dir::Getdents64Reply<'_>, |m| (m.iter().count(), m.len())),
    ),
    (Mid::FGET_XATTR, check!(xattr::FGetXattrReply<'_>)),
    (
        Mid::FLIST_XATTR,
        check!(xattr::FListXattrReply<'_>, |m| (
            m.names.iter().count(),
            m.names.len()
        )),
    ),
    (Mid::BIND_AT, check!(socket::BindAtReply)),
    (Mid::ACCEPT, check!(socket::AcceptReply<'_>)),
];

/// Arrays and strings by themselves.
pub const PARTS: &[Check] = &[
    check!(Texts<'_>, |m| (m.iter().count(), m.len())),
    check!(Array<'_, FdId>, |m| (m.iter().count(), m.len())),
    check!(Array<'_, u16>, |m| (m.iter().count(), m.len())),
    check!(dir::Dirent<'_>),
];
