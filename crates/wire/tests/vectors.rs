//! Every entry of `vectors.json` in both directions: bytes to fields, fields to bytes.
//!
//! Belongs here: what the protocol's own examples say about layouts and verdicts.
//! Belongs elsewhere: the window's states (`flipcall` in the file), which are `channel`'s.
//! Must hold: an entry, a type or a part of the file that nobody looked at fails a test.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use wire::msg::{attr, data, dir, open, session, socket, walk, xattr};
use wire::{
    Array, Decode, Encode, FdId, Inode, Malformed, Mid, NewNode, Owner, Reader, Statx, StatxTime,
    Text, Texts, TextsBuf, Timespec, Writer,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What may be unread room in a `PRead` reply: the file was made with a buffer of 16 bytes.
const PREAD_BUFFER_BYTES: u64 = 16;
/// Strings above this length are abbreviated in the file.
const ABBREVIATED_ABOVE_BYTES: usize = 600;

// ---------------------------------------------------------------- values to JSON and back

/// A value of the wire as the file writes it down.
trait Fields: Sized {
    fn json(&self) -> Value;
    fn of(value: &Value) -> Self;
}

macro_rules! numbers {
    ($($type:ty: $as:ident),*) => {$(
        impl Fields for $type {
            fn json(&self) -> Value { json!(self) }
            fn of(value: &Value) -> Self { value.$as().unwrap().try_into().unwrap() }
        }
    )*};
}
numbers! { u8: as_u64, u16: as_u64, u32: as_u64, u64: as_u64, i32: as_i64, i64: as_i64 }

impl Fields for FdId {
    fn json(&self) -> Value {
        json!(self.0)
    }
    fn of(value: &Value) -> Self {
        Self(u64::of(value))
    }
}

/// Lends bytes for the rest of the process: decoded values borrow, and a test is short.
fn keep(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into_boxed_slice())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half a byte in {text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

impl Fields for Text<'static> {
    fn json(&self) -> Value {
        if self.0.len() > ABBREVIATED_ABOVE_BYTES {
            let tail = &self.0[self.0.len() - 16..];
            return json!({
                "len": self.0.len(), "first16_hex": hex(&self.0[..16]), "last16_hex": hex(tail),
            });
        }
        match std::str::from_utf8(self.0) {
            Ok(text) if !text.chars().any(char::is_control) => json!(text),
            _ => json!({ "hex": hex(self.0) }),
        }
    }
    fn of(value: &Value) -> Self {
        Self(keep(match value {
            Value::String(text) => text.clone().into_bytes(),
            other => unhex(other["hex"].as_str().unwrap()),
        }))
    }
}

impl Fields for Texts<'static> {
    fn json(&self) -> Value {
        assert_eq!(self.iter().count(), self.len());
        self.iter().map(|text| text.json()).collect()
    }
    fn of(value: &Value) -> Self {
        let mut all = TextsBuf::default();
        for text in value.as_array().unwrap() {
            assert!(all.push(Text::of(text).0));
        }
        Texts::from_payload(keep(all.texts().to_payload())).unwrap()
    }
}

impl<T: Fields + FromBytes + IntoBytes + Immutable + 'static> Fields for Array<'static, T> {
    fn json(&self) -> Value {
        assert_eq!(self.iter().count(), self.len());
        self.iter().map(|item| item.json()).collect()
    }
    fn of(value: &Value) -> Self {
        let items: Vec<T> = value.as_array().unwrap().iter().map(T::of).collect();
        Array::new(Vec::leak(items))
    }
}

/// Names the fields of a structure as the file does. The key `""` means that the field's own fields
/// stand beside the others.
macro_rules! fields {
    ($($type:ty { $($field:ident $key:literal),* } $(else $rest:expr)?;)*) => {$(
        impl Fields for $type {
            fn json(&self) -> Value {
                #[allow(unused_mut, reason = "a message without fields puts nothing")]
                let mut all = Map::new();
                $(put(&mut all, $key, self.$field.json());)*
                Value::Object(all)
            }
            fn of(_value: &Value) -> Self {
                Self { $($field: Fields::of(part(_value, $key)),)* $(..$rest)? }
            }
        }
    )*};
}

