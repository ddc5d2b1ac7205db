//! What a parent or the host brings only at times, with the whole process: devices, file systems that
//! the sandbox must know of, services that answer in pieces, descriptors left from other starts.
//!
//! Needs root: each test makes mounts, in a mount namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use client::{Client, Error};
use rig::mount_service::MountService;
use rig::mounts::in_own_mounts;
use rig::parent::{Dialect, Ended, Gofer, IdMaps, Parent, write_bundle};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount, mount_bind};
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::Errno;

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
const DIALECTS: [Dialect; 3] = [Dialect::V2022_12, Dialect::V2024, Dialect::V2026_08];
/// Of `/dev/zero`: any device that may be read does as one of a host that has none.
const ZERO: (u32, u32) = (1, 5);

/// A bundle: a root and one volume.
struct House {
    dir: TempDir,
}

impl House {
    fn new() -> House {
        let dir = TempDir::new().unwrap();
        let house = House { dir };
        for name in ["root", "volume"] {
            fs::create_dir(house.path(name)).unwrap();
            fs::write(house.path(name).join("file"), name).unwrap();
        }
        let mounts = json!([
            { "destination": "/data", "type": "bind", "source": house.path("volume"), "options": ["rbind", "rw"] },
        ]);
        write_bundle(house.dir.path(), &house.path("root"), false, &mounts).unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Changes its `config.json`.
    fn dress(&self, change: impl FnOnce(&mut Value)) {
        let config = self.path("config.json");
        let mut spec = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        change(&mut spec);
        fs::write(config, spec.to_string()).unwrap();
    }

    fn parent(&self, dialect: Dialect) -> Parent {
        Parent::new(
            Path::new(GOFER),
            dialect,
            self.dir.path(),
            &["lisafs:none"; 2],
        )
        .debug_log(File::create(self.path("debug")).unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("debug")).unwrap()
    }

    /// The one element of the list of mounts.
    fn volume(&self, gofer: &mut Gofer) -> Value {
        gofer.release();
        let list = gofer.mounts().unwrap();
        assert!(!list.is_empty(), "{}", self.log());
        let list: Value = serde_json::from_slice(&list).unwrap();
        list[0].clone()
    }

    fn ends(&self, mut gofer: Gofer) {
        gofer.sentry_exit = None;
        assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", self.log());
    }
}

/// A `/dev` for this namespace that has what a host with such hardware has.
fn devices_of_such_a_host(nodes: &[&str]) {
    let none = None::<&std::ffi::CStr>;
    let made = TempDir::new().unwrap();
    mount("none", made.path(), "tmpfs", MountFlags::empty(), none).unwrap();
    File::create(made.path().join("null")).unwrap();
    mount_bind("/dev/null", made.path().join("null")).unwrap();
    for node in nodes {
        let path = made.path().join(node);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let all = Mode::from(0o666);
        let device = makedev(ZERO.0, ZERO.1);
        mknodat(CWD, &path, FileType::CharacterDevice, all, device).unwrap();
    }
    rustix::mount::mount_bind_recursive(made.path(), "/dev").unwrap();
    rustix::mount::unmount(made.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

const NODES: [&str; 9] = [
    "nvidiactl",
    "nvidia-uvm",
    "nvidia0",
    "nvidia13",
    "nvidia-modeset",
    "vfio/vfio",
    "vfio/7",
    "infiniband/uverbs0",
    "sda",
];

/// Which of the nodes a client of the device connection can open and read.
fn offered(house: &House, dialect: Dialect, flag: &str) -> Vec<&'static str> {
    let mut gofer = house
        .parent(dialect)
        .flag(flag)
        .device_connection()
        .start()
        .unwrap();
    house.volume(&mut gofer);
    let socket = gofer.device_socket.take().unwrap();
    let (client, mounted) = Client::connect(socket).unwrap();
    let reads = |node: &&str| {
        let names: Vec<&[u8]> = node.split('/').map(str::as_bytes).collect();
        let walked = client.walk(mounted.root.control, &names).unwrap();
        if walked.inodes.len() < names.len() {
            return false;
        }
        let opened = client.open_at(walked.inodes.last().unwrap().control, 0);
        let mut bytes = [7; 8];
        client.read_at(opened.unwrap().id, 0, &mut bytes).unwrap() == 8 && bytes == [0; 8]
    };
    let found = NODES.into_iter().filter(reads).collect();
    drop(client);
    house.ends(gofer);
    found
}

#[test]
fn the_device_connection_offers_the_nodes_that_the_flags_enable_and_no_others() {
    in_own_mounts(|| {
        devices_of_such_a_host(&NODES);
        let nvidia = ["nvidiactl", "nvidia-uvm", "nvidia0", "nvidia13"];
        let vfio = ["vfio/vfio", "vfio/7"];
        let rdma = ["infiniband/uverbs0"];
        for (dialect, flag, listed, expected) in [
            (Dialect::V2024, "--nvproxy=true", &NODES[..], &nvidia[..]),
            (Dialect::V2024, "--tpuproxy=true", &NODES, &vfio),
            (Dialect::V2024, "--debug=true", &NODES, &[]),
            (Dialect::V2026_08, "--rdmaproxy=true", &NODES[7..], &rdma),
            (Dialect::V2026_08, "--debug=true", &NODES[7..], &[]),
            // A listed device is itself the wish.
            (Dialect::V2026_08, "--debug=true", &NODES[..5], &nvidia),
            (Dialect::V2026_08, "--debug=true", &NODES[5..7], &vfio),
        ] {
            let house = House::new();
            let devices: Vec<Value> = listed
                .iter()
                .map(|node| json!({ "path": format!("/dev/{node}") }))
                .collect();
            house.dress(|spec| spec["linux"]["devices"] = json!(devices));
            let found = offered(&house, dialect, flag);
            assert_eq!(found, expected, "{dialect:?} {flag} {listed:?}");
        }
    });
}

#[test]
fn a_volume_on_overlayfs_says_so_in_the_list() {
    in_own_mounts(|| {
        for dialect in DIALECTS {
            let house = House::new();
            let lower = TempDir::new().unwrap();
            let options = format!(
                "lowerdir={}:{}",
                house.path("volume").display(),
                lower.path().display()
            );
            let options = std::ffi::CString::new(options).unwrap();
            let flags = MountFlags::empty();
            mount(
                "overlay",
                house.path("volume"),
                "overlay",
                flags,
                Some(&*options),
            )
            .unwrap();
            let mut gofer = house.parent(dialect).start().unwrap();
            let volume = house.volume(&mut gofer);
            assert_eq!(
                volume["options"],
                json!(["rbind", "rw", "overlayfs_stale_read"]),
                "{dialect:?}"
            );
            house.ends(gofer);
        }
    });
}

#[test]
fn an_unmount_helper_s_socket_is_closed_before_serving() {
    for dialect in DIALECTS {
        let house = House::new();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let parent = house
            .parent(dialect)
            .descriptor("proc-mount-sync-fd", theirs);
        let mut gofer = parent.start().unwrap();
        house.volume(&mut gofer);
        let (client, _) = Client::connect(gofer.take_socket().unwrap()).unwrap();
        let mut byte = [0];
        let ended = std::io::Read::read(&mut &ours, &mut byte).unwrap();
        assert_eq!(ended, 0, "its end is closed, unused: {dialect:?}");
        drop(client);
        house.ends(gofer);
    }
}

#[test]
fn an_answer_of_the_parent_s_service_may_come_byte_by_byte() {
    let house = House::new();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(house.dir.path(), open).unwrap();
    fs::create_dir(house.path("hidden")).unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(house.path("hidden"), closed).unwrap();
    fs::rename(house.path("volume"), house.path("hidden/volume")).unwrap();
    let source = house.path("hidden/volume");
    house.dress(|spec| spec["mounts"][0]["source"] = json!(source));
    let ids = (0, 100_000, 65_536);
    // Where the mount point will be made.
    std::os::unix::fs::chown(house.path("root"), Some(ids.1), Some(ids.1)).unwrap();
    let parent = house.parent(Dialect::V2026_08).id_maps(IdMaps { ids });
    let mut gofer = parent.start().unwrap();
    let service = MountService::start_in_pieces(gofer.rpc.take().unwrap(), gofer.pid);
    house.volume(&mut gofer);
    assert_eq!(service.requests().unwrap().len(), 1);
    gofer.sockets.remove(0);
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    let served = client.walk_one(mounted.root.control, b"file");
    assert!(served.is_ok(), "the source's file: {served:?}");
    let missing = client.walk_one(mounted.root.control, b"other");
    assert!(
        matches!(missing, Err(Error::Refused(Errno::NOENT))),
        "{missing:?}"
    );
    drop(client);
    house.ends(gofer);
}
