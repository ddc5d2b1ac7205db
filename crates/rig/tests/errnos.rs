//! The errno matrices of `lisafs.md`, section 10, row by row, over the socket and over a channel.
//!
//! A cell holds what the reference answers (v2026-08 where releases differ). Where we answer
//! otherwise the cell reads `theirs>ours`, and the row ends with why: the number of the weak spot in
//! section 14, or the section that asks for it.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use client::{Answer, Client, Line};
use rig::{Rig, Setup};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use wire::msg::{attr, data, dir, open, session, socket, walk, xattr};
use wire::{Array, Decode, Encode, Errno, FdId, Mid, NewNode, Owner, Text, TextsBuf, Timespec};

/// 10.1: by kind of id, on a writable connection.
const BY_KIND: &str = "
request                 | reg     | dir     | lnk     | sock    | fifo    | open2   | open0   | open1   | opendir | bound   | why
FStat                   | ok      | ok      | ok      | ok      | ok      | ok      | ok      | ok      | ok      | EREMOTEIO>EINVAL | 7.3
SetStat, Mask 0         | ok      | ok      | ok      | ok      | ok      | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
SetStat, Mask 1         | EPERM   | EPERM   | EPERM   | EPERM   | EPERM   | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
Walk                    | ENOTDIR | ok      | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
WalkStat ['']           | ok      | ok      | ok      | ok      | ok      | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
WalkStat ['x']          | ENOTDIR | ok      | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
OpenAt, flags 0         | ok      | ok      | EINVAL  | ENXIO   | ok      | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
OpenAt, flags 1         | ok      | EISDIR  | EINVAL  | ENXIO   | ok      | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
OpenCreateAt            | ENOTDIR | ok      | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
FSync                   | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | ok      | ok      | ok      | ok      | EINVAL  |
PWrite, 0 bytes         | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | ok      | EBADF   | ok      | EBADF   | EINVAL  |
PRead                   | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | ok      | ok      | EBADF   | EISDIR  | EINVAL  |
MkdirAt                 | ENOTDIR | ok      | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
MknodAt                 | ENOTDIR | ok      | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
SymlinkAt               | ENOTDIR | ok      | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
LinkAt, Target = DirFD  | ENOTDIR | EPERM   | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
FStatFS                 | ok      | ok      | ok      | ok      | ok      | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
FAllocate               | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | ok      | EBADF   | ok      | EBADF   | EINVAL  |
ReadLinkAt              | EINVAL  | EINVAL  | ok      | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
Flush                   | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP |
Connect                 | ENOTSOCK | ENOTSOCK | ENOTSOCK | ok    | ENOTSOCK | EINVAL | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
UnlinkAt                | ENOTDIR | ENOENT  | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
RenameAt                | ENOTDIR | ENOENT  | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
RenameAt, same to same  | ENOTDIR | ok>ENOENT | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL | EINVAL | EINVAL  | EINVAL  | EINVAL  | 31
Getdents64              | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | ENOTDIR | ok      | EINVAL  |
FGetXattr               | ENODATA | ENODATA | ENODATA | ENODATA | ENODATA | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
FSetXattr               | ok      | ok      | EPERM   | EPERM   | EPERM   | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
FListXattr              | ok      | ok      | ok      | ok      | ok      | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
FRemoveXattr            | ok      | ok      | EPERM   | EPERM   | EPERM   | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
BindAt                  | ENOTDIR | ok      | ENOTDIR | ENOTDIR | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  |
Listen                  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | ok      |
Accept                  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EAGAIN  |
";