fn put(all: &mut Map<String, Value>, key: &str, value: Value) {
    match value {
        Value::Object(inner) if key.is_empty() => all.extend(inner),
        other => {
            all.insert(key.to_owned(), other);
        }
    }
}

fn part<'v>(value: &'v Value, key: &str) -> &'v Value {
    if key.is_empty() { value } else { &value[key] }
}

fields! {
    StatxTime { seconds "Sec", nanoseconds "Nsec" } else Self::default();
    Timespec { seconds "Sec", nanoseconds "Nsec" };
    Statx {
        mask "Mask", blksize "Blksize", attributes "Attributes", nlink "Nlink", uid "UID",
        gid "GID", mode "Mode", ino "Ino", size "Size", blocks "Blocks",
        attributes_mask "AttributesMask", atime "Atime", btime "Btime", ctime "Ctime",
        mtime "Mtime", rdev_major "RdevMajor", rdev_minor "RdevMinor", dev_major "DevMajor",
        dev_minor "DevMinor"
    } else Self::default();
    Inode { control "ControlFD", stat "Stat" };
    Owner { uid "UID", gid "GID" };
    NewNode { dir "DirFD", owner "", mode "Mode" };
    dir::Dirent<'static> {
        ino "Ino", dev_minor "DevMinor", dev_major "DevMajor", off "Off", kind "Type", name "Name"
    };

    session::ErrorReply { errno "errno" };
    session::MountReply<'static> {
        root "Root", max_message_size "MaxMessageSize", supported "SupportedMs"
    };
    session::ChannelReply { data_offset "dataOffset", data_length "dataLength" };
    session::Close<'static> { ids "FDs" };

    walk::Walk<'static> { dir "DirFD", path "Path" };
    walk::WalkReply<'static> { status "Status", inodes "Inodes" };
    walk::WalkStatReply<'static> { stats "Stats" };
    walk::ReadLinkAt { id "FD" };
    walk::ReadLinkAtReply<'static> { target "Target" };

    open::OpenAt { id "FD", flags "Flags" };
    open::OpenAtReply { open "OpenFD" };
    open::OpenCreateAt<'static> { new "", flags "Flags", name "Name" };
    open::OpenCreateAtReply { child "Child", open "NewFD" };
    open::Flush { open "FD" };

    attr::FStat { id "FD" };
    attr::SetStat {
        id "FD", mask "Mask", mode "Mode", uid "UID", gid "GID", size "Size", atime "Atime",
        mtime "Mtime"
    };
    attr::SetStatReply { failure_mask "FailureMask", failure_errno "FailureErrNo" };
    attr::FStatFS { id "FD" };
    attr::FStatFSReply {
        kind "Type", block_size "BlockSize", blocks "Blocks", blocks_free "BlocksFree",
        blocks_available "BlocksAvailable", files "Files", files_free "FilesFree",
        name_length "NameLength"
    };

    data::FSync<'static> { ids "FDs" };
    data::PWrite { offset "Offset", open "FD", num_bytes "NumBytes" };
    data::PWriteReply { count "Count" };
    data::PRead { offset "Offset", open "FD", count "Count" };
    data::PReadReply { num_bytes "NumBytes" };
    data::FAllocate { open "FD", mode "Mode", offset "Offset", length "Length" };

    dir::MkdirAt<'static> { new "", name "Name" };
    dir::MknodAt<'static> { new "", minor "Minor", major "Major", name "Name" };
    dir::SymlinkAt<'static> { dir "DirFD", owner "", name "Name", target "Target" };
    dir::LinkAt<'static> { dir "DirFD", target "Target", name "Name" };
    dir::UnlinkAt<'static> { dir "DirFD", flags "Flags", name "Name" };
    dir::RenameAt<'static> {
        old_dir "OldDir", new_dir "NewDir", old_name "OldName", new_name "NewName"
    };
    dir::RenameAt2<'static> {
        old_dir "OldDir", new_dir "NewDir", old_name "OldName", new_name "NewName", flags "Flags"
    };
    dir::Getdents64 { dir "DirFD", count "Count" };

    xattr::FGetXattr<'static> { id "FD", buf_size "BufSize", name "Name" };
    xattr::FGetXattrReply<'static> { value "Value" };
    xattr::FSetXattr<'static> { id "FD", flags "Flags", name "Name", value "Value" };
    xattr::FListXattr { id "FD", size "Size" };
    xattr::FListXattrReply<'static> { names "Xattrs" };
    xattr::FRemoveXattr<'static> { id "FD", name "Name" };

    socket::Connect { id "FD", sock_type "SockType" };
    socket::ConnectWithCreds { id "FD", sock_type "SockType", uid "UID", gid "GID" };
    socket::BindAt<'static> { new "", sock_type "SockType", name "Name" };
    socket::BindAtReply { child "Child", bound "BoundSocketFD" };
    socket::Listen { bound "FD", backlog "Backlog" };
    socket::Accept { bound "FD" };
    socket::AcceptReply<'static> { peer "PeerAddr" };

    Empty {};
    MkdirAtReply { inode "ChildDir" };
    MknodAtReply { inode "Child" };
    SymlinkAtReply { inode "Symlink" };
    LinkAtReply { inode "Link" };
    WholePWrite { head "", data "Buf" };
    WholePRead { head "", data "Buf" };
}

