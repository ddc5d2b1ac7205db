//! Starts whose ids are not the host's: containers with a user namespace of their own, parents that
//! are not root and write the maps late, or have only one id to map.
//!
//! Needs root: the rig's parent writes the maps, as `newuidmap` does.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use client::{Client, Error};
use rig::mount_service::MountService;
use rig::parent::{Dialect, Ended, Gofer, IdMaps, Parent, write_bundle};
use serde_json::json;
use tempfile::TempDir;
use wire::{Errno, FdId, NewNode, Owner};

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
const DIALECTS: [Dialect; 3] = [Dialect::V2022_12, Dialect::V2024, Dialect::V2026_08];
/// The host's id that the container's first id is.
const HOST_ID: u32 = 100_000;
const MANY: u32 = 65_536;

const fn maps(inside: u32, size: u32) -> IdMaps {
    IdMaps {
        ids: (inside, HOST_ID, size),
    }
}

/// A bundle whose files belong to the container's first id, and a file of somebody unmapped.
struct House {
    dir: TempDir,
}

impl House {
    fn new() -> House {
        let dir = TempDir::new().unwrap();
        let house = House { dir };
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(house.dir.path(), open).unwrap();
        for name in ["root", "volume"] {
            fs::create_dir(house.path(name)).unwrap();
            fs::write(house.path(name).join("file"), name).unwrap();
            let id = Some(HOST_ID);
            chown(house.path(name), id, id).unwrap();
            chown(house.path(name).join("file"), id, id).unwrap();
        }
        fs::write(house.path("root/foreign"), "").unwrap();
        fs::set_permissions(
            house.path("root/foreign"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        let mounts = json!([
            { "destination": "/data", "type": "bind", "source": house.path("volume"), "options": ["rbind", "ro"] },
        ]);
        write_bundle(house.dir.path(), &house.path("root"), false, &mounts).unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn parent(&self, dialect: Dialect) -> Parent {
        let confs = ["lisafs:none", "lisafs:none"];
        let create = |name| File::create(self.path(name)).unwrap();
        Parent::new(Path::new(GOFER), dialect, self.dir.path(), &confs)
            .debug_log(create("debug"))
            .log(create("log"))
            .flag("--debug=true")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("debug")).unwrap()
    }

    /// Starts it and lets its clients work; the number of ids that are mapped decides what they may.
    /// They stay, so that it does.
    fn serves(&self, parent: Parent, size: u32) -> (Gofer, [Client; 2]) {
        let mut gofer = parent.start().unwrap();
        gofer.release();
        assert!(!gofer.mounts().unwrap().is_empty(), "{}", self.log());
        let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
        let (volume, read_only) = Client::connect(gofer.take_socket().unwrap()).unwrap();
        let root = mounted.root.control;
        for (client, root) in [(&client, root), (&volume, read_only.root.control)] {
            let file = client.walk_one(root, b"file").unwrap();
            assert!(client.open_at(file.control, 0).is_ok());
        }
        assert_eq!(
            refused(make(&volume, read_only.root.control, 0)),
            Errno::ROFS
        );

        let ids = fs::read_to_string(gofer.proc("uid_map")).unwrap();
        let first: u32 = ids.split_whitespace().next().unwrap().parse().unwrap();
        make(&client, root, first).unwrap();
        let made = fs::metadata(self.path("root/new")).unwrap();
        assert_eq!(
            (made.uid(), made.gid()),
            (HOST_ID, HOST_ID),
            "the host's id"
        );
        fs::remove_file(self.path("root/new")).unwrap();
        let another = make(&client, root, first + 5);
        if size > 5 {
            another.unwrap();
            let made = fs::metadata(self.path("root/new")).unwrap();
            assert_eq!(made.uid(), HOST_ID + 5);
            fs::remove_file(self.path("root/new")).unwrap();
        } else {
            assert_eq!(refused(another), Errno::INVAL, "an id that nobody has");
            assert!(!self.path("root/new").exists(), "and no file either");
        }
        // Capabilities are worth nothing with files of others.
        let foreign = client.walk_one(root, b"foreign").unwrap();
        assert_eq!(refused(client.open_at(foreign.control, 0)), Errno::ACCES);
        assert_eq!(
            refused(make_at(&client, root, b"foreign", first)),
            Errno::EXIST
        );
        (gofer, [client, volume])
    }

    fn ends(&self, (mut gofer, clients): (Gofer, [Client; 2])) {
        drop(clients);
        gofer.sentry_exit = None;
        assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", self.log());
        assert_eq!(fs::read_to_string(self.path("log")).unwrap(), "");
    }
}

fn make(client: &Client, dir: FdId, id: u32) -> Result<(), Error> {
    make_at(client, dir, b"new", id)
}

fn make_at(client: &Client, dir: FdId, name: &[u8], id: u32) -> Result<(), Error> {
    let new = NewNode {
        dir,
        owner: Owner { uid: id, gid: id },
        mode: 0o640,
    };
    client.open_create_at(new, name, 2).map(|_| ())
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Refused(errno)) => errno,
        other => panic!("not refused: {other:?}"),
    }
}

