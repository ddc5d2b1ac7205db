//! Whole lives of the process in every dialect: set up by a parent, used by clients, looked at from
//! outside, left.
//!
//! Belongs here: what a running gofer owes its peers and holds for itself. Belongs elsewhere: bad
//! input and other ends (`start_up`), each mount's details (`jail`).
//! Needs root: the parent makes namespaces.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use client::{Client, Error, Mounted};
use rig::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::{Errno, FdId, NewNode, Owner};

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
const DIALECTS: [Dialect; 3] = [Dialect::V2022_12, Dialect::V2024, Dialect::V2026_08];
const O_RDWR: u32 = 2;
/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID.
const FILE_CAPABILITIES: u64 = 0x1f;
/// SETGID and SETUID.
const ID_CAPABILITIES: u64 = 0xc0;
/// The confs of a [`House`]: its root and the two volumes that a gofer serves.
const CONFS: [&str; 3] = ["lisafs:none", "lisafs:none", "lisafs:none"];
/// What a gofer says when it has come to the sync sockets.
const WAITING: &str = "Waiting for the parent's synchronization";

/// A bundle: a root with a file and a link, a writable volume behind the link, a read-only one.
struct House {
    dir: TempDir,
}

impl House {
    fn new() -> House {
        let dir = TempDir::new().unwrap();
        let house = House { dir };
        for name in ["root/var/real", "rw", "ro"] {
            fs::create_dir_all(house.path(name)).unwrap();
        }
        symlink("/var/real", house.path("root/link")).unwrap();
        for name in ["root/file", "rw/file", "ro/file"] {
            fs::write(house.path(name), name).unwrap();
        }
        let (rw, ro) = (house.path("rw"), house.path("ro"));
        let mounts = json!([
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/link/mnt", "type": "bind", "source": rw, "options": ["rbind", "rw"] },
            { "destination": "/ro", "type": "none", "source": ro, "options": ["bind", "ro"] },
            { "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] },
        ]);
        write_bundle(house.dir.path(), &house.path("root"), false, &mounts).unwrap();
        house
    }

    /// Changes its `config.json`.
    fn dress(&self, change: impl FnOnce(&mut Value)) {
        let config = self.path("config.json");
        let mut spec = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        change(&mut spec);
        fs::write(config, spec.to_string()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn parent(&self, dialect: Dialect) -> Parent {
        self.parent_of(dialect, &CONFS)
    }

    fn parent_of(&self, dialect: Dialect, confs: &[&str]) -> Parent {
        let mut append = File::options();
        let append = append.append(true).create(true);
        Parent::new(Path::new(GOFER), dialect, self.dir.path(), confs)
            .debug_log(append.open(self.path("debug")).unwrap())
            .log(append.open(self.path("log")).unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("debug")).unwrap()
    }
}

/// Starts it, lets it go on, and checks the list of mounts.
fn started(house: &House, parent: Parent) -> Gofer {
    let mut gofer = parent.start().unwrap();
    gofer.release();
    let list = gofer.mounts().unwrap();
    assert!(!list.is_empty(), "{}", house.log());
    let list: Value = serde_json::from_slice(&list).unwrap();
    let source = |name: &str| json!(house.path(name));
    let expected = [
        ("/proc", "proc", source("proc"), &[][..]),
        ("/var/real/mnt", "bind", source("rw"), &["rbind", "rw"]),
        ("/ro", "none", source("ro"), &["bind", "ro"]),
        ("/scratch", "tmpfs", source("tmpfs"), &["size=1m"]),
    ];
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), expected.len());
    for (mount, (destination, kind, source, options)) in list.iter().zip(expected) {
        assert_eq!(mount["destination"], destination);
        assert_eq!(mount["type"], kind);
        assert_eq!(mount["source"], source);
        // On some hosts temporary directories lie on a file system that adds a word.
        let given = mount["options"].as_array().cloned().unwrap_or_default();
        assert_eq!(given[..options.len()], *options);
        assert!(given.len() <= options.len() + 1, "{mount}");
    }
    gofer
}

/// The clients of a house: root, writable volume, read-only volume.
struct Clients(Vec<(Client, Mounted)>);

impl Clients {
    fn connect(gofer: &mut Gofer) -> Clients {
        let sockets = std::mem::take(&mut gofer.sockets).into_iter();
        Clients(
            sockets
                .map(|socket| Client::connect(socket).unwrap())
                .collect(),
        )
    }