impl Fields for dir::Getdents64Reply<'static> {
    fn json(&self) -> Value {
        assert_eq!(self.iter().count(), self.len());
        json!({ "Dirents": self.iter().map(|entry| entry.json()).collect::<Vec<_>>() })
    }
    fn of(value: &Value) -> Self {
        let mut payload = Vec::new();
        let mut writer = Writer::new(&mut payload);
        let mut entries = dir::DirentsWriter::new(&mut writer);
        for entry in value["Dirents"].as_array().unwrap() {
            assert!(entries.push(&dir::Dirent::of(entry)));
        }
        entries.finish();
        Self::from_payload(keep(payload)).unwrap()
    }
}

// ------------------------------------------------- messages that the crate spells differently

/// A message without a body: any payload will do, and nothing of it is read.
struct Empty {}
impl Decode<'static> for Empty {
    fn decode(_: &mut Reader<'static>) -> Result<Self, Malformed> {
        Ok(Self {})
    }
}
impl Encode for Empty {
    fn encode(&self, _: &mut Writer<'_>) {}
}

macro_rules! inode_replies {
    ($($name:ident),*) => {$(
        struct $name { inode: Inode }
        impl Decode<'static> for $name {
            fn decode(r: &mut Reader<'static>) -> Result<Self, Malformed> {
                Ok(Self { inode: Inode::decode(r)? })
            }
        }
        impl Encode for $name {
            fn encode(&self, w: &mut Writer<'_>) { self.inode.encode(w); }
        }
    )*};
}
inode_replies! { MkdirAtReply, MknodAtReply, SymlinkAtReply, LinkAtReply }

/// Bytes that the file always writes in hex.
struct Data(&'static [u8]);
impl Fields for Data {
    fn json(&self) -> Value {
        json!({ "hex": hex(self.0) })
    }
    fn of(value: &Value) -> Self {
        Self(keep(unhex(value["hex"].as_str().unwrap())))
    }
}

struct WholePWrite {
    head: data::PWrite,
    data: Data,
}
impl Decode<'static> for WholePWrite {
    fn decode(r: &mut Reader<'static>) -> Result<Self, Malformed> {
        let head = data::PWrite::decode(r)?;
        let data = Data(r.bytes(head.num_bytes as usize)?);
        Ok(Self { head, data })
    }
}
impl Encode for WholePWrite {
    fn encode(&self, w: &mut Writer<'_>) {
        self.head.encode(w);
        w.bytes(self.data.0);
    }
}

struct WholePRead {
    head: data::PReadReply,
    data: Data,
}
impl Decode<'static> for WholePRead {
    fn decode(r: &mut Reader<'static>) -> Result<Self, Malformed> {
        let head = data::PReadReply::decode(r)?;
        if head.num_bytes > PREAD_BUFFER_BYTES {
            return Err(Malformed);
        }
        let data = Data(r.bytes(usize::try_from(head.num_bytes).map_err(|_| Malformed)?)?);
        Ok(Self { head, data })
    }
}
impl Encode for WholePRead {
    fn encode(&self, w: &mut Writer<'_>) {
        self.head.encode(w);
        w.bytes(self.data.0);
    }
}