/// 10.2: the file was removed with UnlinkAt first. Weak spot 7: what needs no path works.
const DELETED: &str = "
request                 | reg     | open2   | dir     | opendir | lnk     | sock    | bound   | why
FStat                   | ok      | ok      | ok      | ok      | ok      | ok      | EREMOTEIO>EINVAL | 7.3
SetStat, Mask 0         | ok      | EINVAL  | ok      | EINVAL  | ok      | ok      | EINVAL  |
SetStat, Mask 1         | EPERM   | EINVAL  | EPERM   | EINVAL  | EPERM   | EPERM   | EINVAL  |
Walk                    | ENOTDIR | EINVAL  | ok      | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
WalkStat ['']           | ok      | EINVAL  | ok      | EINVAL  | ok      | ok      | EINVAL  |
WalkStat ['x']          | ENOTDIR | EINVAL  | ok      | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
OpenAt, flags 0         | ok      | EINVAL  | ok      | EINVAL  | EINVAL  | ENXIO   | EINVAL  |
OpenAt, flags 1         | ok      | EINVAL  | EISDIR  | EINVAL  | EINVAL  | ENXIO   | EINVAL  |
OpenCreateAt            | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
FSync                   | EINVAL  | ok      | EINVAL  | ok      | EINVAL  | EINVAL  | EINVAL  |
PWrite, 0 bytes         | EINVAL  | ok      | EINVAL  | EBADF   | EINVAL  | EINVAL  | EINVAL  |
PRead                   | EINVAL  | ok      | EINVAL  | EISDIR  | EINVAL  | EINVAL  | EINVAL  |
MkdirAt                 | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
MknodAt                 | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
SymlinkAt               | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
LinkAt, Target = DirFD  | ENOTDIR | EINVAL  | EPERM   | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
FStatFS                 | ok      | EINVAL  | ok      | EINVAL  | ok      | ok      | EINVAL  |
FAllocate               | EINVAL  | ok      | EINVAL  | EBADF   | EINVAL  | EINVAL  | EINVAL  |
ReadLinkAt              | EINVAL  | EINVAL  | EINVAL  | EINVAL  | ok      | EINVAL  | EINVAL  |
Flush                   | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP | EOPNOTSUPP |
Connect                 | ENOTSOCK | EINVAL | ENOTSOCK | EINVAL | ENOTSOCK | EINVAL | EINVAL  |
UnlinkAt                | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
RenameAt                | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
RenameAt, same to same  | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
Getdents64              | EINVAL  | ENOTDIR | EINVAL  | EINVAL>ENOENT | EINVAL | EINVAL | EINVAL | 7: Linux has no listing of a removed directory either
FGetXattr               | EINVAL>ENODATA | EINVAL | EINVAL>ENODATA | EINVAL | EINVAL>ENODATA | EINVAL>ENODATA | EINVAL | 7
FSetXattr               | EINVAL>ok | EINVAL | EINVAL>ok | EINVAL | EINVAL>EPERM | EINVAL>EPERM | EINVAL | 7
FListXattr              | ok      | EINVAL  | ok      | EINVAL  | ok      | ok      | EINVAL  |
FRemoveXattr            | EINVAL>ok | EINVAL | EINVAL>ok | EINVAL | EINVAL>EPERM | EINVAL>EPERM | EINVAL | 7
BindAt                  | ENOTDIR | EINVAL  | EINVAL  | EINVAL  | ENOTDIR | ENOTDIR | EINVAL  |
Listen                  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL>ok | 7
Accept                  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL  | EINVAL>EAGAIN | 7
";

/// 10.3: what a read-only connection refuses before it looks at it.
const REFUSED_READ_ONLY: &[(&str, Mid)] = &[
    ("SetStat, Mask 0", Mid::SET_STAT),
    ("OpenCreateAt", Mid::OPEN_CREATE_AT),
    ("PWrite, 0 bytes", Mid::PWRITE),
    ("MkdirAt", Mid::MKDIR_AT),
    ("MknodAt", Mid::MKNOD_AT),
    ("SymlinkAt", Mid::SYMLINK_AT),
    ("LinkAt, Target = DirFD", Mid::LINK_AT),
    ("FAllocate", Mid::FALLOCATE),
    ("UnlinkAt", Mid::UNLINK_AT),
    ("RenameAt", Mid::RENAME_AT),
    ("RenameAt2", Mid::RENAME_AT2),
    ("FSetXattr", Mid::FSET_XATTR),
    ("FRemoveXattr", Mid::FREMOVE_XATTR),
    ("BindAt", Mid::BIND_AT),
];

// ------------------------------------------------------------------------------- requests

fn path(components: &[&[u8]]) -> TextsBuf {
    components.iter().copied().collect()
}

