//! The client's view of a hostile server: any reply to any request, on the socket and on a channel.
//!
//! Checked: no panic, no wait, no more than was asked for, and every descriptor closed again.
#![no_main]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arbitrary::{Arbitrary, Result, Unstructured};
use channel::{Server, Socket, Wait, WindowFile};
use client::Client;
use libfuzzer_sys::fuzz_target;
use rustix::net::RecvFlags;
use wire::msg::attr::SetStat;
use wire::msg::data::FAllocate;
use wire::msg::session::{ChannelReply, MountReply};
use wire::{Array, Encode, FdId, Inode, Mid, NewNode, Owner, Statx, Timespec};

const STEPS_MAX: usize = 8;

fuzz_target!(|input: &[u8]| {
    let held = descriptors();
    let _end_of_input = talk(&mut Unstructured::new(input));
    assert_eq!(
        descriptors(),
        held,
        "descriptors of refused replies are closed"
    );
});

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// What the server will say, whatever it is asked.
struct Scripted {
    mid: u16,
    payload: Vec<u8>,
    fds: usize,
}

impl Scripted {
    fn draw(u: &mut Unstructured<'_>, asked: Mid) -> Result<Self> {
        let mid = match u.int_in_range(0..=7_u8)? {
            0 => u16::arbitrary(u)?,
            1 => Mid::ERROR.0,
            _ => asked.0,
        };
        let mut payload = Vec::new();
        if u.ratio(1, 4)? {
            payload.extend_from_slice(&u16::arbitrary(u)?.to_le_bytes());
            payload.resize(usize::from(u16::arbitrary(u)?), u8::arbitrary(u)?);
        } else {
            let length = u.int_in_range(0..=400)?.min(u.len());
            payload.extend_from_slice(u.bytes(length)?);
        }
        Ok(Self {
            mid,
            payload,
            fds: u.int_in_range(0..=3)?,
        })
    }
}

fn talk(u: &mut Unstructured<'_>) -> Result<()> {
    let (ours, theirs) = rig::pair();
    let null: OwnedFd = std::fs::File::open("/dev/null").expect("/dev/null").into();
    let ends = [&ours, &theirs].map(|end| end.try_clone().expect("a descriptor"));
    let client = Client::new(ours);
    let server = Socket::new(theirs);
    // Replies wait in the socket before the client asks, so no second thread is needed.
    let say = |scripted: &Scripted| {
        let fds: Vec<BorrowedFd<'_>> = (0..scripted.fds).map(|_| null.as_fd()).collect();
        server
            .send(scripted.mid, &scripted.payload, &fds)
            .expect("room for a reply");
    };
    // Requests are not looked at, and a reply that was not fetched must not fill the socket.
    let hear = || ends.iter().for_each(empty);
    if u.ratio(1, 4)? {
        say(&Scripted::draw(u, Mid::MOUNT)?);
    } else {
        let supported: Vec<u16> = (1..=33).collect();
        let inode = Inode {
            control: FdId(1),
            stat: Statx::default(),
        };
        let reply = MountReply {
            root: inode,
            max_message_size: u32::arbitrary(u)? >> 8,
            supported: Array::new(&supported),
        };
        say(&Scripted {
            mid: Mid::MOUNT.0,
            payload: reply.to_payload(),
            fds: 1,
        });
    }
    let _any = client.mount();
    hear();
    if u.ratio(1, 4)? {
        return by_channel(u, &client, &server);
    }
    for _ in 0..STEPS_MAX {
        if u.is_empty() {
            return Ok(());
        }
        let method = u.choose(METHODS)?;
        say(&Scripted::draw(u, method.mid)?);
        // What the client cannot use it closes.
        say(&Scripted {
            mid: Mid::CLOSE.0,
            payload: Vec::new(),
            fds: 0,
        });
        let longest = u16::arbitrary(u)? / 2;
        (method.ask)(&client, usize::from(longest));
        hear();
    }
    Ok(())
}

fn empty(end: &OwnedFd) {
    let mut room = vec![0; 65_536];
    while rustix::net::recv(end, &mut room[..], RecvFlags::DONTWAIT).is_ok_and(|got| got.0 > 0) {}
}

/// The same over a channel, served by the crate's own endpoint on another thread.
fn by_channel(u: &mut Unstructured<'_>, client: &Client, socket: &Socket) -> Result<()> {
    let file = WindowFile::new().expect("a memory file");
    let (mut endpoint, offer) = Server::open(&file, Wait::asleep()).expect("a channel");
    // Windows that cannot be: in one that can, but that nobody serves, any client waits for ever.
    let (data_offset, data_length) = match u.int_in_range(0..=15_u8)? {
        0 => (i64::arbitrary(u)? | 1, u64::arbitrary(u)?),
        1 => (0, u64::arbitrary(u)? % 4096),
        2 => (0, offer.bytes + 1 + u64::arbitrary(u)? / 2),
        3 => (i64::arbitrary(u)? / 4096 * 4096, u64::MAX),
        _ => (offer.offset as i64, offer.bytes),
    };
    let reply = ChannelReply {
        data_offset,
        data_length,
    };
    let fds = [offer.memory.as_fd(), offer.fd_socket.as_fd()];
    socket
        .send(Mid::CHANNEL.0, &reply.to_payload(), &fds)
        .expect("room for a reply");
    let mut script = Vec::new();
    let mut methods = Vec::new();
    while methods.len() < STEPS_MAX && !u.is_empty() {
        let method = u.choose(METHODS)?;
        script.push(Scripted::draw(u, method.mid)?);
        methods.push(method);
    }
    let closer = endpoint.closer();
    let null: OwnedFd = std::fs::File::open("/dev/null").expect("/dev/null").into();
    let serve = std::thread::spawn(move || {
        if endpoint.accept().is_err() {
            return;
        }
        for scripted in script {
            if endpoint.receive().is_err() {
                return;
            }
            let fds: Vec<BorrowedFd<'_>> = (0..scripted.fds).map(|_| null.as_fd()).collect();
            if endpoint
                .reply(scripted.mid, &scripted.payload, &fds)
                .is_err()
            {
                return;
            }
        }
    });
    let opened = client.open_channels(1) == Ok(1);
    // Nobody answers on the socket any more, where the client turns to once the channel is dead.
    socket.shutdown();
    if opened {
        for method in methods {
            (method.ask)(client, 100);
        }
    }
    client.shutdown();
    closer.close();
    serve.join().expect("the scripted server");
    Ok(())
}