    fn open_channels(&self) {
        for (client, _) in &self.0 {
            assert_eq!(client.open_channels(1).unwrap(), 1);
        }
    }

    /// Reads each tree's file, writes to the writable ones, tries to write to the read-only one.
    fn use_all(&self, house: &House, name: &str) {
        for ((client, mounted), tree) in self.0.iter().zip(["root", "rw", "ro"]) {
            let root = mounted.root.control;
            let file = client.walk_one(root, b"file").unwrap().control;
            let opened = client.open_at(file, 0).unwrap();
            let mut content = [0; 64];
            let length = client.read_at(opened.id, 0, &mut content).unwrap();
            assert_eq!(&content[..length], format!("{tree}/file").as_bytes());
            let made = make(client, root, name);
            let host = house.path(&format!("{tree}/{name}"));
            if tree == "ro" {
                assert_eq!(refused(made), Errno::ROFS);
                assert_eq!(refused(client.open_at(file, O_RDWR)), Errno::ROFS);
                assert!(!host.exists());
            } else {
                made.unwrap();
                assert_eq!(fs::read(host).unwrap(), name.as_bytes());
            }
            client.close(&[opened.id, file]).unwrap();
        }
    }
}

/// Makes a file whose content is its name.
fn make(client: &Client, dir: FdId, name: &str) -> Result<(), Error> {
    let new = NewNode {
        dir,
        owner: Owner::KEEP,
        mode: 0o640,
    };
    let created = client.open_create_at(new, name.as_bytes(), O_RDWR)?;
    assert_eq!(
        client.write_at(created.opened.id, 0, name.as_bytes())?,
        name.len()
    );
    client.close(&[created.opened.id, created.child.control])
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Refused(errno)) => errno,
        other => panic!("not refused: {other:?}"),
    }
}

/// Closes everything and expects a good end.
fn left(house: &House, mut gofer: Gofer, clients: Clients) {
    drop(clients);
    gofer.sentry_exit = None;
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", house.log());
    assert_eq!(fs::read_to_string(house.path("log")).unwrap(), "");
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name}: {status}")).trim()
}

fn capabilities(status: &str, set: &str) -> u64 {
    u64::from_str_radix(field(status, &format!("{set}:")), 16).unwrap()
}

/// What each thread holds, whatever it does.
fn assert_confined(gofer: &Gofer, allowed: u64) {
    for status in gofer.thread_statuses().unwrap() {
        assert_eq!(field(&status, "NoNewPrivs:"), "1", "{status}");
        assert_eq!(field(&status, "Seccomp:"), "2", "{status}");
        assert_eq!(field(&status, "Umask:"), "0000", "{status}");
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(
                capabilities(&status, set) & !allowed,
                0,
                "{set} of {}: {status}",
                field(&status, "Name:")
            );
            assert_eq!(
                capabilities(&status, set) & FILE_CAPABILITIES,
                FILE_CAPABILITIES
            );
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(capabilities(&status, set), 0, "{set}: {status}");
        }
    }
}

/// What the process holds open, by what each descriptor is.
fn held(gofer: &Gofer) -> Vec<String> {
    let fds = fs::read_dir(gofer.proc("fd")).unwrap();
    fds.map(|fd| {
        let link = fs::read_link(fd.unwrap().path()).unwrap();
        link.to_string_lossy().into_owned()
    })
    .collect()
}