fn walk_payload(dir: FdId, components: &[&[u8]]) -> Vec<u8> {
    let path = path(components);
    walk::Walk {
        dir,
        path: path.texts(),
    }
    .to_payload()
}

fn rename(dir: FdId, old: &str, new: &str) -> dir::RenameAt2<'static> {
    let text = |name: &str| Text(name.to_owned().leak().as_bytes());
    let (old_name, new_name) = (text(old), text(new));
    dir::RenameAt2 {
        old_dir: dir,
        new_dir: dir,
        old_name,
        new_name,
        flags: 0,
    }
}

/// A well-formed request by its name in the tables: `id` in every id field, `name` for what is new.
fn request(row: &str, id: FdId, name: &str) -> (Mid, Vec<u8>) {
    let name_text = Text(name.as_bytes());
    let new = NewNode {
        dir: id,
        owner: Owner::KEEP,
        mode: 0o644,
    };
    let regular = NewNode {
        mode: 0o100_644,
        ..new
    };
    let owner = Owner::KEEP;
    let user = Text(b"user.rig");
    let one = [id];
    let ids = Array::new(&one);
    let renaming = |old, new| {
        let dir::RenameAt2 {
            old_dir,
            new_dir,
            old_name,
            new_name,
            ..
        } = rename(id, old, new);
        dir::RenameAt {
            old_dir,
            new_dir,
            old_name,
            new_name,
        }
        .to_payload()
    };
    match row {
        "FStat" => (Mid::FSTAT, attr::FStat { id }.to_payload()),
        "SetStat, Mask 0" => (Mid::SET_STAT, set_stat(id, 0).to_payload()),
        "SetStat, Mask 1" => (Mid::SET_STAT, set_stat(id, 1).to_payload()),
        "Walk" => (Mid::WALK, walk_payload(id, &[b"x"])),
        "WalkStat ['']" => (Mid::WALK_STAT, walk_payload(id, &[b""])),
        "WalkStat ['x']" => (Mid::WALK_STAT, walk_payload(id, &[b"x"])),
        "OpenAt, flags 0" => (Mid::OPEN_AT, open::OpenAt { id, flags: 0 }.to_payload()),
        "OpenAt, flags 1" => (Mid::OPEN_AT, open::OpenAt { id, flags: 1 }.to_payload()),
        "OpenCreateAt" => (
            Mid::OPEN_CREATE_AT,
            open::OpenCreateAt {
                new,
                flags: 2,
                name: name_text,
            }
            .to_payload(),
        ),
        "FSync" => (Mid::FSYNC, data::FSync { ids }.to_payload()),
        "PWrite, 0 bytes" => (
            Mid::PWRITE,
            data::PWrite {
                offset: 0,
                open: id,
                num_bytes: 0,
            }
            .to_payload(),
        ),
        "PRead" => (
            Mid::PREAD,
            data::PRead {
                offset: 0,
                open: id,
                count: 16,
            }
            .to_payload(),
        ),
        "MkdirAt" => (
            Mid::MKDIR_AT,
            dir::MkdirAt {
                new,
                name: name_text,
            }
            .to_payload(),
        ),
        "MknodAt" => (
            Mid::MKNOD_AT,
            dir::MknodAt {
                new: regular,
                minor: 0,
                major: 0,
                name: name_text,
            }
            .to_payload(),
        ),
        "SymlinkAt" => (
            Mid::SYMLINK_AT,
            dir::SymlinkAt {
                dir: id,
                owner,
                name: name_text,
                target: Text(b"t"),
            }
            .to_payload(),
        ),
        "LinkAt, Target = DirFD" => (
            Mid::LINK_AT,
            dir::LinkAt {
                dir: id,
                target: id,
                name: name_text,
            }
            .to_payload(),
        ),
        "FStatFS" => (Mid::FSTATFS, attr::FStatFS { id }.to_payload()),
        "FAllocate" => (
            Mid::FALLOCATE,
            data::FAllocate {
                open: id,
                mode: 0,
                offset: 0,
                length: 10,
            }
            .to_payload(),
        ),
        "ReadLinkAt" => (Mid::READ_LINK_AT, walk::ReadLinkAt { id }.to_payload()),
        "Flush" => (Mid::FLUSH, open::Flush { open: id }.to_payload()),
        "Connect" => (
            Mid::CONNECT,
            socket::Connect { id, sock_type: 1 }.to_payload(),
        ),
        "UnlinkAt" => (
            Mid::UNLINK_AT,
            dir::UnlinkAt {
                dir: id,
                flags: 0,
                name: name_text,
            }
            .to_payload(),
        ),
        "RenameAt" => (Mid::RENAME_AT, renaming("missing", name)),
        "RenameAt, same to same" => (Mid::RENAME_AT, renaming("missing", "missing")),
        "RenameAt2" => (Mid::RENAME_AT2, rename(id, "missing", name).to_payload()),
        "Getdents64" => (
            Mid::GETDENTS64,
            dir::Getdents64 {
                dir: id,
                count: 65536,
            }
            .to_payload(),
        ),
        "FGetXattr" => (
            Mid::FGET_XATTR,
            xattr::FGetXattr {
                id,
                buf_size: 64,
                name: user,
            }
            .to_payload(),
        ),
        "FSetXattr" => (
            Mid::FSET_XATTR,
            xattr::FSetXattr {
                id,
                flags: 0,
                name: user,
                value: Text(b"v"),
            }
            .to_payload(),
        ),
        "FListXattr" => (
            Mid::FLIST_XATTR,
            xattr::FListXattr { id, size: 0 }.to_payload(),
        ),
        "FRemoveXattr" => (
            Mid::FREMOVE_XATTR,
            xattr::FRemoveXattr { id, name: user }.to_payload(),
        ),
        "BindAt" => (
            Mid::BIND_AT,
            socket::BindAt {
                new,
                sock_type: 1,
                name: name_text,
            }
            .to_payload(),
        ),
        "Listen" => (
            Mid::LISTEN,
            socket::Listen {
                bound: id,
                backlog: 16,
            }
            .to_payload(),
        ),
        "Accept" => (Mid::ACCEPT, socket::Accept { bound: id }.to_payload()),
        other => panic!("nobody knows how to ask for {other}"),
    }
}