// ---------------------------------------------------------------------- the table of types

/// The fields, and how many bytes were left.
type Decoded = Result<(Value, usize), Malformed>;

/// How one type of the file is read and written.
struct Codec {
    name: &'static str,
    mid: Option<Mid>,
    decode: fn(&'static [u8]) -> Decoded,
    encode: fn(&Value) -> Vec<u8>,
}

fn codec<T: Fields + Decode<'static> + Encode>(name: &'static str, mid: Option<Mid>) -> Codec {
    Codec {
        name,
        mid,
        decode: |bytes| {
            let mut reader = Reader::new(bytes);
            let value = T::decode(&mut reader)?;
            Ok((value.json(), reader.rest().len()))
        },
        encode: |fields| T::of(fields).to_payload(),
    }
}

#[rustfmt::skip]
fn codecs() -> Vec<Codec> {
    vec![
        codec::<Text>("SizedString", None),
        codec::<Texts>("StringArray", None),
        codec::<Array<FdId>>("FdArray", None),
        codec::<Statx>("Statx", None),
        codec::<Inode>("Inode", None),
        codec::<dir::Dirent>("Dirent64", None),
        codec::<session::ErrorReply>("ErrorResp", Some(Mid::ERROR)),
        codec::<Empty>("MountReq", Some(Mid::MOUNT)),
        codec::<session::MountReply>("MountResp", Some(Mid::MOUNT)),
        codec::<Empty>("ChannelReq", Some(Mid::CHANNEL)),
        codec::<session::ChannelReply>("ChannelResp", Some(Mid::CHANNEL)),
        codec::<attr::FStat>("StatReq", Some(Mid::FSTAT)),
        codec::<attr::SetStat>("SetStatReq", Some(Mid::SET_STAT)),
        codec::<attr::SetStatReply>("SetStatResp", Some(Mid::SET_STAT)),
        codec::<walk::Walk>("WalkReq", Some(Mid::WALK)),
        codec::<walk::WalkReply>("WalkResp", Some(Mid::WALK)),
        codec::<walk::WalkStatReply>("WalkStatResp", Some(Mid::WALK_STAT)),
        codec::<open::OpenAt>("OpenAtReq", Some(Mid::OPEN_AT)),
        codec::<open::OpenAtReply>("OpenAtResp", Some(Mid::OPEN_AT)),
        codec::<open::OpenCreateAt>("OpenCreateAtReq", Some(Mid::OPEN_CREATE_AT)),
        codec::<open::OpenCreateAtReply>("OpenCreateAtResp", Some(Mid::OPEN_CREATE_AT)),
        codec::<session::Close>("CloseReq", Some(Mid::CLOSE)),
        codec::<Empty>("CloseResp", Some(Mid::CLOSE)),
        codec::<data::FSync>("FsyncReq", Some(Mid::FSYNC)),
        codec::<Empty>("FsyncResp", Some(Mid::FSYNC)),
        codec::<WholePWrite>("PWriteReq", Some(Mid::PWRITE)),
        codec::<data::PWriteReply>("PWriteResp", Some(Mid::PWRITE)),
        codec::<data::PRead>("PReadReq", Some(Mid::PREAD)),
        codec::<WholePRead>("PReadResp", Some(Mid::PREAD)),
        codec::<dir::MkdirAt>("MkdirAtReq", Some(Mid::MKDIR_AT)),
        codec::<MkdirAtReply>("MkdirAtResp", Some(Mid::MKDIR_AT)),
        codec::<dir::MknodAt>("MknodAtReq", Some(Mid::MKNOD_AT)),
        codec::<MknodAtReply>("MknodAtResp", Some(Mid::MKNOD_AT)),
        codec::<dir::SymlinkAt>("SymlinkAtReq", Some(Mid::SYMLINK_AT)),
        codec::<SymlinkAtReply>("SymlinkAtResp", Some(Mid::SYMLINK_AT)),
        codec::<dir::LinkAt>("LinkAtReq", Some(Mid::LINK_AT)),
        codec::<LinkAtReply>("LinkAtResp", Some(Mid::LINK_AT)),
        codec::<attr::FStatFS>("FStatFSReq", Some(Mid::FSTATFS)),
        codec::<attr::FStatFSReply>("StatFS", Some(Mid::FSTATFS)),
        codec::<data::FAllocate>("FAllocateReq", Some(Mid::FALLOCATE)),
        codec::<Empty>("FAllocateResp", Some(Mid::FALLOCATE)),
        codec::<walk::ReadLinkAt>("ReadLinkAtReq", Some(Mid::READ_LINK_AT)),
        codec::<walk::ReadLinkAtReply>("ReadLinkAtResp", Some(Mid::READ_LINK_AT)),
        codec::<open::Flush>("FlushReq", Some(Mid::FLUSH)),
        codec::<Empty>("FlushResp", Some(Mid::FLUSH)),
        codec::<socket::Connect>("ConnectReq", Some(Mid::CONNECT)),
        codec::<Empty>("ConnectResp", Some(Mid::CONNECT)),
        codec::<dir::UnlinkAt>("UnlinkAtReq", Some(Mid::UNLINK_AT)),
        codec::<Empty>("UnlinkAtResp", Some(Mid::UNLINK_AT)),
        codec::<dir::RenameAt>("RenameAtReq", Some(Mid::RENAME_AT)),
        codec::<Empty>("RenameAtResp", Some(Mid::RENAME_AT)),
        codec::<dir::Getdents64>("Getdents64Req", Some(Mid::GETDENTS64)),
        codec::<dir::Getdents64Reply>("Getdents64Resp", Some(Mid::GETDENTS64)),
        codec::<xattr::FGetXattr>("FGetXattrReq", Some(Mid::FGET_XATTR)),
        codec::<xattr::FGetXattrReply>("FGetXattrResp", Some(Mid::FGET_XATTR)),
        codec::<xattr::FSetXattr>("FSetXattrReq", Some(Mid::FSET_XATTR)),
        codec::<Empty>("FSetXattrResp", Some(Mid::FSET_XATTR)),
        codec::<xattr::FListXattr>("FListXattrReq", Some(Mid::FLIST_XATTR)),
        codec::<xattr::FListXattrReply>("FListXattrResp", Some(Mid::FLIST_XATTR)),
        codec::<xattr::FRemoveXattr>("FRemoveXattrReq", Some(Mid::FREMOVE_XATTR)),
        codec::<Empty>("FRemoveXattrResp", Some(Mid::FREMOVE_XATTR)),
        codec::<socket::BindAt>("BindAtReq", Some(Mid::BIND_AT)),
        codec::<socket::BindAtReply>("BindAtResp", Some(Mid::BIND_AT)),
        codec::<socket::Listen>("ListenReq", Some(Mid::LISTEN)),
        codec::<Empty>("ListenResp", Some(Mid::LISTEN)),
        codec::<socket::Accept>("AcceptReq", Some(Mid::ACCEPT)),
        codec::<socket::AcceptReply>("AcceptResp", Some(Mid::ACCEPT)),
        codec::<socket::ConnectWithCreds>("ConnectWithCredsReq", Some(Mid::CONNECT_WITH_CREDS)),
        codec::<dir::RenameAt2>("RenameAt2Req", Some(Mid::RENAME_AT2)),
    ]
}

