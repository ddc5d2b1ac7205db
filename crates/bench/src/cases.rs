//! What is asked of a server: each case is some requests that are timed and, where they leave
//! something behind, some that are not.
//!
//! Belongs here: the requests. Their bare system calls are in `bare`, in the same order.

use std::time::{Duration, Instant};

use wire::limits::COUNT_MAX;
use wire::msg::attr::{FStat, SetStat};
use wire::msg::data::{PRead, PWrite};
use wire::msg::dir::{Getdents64, MkdirAt, RenameAt, SymlinkAt, UnlinkAt};
use wire::msg::open::{OpenAt, OpenCreateAt, OpenCreateAtReply};
use wire::msg::session::Close;
use wire::msg::walk::{ReadLinkAt, Walk, WalkReply, WalkStatReply};
use wire::msg::xattr::{FGetXattr, FGetXattrReply};
use wire::{Array, Decode, Encode, FdId, Inode, Mid, NewNode, Owner, Text, TextsBuf, Timespec};

use crate::failure::{Result, Tried};
use crate::session::Session;
use crate::tree::{CHAIN, XATTR};

/// One operation; returns the time of its timed part.
pub(crate) type Operation = Box<dyn FnMut(&mut Session<'_>) -> Result<Duration>>;

/// Something a client does.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// How many times the turn changes hands and back.
    pub(crate) turns: u32,
    pub(crate) prepare: fn(&Session<'_>) -> Result<Operation>,
}

/// Whether a case is to be measured: all are if none is named.
pub(crate) fn asked(only: &[String], case: &str) -> bool {
    only.is_empty() || only.iter().any(|name| name == case)
}

/// `AT_REMOVEDIR`.
const REMOVE_DIRECTORY: u32 = 0x200;
const READ_WRITE: u32 = 2;
/// What gVisor's client asks for at a time.
const GETDENTS_BYTES: i32 = 65536;
const OWNER: Owner = Owner { uid: 0, gid: 0 };

const fn case(
    name: &'static str,
    turns: u32,
    prepare: fn(&Session<'_>) -> Result<Operation>,
) -> Case {
    Case {
        name,
        turns,
        prepare,
    }
}

/// In the order of the report. A listing takes one turn for each 2,048 records of 32 bytes, and one
/// to learn that it has ended.
pub(crate) const CASES: &[Case] = &[
    case("fstat", 1, fstat),
    case("walkstat1", 1, |session| walk_stat(session, 1)),
    case("walkstat8", 1, |session| walk_stat(session, 8)),
    case("walk1_close", 2, |session| walk_close(session, 1)),
    case("walk8_close", 2, |session| walk_close(session, 8)),
    case("open_close", 2, open_close),
    case("pread4k", 1, |session| pread(session, 4 << 10)),
    case("pwrite4k", 1, |session| pwrite(session, 4 << 10)),
    case("pread64k", 1, |session| pread(session, 64 << 10)),
    case("pwrite64k", 1, |session| pwrite(session, 64 << 10)),
    case("pread1m", 1, |session| pread(session, 1 << 20)),
    case("pwrite1m", 1, |session| pwrite(session, 1 << 20)),
    case("getdents100", 2, |session| getdents(session, 100)),
    case("getdents1000", 2, |session| getdents(session, 1000)),
    case("getdents100000", 50, |session| getdents(session, 100_000)),
    case("create_close_unlink", 3, create_close_unlink),
    case("mkdir_rename_rmdir", 3, mkdir_rename_rmdir),
    case("symlink_readlink", 2, symlink_readlink),
    case("fgetxattr", 1, fgetxattr),
    case("setstat", 1, setstat),
    case(FSTAT_SOCKET, 1, fstat_socket),
];

/// The case that does not use a channel.
pub(crate) const FSTAT_SOCKET: &str = "fstat_socket";

/// Always the same request, already encoded; `check` looks at the reply after the clock was read.
fn repeated(
    mid: Mid,
    request: &impl Encode,
    check: impl Fn(&[u8]) -> Result<()> + 'static,
) -> Operation {
    let request = request.to_payload();
    Box::new(move |session| {
        let begun = Instant::now();
        let reply = session.call_encoded(mid, &request)?;
        let took = begun.elapsed();
        check(reply)?;
        Ok(took)
    })
}

fn expect(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn fstat(session: &Session<'_>) -> Result<Operation> {
    let id = session.walk(&["file"])?;
    let check = |reply: &[u8]| expect(reply.len() == 144, "FStat: not 144 bytes");
    Ok(repeated(Mid::FSTAT, &FStat { id }, check))
}

fn fstat_socket(session: &Session<'_>) -> Result<Operation> {
    let id = session.walk(&["file"])?;
    Ok(Box::new(move |session| {
        // The connection's own channels are not known to `client`, so this goes by the socket.
        let begun = Instant::now();
        session.client.fstat(id).tried("FStat")?;
        Ok(begun.elapsed())
    }))
}

fn chain(length: usize) -> TextsBuf {
    CHAIN[..length].iter().map(|name| name.as_bytes()).collect()
}

fn walk_stat(session: &Session<'_>, length: usize) -> Result<Operation> {
    let path = chain(length);
    let request = Walk {
        dir: session.root,
        path: path.texts(),
    };
    let check = move |reply: &[u8]| {
        let stats = WalkStatReply::from_payload(reply).tried("WalkStat")?.stats;
        expect(stats.len() == length, "WalkStat: not the whole path")
    };
    Ok(repeated(Mid::WALK_STAT, &request, check))
}

fn walk_close(session: &Session<'_>, length: usize) -> Result<Operation> {
    let path = chain(length);
    let request = Walk {
        dir: session.root,
        path: path.texts(),
    };
    let request = request.to_payload();
    let mut ids = Vec::new();
    Ok(Box::new(move |session| {
        timed(|| {
            let reply = session.call_encoded(Mid::WALK, &request)?;
            let inodes = WalkReply::from_payload(reply).tried("Walk")?.inodes;
            ids.clear();
            ids.extend(inodes.iter().map(|inode| inode.control));
            expect(ids.len() == length, "Walk: not the whole path")?;
            close(session, &ids)
        })
    }))
}

fn close(session: &mut Session<'_>, ids: &[FdId]) -> Result<()> {
    let ids = Array::new(ids);
    session.call(Mid::CLOSE, &Close { ids })?;
    Ok(())
}

fn open_close(session: &Session<'_>) -> Result<Operation> {
    let id = session.walk(&["file"])?;
    let request = OpenAt { id, flags: 0 }.to_payload();
    Ok(Box::new(move |session| {
        timed(|| {
            let reply = session.call_encoded(Mid::OPEN_AT, &request)?;
            let open = wire::msg::open::OpenAtReply::from_payload(reply).tried("OpenAt")?;
            close(session, &[open.open])
        })
    }))
}

fn pread(session: &Session<'_>, count: u32) -> Result<Operation> {
    let request = PRead {
        offset: 0,
        open: session.open(&["big"], 0)?,
        count,
    };
    let bytes = 8 + count as usize;
    let check = move |reply: &[u8]| expect(reply.len() == bytes, "PRead: short");
    Ok(repeated(Mid::PREAD, &request, check))
}

fn pwrite(session: &Session<'_>, num_bytes: u32) -> Result<Operation> {
    let mut request = PWrite {
        offset: 0,
        open: session.open(&["big"], READ_WRITE)?,
        num_bytes,
    }
    .to_payload();
    request.resize(request.len() + num_bytes as usize, 7);
    let all = u64::from(num_bytes).to_le_bytes();
    Ok(Box::new(move |session| {
        let begun = Instant::now();
        let reply = session.call_encoded(Mid::PWRITE, &request)?;
        let took = begun.elapsed();
        expect(reply == all, "PWrite: short")?;
        Ok(took)
    }))
}

/// From the start of the directory to its end.
fn getdents(session: &Session<'_>, entries: usize) -> Result<Operation> {
    let dir = session.open(&[&format!("d{entries}")], 0)?;
    let request = |count| Getdents64 { dir, count }.to_payload();
    let (first, next) = (request(-GETDENTS_BYTES), request(GETDENTS_BYTES));
    Ok(Box::new(move |session| {
        let mut seen = 0;
        let mut request = &first;
        let took = timed(|| {
            loop {
                let reply = session.call_encoded(Mid::GETDENTS64, request)?;
                // The count stands first: what a client that wants the names does is its own time.
                let count = reply.first_chunk().copied().map_or(0, u16::from_le_bytes);
                if count == 0 {
                    break Ok(());
                }
                seen += usize::from(count);
                request = &next;
            }
        })?;
        // Some servers leave out `.` and `..`.
        expect(
            (entries..=entries + 2).contains(&seen),
            "Getdents64: entries are missing",
        )?;
        Ok(took)
    }))
}

fn create_close_unlink(session: &Session<'_>) -> Result<Operation> {
    let dir = session.walk(&["work"])?;
    let name = Text(b"created");
    let create = OpenCreateAt {
        new: new_node(dir, 0o644),
        flags: READ_WRITE,
        name,
    };
    let create = create.to_payload();
    let unlink = UnlinkAt {
        dir,
        flags: 0,
        name,
    };
    let unlink = unlink.to_payload();
    Ok(Box::new(move |session| {
        timed(|| {
            let reply = session.call_encoded(Mid::OPEN_CREATE_AT, &create)?;
            let made = OpenCreateAtReply::from_payload(reply).tried("OpenCreateAt")?;
            close(session, &[made.open, made.child.control])?;
            session.call_encoded(Mid::UNLINK_AT, &unlink)?;
            Ok(())
        })
    }))
}

const fn new_node(dir: FdId, mode: u16) -> NewNode {
    NewNode {
        dir,
        owner: OWNER,
        mode,
    }
}

fn control(inode: &[u8]) -> Result<FdId> {
    Ok(Inode::from_payload(inode).tried("Inode")?.control)
}

fn mkdir_rename_rmdir(session: &Session<'_>) -> Result<Operation> {
    let dir = session.walk(&["work"])?;
    let (old, new) = (Text(b"old"), Text(b"new"));
    let mkdir = MkdirAt {
        new: new_node(dir, 0o755),
        name: old,
    }
    .to_payload();
    let rename = RenameAt {
        old_dir: dir,
        new_dir: dir,
        old_name: old,
        new_name: new,
    }
    .to_payload();
    let rmdir = UnlinkAt {
        dir,
        flags: REMOVE_DIRECTORY,
        name: new,
    }
    .to_payload();
    Ok(Box::new(move |session| {
        let mut made = FdId(0);
        let took = timed(|| {
            made = control(session.call_encoded(Mid::MKDIR_AT, &mkdir)?)?;
            session.call_encoded(Mid::RENAME_AT, &rename)?;
            session.call_encoded(Mid::UNLINK_AT, &rmdir)?;
            Ok(())
        })?;
        close(session, &[made])?;
        Ok(took)
    }))
}

fn symlink_readlink(session: &Session<'_>) -> Result<Operation> {
    let dir = session.walk(&["work"])?;
    let name = Text(b"link");
    let symlink = SymlinkAt {
        dir,
        owner: OWNER,
        name,
        target: Text(b"../somewhere/else"),
    }
    .to_payload();
    let unlink = UnlinkAt {
        dir,
        flags: 0,
        name,
    }
    .to_payload();
    Ok(Box::new(move |session| {
        let mut id = FdId(0);
        let took = timed(|| {
            id = control(session.call_encoded(Mid::SYMLINK_AT, &symlink)?)?;
            session.call(Mid::READ_LINK_AT, &ReadLinkAt { id })?;
            Ok(())
        })?;
        session.call_encoded(Mid::UNLINK_AT, &unlink)?;
        close(session, &[id])?;
        Ok(took)
    }))
}

fn fgetxattr(session: &Session<'_>) -> Result<Operation> {
    let (name, value) = XATTR;
    let request = FGetXattr {
        id: session.walk(&["file"])?,
        buf_size: COUNT_MAX as u32,
        name: Text(name.as_bytes()),
    };
    let check = move |reply: &[u8]| {
        let reply = FGetXattrReply::from_payload(reply).tried("FGetXattr")?;
        expect(reply.value.bytes() == value, "FGetXattr: another value")
    };
    Ok(repeated(Mid::FGET_XATTR, &request, check))
}

fn setstat(session: &Session<'_>) -> Result<Operation> {
    let zero = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    let request = SetStat {
        id: session.walk(&["file"])?,
        mask: SetStat::MODE,
        mode: 0o640,
        uid: 0,
        gid: 0,
        size: 0,
        atime: zero,
        mtime: zero,
    };
    let check = |reply: &[u8]| {
        let unset = reply.first_chunk().copied().map(u32::from_le_bytes);
        expect(unset == Some(0), "SetStat: not set")
    };
    Ok(repeated(Mid::SET_STAT, &request, check))
}