fn set_stat(id: FdId, mask: u32) -> attr::SetStat {
    let (atime, mtime) = (Timespec::default(), Timespec::default());
    attr::SetStat {
        id,
        mask,
        mode: 0o600,
        uid: 0,
        gid: 0,
        size: 1,
        atime,
        mtime,
    }
}

/// `ok`, or the errno's name.
fn outcome(asked: Mid, answer: &Answer) -> String {
    if answer.mid == Mid::ERROR {
        assert!(answer.fds.is_empty(), "an error carries no descriptors");
        let errno = session::ErrorReply::from_payload(&answer.payload)
            .unwrap()
            .errno;
        return format!("{:?}", Errno::new(errno));
    }
    assert_eq!(answer.mid, asked);
    "ok".to_owned()
}

// ----------------------------------------------------------------------- files of all kinds

/// One id of each kind, and what keeps the files behind them alive.
struct Kinds {
    ids: BTreeMap<&'static str, FdId>,
    /// A listener for Connect; a reader and writer of the FIFO.
    _alive: (UnixListener, OwnedFd),
}

impl Kinds {
    fn new(rig: &Rig) -> Self {
        let client = rig.client();
        std::fs::write(rig.host("reg"), "sixteen bytes...").unwrap();
        std::fs::create_dir(rig.host("dir")).unwrap();
        std::os::unix::fs::symlink("target", rig.host("lnk")).unwrap();
        let listener = UnixListener::bind(rig.host("sock")).unwrap();
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(CWD, rig.host("fifo"), FileType::Fifo, mode, 0).unwrap();
        let fifo = rustix::fs::open(rig.host("fifo"), OFlags::RDWR, Mode::empty()).unwrap();
        let mut ids = BTreeMap::new();
        for name in ["reg", "dir", "lnk", "sock", "fifo"] {
            let inode = client.walk_one(rig.root(), name.as_bytes()).unwrap();
            ids.insert(name, inode.control);
        }
        ids.insert("open0", client.open_at(ids["reg"], 0).unwrap().id);
        ids.insert("opendir", client.open_at(ids["dir"], 0).unwrap().id);
        Self {
            ids,
            _alive: (listener, fifo),
        }
    }