/// Types of which the file has entries under two message ids: one layout, two messages.
const SHARED_TYPES: &[(&str, Mid)] = &[
    ("Statx", Mid::FSTAT),
    ("WalkReq", Mid::WALK_STAT),
    ("ConnectResp", Mid::CONNECT_WITH_CREDS),
    ("RenameAtResp", Mid::RENAME_AT2),
];

// ------------------------------------------------------------------------------- the file

fn file() -> Value {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

fn entries<'f>(file: &'f Value, part: &str) -> &'f Vec<Value> {
    file[part].as_array().unwrap()
}

fn text<'e>(entry: &'e Value, key: &str) -> &'e str {
    entry[key].as_str().unwrap()
}

fn codec_of<'c>(codecs: &'c [Codec], entry: &Value) -> &'c Codec {
    let name = text(entry, "type");
    let codec = codecs.iter().find(|codec| codec.name == name);
    let codec = codec.unwrap_or_else(|| panic!("no codec reads {name}"));
    let mid = entry["mid"].as_u64().map(|mid| Mid(mid as u16));
    let shared = mid.is_some_and(|mid| SHARED_TYPES.contains(&(name, mid)));
    assert!(mid == codec.mid || shared, "{name} is message {mid:?}");
    codec
}

/// Entries per type, as the file holds them.
fn count_types(entries: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        *counts.entry(text(entry, "type").to_owned()).or_default() += 1;
    }
    counts
}