/// Ids in `/proc/PID/status`, as we see them: all four alike.
fn ids(gofer: &Gofer, field: &str) -> Vec<u32> {
    let status = fs::read_to_string(gofer.proc("status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect()
}

fn assert_minimal(gofer: &Gofer) {
    let statuses = gofer.thread_statuses().unwrap();
    assert!(!statuses.is_empty());
    for status in statuses {
        let set = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
        };
        assert_eq!(
            (set("CapEff"), set("CapPrm"), set("CapBnd")),
            (0x1f, 0x1f, 0x1f)
        );
        assert_eq!((set("CapInh"), set("CapAmb")), (0, 0));
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"));
    }
}

#[test]
fn a_container_in_a_user_namespace_of_its_own_is_served_by_its_ids() {
    for dialect in DIALECTS {
        let house = House::new();
        let (gofer, clients) = house.serves(house.parent(dialect).id_maps(maps(0, MANY)), MANY);
        assert_eq!(ids(&gofer, "Uid:"), [HOST_ID; 4]);
        assert_eq!(ids(&gofer, "Gid:"), [HOST_ID; 4]);
        assert_minimal(&gofer);
        house.ends((gofer, clients));
    }
}

#[test]
fn a_parent_that_is_not_root_writes_the_maps_after_the_start() {
    for dialect in DIALECTS {
        let house = House::new();
        let (gofer, clients) =
            house.serves(house.parent(dialect).unprivileged(maps(0, MANY)), MANY);
        assert_eq!(ids(&gofer, "Uid:"), [HOST_ID; 4]);
        assert_eq!(ids(&gofer, "Gid:"), [HOST_ID; 4]);
        assert_minimal(&gofer);
        // It stays open to that parent, which writes its oom_score_adj.
        let owner = fs::metadata(gofer.proc("oom_score_adj")).unwrap().uid();
        assert_eq!(owner, HOST_ID, "dumpable");
        house.ends((gofer, clients));
    }
}

#[test]
fn one_mapped_id_is_enough_as_without_newuidmap() {
    for dialect in DIALECTS {
        let house = House::new();
        house.ends(house.serves(house.parent(dialect).id_maps(maps(0, 1)), 1));
        house.ends(house.serves(house.parent(dialect).unprivileged(maps(0, 1)), 1));
    }
}

#[test]
fn the_newest_dialect_takes_on_the_ids_that_its_flags_name() {
    let house = House::new();
    let parent = house
        .parent(Dialect::V2026_08)
        .unprivileged(maps(1000, MANY));
    let parent = parent.gofer_flag("--uid=1000").gofer_flag("--gid=1000");
    let (gofer, clients) = house.serves(parent, MANY);
    assert_eq!(ids(&gofer, "Uid:"), [HOST_ID; 4]);
    assert_eq!(ids(&gofer, "Gid:"), [HOST_ID; 4]);
    assert_minimal(&gofer);
    house.ends((gofer, clients));
}

#[test]
fn ids_that_are_not_mapped_end_the_start_with_their_numbers() {
    for (dialect, flag, expected) in [
        (Dialect::V2022_12, None, "setgid(0)"),
        (Dialect::V2024, None, "setgid(0)"),
        (Dialect::V2026_08, Some("--gid=77"), "setgid(77)"),
    ] {
        let house = House::new();
        let mut parent = house.parent(dialect).unprivileged(maps(1000, 10));
        if let Some(flag) = flag {
            parent = parent.gofer_flag(flag);
        }
        let mut gofer = parent.start().unwrap();
        gofer.release();
        assert_eq!(gofer.mounts().unwrap(), b"");
        assert_eq!(gofer.wait().unwrap(), Ended::Status(128));
        let log = fs::read_to_string(house.path("log")).unwrap();
        assert!(log.contains(expected), "{log}");
    }
}

/// Starts a v2026-08 gofer with shifted ids whose parent opens sources for it.
fn serves_through_its_parent(house: &House) -> (Gofer, Vec<serde_json::Value>) {
    let parent = house.parent(Dialect::V2026_08).id_maps(maps(0, MANY));
    let mut gofer = parent.start().unwrap();
    let service = MountService::start(gofer.rpc.take().unwrap(), gofer.pid);
    gofer.release();
    assert!(!gofer.mounts().unwrap().is_empty(), "{}", house.log());
    (gofer, service.requests().unwrap())
}

/// Changes the one mount of a house.
fn change_mount(house: &House, change: impl FnOnce(&mut serde_json::Value)) {
    let config = house.path("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    change(&mut spec["mounts"][0]);
    fs::write(config, spec.to_string()).unwrap();
}

/// Puts the source of the one mount below a directory that only its owner may enter; where it is then.
fn hide_volume(house: &House) -> PathBuf {
    let (hidden, source) = (house.path("hidden"), house.path("hidden/volume"));
    fs::create_dir(&hidden).unwrap();
    fs::set_permissions(hidden, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(house.path("volume"), &source).unwrap();
    change_mount(house, |mount| mount["source"] = json!(source));
    source
}

#[test]
fn the_newest_parent_opens_a_source_below_a_directory_that_the_ids_may_not_enter() {
    let house = House::new();
    let source = hide_volume(&house);

    let (mut gofer, requests) = serves_through_its_parent(&house);
    let [request] = requests.as_slice() else {
        panic!("one mount, one request: {requests:?}");
    };
    assert_eq!(request["method"], "goferToHostRPC.OpenMount");
    assert_eq!(request["arg"]["Mount"]["source"], json!(source));
    // Bind, recursive, read-only.
    assert_eq!(request["arg"]["Flags"], 4096 + 16384 + 1);
    gofer.sockets.remove(0);
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    let file = client.walk_one(mounted.root.control, b"file").unwrap();
    assert!(client.open_at(file.control, 0).is_ok());
    let refusal = refused(make(&client, mounted.root.control, 0));
    assert_eq!(refusal, Errno::ROFS, "read-only all the same");
    assert_minimal(&gofer);
    drop(client);
    gofer.sentry_exit = None;
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", house.log());
}

#[test]
fn older_parents_learn_why_a_source_below_such_a_directory_cannot_be_opened() {
    for dialect in [Dialect::V2022_12, Dialect::V2024] {
        let house = House::new();
        let source = hide_volume(&house);
        let parent = house.parent(dialect).id_maps(maps(0, MANY));
        let mut gofer = parent.start().unwrap();
        gofer.release();
        assert_eq!(gofer.mounts().unwrap(), b"");
        assert_eq!(gofer.wait().unwrap(), Ended::Status(128));
        let log = fs::read_to_string(house.path("log")).unwrap();
        for word in [source.to_str().unwrap(), "/data", "2026 and later opens it"] {
            assert!(log.contains(word), "{word:?} is not in {log}");
        }
    }
}

#[test]
fn the_newest_parent_maps_the_ids_of_a_mount() {
    let house = House::new();
    // On disk it is root's; mapped, it is the container's first user's.
    for name in ["volume", "volume/file"] {
        chown(house.path(name), Some(0), Some(0)).unwrap();
    }
    let only_owner = fs::Permissions::from_mode(0o600);
    fs::set_permissions(house.path("volume/file"), only_owner).unwrap();
    let map = json!([{ "containerID": 0, "hostID": HOST_ID, "size": MANY }]);
    change_mount(&house, |mount| {
        mount["options"] = json!(["rbind", "noexec"]);
        mount["uidMappings"] = map.clone();
        mount["gidMappings"] = map.clone();
    });
    let (mut gofer, requests) = serves_through_its_parent(&house);
    assert_eq!(requests[0]["arg"]["Mount"]["uidMappings"], map);
    let mounts = fs::read_to_string(gofer.proc("mountinfo")).unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(" /data "))
        .unwrap();
    for attribute in ["nosuid", "noexec", "idmapped"] {
        assert!(line.contains(attribute), "{attribute}: {line}");
    }
    gofer.sockets.remove(0);
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    let root = mounted.root.control;
    let file = client.walk_one(root, b"file").unwrap();
    assert_eq!(client.fstat(file.control).unwrap().uid, 0);
    assert!(client.open_at(file.control, 0).is_ok());
    make(&client, root, 7).unwrap();
    let made = fs::metadata(house.path("volume/new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (7, 7), "as the disk has it");
    drop(client);
    gofer.sentry_exit = None;
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", house.log());
}
