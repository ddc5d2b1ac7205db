//! What goes wrong around a sealed gofer: clients that die or stall, descriptors that run out, a host
//! file system that fills up, changes underneath, fails or hangs. Each time: the request that is hit
//! gets its errno, the others go on, and nothing is left behind.
//!
//! Needs root: the parent makes namespaces, and file systems are mounted.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

mod budgets;
mod disks;
mod hung;
mod slow;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::{Client, Error, WalkStatus};
use rig::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::{Errno, FdId, Mid, NewNode, Owner};

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
const O_RDWR: u32 = 2;
/// Tells a copy of this test binary that it is to be a client, and of which kind.
const VICTIM: &str = "FAULTS_VICTIM";

/// A root and writable volumes, on the host.
struct House {
    dir: TempDir,
    volumes: usize,
}

impl House {
    fn new(volumes: usize) -> House {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        for volume in 0..volumes {
            fs::create_dir(dir.path().join(format!("volume{volume}"))).unwrap();
        }
        House { dir, volumes }
    }

    fn volume(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("volume{number}"))
    }

    /// Starts a gofer for the root and all volumes.
    fn start(&self, flags: &[&str]) -> Served {
        let bind = |number| {
            json!({
                "destination": format!("/volume{number}"), "type": "bind",
                "source": self.volume(number), "options": ["rbind", "rw"],
            })
        };
        let mounts: Vec<Value> = (0..self.volumes).map(bind).collect();
        let root = self.dir.path().join("root");
        write_bundle(self.dir.path(), &root, false, &json!(mounts)).unwrap();
        let confs = vec!["lisafs:none"; 1 + self.volumes];
        let log = self.dir.path().join("log");
        let mut parent = Parent::new(Path::new(GOFER), Dialect::V2026_08, self.dir.path(), &confs)
            .log(File::create(&log).unwrap());
        for flag in flags {
            parent = parent.flag(flag);
        }
        let mut gofer = parent.start().unwrap();
        gofer.release();
        let list = gofer.mounts().unwrap();
        assert!(!list.is_empty(), "{}", fs::read_to_string(log).unwrap());
        gofer.sentry_exit = None;
        let (root, _) = Client::connect(gofer.take_socket().unwrap()).unwrap();
        let served = Served { gofer, root };
        // Once a request is answered, all that the one before it held is let go.
        served.check_alive();
        served
    }
}

/// A gofer, and a client of its root that lives to the end.
struct Served {
    gofer: Gofer,
    root: Client,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
}

impl Served {
    /// Connects to the first volume that has no client yet.
    fn connect(&mut self) -> (Client, FdId) {
        let (client, mounted) = Client::connect(self.gofer.take_socket().unwrap()).unwrap();
        (client, mounted.root.control)
    }

    fn holdings(&self) -> Holdings {
        let count = |name| fs::read_dir(self.gofer.proc(name)).unwrap().count();
        Holdings {
            descriptors: count("fd"),
            threads: count("task"),
        }
    }

    /// Private memory, in KiB.
    fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(self.gofer.proc("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let words = line.unwrap().split_whitespace().nth(1).unwrap();
        words.parse().unwrap()
    }

    /// The root's client still gets answers.
    fn check_alive(&self) {
        let root = self.root.mount().unwrap().root.control;
        self.root.close(&[root]).unwrap();
    }

    /// Waits until the connections that have ended are gone from the process.
    fn settle(&self, expected: Holdings) {
        for _ in 0..5000 {
            if self.holdings() == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let links = fs::read_dir(self.gofer.proc("fd")).unwrap();
        let names: Vec<_> = links.map(|l| fs::read_link(l.unwrap().path())).collect();
        let now = self.holdings();
        panic!("{now:?} instead of {expected:?}: {names:?}");
    }

    /// Nothing killed it: it ends when its last client leaves.
    fn end(self) {
        drop(self.root);
        assert_eq!(self.gofer.wait().unwrap(), Ended::Status(0));
    }
}

fn new_node(dir: FdId) -> NewNode {
    NewNode {
        dir,
        owner: Owner::KEEP,
        mode: 0o644,
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Refused(errno)) => errno,
        other => panic!("not refused: {other:?}"),
    }
}

/// What a client does until it is killed.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Requests over the socket.
    Socket,
    /// Requests over channels from three threads.
    Channels,
    /// Opens channels as often as it is let, and shakes hands.
    Handshake,
    /// A message of which only half is ever sent.
    HalfAMessage,
    /// Asks for much and never reads.
    Deaf,
}

const KINDS: [Kind; 5] = [
    Kind::Socket,
    Kind::Channels,
    Kind::Handshake,
    Kind::HalfAMessage,
    Kind::Deaf,
];