/// Puts the full bytes where the file abbreviated a long string; the layout says where they are.
fn spelled_out(entry: &Value, bytes: &[u8]) -> Value {
    let mut fields = entry["fields"].clone();
    let Some(all) = fields.as_object_mut() else {
        return fields;
    };
    for (name, value) in all.iter_mut().filter(|(_, v)| v.get("len").is_some()) {
        let place = format!("{name}.bytes");
        let layout = entry["layout"].as_array().unwrap();
        let field = layout.iter().find(|f| f["field"] == *place).unwrap();
        let [start, size] = ["offset", "size"].map(|key| field[key].as_u64().unwrap() as usize);
        *value = json!({ "hex": hex(&bytes[start..start + size]) });
    }
    fields
}

fn socket_header(payload_bytes: usize, mid: u16) -> Vec<u8> {
    let mut header = Vec::new();
    let mut writer = Writer::new(&mut header);
    writer.u32(payload_bytes as u32);
    writer.u16(mid);
    writer.padding(2);
    header
}

fn channel_header(mid: u16, num_fds: u8) -> Vec<u8> {
    let mut header = Vec::new();
    let mut writer = Writer::new(&mut header);
    writer.u16(mid);
    writer.u8(num_fds);
    writer.padding(1);
    header
}

#[test]
fn every_part_of_the_file_is_known_and_has_the_size_it_had_when_these_tests_were_written() {
    let file = file();
    let parts: BTreeSet<&str> = file
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let known = [
        "constants",
        "fd_passing",
        "flipcall",
        "format",
        "frames",
        "headers",
        "malformed",
        "vectors",
    ];
    assert_eq!(parts, BTreeSet::from(known));
    let sizes = ["vectors", "headers", "frames", "malformed"].map(|p| entries(&file, p).len());
    assert_eq!(sizes, [124, 5, 14, 1887]);
}