/// Nothing but standard descriptors, logs, served trees, clients, and what watches over them; after
/// clients have opened channels, also those.
fn assert_holds_only_what_it_serves(house: &House, gofer: &Gofer, dialect: Dialect) {
    let mut trees: BTreeSet<(u64, u64)> = BTreeSet::new();
    for tree in ["root", "rw", "ro"] {
        let meta = fs::metadata(house.path(tree)).unwrap();
        trees.insert((meta.dev(), meta.ino()));
    }
    let (mut directories, mut own) = (0, 0);
    for fd in fs::read_dir(gofer.proc("fd")).unwrap() {
        let path = fd.unwrap().path();
        let link = fs::read_link(&path).unwrap();
        let name = link.to_str().unwrap();
        let known = ["/dev/null", "socket:", "anon_inode:[event", "/memfd:"];
        if known.iter().any(|known| name.starts_with(known))
            || link == house.path("debug")
            || link == house.path("log")
        {
            continue;
        }
        let meta = fs::metadata(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        if trees.contains(&(meta.dev(), meta.ino())) {
            directories += 1;
        } else {
            // The own descriptor directory, a mount of its own.
            own += 1;
            assert!(meta.is_dir(), "{name}");
            assert_eq!(name, "/", "{:?}", held(gofer));
        }
    }
    assert_eq!(own, 1, "{:?}", held(gofer));
    // One to hold each tree, one for the client's id of it, one to donate where a client works on it
    // itself.
    let per_tree = if dialect == Dialect::V2022_12 { 2 } else { 3 };
    assert_eq!(directories, 3 * per_tree, "{:?}", held(gofer));
    let memory = held(gofer)
        .iter()
        .filter(|name| name.starts_with("/memfd:"))
        .count();
    assert_eq!(memory, 3, "one file of windows for each connection");
}

/// A whole life; `dress` decides what is special about it.
fn live(dialect: Dialect, dress: impl Fn(Parent) -> Parent, look: impl Fn(&House, &Gofer)) {
    let house = House::new();
    let mut gofer = started(&house, dress(house.parent(dialect)));
    let clients = Clients::connect(&mut gofer);
    clients.use_all(&house, "by socket");
    clients.open_channels();
    clients.use_all(&house, "by channel");
    look(&house, &gofer);
    left(&house, gofer, clients);
}

#[test]
fn a_stock_start_serves_confined_and_ends_well_in_every_dialect() {
    for dialect in DIALECTS {
        live(
            dialect,
            |parent| parent,
            |house, gofer| {
                assert_confined(gofer, FILE_CAPABILITIES);
                assert_holds_only_what_it_serves(house, gofer, dialect);
                let threads = gofer.thread_statuses().unwrap().len();
                assert!(threads > 6, "a connection and a channel each");
            },
        );
    }
}

#[test]
fn one_line_of_the_log_says_what_is_in_force() {
    for dialect in DIALECTS {
        live(
            dialect,
            |parent| parent,
            |house, _| {
                let log = house.log();
                let lines: Vec<&str> = log
                    .lines()
                    .filter(|line| line.contains("seccomp:"))
                    .collect();
                let [line] = *lines else {
                    panic!("not one line: {lines:?}");
                };
                let abi = line.split("Landlock: ABI ").nth(1);
                let digits = abi.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
                let abi: u32 = digits.flatten().unwrap().parse().unwrap();
                assert!(abi > 0, "{line}");
                for word in ["detached descriptor directory: yes", "undumpable: yes"] {
                    assert!(line.contains(word), "{line}");
                }
            },
        );
    }
}

#[test]
fn a_start_in_a_user_namespace_is_no_different() {
    for dialect in DIALECTS {
        live(dialect, Parent::user_namespace, |house, gofer| {
            assert_confined(gofer, FILE_CAPABILITIES);
            assert_holds_only_what_it_serves(house, gofer, dialect);
            let map = fs::read_to_string(gofer.proc("uid_map")).unwrap();
            assert!(!map.is_empty());
        });
    }
}

#[test]
fn read_only_volumes_are_read_only_mounts_on_the_host_s_side() {
    for dialect in DIALECTS {
        live(
            dialect,
            |parent| parent,
            |_, gofer| {
                let mounts = fs::read_to_string(gofer.proc("mountinfo")).unwrap();
                let options = |point: &str| {
                    let line = mounts.lines().find(|line| {
                        let mut fields = line.split(' ');
                        fields.nth(4) == Some(point)
                    });
                    let line = line.unwrap_or_else(|| panic!("{point}: {mounts}"));
                    line.split(' ').nth(5).unwrap().to_owned()
                };
                assert!(options("/ro").starts_with("ro,nosuid"), "{mounts}");
                assert!(
                    options("/var/real/mnt").starts_with("rw,nosuid"),
                    "{mounts}"
                );
                assert_eq!(
                    mounts.lines().count(),
                    3,
                    "nothing of the host is left: {mounts}"
                );
            },
        );
    }
}

#[test]
fn directfs_donates_every_mount_point_and_its_absence_none() {
    for dialect in DIALECTS {
        for (flag, donates) in [("--directfs=true", true), ("--directfs=false", false)] {
            let house = House::new();
            let mut gofer = started(&house, house.parent(dialect).flag(flag));
            let clients = Clients::connect(&mut gofer);
            let donates = donates && dialect != Dialect::V2022_12;
            for ((_, mounted), tree) in clients.0.iter().zip(["root", "rw", "ro"]) {
                assert_eq!(mounted.donated.is_some(), donates, "{dialect:?} {flag}");
                let Some(donated) = &mounted.donated else {
                    continue;
                };
                // What the sandbox does itself is refused by the mount, not by us.
                let made = rustix::fs::mkdirat(donated, "made", rustix::fs::Mode::RWXU);
                let expected = match tree {
                    "ro" => Err(rustix::io::Errno::ROFS),
                    _ => Ok(()),
                };
                assert_eq!(made, expected, "{dialect:?} {tree}");
            }
            clients.use_all(&house, "under a client that works itself");
            left(&house, gofer, clients);
        }
    }
}

/// Sync sockets that a dialect's parent may give, and how many there are then.
fn syncing(dialect: Dialect, parent: Parent) -> (Parent, &'static [&'static str]) {
    match dialect {
        Dialect::V2022_12 => (parent.sync_userns(), &["sync-userns-fd"]),
        Dialect::V2024 => (
            parent.sync_userns().sync_nvproxy(),
            &["sync-userns-fd", "sync-nvproxy-fd"],
        ),
        Dialect::V2026_08 => (parent.sync_userns(), &["sync-userns-fd", "sync-chroot-fd"]),
    }
}