/// A client in a process of its own: a copy of this binary that runs nothing but [`victim`].
fn spawn_victim(kind: Kind, socket: OwnedFd) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, format!("{kind:?}"))
        .stdin(socket)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first byte: it has begun.
    let heard = child.stderr.as_mut().unwrap().read(&mut [0]).unwrap();
    assert_eq!(heard, 1, "a client that could not start");
    child
}

/// Not a test by itself: does what the environment says, until it is killed. Run as a test, it has
/// nothing to do.
#[test]
fn victim() {
    let Ok(kind) = std::env::var(VICTIM) else {
        return;
    };
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    std::io::stderr().write_all(b"!").unwrap();
    match kind.as_str() {
        "HalfAMessage" => send_half_a_message(File::from(socket)),
        "Deaf" => ask_and_never_read(File::from(socket)),
        kind => {
            let (client, mounted) = Client::connect(socket).unwrap();
            match kind {
                "Handshake" => while client.open_channels(1).is_ok() {},
                "Channels" => _ = client.open_channels(3).unwrap(),
                _ => {}
            }
            let (client, root) = (&client, mounted.root.control);
            std::thread::scope(|scope| {
                for number in 0..3 {
                    scope.spawn(move || work_for_ever(client, root, number));
                }
            });
        }
    }
}

fn work_for_ever(client: &Client, root: FdId, number: usize) {
    let name = format!("file{number}").into_bytes();
    let content = vec![7; 300_000];
    loop {
        let made = client
            .open_create_at(new_node(root), &name, O_RDWR)
            .unwrap();
        client.write_at(made.opened.id, 0, &content).unwrap();
        let mut back = vec![0; content.len()];
        assert_eq!(
            client.read_at(made.opened.id, 0, &mut back).unwrap(),
            back.len()
        );
        client.walk(root, &[&name]).unwrap();
        client.unlink_at(root, &name, 0).unwrap();
        // Ids are left open: the end of the connection closes them.
        if made.opened.id.0.is_multiple_of(3) {
            client.close(&[made.opened.id]).unwrap();
        }
    }
}

fn header(mid: Mid, payload_bytes: u32) -> [u8; 8] {
    let [a, b, c, d] = payload_bytes.to_le_bytes();
    let [low, high] = mid.0.to_le_bytes();
    [a, b, c, d, low, high, 0, 0]
}

fn send_half_a_message(mut socket: File) {
    socket.write_all(&header(Mid::PWRITE, 1 << 20)).unwrap();
    socket.write_all(&vec![1; 1 << 19]).unwrap();
    std::thread::sleep(Duration::MAX);
}

