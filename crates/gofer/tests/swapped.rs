//! A sealed gofer serves while somebody on the host swaps directories, files and sockets for links
//! that lead out of the tree, at full speed: nothing outside is read, written, made or spoken to.
//!
//! The same for the set-up is in `jail` (`nothing_outside_is_touched_while_names_are_swapped`).
//! Needs root: the parent makes namespaces.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use client::{Client, Error};
use rig::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use rustix::fs::{CWD, RenameFlags, XattrFlags};
use serde_json::json;
use tempfile::TempDir;
use wire::msg::attr::SetStat;
use wire::{Errno, FdId, NewNode, Owner, Timespec};

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
const O_RDWR: u32 = 2;
const STREAM: u32 = 1;
/// How many clients' threads ask at once.
const ASKING: u64 = 3;
/// What the host swaps: names in the root, and where the links lead that take their places.
const SWAPPED: [(&str, &str); 8] = [
    ("dir", "CANARY"),
    ("dir/sub", "CANARY/dir"),
    ("file", "CANARY/file"),
    ("sock", "CANARY/sock"),
    ("dir", ".."),
    ("dir/sub", "/"),
    ("dir/file", "CANARY/file"),
    ("dir/sock", "CANARY/sock"),
];

/// A tree to serve, and one beside it that must stay as it is.
struct House {
    dir: TempDir,
    canary_socket: UnixListener,
    _served_sockets: [UnixListener; 2],
}

impl House {
    fn new() -> House {
        let dir = TempDir::new().unwrap();
        for tree in ["root", "canary"] {
            let root = dir.path().join(tree);
            fs::create_dir_all(root.join("dir/sub")).unwrap();
            for file in ["file", "dir/file", "dir/sub/file"] {
                fs::write(root.join(file), tree).unwrap();
                let flags = XattrFlags::empty();
                rustix::fs::setxattr(root.join(file), "user.of", tree.as_bytes(), flags).unwrap();
            }
        }
        let listen = |name: &str| UnixListener::bind(dir.path().join(name)).unwrap();
        let canary_socket = listen("canary/sock");
        canary_socket.set_nonblocking(true).unwrap();
        let served = [listen("root/sock"), listen("root/dir/sock")];
        let canary = dir.path().join("canary");
        for (index, (_, target)) in SWAPPED.iter().enumerate() {
            let target = target.replace("CANARY", canary.to_str().unwrap());
            symlink(target, dir.path().join(format!("root/link{index}"))).unwrap();
        }
        write_bundle(dir.path(), &dir.path().join("root"), false, &json!([])).unwrap();
        House {
            dir,
            canary_socket,
            _served_sockets: served,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, directfs: bool) -> Gofer {
        let confs = ["lisafs:none"];
        let parent = Parent::new(Path::new(GOFER), Dialect::V2026_08, self.dir.path(), &confs)
            .flag("--host-uds=all")
            .flag(&format!("--directfs={directfs}"))
            .debug_log(File::create(self.path("debug")).unwrap());
        let mut gofer = parent.start().unwrap();
        gofer.release();
        assert_eq!(gofer.mounts().unwrap(), b"[]", "{}", self.log());
        gofer
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("debug")).unwrap()
    }