#[test]
fn mounts_stay_untouched_until_every_sync_socket_has_ended() {
    for dialect in DIALECTS {
        let house = House::new();
        let (parent, flags) = syncing(dialect, house.parent(dialect).flag("--debug=true"));
        let mut gofer = parent.start().unwrap();
        assert_eq!(gofer.sync.len(), flags.len());
        wait_until(|| house.log().contains(WAITING));
        while !gofer.sync.is_empty() {
            let mounts = fs::read_to_string(gofer.proc("mountinfo")).unwrap();
            assert!(!mounts.contains(" /ro "), "{mounts}");
            assert_eq!(
                fs::metadata(gofer.proc("root")).unwrap().ino(),
                fs::metadata("/").unwrap().ino()
            );
            gofer.sync.pop();
        }
        // With a parent that is not root the process stays open to it, for its oom_score_adj.
        assert!(!gofer.mounts().unwrap().is_empty(), "{}", house.log());
        let clients = Clients::connect(&mut gofer);
        clients.use_all(&house, "after the wait");
        assert_confined(&gofer, FILE_CAPABILITIES);
        left(&house, gofer, clients);
    }
}

#[test]
fn a_byte_on_a_sync_socket_ends_the_start() {
    for dialect in DIALECTS {
        let (_, flags) = syncing(dialect, House::new().parent(dialect));
        for (index, flag) in flags.iter().enumerate() {
            let house = House::new();
            let (parent, _) = syncing(dialect, house.parent(dialect));
            let mut gofer = parent.start().unwrap();
            File::from(gofer.sync.swap_remove(index))
                .write_all(b"x")
                .unwrap();
            gofer.release();
            assert_eq!(gofer.mounts().unwrap(), b"");
            assert_eq!(gofer.wait().unwrap(), Ended::Status(128));
            assert!(house.log().contains(flag), "{flag}: {}", house.log());
        }
    }
}

