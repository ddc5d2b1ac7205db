//! A host file system of the test's own, in FUSE: one file is well, one answers with an error, one
//! does not answer until it is told to.

use std::ffi::OsStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use client::Client;
use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};
use wire::{Errno, FdId};

use crate::{Holdings, House, PER_CONNECTION, new_node, refused};

const FILES: [(&str, u64); 3] = [("well", 2), ("broken", 3), ("hung", 4)];
const CONTENT: &[u8] = b"content";

/// Answers that are held back.
type Held = Arc<Mutex<Vec<ReplyData>>>;

struct Sick {
    held: Held,
    /// Told of each read that gets no answer.
    arrived: Mutex<Sender<()>>,
}

fn attributes(ino: INodeNo) -> FileAttr {
    let directory = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: CONTENT.len() as u64,
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if directory {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 512,
    }
}

impl Filesystem for Sick {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match FILES.iter().find(|(known, _)| name == *known) {
            Some((_, ino)) => {
                reply.entry(&Duration::ZERO, &attributes(INodeNo(*ino)), Generation(0));
            }
            None => reply.error(fuser::Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Nothing cached: every read comes here.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match ino.0 {
            2 => reply.data(&CONTENT[CONTENT.len().min(offset as usize)..]),
            3 => reply.error(fuser::Errno::EIO),
            // The end of the file is no secret: only the first read of it hangs.
            4 if offset > 0 => reply.data(b""),
            _ => {
                self.held.lock().unwrap().push(reply);
                self.arrived.lock().unwrap().send(()).unwrap();
            }
        }
    }
}

/// The file system on a volume of the house.
struct Host {
    held: Held,
    arrived: Receiver<()>,
    _session: BackgroundSession,
}

impl Host {
    fn new(house: &House) -> Host {
        let (held, (send, arrived)) = (Held::default(), channel());
        let sick = Sick {
            held: Arc::clone(&held),
            arrived: Mutex::new(send),
        };
        Host {
            held,
            arrived,
            _session: fuser::spawn_mount(sick, house.volume(0), &Config::default()).unwrap(),
        }
    }

    /// Waits until a read hangs.
    fn wait_for_read(&self) {
        self.arrived.recv().unwrap();
    }

    fn release(&self) {
        for reply in self.held.lock().unwrap().drain(..) {
            reply.data(b"late");
        }
    }
}

fn open(client: &Client, root: FdId, name: &str) -> FdId {
    let file = client.walk_one(root, name.as_bytes()).unwrap();
    client.open_at(file.control, 0).unwrap().id
}

#[test]
fn an_error_of_the_host_file_system_is_the_answer_to_that_request_alone() {
    let house = House::new(1);
    let host = Host::new(&house);
    let mut served = house.start(&[]);
    let (client, root) = served.connect();
    let (well, broken) = (open(&client, root, "well"), open(&client, root, "broken"));
    for channels in [0, 1] {
        if channels > 0 {
            client.open_channels(channels).unwrap();
        }
        assert_eq!(refused(client.pread(broken, 0, &mut [0; 100])), Errno::IO);
        assert_eq!(client.pread(well, 0, &mut [0; 100]), Ok(CONTENT.len()));
    }
    drop(client);
    served.end();
    drop(host);
}

#[test]
fn a_host_file_system_that_hangs_stalls_only_the_requests_that_touch_it() {
    let house = House::new(2);
    let host = Host::new(&house);
    let mut served = house.start(&[]);
    let before = served.holdings();
    let (client, root) = served.connect();
    client.open_channels(2).unwrap();
    let (well, hung) = (open(&client, root, "well"), open(&client, root, "hung"));
    let (other, other_root) = served.connect();
    let check_others = |name: &str| {
        other
            .mkdir_at(new_node(other_root), name.as_bytes())
            .unwrap();
        served.check_alive();
    };
    std::thread::scope(|scope| {
        let read = || client.pread(hung, 0, &mut [0; 100]);
        // Both channels, one after the other; what is left is the socket.
        let stalled: Vec<_> = (0..2)
            .map(|round| {
                let reader = scope.spawn(read);
                host.wait_for_read();
                assert_eq!(client.pread(well, 0, &mut [0; 100]), Ok(CONTENT.len()));
                client.walk_one(root, b"hung").unwrap();
                check_others(&format!("dir{round}"));
                reader
            })
            .collect();
        host.release();
        for reader in stalled {
            assert_eq!(reader.join().unwrap(), Ok(b"late".len()));
        }
    });
    // Its client leaves while a read hangs: the connection ends once the host answers, and until
    // then nobody else notices.
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| client.pread(hung, 0, &mut [0; 100]));
        host.wait_for_read();
        client.shutdown();
        assert!(reader.join().unwrap().is_err());
    });
    drop(client);
    check_others("dir-after");
    host.release();
    drop(other);
    served.settle(Holdings {
        descriptors: before.descriptors - 2 * PER_CONNECTION,
        threads: before.threads,
    });
    served.end();
    drop(host);
}
