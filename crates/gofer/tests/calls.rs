//! The system calls of the sealed process, as the kernel sees them: each is in the policy's table,
//! and each row of the table is used.
//!
//! Needs root: the parent makes namespaces, and watches.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use client::Client;
use jail::seccomp::{Arg, Rule, Wants, When, rows};
use rig::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use rig::watch::Call;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use wire::msg::attr::SetStat;
use wire::msg::data::FAllocate;
use wire::{FdId, NewNode, Owner, Timespec};

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
/// More threads than the C library has heaps: those that come last share the first thread's.
const VOLUMES: usize = 5;
const CHANNELS: usize = 4;
const STREAM: u32 = 1;
const O_RDWR: u32 = 2;

/// Rows that no request leads to for sure, and why they are in the table all the same.
const UNPROVOKED: &[(&str, &str)] = &[
    (
        "clone3",
        "answered before the rows are looked at, so nobody is told; tried in jail's tests",
    ),
    (
        "restart_syscall",
        "a stop in a wait with a limit; tried in jail's tests",
    ),
    (
        "sched_setaffinity",
        "a client that asks in quick succession, from another CPU",
    ),
    (
        "getcpu",
        "a C library that neither registers with the kernel (rseq) nor finds a vDSO",
    ),
    ("fchmodat[", "before Linux 6.6, which has fchmodat2"),
    ("getpid", "abort; tried in jail's tests"),
    ("tgkill", "abort; tried in jail's tests"),
    // When two threads meet; each of these does so in most runs.
    ("sched_yield", "a close that meets a channel about to sleep"),
    ("futex[Is(1, 128)]", "two threads at one heap"),
    ("futex[Is(1, 129)]", "two threads at one lock, or heap"),
    ("futex[Is(1, 137)]", "two threads at one lock"),
    (
        "futex[Is(1, 265)]",
        "a thread that still runs when it is waited for",
    ),
];

struct House {
    dir: TempDir,
    _listener: UnixListener,
}