#[test]
fn a_device_connection_serves_dev_of_the_root() {
    for dialect in [Dialect::V2024, Dialect::V2026_08] {
        let house = House::new();
        let parent = house.parent(dialect).device_connection();
        let mut gofer = started(&house, parent.user_namespace());
        let clients = Clients::connect(&mut gofer);
        let socket = gofer.device_socket.take().unwrap();
        let (devices, mounted) = Client::connect(socket).unwrap();
        make(&devices, mounted.root.control, "node").unwrap();
        assert_eq!(fs::read(house.path("root/dev/node")).unwrap(), b"node");
        assert_confined(&gofer, FILE_CAPABILITIES);
        drop(devices);
        left(&house, gofer, clients);
    }
}

#[test]
fn a_device_connection_is_enough_where_the_sandbox_reads_its_root_itself() {
    for dialect in [Dialect::V2024, Dialect::V2026_08] {
        let house = House::new();
        let confs = ["erofs:memory", "none:self", "none:memory"];
        let parent = house.parent_of(dialect, &confs).device_connection();
        let mut gofer = parent.start().unwrap();
        gofer.release();
        let list: Value = serde_json::from_slice(&gofer.mounts().unwrap()).unwrap();
        assert_eq!(list[1]["destination"], "/link/mnt", "not ours to clean");
        let socket = gofer.device_socket.take().unwrap();
        let (devices, mounted) = Client::connect(socket).unwrap();
        make(&devices, mounted.root.control, "node").unwrap();
        assert!(
            !house.path("root/dev").exists(),
            "the image is not the gofer's"
        );
        drop(devices);
        left(&house, gofer, Clients(Vec::new()));
    }
}

#[test]
fn an_upper_layer_makes_root_and_volumes_read_only() {
    for (dialect, flags) in [
        (Dialect::V2022_12, &["--overlay2=all:memory"][..]),
        (Dialect::V2024, &[]),
        (Dialect::V2026_08, &[]),
    ] {
        let house = House::new();
        let confs = ["lisafs:memory", "lisafs:self", "lisafs:anon"];
        let parent = house.parent_of(dialect, &confs);
        let parent = flags.iter().fold(parent, |parent, flag| parent.flag(flag));
        let mut gofer = started(&house, parent);
        let clients = Clients::connect(&mut gofer);
        for (client, mounted) in &clients.0 {
            let made = make(client, mounted.root.control, "new");
            assert_eq!(refused(made), Errno::ROFS, "{dialect:?}");
        }
        left(&house, gofer, clients);
    }
}

#[test]
fn a_limit_of_descriptors_is_set() {
    for dialect in DIALECTS {
        live(
            dialect,
            |parent| parent.flag("--fdlimit=777"),
            |_, gofer| {
                let limits = fs::read_to_string(gofer.proc("limits")).unwrap();
                let words: Vec<&str> = field(&limits, "Max open files").split(' ').collect();
                let numbers: Vec<&&str> = words.iter().filter(|word| **word == "777").collect();
                assert_eq!(numbers.len(), 2, "soft and hard: {limits}");
            },
        );
    }
}

#[test]
fn capabilities_that_somebody_else_has_dropped_are_left_alone_but_all_else_holds() {
    for dialect in DIALECTS {
        let house = House::new();
        let parent = house.parent(dialect).gofer_flag("--apply-caps=false");
        let mut gofer = started(&house, parent);
        let clients = Clients::connect(&mut gofer);
        clients.use_all(&house, "with capabilities");
        assert_confined(&gofer, u64::MAX);
        let main = fs::read_to_string(gofer.proc("status")).unwrap();
        let ours = fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(
            capabilities(&main, "CapBnd"),
            capabilities(&ours, "CapBnd"),
            "as it was started"
        );
        left(&house, gofer, clients);
    }
}

#[test]
fn a_root_that_somebody_else_has_built_is_served() {
    for dialect in DIALECTS {
        let house = House::new();
        write_bundle(house.dir.path(), &house.path("root"), true, &json!([])).unwrap();
        let parent = house.parent_of(dialect, &["lisafs:none"]);
        let mut gofer = parent.gofer_flag("--setup-root=false").start().unwrap();
        gofer.release();
        assert_eq!(gofer.mounts().unwrap(), b"[]", "{}", house.log());
        let clients = Clients::connect(&mut gofer);
        let (client, mounted) = &clients.0[0];
        let served = client.fstat(mounted.root.control).unwrap();
        assert_eq!(
            served.ino,
            fs::metadata("/root").unwrap().ino(),
            "the place where a first execution leaves it"
        );
        assert_confined(&gofer, FILE_CAPABILITIES);
        left(&house, gofer, clients);
    }
}