fn ask_and_never_read(mut socket: File) {
    // Each is answered with 158 bytes and more; in the end neither side can send.
    let request = header(Mid::MOUNT, 0);
    loop {
        socket.write_all(&request).unwrap();
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Kills clients, of every kind in turn, at random moments.
fn kill_clients(kills: usize) {
    const VOLUMES: usize = 50;
    let mut dice = Dice(1);
    let mut done = 0;
    while done < kills {
        let house = House::new(VOLUMES);
        let mut served = house.start(&[]);
        let before = served.holdings();
        // The first ones bring the heap to its size.
        let mut memory = 0;
        for round in 0..VOLUMES {
            let kind = KINDS[done % KINDS.len()];
            let mut victim = spawn_victim(kind, served.gofer.take_socket().unwrap());
            std::thread::sleep(Duration::from_micros(dice.below(12_000)));
            victim.kill().unwrap();
            victim.wait().unwrap();
            // Connections that nobody has spoken on yet are held until the end.
            let gone = round + 1;
            served.settle(Holdings {
                descriptors: before.descriptors - gone * PER_CONNECTION,
                threads: before.threads,
            });
            if round == VOLUMES / 2 {
                memory = served.memory_kib();
            }
            done += 1;
        }
        served.check_alive();
        let (after, slack) = (served.memory_kib(), 1024);
        assert!(after <= memory + slack, "{memory} KiB became {after} KiB");
        served.end();
    }
}

/// Descriptors that a connection holds before its client speaks: its socket, its mount point, and
/// the copy of that to donate.
const PER_CONNECTION: usize = 3;

#[test]
fn a_thousand_clients_killed_at_random_moments_leave_nothing_behind() {
    kill_clients(1000);
}

#[test]
fn clients_that_stand_still_hold_up_nobody_else() {
    let house = House::new(KINDS.len() + 1);
    let mut served = house.start(&[]);
    let before = served.holdings();
    let (client, root) = served.connect();
    let victims: Vec<Child> = KINDS
        .iter()
        .map(|kind| spawn_victim(*kind, served.gofer.take_socket().unwrap()))
        .collect();
    let mut dice = Dice(2);
    for victim in &victims {
        std::thread::sleep(Duration::from_micros(dice.below(20_000)));
        let pid = Pid::from_child(victim);
        kill_process(pid, Signal::STOP).unwrap();
    }
    client.open_channels(2).unwrap();
    for round in 0..200_u32 {
        let name = format!("f{round}").into_bytes();
        let made = client
            .open_create_at(new_node(root), &name, O_RDWR)
            .unwrap();
        client.write_at(made.opened.id, 0, &name).unwrap();
        client.close(&[made.opened.id, made.child.control]).unwrap();
    }
    served.check_alive();
    for mut victim in victims {
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    drop(client);
    served.settle(Holdings {
        descriptors: before.descriptors - (KINDS.len() + 1) * PER_CONNECTION,
        threads: before.threads,
    });
    served.end();
}

/// Ids until the server refuses.
fn take_all(client: &Client, root: FdId) -> Vec<FdId> {
    let mut ids = Vec::new();
    loop {
        match client.walk(root, &[b"file"]) {
            Ok(walked) => ids.extend(walked.inodes.iter().map(|inode| inode.control)),
            refusal => {
                assert_eq!(refused(refusal), Errno::MFILE);
                return ids;
            }
        }
    }
}

#[test]
fn a_client_that_takes_every_descriptor_leaves_the_other_mounts_their_part() {
    let house = House::new(3);
    for volume in 0..3 {
        fs::write(house.volume(volume).join("file"), "content").unwrap();
    }
    let mut served = house.start(&["--fdlimit=1000"]);
    let (greedy, greedy_root) = served.connect();
    greedy.open_channels(2).unwrap();
    let open = greedy.open_at(greedy.walk_one(greedy_root, b"file").unwrap().control, 0);
    let open = open.unwrap();
    let taken = take_all(&greedy, greedy_root);
    assert!(
        taken.len() > 400,
        "more than an equal part: {}",
        taken.len()
    );
    assert!(served.holdings().descriptors < 1000);
    // What needs no new id goes on, for the greedy client too.
    let mut content = [0; 7];
    assert_eq!(greedy.read_at(open.id, 0, &mut content).unwrap(), 7);
    for _ in 0..2 {
        let (modest, root) = served.connect();
        modest.open_channels(2).unwrap();
        let part = take_all(&modest, root);
        assert!(part.len() >= 90, "its promised part: {}", part.len());
        let made = modest.mkdir_at(new_node(root), b"dir");
        assert_eq!(refused(made), Errno::MFILE);
        modest.close(&part[..2]).unwrap();
        modest.mkdir_at(new_node(root), b"dir").unwrap();
    }
    assert!(served.holdings().descriptors < 1000);
    served.check_alive();
    greedy.close(&taken).unwrap();
    assert!(
        take_all(&greedy, greedy_root).len() > 400,
        "all of it is back"
    );
    drop(greedy);
    served.end();
}

#[test]
fn a_limit_too_low_for_the_promises_refuses_requests_and_nothing_else() {
    let house = House::new(2);
    fs::write(house.volume(0).join("file"), "content").unwrap();
    let mut served = house.start(&["--fdlimit=40"]);
    let (client, root) = served.connect();
    let taken = take_all(&client, root);
    assert!(!taken.is_empty());
    client.close(&taken).unwrap();
    client.walk_one(root, b"file").unwrap();
    served.check_alive();
    drop(client);
    served.end();
}

/// A file system of a test's own on a volume; detached when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// A tmpfs, if the kernel takes its options.
    fn tmpfs(on: PathBuf, options: &str) -> rustix::io::Result<Mounted> {
        let options = std::ffi::CString::new(options).unwrap();
        mount("tmpfs", &on, "tmpfs", MountFlags::empty(), Some(&*options))?;
        Ok(Mounted(on))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test that detached it itself has nothing left to detach.
        _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_works_again_once_there_is_room() {
    let house = House::new(2);
    let disk = Mounted::tmpfs(house.volume(0), "size=1m").unwrap();
    let mut served = house.start(&[]);
    let (client, root) = served.connect();
    let (other, other_root) = served.connect();
    for channels in [0, 1] {
        if channels > 0 {
            client.open_channels(channels).unwrap();
        }
        let big = client
            .open_create_at(new_node(root), b"big", O_RDWR)
            .unwrap();
        let written = client
            .pwrite(big.opened.id, 0, &vec![1; 1_500_000])
            .unwrap();
        assert!(written > 0 && written <= 1 << 20, "what fits: {written}");
        assert_eq!(
            fs::metadata(disk.0.join("big")).unwrap().size(),
            written as u64
        );
        let full = client.pwrite(big.opened.id, written as u64, &[1; 8192]);
        assert_eq!(refused(full), Errno::NOSPC);
        let mut back = vec![0; written];
        assert_eq!(
            client.read_at(big.opened.id, 0, &mut back).unwrap(),
            written
        );
        assert!(back.iter().all(|byte| *byte == 1));
        other
            .mkdir_at(new_node(other_root), format!("d{channels}").as_bytes())
            .unwrap();
        client.unlink_at(root, b"big", 0).unwrap();
        client.close(&[big.opened.id, big.child.control]).unwrap();
        // The descriptor that was donated keeps the file alive as well.
        drop(big);
        let small = client
            .open_create_at(new_node(root), b"small", O_RDWR)
            .unwrap();
        assert_eq!(
            client.write_at(small.opened.id, 0, &[2; 100_000]).unwrap(),
            100_000
        );
        client.unlink_at(root, b"small", 0).unwrap();
    }
    drop((client, other));
    served.end();
}

#[test]
fn host_files_replaced_truncated_and_removed_underneath_stay_what_they_were() {
    let house = House::new(1);
    let at = |name: &str| house.volume(0).join(name);
    fs::write(at("file"), "the first content").unwrap();
    fs::create_dir(at("dir")).unwrap();
    let mut served = house.start(&[]);
    let (client, root) = served.connect();
    let file = client.walk_one(root, b"file").unwrap();
    let dir = client.walk_one(root, b"dir").unwrap();
    let open = client.open_at(file.control, O_RDWR).unwrap();
    let read = || {
        let mut back = [0; 100];
        let count = client.read_at(open.id, 0, &mut back).unwrap();
        String::from_utf8(back[..count].to_vec()).unwrap()
    };
    fs::write(at("other"), "the second").unwrap();
    fs::rename(at("other"), at("file")).unwrap();
    assert_eq!(read(), "the first content", "an id follows its file");
    assert_eq!(client.fstat(file.control).unwrap().nlink, 0);
    let now = client.walk_one(root, b"file").unwrap();
    assert_ne!(now.stat.ino, file.stat.ino);
    let open_now = client.open_at(now.control, O_RDWR).unwrap();
    File::options()
        .write(true)
        .open(at("file"))
        .unwrap()
        .set_len(3)
        .unwrap();
    assert_eq!(client.read_at(open_now.id, 0, &mut [0; 100]).unwrap(), 3);
    assert_eq!(client.read_at(open_now.id, 3, &mut [0; 100]).unwrap(), 0);
    fs::remove_file(at("file")).unwrap();
    assert_eq!(client.write_at(open_now.id, 3, b"more").unwrap(), 4);
    assert_eq!(
        client.walk(root, &[b"file"]).unwrap().status,
        WalkStatus::Missing
    );
    fs::remove_dir(at("dir")).unwrap();
    assert_eq!(
        refused(client.mkdir_at(new_node(dir.control), b"x")),
        Errno::INVAL
    );
    drop(client);
    served.end();
}

#[test]
fn a_source_unmounted_lazily_is_served_to_the_end_and_then_let_go() {
    let house = House::new(1);
    let disk = Mounted::tmpfs(house.volume(0), "size=1m").unwrap();
    fs::write(disk.0.join("file"), "content").unwrap();
    let mut served = house.start(&[]);
    let (client, root) = served.connect();
    unmount(&disk.0, UnmountFlags::DETACH).unwrap();
    assert!(!disk.0.join("file").exists(), "gone from the host");
    let file = client.walk_one(root, b"file").unwrap();
    let open = client.open_at(file.control, O_RDWR).unwrap();
    assert_eq!(client.write_at(open.id, 0, b"CONTENT").unwrap(), 7);
    client.mkdir_at(new_node(root), b"dir").unwrap();
    drop(client);
    served.end();
}

#[test]
fn a_file_system_remounted_read_only_refuses_changes_and_goes_on_being_read() {
    let house = House::new(1);
    let disk = Mounted::tmpfs(house.volume(0), "size=1m").unwrap();
    fs::write(disk.0.join("file"), "content").unwrap();
    let mut served = house.start(&[]);
    let (client, root) = served.connect();
    let file = client.walk_one(root, b"file").unwrap();
    let open = client.open_at(file.control, 0).unwrap();
    mount_remount(&disk.0, MountFlags::RDONLY, "size=1m").unwrap();
    assert_eq!(
        refused(client.mkdir_at(new_node(root), b"dir")),
        Errno::ROFS
    );
    assert_eq!(refused(client.open_at(file.control, O_RDWR)), Errno::ROFS);
    assert_eq!(client.read_at(open.id, 0, &mut [0; 100]).unwrap(), 7);
    mount_remount(&disk.0, MountFlags::empty(), "size=1m").unwrap();
    client.mkdir_at(new_node(root), b"dir").unwrap();
    drop(client);
    served.end();
}