    /// The kinds that only a writable connection has.
    fn with_writable(rig: &Rig) -> Self {
        let mut kinds = Self::new(rig);
        let client = rig.client();
        for (name, flags) in [("open2", 2), ("open1", 1)] {
            let opened = client.open_at(kinds.ids["reg"], flags).unwrap();
            kinds.ids.insert(name, opened.id);
        }
        let bound = client.bind_at(rig.new_node(0o644), b"bound", 1).unwrap();
        client.listen(bound.id, 16).unwrap();
        kinds.ids.insert("bound", bound.id);
        kinds
    }

    /// All of them, with no name left.
    fn deleted(rig: &Rig) -> Self {
        let mut kinds = Self::with_writable(rig);
        let client = rig.client();
        let bound = client.walk_one(rig.root(), b"bound").unwrap();
        for name in ["reg", "lnk", "sock", "fifo", "bound"] {
            client.unlink_at(rig.root(), name.as_bytes(), 0).unwrap();
        }
        client.rmdir_at(rig.root(), b"dir").unwrap();
        kinds.ids.insert("sock", bound.control);
        kinds
    }
}

/// Runs a table: the rows and columns that `wanted` lets through. Returns what disagreed.
fn disagreements(
    rig: &Rig,
    line: Line,
    table: &'static str,
    kinds: &Kinds,
    wanted: impl Fn(&str, &str) -> bool,
) -> Vec<String> {
    let cells = |row: &'static str| row.split('|').map(str::trim).collect::<Vec<_>>();
    let mut rows = table.trim().lines().map(cells);
    let columns = rows.next().unwrap();
    let mut wrong = Vec::new();
    let mut asked = 0;
    for row in rows {
        for (column, cell) in columns.iter().zip(&row).skip(1) {
            if *column == "why" || !wanted(row[0], column) {
                continue;
            }
            let ours = cell.rsplit_once('>').map_or(*cell, |(_, ours)| ours);
            let explained = row.len() == columns.len() && row.last() != Some(&"");
            assert!(
                ours == *cell || explained,
                "{row:?} deviates without a reason"
            );
            asked += 1;
            let name = format!("new-{line:?}-{asked}");
            let (mid, payload) = request(row[0], kinds.ids[column], &name);
            let answer = rig.client().request_on(line, mid, &payload).unwrap();
            let got = outcome(mid, &answer);
            if got != ours {
                wrong.push(format!("{} on {column}: {got}, expected {cell}", row[0]));
            }
        }
    }
    assert!(asked > 0);
    wrong
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn every_request_answers_every_kind_of_id_as_the_matrix_says() {
    for number in [0, 1] {
        let rig = Rig::new();
        let line = rig.lines()[number];
        let kinds = Kinds::with_writable(&rig);
        assert_eq!(
            disagreements(&rig, line, BY_KIND, &kinds, |_, _| true),
            nothing(),
            "{line:?}"
        );
    }
}

#[test]
fn every_request_answers_ids_of_deleted_files_as_the_matrix_says() {
    for number in [0, 1] {
        let rig = Rig::new();
        let line = rig.lines()[number];
        let kinds = Kinds::deleted(&rig);
        assert_eq!(
            disagreements(&rig, line, DELETED, &kinds, |_, _| true),
            nothing(),
            "{line:?}"
        );
    }
}

#[test]
fn unknown_ids_are_refused_by_every_request_that_names_one() {
    let rig = Rig::new();
    for line in rig.lines() {
        for row in BY_KIND.trim().lines().skip(1) {
            let row = row.split('|').next().unwrap().trim();
            let (mid, payload) = request(row, FdId(9999), "new");
            let got = outcome(mid, &rig.client().request_on(line, mid, &payload).unwrap());
            let expected = if mid == Mid::FLUSH {
                "EOPNOTSUPP"
            } else {
                "EBADF"
            };
            assert_eq!(got, expected, "{row} over {line:?}");
        }
    }
}

#[test]
fn a_read_only_connection_refuses_changes_whatever_the_id_and_however_malformed() {
    let rig = Rig::with(Setup {
        readonly: true,
        ..Setup::default()
    });
    let kinds = Kinds::new(&rig);
    let before = rig.host_names();
    for line in rig.lines() {
        let ask = |mid, payload: &[u8]| {
            outcome(mid, &rig.client().request_on(line, mid, payload).unwrap())
        };
        for &(row, mid) in REFUSED_READ_ONLY {
            for &id in kinds.ids.values().chain([&FdId(9999)]) {
                let (of_row, payload) = request(row, id, "new");
                assert_eq!(of_row, mid);
                assert_eq!(ask(mid, &payload), "EROFS", "{row} over {line:?}");
            }
            assert_eq!(ask(mid, b""), "EROFS", "{row}, malformed, over {line:?}");
        }
        for flags in [1, 2, 3, 0o1000] {
            for id in [
                kinds.ids["reg"],
                kinds.ids["dir"],
                kinds.ids["open0"],
                FdId(9999),
            ] {
                let payload = open::OpenAt { id, flags }.to_payload();
                assert_eq!(ask(Mid::OPEN_AT, &payload), "EROFS", "flags {flags}");
            }
        }
        assert_eq!(
            ask(Mid::OPEN_AT, b""),
            "EIO",
            "OpenAt looks before it refuses"
        );
    }
    assert_eq!(rig.host_names(), before);
}

#[test]
fn a_read_only_connection_answers_everything_else_as_a_writable_one() {
    let rig = Rig::with(Setup {
        readonly: true,
        ..Setup::default()
    });
    let kinds = Kinds::new(&rig);
    let refused = |row: &str| {
        row.starts_with("SetStat")
            || row == "RenameAt, same to same"
            || row == "OpenAt, flags 1"
            || REFUSED_READ_ONLY.iter().any(|(name, _)| *name == row)
    };
    let wanted = |row: &str, column: &str| !refused(row) && kinds.ids.contains_key(column);
    for line in rig.lines() {
        assert_eq!(
            disagreements(&rig, line, BY_KIND, &kinds, wanted),
            nothing(),
            "{line:?}"
        );
    }
}

// ------------------------------------------------------------------- 10.4, selected values

/// Answers of one rig over one line, by the words of 10.4.
struct Asker<'r> {
    client: &'r Client,
    line: Line,
}