#[test]
fn only_the_newest_dialect_keeps_one_thread_that_may_take_on_other_ids() {
    for dialect in DIALECTS {
        live(
            dialect,
            |parent| parent.flag("--host-uds=open"),
            |_, gofer| {
                let newest = dialect == Dialect::V2026_08;
                let bounding = FILE_CAPABILITIES | if newest { ID_CAPABILITIES } else { 0 };
                assert_confined(gofer, bounding);
                let holders = || -> Vec<String> {
                    let mut threads = gofer.thread_statuses().unwrap();
                    threads.retain(|status| capabilities(status, "CapPrm") & ID_CAPABILITIES != 0);
                    let names = threads.iter().map(|status| field(status, "Name:"));
                    names.map(str::to_owned).collect()
                };
                assert_eq!(holders().len(), usize::from(newest));
                // A thread gives itself its name once it runs.
                wait_until(|| holders().iter().all(|name| name == "broker"));
            },
        );
    }
}

#[test]
fn the_service_of_the_parent_and_the_list_are_let_go_of_before_serving() {
    let house = House::new();
    let mut gofer = started(&house, house.parent(Dialect::V2026_08));
    let clients = Clients::connect(&mut gofer);
    let rpc = gofer.rpc.take().unwrap();
    let mut byte = [0];
    let flags = rustix::net::RecvFlags::DONTWAIT;
    let received = rustix::net::recv(&rpc, &mut byte, flags).map(|(bytes, _)| bytes);
    assert_eq!(received, Ok(0), "its end is closed");
    let names = held(&gofer);
    assert!(
        !names
            .iter()
            .any(|name| name.starts_with("pipe:") || name.ends_with("config.json")),
        "{names:?}"
    );
    left(&house, gofer, clients);
}

#[test]
fn a_character_device_is_opened_only_as_the_policy_of_the_newest_dialect_says() {
    const POLICY: &str = "--character-device-policy=";
    for (dialect, policy, opens) in [
        (Dialect::V2022_12, None, true),
        (Dialect::V2024, None, true),
        (Dialect::V2026_08, None, false),
        (Dialect::V2026_08, Some("emulated-only"), false),
        (Dialect::V2026_08, Some("prefer-emulated"), true),
        (Dialect::V2026_08, Some("passthrough"), true),
    ] {
        let house = House::new();
        let (kind, all) = (rustix::fs::FileType::CharacterDevice, 0o666.into());
        let zero = rustix::fs::makedev(1, 5);
        let node = house.path("root/zero");
        rustix::fs::mknodat(rustix::fs::CWD, &node, kind, all, zero).unwrap();
        let parent = house.parent(dialect);
        let parent = match policy {
            Some(policy) => parent.flag(&format!("{POLICY}{policy}")),
            None => parent,
        };
        let mut gofer = started(&house, parent);
        let clients = Clients::connect(&mut gofer);
        let (client, mounted) = &clients.0[0];
        let device = client.walk_one(mounted.root.control, b"zero").unwrap();
        let opened = client.open_at(device.control, 0);
        if opens {
            let mut bytes = [7; 8];
            let read = client.read_at(opened.unwrap().id, 0, &mut bytes).unwrap();
            assert_eq!(bytes[..read], [0; 8], "{dialect:?} {policy:?}");
        } else {
            assert_eq!(refused(opened), Errno::PERM, "{dialect:?} {policy:?}");
        }
        left(&house, gofer, clients);
    }
}