    /// Puts links in the places of what is served, and what is served back, until told to stop.
    fn swap(&self, stop: &AtomicBool) {
        let root = self.path("root");
        while !stop.load(Ordering::Relaxed) {
            for (index, (name, _)) in SWAPPED.iter().enumerate() {
                let (place, link) = (root.join(name), root.join(format!("link{index}")));
                for _ in 0..2 {
                    // Clients rename and remove too; then there is nothing to swap for once.
                    let exchange = RenameFlags::EXCHANGE;
                    _ = rustix::fs::renameat_with(CWD, &place, CWD, &link, exchange);
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Everything there is to know about the canary tree, and what lies beside it.
    fn canary(&self) -> BTreeMap<PathBuf, String> {
        let beside = fs::read_dir(self.dir.path()).unwrap();
        let mut known: BTreeMap<PathBuf, String> = beside
            .map(|entry| (entry.unwrap().path(), String::new()))
            .collect();
        let mut left = vec![self.path("canary")];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() {
                fs::read_to_string(&path).unwrap()
            } else {
                String::new()
            };
            let mut value = [0; 64];
            let of = rustix::fs::lgetxattr(&path, "user.of", &mut value[..]).unwrap_or(0);
            let about = (
                meta.ino(),
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.nlink(),
            );
            let times = (meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
            let about = format!("{about:?} {times:?} {content} {:?}", &value[..of]);
            if meta.is_dir() {
                left.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
            known.insert(path, about);
        }
        known
    }
}

/// One client's thread.
struct Asking<'c> {
    client: &'c Client,
    root: FdId,
    random: u64,
    made: u64,
    /// How many answers were a success, by the request.
    done: BTreeMap<&'static str, u64>,
    /// How often a name was found to be a link.
    links: u64,
}

impl Asking<'_> {
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % below
    }

    fn draw_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.draw(from.len() as u64)).unwrap()]
    }

    fn name(&mut self) -> Vec<u8> {
        format!("n{}", self.draw(48)).into_bytes()
    }

    /// Notes an answer. The host may refuse, never the channel break.
    fn note<T>(&mut self, request: &'static str, answer: Result<T, Error>) -> Option<T> {
        self.made += 1;
        match answer {
            Ok(value) => {
                *self.done.entry(request).or_default() += 1;
                Some(value)
            }
            Err(Error::Refused(errno)) => {
                assert_ne!(errno, Errno::BADF, "{request}");
                None
            }
            Err(error) => panic!("{request}: {error:?}"),
        }
    }

    /// Walks somewhere where things are swapped; the last id, and all to be closed.
    fn walk(&mut self, paths: &[&[&[u8]]]) -> Option<(FdId, Vec<FdId>)> {
        let path = self.draw_of(paths);
        let answer = self.client.walk(self.root, path);
        let walked = self.note("Walk", answer)?;
        let ids: Vec<FdId> = walked.inodes.iter().map(|inode| inode.control).collect();
        let is_link = |inode: &wire::Inode| inode.stat.mode & 0o170_000 == 0o120_000;
        self.links += walked.inodes.iter().filter(|inode| is_link(inode)).count() as u64;
        Some((*ids.last()?, ids))
    }

    fn ask(&mut self) {
        let directories: &[&[&[u8]]] = &[&[b"dir"], &[b"dir", b"sub"]];
        let files: &[&[&[u8]]] = &[&[b"file"], &[b"dir", b"file"], &[b"dir", b"sub", b"file"]];
        let odd: &[&[&[u8]]] = &[&[b"sock"], &[b"dir", b"sock"], &[b"dir"], &[b"link2"]];
        let kind = self.draw(8);
        let from = match kind {
            4 | 7 => odd,
            5 => files,
            _ => directories,
        };
        let Some((id, mut ids)) = self.walk(from) else {
            return;
        };
        let (client, name) = (self.client, self.name());
        let new = NewNode {
            dir: id,
            owner: Owner {
                uid: 4321,
                gid: 4321,
            },
            mode: 0o600,
        };
        match kind {
            0 => {
                let answer = client.open_create_at(new, &name, O_RDWR);
                if let Some(created) = self.note("OpenCreateAt", answer) {
                    _ = self.note("PWrite", client.pwrite(created.opened.id, 0, b"written"));
                    ids.extend([created.opened.id, created.child.control]);
                }
            }
            1 => {
                let made = self.note("MkdirAt", client.mkdir_at(new, &name));
                ids.extend(made.map(|made| made.control));
            }
            2 => self.rename(id, &name, &mut ids),
            3 => {
                let bound = self.note("BindAt", client.bind_at(new, &name, STREAM));
                ids.extend(
                    bound
                        .iter()
                        .flat_map(|bound| [bound.id, bound.child.control]),
                );
            }
            4 => self.set_stat(id),
            5 => {
                self.read(id, &mut ids);
                self.link(id, &name, &mut ids);
            }
            6 => {
                let flags = self.draw_of(&[0, 0x200]);
                self.note("UnlinkAt", client.unlink_at(id, &name, flags));
            }
            _ => {
                self.note("Connect", client.connect_to(id, STREAM));
            }
        }
        client.close(&ids).unwrap();
    }

    fn read(&mut self, file: FdId, ids: &mut Vec<FdId>) {
        let Some(opened) = self.note("OpenAt", self.client.open_at(file, 0)) else {
            return;
        };
        ids.push(opened.id);
        let mut content = [0; 16];
        let length = self.client.pread(opened.id, 0, &mut content);
        let length = self.note("PRead", length).unwrap_or(0);
        assert_ne!(&content[..length], b"canary");
    }

    fn rename(&mut self, from: FdId, name: &[u8], ids: &mut Vec<FdId>) {
        let Some((to, more)) = self.walk(&[&[b"dir"], &[b"dir", b"sub"]]) else {
            return;
        };
        ids.extend(more);
        let new = self.name();
        let answer = self.client.rename_at((from, name), (to, &new));
        self.note("RenameAt", answer);
    }

    fn link(&mut self, target: FdId, name: &[u8], ids: &mut Vec<FdId>) {
        let Some((dir, more)) = self.walk(&[&[b"dir"], &[b"dir", b"sub"]]) else {
            return;
        };
        ids.extend(more);
        let linked = self.note("LinkAt", self.client.link_at(dir, target, name));
        ids.extend(linked.map(|linked| linked.control));
    }

    /// Of sockets, links, and whatever else has these names just now.
    fn set_stat(&mut self, id: FdId) {
        let time = Timespec {
            seconds: 12_345,
            nanoseconds: 6,
        };
        let request = SetStat {
            id,
            mask: SetStat::MODE | SetStat::UID | SetStat::GID | SetStat::ATIME | SetStat::MTIME,
            mode: 0o711,
            uid: 4321,
            gid: 4321,
            size: 0,
            atime: time,
            mtime: time,
        };
        self.note("SetStat", self.client.set_stat(&request));
        let set = self.client.fset_xattr(id, b"user.of", b"client", 0);
        self.note("FSetXattr", set);
    }
}