/// A request of the client's, and what may be believed of its reply.
struct Method {
    mid: Mid,
    ask: fn(&Client, usize),
}

const ID: FdId = FdId(1);
const NEW: NewNode = NewNode {
    dir: ID,
    owner: Owner::KEEP,
    mode: 0o644,
};

macro_rules! method {
    ($mid:ident, $client:ident, $length:ident, $ask:expr) => {
        Method {
            mid: Mid::$mid,
            ask: |$client, $length| $ask,
        }
    };
    ($mid:ident, $client:ident, $ask:expr) => {
        Method {
            mid: Mid::$mid,
            ask: |$client, _| _ = $ask,
        }
    };
}

const METHODS: &[Method] = &[
    method!(FSTAT, c, c.fstat(ID)),
    method!(
        SET_STAT,
        c,
        c.set_stat(&SetStat {
            id: ID,
            mask: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            atime: Timespec::default(),
            mtime: Timespec::default(),
        })
    ),
    method!(FSTATFS, c, c.fstatfs(ID)),
    method!(WALK, c, length, {
        let path = vec![&b"a"[..]; length % 5];
        if let Ok(walked) = c.walk(ID, &path) {
            assert!(walked.inodes.len() <= path.len());
            assert!(walked.inodes.iter().all(|inode| inode.control != FdId(0)));
        }
    }),
    method!(WALK_STAT, c, length, {
        let path = vec![&b"a"[..]; length % 5];
        if let Ok(stats) = c.walk_stat(ID, &path) {
            assert!(stats.len() <= path.len());
        }
    }),
    method!(READ_LINK_AT, c, c.read_link(ID)),
    method!(OPEN_AT, c, length, {
        if let Ok(opened) = c.open_at(ID, length as u32) {
            assert_ne!(opened.id, FdId(0));
        }
    }),
    method!(OPEN_CREATE_AT, c, c.open_create_at(NEW, b"a", 2)),
    method!(CLOSE, c, c.close(&[ID])),
    method!(FSYNC, c, c.fsync(&[ID])),
    method!(PREAD, c, length, {
        let mut room = vec![0; length];
        if let Ok(read) = c.pread(ID, 0, &mut room) {
            assert!(read <= length);
        }
    }),
    method!(PWRITE, c, length, {
        if let Ok(written) = c.pwrite(ID, 0, &vec![1; length]) {
            assert!(written <= length);
        }
    }),
    method!(
        FALLOCATE,
        c,
        c.fallocate(&FAllocate {
            open: ID,
            mode: 0,
            offset: 0,
            length: 1
        })
    ),
    method!(MKDIR_AT, c, c.mkdir_at(NEW, b"a")),
    method!(MKNOD_AT, c, c.mknod_at(NEW, b"a", 0, 0)),
    method!(SYMLINK_AT, c, c.symlink_at(ID, Owner::KEEP, b"a", b"b")),
    method!(LINK_AT, c, c.link_at(ID, ID, b"a")),
    method!(UNLINK_AT, c, c.unlink_at(ID, b"a", 0)),
    method!(RENAME_AT, c, c.rename_at((ID, b"a"), (ID, b"b"))),
    method!(RENAME_AT2, c, c.rename_at2((ID, b"a"), (ID, b"b"), 0)),
    method!(GETDENTS64, c, c.getdents64(ID, 65_536)),
    method!(FGET_XATTR, c, length, {
        if let Ok(value) = c.fget_xattr(ID, b"user.a", length as u32) {
            assert!(length == 0 || value.len() <= length);
        }
    }),
    method!(FSET_XATTR, c, c.fset_xattr(ID, b"user.a", b"1", 0)),
    method!(FLIST_XATTR, c, c.flist_xattr(ID, 100)),
    method!(FREMOVE_XATTR, c, c.fremove_xattr(ID, b"user.a")),
    method!(CONNECT, c, c.connect_to(ID, 1)),
    method!(
        CONNECT_WITH_CREDS,
        c,
        c.connect_with_creds(ID, 1, Owner::KEEP)
    ),
    method!(BIND_AT, c, c.bind_at(NEW, b"a", 1)),
    method!(LISTEN, c, c.listen(ID, 1)),
    method!(ACCEPT, c, c.accept(ID)),
];