#[test]
fn whiteouts_are_made_for_the_newest_dialect_only() {
    for dialect in DIALECTS {
        let house = House::new();
        let mut gofer = started(&house, house.parent(dialect));
        let clients = Clients::connect(&mut gofer);
        for ((client, mounted), tree) in clients.0.iter().zip(["root", "rw"]) {
            let new = NewNode {
                dir: mounted.root.control,
                owner: Owner::KEEP,
                mode: 0o020_600,
            };
            let made = client.mknod_at(new, b"whiteout", 0, 0);
            let host = house.path(tree).join("whiteout");
            if dialect == Dialect::V2026_08 {
                client.close(&[made.unwrap().control]).unwrap();
                assert_eq!(fs::metadata(host).unwrap().rdev(), 0);
            } else {
                assert_eq!(refused(made), Errno::PERM, "{dialect:?}, {tree}");
                assert!(!host.exists());
            }
        }
        left(&house, gofer, clients);
    }
}

#[test]
fn the_pin_ring_is_held_until_the_end() {
    for dialect in DIALECTS {
        live(
            dialect,
            |parent| parent,
            |_, gofer| {
                let names = held(gofer);
                let null = names.iter().filter(|name| *name == "/dev/null").count();
                // Standard input and output, and the ring, for which the rig gives another one.
                let ring = usize::from(dialect == Dialect::V2026_08);
                assert_eq!(null, 2 + ring, "{names:?}");
            },
        );
    }
}

#[test]
fn every_log_format_has_its_shape_in_every_dialect() {
    for dialect in DIALECTS {
        for (format, key) in [("text", ""), ("json", "msg"), ("json-k8s", "log")] {
            let house = House::new();
            let flag = format!("--debug-log-format={format}");
            let mut gofer = started(&house, house.parent(dialect).flag(&flag));
            let clients = Clients::connect(&mut gofer);
            left(&house, gofer, clients);
            for line in house.log().lines() {
                if format == "text" {
                    let (level, rest) = line.split_at(1);
                    assert!("WID".contains(level), "{line}");
                    assert!(rest.contains("] "), "{line}");
                    continue;
                }
                let record: Value = serde_json::from_str(line).unwrap();
                assert!(record[key].is_string(), "{line}");
                assert_eq!(record.as_object().unwrap().len(), 3, "{line}");
            }
            assert!(house.log().contains("Serving"), "{}", house.log());
        }
    }
}

/// No code of ours makes such a call, so the main thread is made to.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_forbidden_call_ends_the_process_and_every_log_names_it() {
    const MOUNT: i64 = 165;
    const SIGSYS: i32 = 31;
    for dialect in DIALECTS {
        let house = House::new();
        let mut gofer = started(&house, house.parent(dialect));
        let clients = Clients::connect(&mut gofer);
        clients.use_all(&house, "before");
        gofer.inject(MOUNT).unwrap();
        // Also as the first process of its namespace, which ignores most signals.
        assert_eq!(gofer.wait().unwrap(), Ended::Signal(SIGSYS), "{dialect:?}");
        let told = "system call 165 (mount) of thread 1 is forbidden";
        assert!(house.log().contains(told), "{}", house.log());
        let record = fs::read_to_string(house.path("log")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["level"], "error");
        assert!(record["msg"].as_str().unwrap().starts_with(told));
    }
}

#[test]
fn the_caller_s_environment_is_wiped() {
    for dialect in DIALECTS {
        live(
            dialect,
            |parent| parent.variable("TOKEN=secret").variable("GOFER_SPIN_US=1"),
            |_, gofer| {
                let environment = fs::read(gofer.proc("environ")).unwrap();
                assert!(!environment.is_empty(), "where it was");
                assert!(environment.iter().all(|byte| *byte == 0));
            },
        );
    }
}

#[test]
fn a_debug_log_shows_the_spec_as_it_was_understood() {
    for dialect in DIALECTS {
        let house = House::new();
        house.dress(|spec| spec["process"]["env"] = json!(["KEY=token"]));
        let mut gofer = started(&house, house.parent(dialect).flag("--debug=true"));
        let clients = Clients::connect(&mut gofer);
        left(&house, gofer, clients);
        let log = house.log();
        let (_, dump) = log.split_once("Spec: ").unwrap();
        for part in ["/link/mnt", "rbind", "cwd"] {
            assert!(dump.contains(part), "{part}: {log}");
        }
        assert!(!dump.contains("token"), "{log}");
    }
}

fn wait_until(done: impl Fn() -> bool) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < limit, "it did not come");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