fn requests_race_with_swaps(requests: u64, directfs: bool) {
    let house = House::new();
    let mut gofer = house.start(directfs);
    let before = house.canary();
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    assert_eq!(client.open_channels(2).unwrap(), 2);
    let (stop, total) = (AtomicBool::new(false), AtomicU64::new(0));
    let asked: Vec<Asking<'_>> = std::thread::scope(|scope| {
        scope.spawn(|| house.swap(&stop));
        let threads: Vec<_> = (0..ASKING)
            .map(|seed| {
                let (client, root, total) = (&client, mounted.root.control, &total);
                scope.spawn(move || {
                    let mut asking = Asking {
                        client,
                        root,
                        random: seed + 1,
                        made: 0,
                        done: BTreeMap::new(),
                        links: 0,
                    };
                    while total.load(Ordering::Relaxed) < requests {
                        let made = asking.made;
                        asking.ask();
                        total.fetch_add(asking.made - made, Ordering::Relaxed);
                    }
                    asking
                })
            })
            .collect();
        let asked = threads.into_iter().map(|thread| thread.join());
        let asked: Vec<_> = asked.collect();
        stop.store(true, Ordering::Relaxed);
        asked.into_iter().map(Result::unwrap).collect()
    });
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    for (request, count) in asked.iter().flat_map(|asking| &asking.done) {
        *done.entry(request).or_default() += count;
    }
    let links: u64 = asked.iter().map(|asking| asking.links).sum();
    println!("  {done:?}, {links} names were links");
    assert_eq!(house.canary(), before, "outside nothing has changed");
    let accepted = house.canary_socket.accept().map(|_| ());
    let nobody = accepted.unwrap_err().kind();
    assert_eq!(nobody, std::io::ErrorKind::WouldBlock, "nobody came");
    // The race was one: names were links at times, and every kind of request succeeded at others.
    assert!(links > 0);
    assert_eq!(done.len(), 13, "{done:?}");
    // It lives on.
    assert!(client.fstat(mounted.root.control).is_ok());
    drop(asked);
    drop(client);
    gofer.sentry_exit = None;
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", house.log());
}

#[test]
fn nothing_outside_is_touched_while_names_are_swapped_during_a_hundred_thousand_requests() {
    requests_race_with_swaps(100_000, false);
}

#[test]
fn nothing_outside_is_touched_while_names_are_swapped_under_directfs() {
    requests_race_with_swaps(10_000, true);
}
