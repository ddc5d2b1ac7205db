//! The Go gofer of a real `runsc`, started by [`rig::parent`] and used by our client.
//!
//! The binaries come from `cargo xtask clients`; without them, or without root, these tests fail
//! and say so.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::PathBuf;

use client::Client;
use rig::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use serde_json::json;
use wire::{Errno, Mid};

fn runsc(release: &str) -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = workspace.join("target/clients").join(release).join("runsc");
    assert!(
        path.exists(),
        "run `cargo xtask clients`: {} is missing",
        path.display()
    );
    path.canonicalize().unwrap()
}

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("root/hello"), "hello from the host").unwrap();
        write_bundle(dir.path(), &dir.path().join("root"), false, &json!([])).unwrap();
        Self { dir }
    }
}

fn serve_a_file(release: &str, dialect: Dialect, user_namespace: bool) {
    let tree = Tree::new();
    let mut parent = Parent::new(&runsc(release), dialect, tree.dir.path(), &["lisafs:none"]);
    if dialect != Dialect::V2022_12 {
        parent = parent.flag("--directfs=false");
    }
    if user_namespace {
        parent = parent.user_namespace();
    }
    let mut gofer: Gofer = parent.start().unwrap();
    gofer.release();
    assert_eq!(gofer.mounts().unwrap(), b"[]");
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    assert_eq!(client.open_channels(2), Ok(2));
    let file = client.walk_one(mounted.root.control, b"hello").unwrap();
    let open = client.open_at(file.control, 0).unwrap();
    let mut content = [0; 64];
    let bytes = client.read_at(open.id, 0, &mut content).unwrap();
    assert_eq!(
        content[..bytes].escape_ascii().to_string(),
        "hello from the host"
    );
    let dir = client.open_at(mounted.root.control, 0).unwrap();
    let names: Vec<_> = client
        .read_dir(dir.id)
        .map(|entry| entry.unwrap().name)
        .collect();
    assert_eq!(names, [b"hello"]);
    let stale = client.fstat(wire::FdId(999)).unwrap_err();
    assert_eq!(stale.errno(), Errno::BADF);
    assert!(!client.negotiated().unwrap().lists(Mid::FLUSH));
    assert_eq!(client.flush(open.id).unwrap_err().errno(), Errno::OPNOTSUPP);
    drop(client);
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0));
}

#[test]
fn the_go_gofer_of_2022_serves_a_file_and_ends_when_its_client_leaves() {
    serve_a_file("v2022-12", Dialect::V2022_12, false);
}

#[test]
fn the_go_gofer_of_2024_serves_a_file_and_ends_when_its_client_leaves() {
    serve_a_file("v2024-07", Dialect::V2024, false);
}

#[test]
fn the_go_gofer_of_2024_serves_a_file_from_a_user_namespace() {
    serve_a_file("v2024-07", Dialect::V2024, true);
}
