//! Requests drawn from a fuzzer's bytes: each message's fields by kind, so that most of what is
//! drawn gets past the decoder, and ids and names mostly mean something.

use arbitrary::{Arbitrary, Result, Unstructured};
use wire::Mid;

/// Kinds of fields, by what is worth trying in them.
#[derive(Clone, Copy, Debug)]
enum Field {
    /// One id.
    Id,
    /// A `u16` count of ids, and these.
    Ids,
    /// A name in a directory.
    Name,
    /// A `u16` count of names, and these.
    Names,
    /// The name of an extended attribute.
    Attribute,
    /// A string of any content.
    Text,
    /// A `u32` of few bits: flags, types.
    Flags,
    /// A `u32` that counts or measures.
    Count,
    /// A user or group.
    Owner,
    /// A `u16` with a file's mode.
    Mode,
    /// A `u64` with an offset or length.
    Size,
    /// A `u32` count of bytes, and these.
    Data,
    /// Padding.
    Pad(usize),
}

use Field::{Attribute, Count, Data, Flags, Id, Ids, Mode, Name, Names, Owner, Pad, Size, Text};

/// The fields of a request, in wire order.
const fn layout(mid: Mid) -> &'static [Field] {
    match mid {
        Mid::FSTAT | Mid::FSTATFS | Mid::READ_LINK_AT | Mid::FLUSH | Mid::ACCEPT => &[Id],
        Mid::SET_STAT => &[Id, Flags, Flags, Owner, Owner, Size, Size, Size, Size, Size],
        Mid::WALK | Mid::WALK_STAT => &[Id, Names],
        Mid::OPEN_AT => &[Id, Flags, Pad(4)],
        Mid::OPEN_CREATE_AT => &[Id, Owner, Owner, Mode, Pad(6), Flags, Name],
        Mid::CLOSE | Mid::FSYNC => &[Ids],
        Mid::PWRITE => &[Size, Id, Data],
        Mid::PREAD => &[Size, Id, Count, Pad(4)],
        Mid::MKDIR_AT => &[Id, Owner, Owner, Mode, Pad(6), Name],
        Mid::MKNOD_AT => &[Id, Owner, Owner, Mode, Pad(6), Count, Count, Name],
        Mid::SYMLINK_AT => &[Id, Owner, Owner, Name, Text],
        Mid::LINK_AT => &[Id, Id, Name],
        Mid::FALLOCATE => &[Id, Size, Size, Size],
        Mid::CONNECT => &[Id, Flags, Pad(4)],
        Mid::UNLINK_AT => &[Id, Flags, Name],
        Mid::RENAME_AT => &[Id, Id, Name, Name],
        Mid::GETDENTS64 => &[Id, Count, Pad(4)],
        Mid::FGET_XATTR => &[Id, Count, Attribute],
        Mid::FSET_XATTR => &[Id, Flags, Attribute, Text],
        Mid::FLIST_XATTR => &[Id, Size],
        Mid::FREMOVE_XATTR => &[Id, Attribute],
        Mid::BIND_AT => &[Id, Owner, Owner, Mode, Pad(6), Flags, Name],
        Mid::LISTEN => &[Id, Count, Pad(4)],
        Mid::CONNECT_WITH_CREDS => &[Id, Flags, Pad(4), Owner, Owner],
        Mid::RENAME_AT2 => &[Id, Id, Name, Name, Flags],
        _ => &[],
    }
}

/// Names of the planted tree, names to make, and names that must not work.
const NAMES: [&[u8]; 14] = [
    b"f0",
    b"d0",
    b"d1",
    b"sub",
    b"l0",
    b"out",
    b"p0",
    b"s0",
    b"new",
    b"other",
    b"..",
    b".",
    b"",
    b"../outside",
];
const ATTRIBUTES: [&[u8]; 6] = [
    b"user.a",
    b"user.b",
    b"trusted.t",
    b"security.capability",
    b"system.posix_acl_access",
    b"x",
];
/// Flags that mean something somewhere: access modes, `O_TRUNC` and `AT_REMOVEDIR` (both 0x200),
/// types of sockets, `RENAME_*`, bits of SetStat's mask.
const FLAGS: [u32; 14] = [
    0, 1, 2, 3, 4, 5, 7, 8, 0x18, 0x60, 0x200, 0x201, 0x202, 0x27a,
];
const COUNTS: [u32; 10] = [
    0,
    1,
    7,
    100,
    4096,
    65_536,
    65_537,
    2_093_048,
    0x8000_0000,
    0xffff_fff8,
];
const SIZES: [u64; 9] = [
    0,
    1,
    10,
    4095,
    70_000,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];
