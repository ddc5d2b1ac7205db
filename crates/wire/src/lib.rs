//! LISAFS on the wire: messages, ids, names, errnos, and how they become bytes and back.
//!
//! Belongs here: layouts, limits, what a number or a name may be.
//! Belongs elsewhere: transports (`channel`), what a request does (`server`), system calls (`host`).
//! Must hold: decoding never reads beyond the payload, never allocates, never panics; a payload is
//! refused if and only if it is shorter than its fixed part or than any length inside it demands.
//!
//! The layouts were taken from `lisafs.md` (section 4, 8, 9) and are checked against every entry of
//! `tests/vectors.json`, in both directions.
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("LISAFS is little endian and its structures are copied as they lie in memory");

mod array;
mod block;
mod errno;
pub mod limits;
mod mid;
pub mod msg;
mod name;
mod reader;
mod writer;

pub use array::{Array, Texts, TextsBuf};
pub use block::{Inode, NewNode, OpenFlags, Owner, Statx, StatxTime, Timespec};
pub use errno::Errno;
pub use mid::Mid;
pub use name::{Name, Text};
pub use reader::{Decode, Malformed, Reader};
pub use writer::{Encode, Writer};

/// A number by which a client names something it holds: a control id, an open id or a bound socket.
/// Zero never names anything.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(transparent)]
pub struct FdId(pub u64);