impl Asker<'_> {
    fn raw(&self, mid: Mid, message: &impl Encode) -> Answer {
        self.client
            .request_on(self.line, mid, &message.to_payload())
            .unwrap()
    }
    fn ask(&self, mid: Mid, message: &impl Encode) -> String {
        outcome(mid, &self.raw(mid, message))
    }
    fn walk(&self, mid: Mid, dir: FdId, components: &[&[u8]]) -> String {
        let answer = self
            .client
            .request_on(self.line, mid, &walk_payload(dir, components));
        let answer = answer.unwrap();
        match outcome(mid, &answer).as_str() {
            "ok" if mid == Mid::WALK => format!("status {}", answer.payload[0]),
            other => other.to_owned(),
        }
    }
    fn failures(&self, request: &attr::SetStat) -> (u32, u32) {
        let answer = self.raw(Mid::SET_STAT, request);
        assert_eq!(answer.mid, Mid::SET_STAT);
        let reply = attr::SetStatReply::from_payload(&answer.payload).unwrap();
        (reply.failure_mask, reply.failure_errno)
    }
    fn entries(&self, dir: FdId, count: i32) -> usize {
        let answer = self.raw(Mid::GETDENTS64, &dir::Getdents64 { dir, count });
        dir::Getdents64Reply::from_payload(&answer.payload)
            .unwrap()
            .len()
    }
}