#[test]
fn every_vector_decodes_to_its_fields_and_its_fields_encode_to_its_bytes() {
    let file = file();
    let codecs = codecs();
    let vectors = entries(&file, "vectors");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for entry in vectors {
        let name = text(entry, "name");
        let bytes = keep(unhex(text(entry, "hex")));
        assert_eq!(Some(bytes.len() as u64), entry["len"].as_u64(), "{name}");
        let codec = codec_of(&codecs, entry);
        assert_eq!(
            (codec.decode)(bytes),
            Ok((entry["fields"].clone(), 0)),
            "{name}"
        );
        assert_eq!(
            hex(&(codec.encode)(&spelled_out(entry, bytes))),
            hex(bytes),
            "{name}"
        );
        if let Some(mid) = entry["mid"].as_u64() {
            let mid = mid as u16;
            assert_eq!(
                text(entry, "socket_header_hex"),
                hex(&socket_header(bytes.len(), mid))
            );
            assert_eq!(
                text(entry, "channel_header_hex"),
                hex(&channel_header(mid, 0)),
                "{name}"
            );
        }
        *seen.entry(codec.name.to_owned()).or_default() += 1;
    }
    assert_eq!(seen, count_types(vectors));
    let unused = codecs.iter().filter(|codec| !seen.contains_key(codec.name));
    assert_eq!(unused.map(|codec| codec.name).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn every_malformed_payload_gets_the_verdict_of_the_reference_and_none_panics() {
    let file = file();
    let codecs = codecs();
    let malformed = entries(&file, "malformed");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut verdicts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in malformed {
        let name = text(entry, "name");
        let bytes = keep(unhex(text(entry, "hex")));
        let codec = codec_of(&codecs, entry);
        let decoded = (codec.decode)(bytes);
        let verdict = text(entry, "result");
        match verdict {
            "accept" => {
                let remaining = entry["remaining"].as_u64().unwrap() as usize;
                assert_eq!(decoded, Ok((entry["fields"].clone(), remaining)), "{name}");
                // Padding may differ from what was sent, length and fields may not.
                let again = keep((codec.encode)(&entry["fields"]));
                assert_eq!(again.len(), bytes.len() - remaining, "{name}");
                assert_eq!(
                    (codec.decode)(again),
                    Ok((entry["fields"].clone(), 0)),
                    "{name}"
                );
            }
            "reject" | "panic" => assert_eq!(decoded, Err(Malformed), "{name}"),
            other => panic!("{name}: what is {other}?"),
        }
        *verdicts.entry(verdict).or_default() += 1;
        *seen.entry(codec.name.to_owned()).or_default() += 1;
    }
    assert_eq!(seen, count_types(malformed));
    let expected = [("accept", 168), ("panic", 4), ("reject", 1715)];
    assert_eq!(verdicts, BTreeMap::from(expected));
}

#[test]
fn every_header_of_the_file_reads_and_writes_as_described() {
    let file = file();
    let mut seen = 0;
    for entry in entries(&file, "headers") {
        let bytes = unhex(text(entry, "hex"));
        let mut reader = Reader::new(&bytes);
        let (fields, again) = match text(entry, "type") {
            "sockHeader" => {
                let (length, mid) = (reader.u32().unwrap(), reader.u16().unwrap());
                reader.padding(2).unwrap();
                assert_eq!(bytes.len(), wire::limits::SOCKET_HEADER_BYTES);
                (
                    json!({ "payloadLen": length, "message": mid }),
                    socket_header(length as usize, mid),
                )
            }
            "channelHeader" => {
                let (mid, fds) = (reader.u16().unwrap(), reader.u8().unwrap());
                reader.padding(1).unwrap();
                assert_eq!(bytes.len(), wire::limits::CHANNEL_HEADER_BYTES);
                (
                    json!({ "message": mid, "numFDs": fds }),
                    channel_header(mid, fds),
                )
            }
            other => panic!("no header is called {other}"),
        };
        assert!(reader.rest().is_empty());
        assert_eq!(
            (&fields, &again),
            (&entry["fields"], &bytes),
            "{}",
            text(entry, "name")
        );
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn every_frame_is_a_header_in_front_of_the_payload_of_a_vector() {
    let file = file();
    let mut seen = (0, 0);
    for frame in entries(&file, "frames") {
        let name = text(frame, "vector");
        // The one frame whose payload has no vector under its own name.
        let vector_name = if name == "FStat response (Statx)" {
            "Statx"
        } else {
            name
        };
        let of_name = |v: &&Value| {
            v["name"] == vector_name || (vector_name == "Statx" && v["type"] == "Statx")
        };
        let candidates: Vec<&Value> = entries(&file, "vectors").iter().filter(of_name).collect();
        assert!(!candidates.is_empty(), "{name}");
        let whole = text(frame, "hex");
        let matches = candidates.iter().any(|vector| {
            let payload = unhex(text(vector, "hex"));
            let mid = vector["mid"].as_u64().unwrap_or(u64::from(Mid::FSTAT.0)) as u16;
            let head = match text(frame, "transport") {
                "socket" => socket_header(payload.len(), mid),
                _ => window_head(
                    text(vector, "kind"),
                    payload.len(),
                    mid,
                    text(frame, "note"),
                ),
            };
            whole == hex(&[head, payload].concat())
        });
        assert!(matches, "{name}");
        match text(frame, "transport") {
            "socket" => seen.0 += 1,
            "channel" => seen.1 += 1,
            other => panic!("{name} travels by {other}"),
        }
    }
    assert_eq!(seen, (9, 5));
}

/// State (1: the server's turn), length with header, eight reserved bytes, channel header.
fn window_head(kind: &str, payload_bytes: usize, mid: u16, note: &str) -> Vec<u8> {
    let mut head = Vec::new();
    let mut writer = Writer::new(&mut head);
    writer.u32(u32::from(kind == "request"));
    writer.u32((wire::limits::CHANNEL_HEADER_BYTES + payload_bytes) as u32);
    writer.padding(8);
    let num_fds = note.rsplit_once("numFDs=").unwrap().1.parse().unwrap();
    head.extend(channel_header(mid, num_fds));
    head
}

#[test]
fn the_message_that_passes_a_descriptor_is_one_control_header_and_one_number() {
    let file = file();
    let passing = file["fd_passing"].as_object().unwrap();
    assert_eq!(passing.keys().collect::<Vec<_>>(), ["fd_channel_message"]);
    let message = &passing["fd_channel_message"];
    assert_eq!(message["data_bytes"], 0);
    let mut control = Vec::new();
    let mut writer = Writer::new(&mut control);
    writer.u64(20); // cmsg_len: the 16 bytes of the header and one i32
    writer.u32(1); // SOL_SOCKET
    writer.u32(1); // SCM_RIGHTS
    writer.u32(5); // the descriptor
    assert_eq!(
        text(message, "control_bytes_hex_with_fd_number_5"),
        hex(&control)
    );
}

#[test]
fn the_constants_of_the_file_are_the_crates_constants() {
    use wire::limits;
    let file = file();
    let constant = |name: &str| file["constants"][name].as_u64().unwrap() as usize;
    let payload_bytes_max = limits::payload_bytes_max(4096) as usize;
    assert_eq!(constant("max_payload_4k_pages"), payload_bytes_max);
    assert_eq!(
        constant("channel_header_bytes"),
        limits::CHANNEL_HEADER_BYTES
    );
    assert_eq!(constant("socket_header_bytes"), limits::SOCKET_HEADER_BYTES);
    assert_eq!(constant("statx_bytes"), limits::STATX_BYTES);
    assert_eq!(constant("inode_bytes"), limits::INODE_BYTES);
    assert_eq!(constant("dirent_fixed_bytes"), limits::DIRENT_FIXED_BYTES);
    assert_eq!(
        constant("max_pread_count"),
        payload_bytes_max - limits::PREAD_REPLY_FIXED_BYTES
    );
    assert_eq!(
        constant("max_pwrite_bytes"),
        payload_bytes_max - limits::PWRITE_FIXED_BYTES
    );
}