const OWNERS: [u32; 4] = [0, 1000, u32::MAX, 65_534];
const MODES: [u16; 8] = [
    0o644, 0o100_644, 0o4755, 0o040_777, 0o010_600, 0o020_666, 0o140_755, 0o060_600,
];

/// A message and its payload. `ids` are those that the server gave out so far.
pub fn request(u: &mut Unstructured<'_>, ids: &[u64]) -> Result<(Mid, Vec<u8>)> {
    let number = u.int_in_range(0..=40)?;
    let mid = match number {
        // Beyond the last message, and beyond the protocol's own range.
        34.. => Mid(u16::arbitrary(u)?),
        number => Mid(number),
    };
    let mut payload = Vec::new();
    for &field in layout(mid) {
        put(&mut payload, u, field, ids)?;
    }
    match u.int_in_range(0..=15)? {
        0 => payload.truncate(u.int_in_range(0..=payload.len())?),
        1 => payload.extend_from_slice(&<[u8; 9]>::arbitrary(u)?),
        2 if !payload.is_empty() => {
            let at = u.choose_index(payload.len())?;
            payload[at] = u8::arbitrary(u)?;
        }
        _ => {}
    }
    Ok((mid, payload))
}

fn put(out: &mut Vec<u8>, u: &mut Unstructured<'_>, field: Field, ids: &[u64]) -> Result<()> {
    match field {
        Id => out.extend_from_slice(&id(u, ids)?.to_le_bytes()),
        Ids => {
            let count = u.int_in_range(0..=5_u16)?;
            out.extend_from_slice(&count.to_le_bytes());
            for _ in 0..count {
                out.extend_from_slice(&id(u, ids)?.to_le_bytes());
            }
        }
        Name => text(out, &of(u, &NAMES)?),
        Names => {
            let count = u.int_in_range(0..=4_u16)?;
            out.extend_from_slice(&count.to_le_bytes());
            for _ in 0..count {
                text(out, &of(u, &NAMES)?);
            }
        }
        Attribute => text(out, &of(u, &ATTRIBUTES)?),
        Text => text(out, &some_bytes(u)?),
        Flags => out.extend_from_slice(&number(u, &FLAGS)?.to_le_bytes()),
        Count => out.extend_from_slice(&number(u, &COUNTS)?.to_le_bytes()),
        Owner => out.extend_from_slice(&number(u, &OWNERS)?.to_le_bytes()),
        Mode => out.extend_from_slice(&number(u, &MODES)?.to_le_bytes()),
        Size => out.extend_from_slice(&number(u, &SIZES)?.to_le_bytes()),
        Data => {
            let data = some_bytes(u)?;
            out.extend_from_slice(&(data.len() as u32).to_le_bytes());
            out.extend_from_slice(&data);
        }
        Pad(bytes) => out.resize(out.len() + bytes, 0),
    }
    Ok(())
}

/// Mostly an id that was given out.
fn id(u: &mut Unstructured<'_>, ids: &[u64]) -> Result<u64> {
    match u.int_in_range(0..=31_u8)? {
        0 => u64::arbitrary(u),
        // The next one, and one of another generation of its slot.
        1 => Ok(ids.len() as u64 + 1),
        2 => Ok(1 << 32 | 1),
        // Recent ones more often: they are what a sequence is about.
        3..16 if ids.len() > 4 => Ok(ids[ids.len() - 1 - u.choose_index(4)?]),
        _ if ids.is_empty() => Ok(1),
        _ => Ok(ids[u.choose_index(ids.len())?]),
    }
}

fn number<'a, T: Copy + Arbitrary<'a>>(u: &mut Unstructured<'a>, known: &[T]) -> Result<T> {
    if u.ratio(7, 8)? {
        u.choose(known).copied()
    } else {
        T::arbitrary(u)
    }
}

fn of(u: &mut Unstructured<'_>, known: &[&[u8]]) -> Result<Vec<u8>> {
    if u.ratio(15, 16)? {
        return u.choose(known).map(|name| name.to_vec());
    }
    some_bytes(u)
}

fn some_bytes(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let long = u.ratio(1, 16)?;
    let length = usize::from(u8::arbitrary(u)? % 32);
    if long {
        return Ok(vec![u8::arbitrary(u)?; length * 257]);
    }
    Ok(u.bytes(length.min(u.len()))?.to_vec())
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}