fn on_both_lines(test: impl Fn(&Rig, &Kinds, &Asker<'_>)) {
    for number in [0, 1] {
        let rig = Rig::new();
        let line = rig.lines()[number];
        let kinds = Kinds::with_writable(&rig);
        test(
            &rig,
            &kinds,
            &Asker {
                client: rig.client(),
                line,
            },
        );
    }
}

#[test]
fn reads_and_writes_are_bounded_by_the_message_and_by_signed_offsets() {
    on_both_lines(|rig, kinds, asker| {
        let most = rig.client().payload_bytes_max() - 8;
        let read = |offset, count| {
            asker.ask(
                Mid::PREAD,
                &data::PRead {
                    offset,
                    open: kinds.ids["open2"],
                    count,
                },
            )
        };
        assert_eq!(read(0, most), "ok");
        for count in [most + 1, 0xffff_fff7] {
            assert_eq!(read(0, count), "ENOBUFS");
        }
        assert_eq!(
            read(0, 0xffff_fff8),
            "ENOBUFS",
            "EREMOTEIO at the reference, 9.12"
        );
        assert_eq!(read(u64::MAX, 1), "EINVAL");
        let head = data::PWrite {
            offset: u64::MAX,
            open: kinds.ids["open2"],
            num_bytes: 1,
        };
        let payload = [head.to_payload(), vec![b'x']].concat();
        let answer = rig
            .client()
            .request_on(asker.line, Mid::PWRITE, &payload)
            .unwrap();
        assert_eq!(outcome(Mid::PWRITE, &answer), "EINVAL");
    });
}

#[test]
fn a_listing_without_room_for_an_entry_is_empty() {
    on_both_lines(|rig, _, asker| {
        // Five bytes of name make a record of 32; up to four would fit into 24.
        std::fs::write(rig.host("dir/entry"), "").unwrap();
        let dir = rig.client().walk_one(rig.root(), b"dir").unwrap();
        let open = rig.client().open_at(dir.control, 0).unwrap().id;
        for count in [10, -10, 24, -24, 0] {
            assert_eq!(asker.entries(open, count), 0, "Count {count}");
        }
        assert_eq!([asker.entries(open, -32), asker.entries(open, 32)], [1, 0]);
    });
}

#[test]
fn attributes_that_a_file_cannot_have_are_reported_in_the_answer() {
    use attr::SetStat;
    on_both_lines(|_, kinds, asker| {
        let both = SetStat::ATIME | SetStat::MTIME;
        let set = |kind: &str, mask| set_stat(kinds.ids[kind], mask);
        assert_eq!(asker.failures(&set("lnk", SetStat::MODE)), (0x2, 95));
        assert_eq!(asker.failures(&set("dir", SetStat::SIZE)), (0x200, 21));
        assert_eq!(asker.failures(&set("fifo", SetStat::SIZE)), (0x200, 22));
        assert_eq!(
            asker.failures(&set("sock", both)),
            (0, 0),
            "0x60, 9 at the reference: 9"
        );
        let far = Timespec {
            seconds: 0,
            nanoseconds: 2_000_000_000,
        };
        let far = SetStat {
            atime: far,
            mtime: far,
            ..set("reg", both)
        };
        assert_eq!(asker.failures(&far), (0x60, 22));
    });
}

#[test]
fn walks_stop_or_fail_as_selected() {
    on_both_lines(|rig, _, asker| {
        let root = rig.root();
        let walk = |components: &[&[u8]]| asker.walk(Mid::WALK, root, components);
        assert_eq!(walk(&[b"reg", b"x"]), "ENOTDIR");
        assert_eq!(walk(&[b"nope", b".."]), "status 1");
        assert_eq!(
            asker.walk(Mid::WALK_STAT, root, &[b"nope", b".."]),
            "EINVAL"
        );
        assert_eq!(walk(&[b"lnk", b"x"]), "status 2");
        let unsafe_paths: [&[&[u8]]; 4] = [&[b"dir", b".."], &[b"", b"dir"], &[b"a/b"], &[b"a\0b"]];
        for path in unsafe_paths {
            assert_eq!(walk(path), "EINVAL", "{path:?}");
        }
        let long = [b'n'; 256];
        assert_eq!(walk(&[&long]), "ENAMETOOLONG");
        let mkdir = dir::MkdirAt {
            new: rig.new_node(0o755),
            name: Text(&long),
        };
        assert_eq!(asker.ask(Mid::MKDIR_AT, &mkdir), "ENAMETOOLONG");
    });
}

#[test]
fn block_devices_are_neither_walked_to_nor_mounted() {
    let tree = tempfile::tempdir().unwrap();
    let device = tree.path().join("block");
    let mode = Mode::from_raw_mode(0o600);
    // Loop device 0: nothing opens it, so it need not exist.
    let number = rustix::fs::makedev(7, 0);
    rustix::fs::mknodat(CWD, &device, FileType::BlockDevice, mode, number).unwrap();
    let (socket, server) = rig::serve(&device, Setup::default());
    let refused = Client::connect(socket).map(|_| ()).unwrap_err();
    assert_eq!(refused.errno(), Errno::PERM);
    server.join().unwrap();
    let rig = Rig::serving(tree, Setup::default());
    for line in rig.lines() {
        let asker = Asker {
            client: rig.client(),
            line,
        };
        assert_eq!(asker.walk(Mid::WALK, rig.root(), &[b"block"]), "EPERM");
    }
}

#[test]
fn sockets_are_bound_accepted_and_connected_as_selected() {
    on_both_lines(|rig, kinds, asker| {
        let bind = |name: &[u8], sock_type| {
            let (new, name) = (rig.new_node(0o644), Text(name));
            asker.ask(
                Mid::BIND_AT,
                &socket::BindAt {
                    new,
                    sock_type,
                    name,
                },
            )
        };
        assert_eq!(bind(b"reg", 1), "EADDRINUSE");
        assert_eq!(bind(b"unknown-type", 9), "ENXIO");
        let room = 107 - rig.path().as_os_str().len() - 1;
        assert_eq!(bind(&vec![b's'; room], 1), "ok");
        assert_eq!(
            bind(&vec![b's'; room + 1], 1),
            "ok",
            "EINVAL at the reference: 11"
        );

        let early = rig
            .client()
            .bind_at(rig.new_node(0o644), b"early", 1)
            .unwrap();
        let accept = |bound| asker.ask(Mid::ACCEPT, &socket::Accept { bound });
        assert_eq!(accept(early.id), "EINVAL");
        assert_eq!(accept(kinds.ids["bound"]), "EAGAIN");

        let connect = |sock_type| {
            let id = kinds.ids["sock"];
            asker.ask(Mid::CONNECT, &socket::Connect { id, sock_type })
        };
        assert_eq!(connect(0), "ok", "ENXIO at the reference: 12");
        assert_eq!(connect(3), "ENXIO");
        assert_eq!(connect(2), "EPROTOTYPE");
    });
}

#[test]
fn only_regular_files_and_whiteouts_are_made_by_number() {
    on_both_lines(|rig, _, asker| {
        let mknod = |name: &[u8], mode, (major, minor)| {
            let (new, name) = (rig.new_node(mode), Text(name));
            asker.ask(
                Mid::MKNOD_AT,
                &dir::MknodAt {
                    new,
                    minor,
                    major,
                    name,
                },
            )
        };
        assert_eq!(mknod(b"type-0", 0o644, (0, 0)), "EPERM");
        assert_eq!(mknod(b"a-fifo", 0o010_644, (0, 0)), "EPERM");
        assert_eq!(mknod(b"null", 0o020_644, (1, 3)), "EPERM");
        assert_eq!(
            mknod(b"whiteout", 0o020_644, (0, 0)),
            "ok",
            "since v2026-08"
        );
        let made = ["type-0", "a-fifo", "null"].map(|name| rig.host(name).exists());
        assert_eq!(made, [false; 3]);
    });
}

#[test]
fn a_mount_point_that_has_gone_cannot_be_mounted_again() {
    let tree = tempfile::tempdir().unwrap();
    let gone = tree.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let (socket, server) = rig::serve(&gone, Setup::default());
    let (client, _) = Client::connect(socket).unwrap();
    std::fs::remove_dir(&gone).unwrap();
    assert_eq!(client.mount().unwrap_err().errno(), Errno::NOENT);
    drop(client);
    server.join().unwrap();
}