impl House {
    fn new() -> House {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["root/dir/sub", "ro"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        for number in 0..VOLUMES {
            fs::create_dir(path(&format!("volume{number}"))).unwrap();
        }
        fs::write(path("root/file"), "content").unwrap();
        fs::write(path("ro/file"), "content").unwrap();
        symlink("file", path("root/link")).unwrap();
        let listener = UnixListener::bind(path("root/sock")).unwrap();
        let bind = |name: &str, options: [&str; 2]| json!({ "destination": format!("/{name}"), "type": "bind", "source": path(name), "options": options });
        let mut mounts = vec![bind("ro", ["rbind", "ro"])];
        mounts.extend((0..VOLUMES).map(|number| bind(&format!("volume{number}"), ["rbind", "rw"])));
        write_bundle(dir.path(), &path("root"), false, &json!(mounts)).unwrap();
        House {
            dir,
            _listener: listener,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, dialect: Dialect, flags: &[&str]) -> Gofer {
        let confs = ["lisafs:none"; 2 + VOLUMES];
        let mut parent = Parent::new(Path::new(GOFER), dialect, self.dir.path(), &confs)
            .debug_log(File::create(self.path("debug")).unwrap())
            .watched();
        for flag in flags {
            parent = match flag.strip_prefix("gofer ") {
                Some(flag) => parent.gofer_flag(flag),
                None => parent.flag(flag),
            };
        }
        let mut gofer = parent.start().unwrap();
        gofer.release();
        assert!(!gofer.mounts().unwrap().is_empty(), "{}", self.log());
        gofer
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("debug")).unwrap()
    }
}

/// Everything a client can ask for, once. Refusals are answers too.
fn ask_everything(client: &Client, root: FdId, round: &str) {
    let new = |dir| NewNode {
        dir,
        owner: Owner { uid: 1, gid: 1 },
        mode: 0o640,
    };
    let name = |what: &str| format!("{what}-{round}").into_bytes();
    let walk = |path: &[&[u8]]| {
        client
            .walk(root, path)
            .unwrap()
            .inodes
            .last()
            .unwrap()
            .control
    };
    let (file, dir, link) = (walk(&[b"file"]), walk(&[b"dir", b"sub"]), walk(&[b"link"]));
    client.walk_stat(root, &[b"dir", b"sub"]).unwrap();
    client.read_link(link).unwrap();
    client.fstat(file).unwrap();
    client.fstatfs(root).unwrap();

    let created = client
        .open_create_at(new(root), &name("made"), O_RDWR)
        .unwrap();
    let (made, open) = (created.child.control, created.opened.id);
    let content = vec![7; 3 << 20];
    assert_eq!(client.write_at(open, 0, &content).unwrap(), content.len());
    let mut back = vec![0; content.len()];
    assert_eq!(client.read_at(open, 0, &mut back).unwrap(), content.len());
    client.fsync(&[open]).unwrap();
    let allocate = FAllocate {
        open,
        mode: 0,
        offset: 0,
        length: 4 << 20,
    };
    client.fallocate(&allocate).unwrap();
    _ = client.flush(open);

    let time = Timespec {
        seconds: 1,
        nanoseconds: 2,
    };
    let everything = SetStat {
        id: made,
        mask: SetStat::MODE
            | SetStat::UID
            | SetStat::GID
            | SetStat::SIZE
            | SetStat::ATIME
            | SetStat::MTIME,
        mode: 0o600,
        uid: 2,
        gid: 2,
        size: 5,
        atime: time,
        mtime: time,
    };
    assert_eq!(client.set_stat(&everything).unwrap().failure_mask, 0);
    client.fset_xattr(made, b"user.a", b"value", 0).unwrap();
    client.fget_xattr(made, b"user.a", 64).unwrap();
    client.flist_xattr(made, 64).unwrap();
    client.fremove_xattr(made, b"user.a").unwrap();

    client.mkdir_at(new(root), &name("dir")).unwrap();
    client
        .mknod_at(
            NewNode {
                mode: 0o100_600,
                ..new(root)
            },
            &name("node"),
            0,
            0,
        )
        .unwrap();
    client
        .symlink_at(root, Owner { uid: 1, gid: 1 }, &name("link"), b"file")
        .unwrap();
    client.link_at(dir, file, &name("hard")).unwrap();
    client
        .rename_at((dir, &name("hard")), (root, &name("moved")))
        .unwrap();
    _ = client.rename_at2((root, &name("moved")), (dir, &name("again")), 1);
    client.unlink_at(root, &name("link"), 0).unwrap();
    client.rmdir_at(root, &name("dir")).unwrap();
    let listed = client.open_at(root, 0).unwrap().id;
    client.getdents64(listed, -65536).unwrap();
    client.getdents64(listed, 65536).unwrap();
    client
        .close(&[listed, open, created.child.control, file, dir, link])
        .unwrap();
}

/// Requests whose answers come from the heap.
fn use_heap(client: &Client, root: FdId, salt: usize) {
    for round in 0..20 {
        let name = vec![b'a' + (salt + round) as u8; 200];
        let file = client.mknod_at(
            NewNode {
                dir: root,
                owner: Owner::KEEP,
                mode: 0o100_600,
            },
            &name,
            0,
            0,
        );
        let listed = client.flist_xattr(root, 0);
        assert!(listed.is_ok());
        let deep = [&name[..], &name, &name];
        _ = client.walk(root, &deep);
        if let Ok(file) = file {
            _ = client.fset_xattr(file.control, b"user.a", &[b'x'; 2000], 0);
            _ = client.fget_xattr(file.control, b"user.a", 0);
            client.close(&[file.control]).unwrap();
        }
    }
}

/// What the options for host sockets add.
fn ask_about_sockets(house: &House, client: &Client, root: FdId, round: &str, creds: bool) {
    let sock = client.walk_one(root, b"sock").unwrap().control;
    client.connect_to(sock, STREAM).unwrap();
    _ = client.connect_to(sock, 0);
    _ = client.connect_to(sock, 2);
    _ = client.connect_to(sock, 5);
    if creds {
        let owner = Owner { uid: 0, gid: 0 };
        client.connect_with_creds(sock, STREAM, owner).unwrap();
        let somebody = Owner { uid: 7, gid: 7 };
        _ = client.connect_with_creds(sock, STREAM, somebody);
        _ = client.connect_with_creds(sock, 0, somebody);
    }
    let name = format!("bound-{round}").into_bytes();
    let new = NewNode {
        dir: root,
        owner: Owner::KEEP,
        mode: 0o600,
    };
    let bound = client.bind_at(new, &name, STREAM).unwrap();
    client.listen(bound.id, 1).unwrap();
    let _connected = UnixStream::connect(house.path(&format!("root/bound-{round}"))).unwrap();
    client.accept(bound.id).unwrap();
    client
        .close(&[bound.id, bound.child.control, sock])
        .unwrap();
}

/// Starts a gofer, asks it for everything by socket and by channel, ends it; what it called, and
/// the number of its own descriptor directory.
fn observe(dialect: Dialect, flags: &[&str], sockets: bool) -> (Vec<Call>, u64) {
    let house = House::new();
    let mut gofer = house.start(dialect, flags);
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    let (reader, read_only) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    let directory = own_directory(&gofer);
    for round in ["by socket", "by channel"] {
        ask_everything(&client, mounted.root.control, round);
        if sockets {
            let creds = dialect == Dialect::V2026_08;
            ask_about_sockets(&house, &client, mounted.root.control, round, creds);
        }
        let file = reader.walk_one(read_only.root.control, b"file").unwrap();
        reader.open_at(file.control, 0).unwrap();
        client.open_channels(2).unwrap();
        reader.open_channels(1).unwrap();
    }
    let volumes: Vec<_> = std::mem::take(&mut gofer.sockets)
        .into_iter()
        .map(|socket| Client::connect(socket).unwrap())
        .collect();
    for (volume, _) in &volumes {
        volume.open_channels(CHANNELS).unwrap();
    }
    // Many at once, who wait for each other's locks and heaps.
    std::thread::scope(|scope| {
        for (number, (volume, mounted)) in volumes.iter().enumerate() {
            for thread in 0..CHANNELS {
                scope.spawn(move || use_heap(volume, mounted.root.control, number + thread));
            }
        }
    });
    // A fault that somebody else reports: its handler looks at it, finds nothing of its own, and
    // returns.
    kill_process(gofer.pid, Signal::SEGV).unwrap();
    for (client, mounted) in &volumes {
        client.fstat(mounted.root.control).unwrap();
    }
    drop((client, reader, volumes));
    gofer.sentry_exit = None;
    let watch = gofer.watch();
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", house.log());
    (watch.calls(), directory)
}

/// The working directory is it; which descriptor is the same.
fn own_directory(gofer: &Gofer) -> u64 {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let wanted = identity(&gofer.proc("cwd")).unwrap();
    for fd in fs::read_dir(gofer.proc("fd")).unwrap() {
        let fd = fd.unwrap();
        if identity(&fd.path()) == Some(wanted) {
            return fd.file_name().to_str().unwrap().parse().unwrap();
        }
    }
    panic!("no descriptor is the working directory");
}

/// Whether the row is what lets this call through.
fn lets_through(rule: &Rule, call: &Call, directory: u64) -> bool {
    let low = |index: u8| call.arguments[usize::from(index)] & 0xffff_ffff;
    rule.number == call.number
        && rule.arguments.iter().all(|argument| match *argument {
            Arg::Is(index, value) => low(index) == u64::from(value),
            Arg::IsNot(index, value) => low(index) != u64::from(value),
            Arg::Has(index, bits) => call.arguments[usize::from(index)] & bits == bits,
            Arg::Lacks(index, bits) => call.arguments[usize::from(index)] & bits == 0,
            Arg::IsDescriptorDirectory(index) => low(index) == directory,
            // The first process of its namespace.
            Arg::IsOwnProcess(index) => low(index) == 1,
        })
}

fn shown(rule: &Rule) -> String {
    format!("{}{:?}", rule.name, rule.arguments)
}

#[test]
fn every_row_of_the_table_is_used_and_every_call_has_its_row() {
    let (mut used, mut used_without_options) = (BTreeSet::new(), BTreeSet::new());
    let mut threads: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let all = Wants {
        host_open: true,
        host_create: true,
        credentials: true,
        ..Wants::default()
    };
    for (dialect, flags, sockets) in [
        (
            Dialect::V2026_08,
            &["--host-uds=all", "--directfs=false"][..],
            true,
        ),
        (Dialect::V2026_08, &["--directfs=false"], false),
        (Dialect::V2024, &["gofer --apply-caps=false"], false),
        (Dialect::V2024, &["--directfs=true"], false),
        (Dialect::V2022_12, &[], false),
    ] {
        let (calls, directory) = observe(dialect, flags, sockets);
        for call in &calls {
            let rows: Vec<_> = rows(all)
                .filter(|rule| lets_through(rule, call, directory))
                .collect();
            assert!(!rows.is_empty(), "no row lets this through: {call:?}");
            used.extend(rows.iter().map(|rule| shown(rule)));
            if !sockets {
                used_without_options.extend(rows.iter().map(|rule| shown(rule)));
            }
            if dialect == Dialect::V2024 {
                threads
                    .entry(call.thread.clone())
                    .or_default()
                    .insert(rows[0].name);
            }
        }
    }
    for (thread, calls) in threads {
        println!("  {thread}: {} calls: {calls:?}", calls.len());
    }
    for (row, reason) in UNPROVOKED {
        let known = rows(all).any(|rule| shown(rule).starts_with(row));
        assert!(known && !reason.is_empty(), "{row} is in no table");
    }
    let excused = |rule: &Rule| {
        UNPROVOKED
            .iter()
            .any(|(row, _)| shown(rule).starts_with(row))
    };
    // What is always allowed is needed without any option.
    let idle: Vec<String> = rows(all)
        .filter(|rule| match rule.when {
            When::Always | When::UntilTightened => !used_without_options.contains(&shown(rule)),
            _ => !used.contains(&shown(rule)),
        })
        .filter(|rule| !excused(rule))
        .map(shown)
        .collect();
    assert!(idle.is_empty(), "rows that nothing uses: {idle:#?}");
}
