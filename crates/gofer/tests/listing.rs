//! What a directory lists is what a look at each entry says, wherever mounts lie in the tree.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::Path;

use client::Client;
use rig::parent::{Dialect, Ended, Parent, write_bundle};
use serde_json::json;
use wire::FdId;

/// Compares every entry below `dir` with its own attributes; how many there were.
fn check(client: &Client, dir: FdId) -> usize {
    let open = client.open_at(dir, 0).unwrap();
    let mut seen = 0;
    for entry in client.read_dir(open.id) {
        let entry = entry.unwrap();
        let child = client.walk_one(dir, &entry.name).unwrap();
        let name = entry.name.escape_ascii().to_string();
        assert_eq!(
            (entry.ino, entry.dev_major, entry.dev_minor),
            (child.stat.ino, child.stat.dev_major, child.stat.dev_minor),
            "{name}"
        );
        seen += 1;
        if child.stat.mode >> 12 == 4 {
            seen += check(client, child.control);
        }
        client.close(&[child.control]).unwrap();
    }
    client.close(&[open.id]).unwrap();
    seen
}

#[test]
fn entries_at_mount_points_are_those_of_what_is_mounted() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: playing runsc's parent needs root");
        return;
    }
    // On the disk, with volumes on tmpfs: other device numbers.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let volume = tempfile::tempdir_in("/dev/shm").unwrap();
    let bundle = tempfile::tempdir().unwrap();
    for dir in ["etc", "data", "deep/er/still"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    fs::write(root.path().join("etc/hosts"), b"").unwrap();
    fs::write(root.path().join("etc/other"), b"").unwrap();
    fs::create_dir(volume.path().join("inside")).unwrap();
    fs::write(volume.path().join("hosts"), b"").unwrap();
    let bind = |source: &Path, destination: &str| json!({ "type": "bind", "source": source, "destination": destination, "options": ["rbind"] });
    let mounts = json!([
        bind(&volume.path().join("hosts"), "/etc/hosts"),
        bind(volume.path(), "/deep/er/still"),
        bind(&volume.path().join("hosts"), "/deep/er/still/inside/made"),
    ]);
    write_bundle(bundle.path(), root.path(), false, &mounts).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_gofer"));
    let confs = ["lisafs:none"; 4];
    let parent = Parent::new(program, Dialect::V2024, bundle.path(), &confs);
    let mut gofer = parent.flag("--directfs=false").start().unwrap();
    gofer.release();
    gofer.mounts().unwrap();
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    // etc, hosts, other, data, deep, er, still, its hosts and inside, made.
    assert_eq!(check(&client, mounted.root.control), 10);
    drop(client);
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0));
}
