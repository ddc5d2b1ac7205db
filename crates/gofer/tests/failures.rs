//! Every failure of a start-up that the specification lists (`gofer-process.md`, 12): the exit
//! status, no list of mounts, and one record that names what is wrong.
//!
//! Elsewhere: command lines that cannot be read, spec and sockets that do not fit, hooks
//! (`start_up`); bytes on sync sockets (`dialects`); locked mounts, devices, destinations that change
//! meanwhile (`jail`). Cannot happen here: a helper that fails (there is none), a destination that
//! has vanished or a `chroot` that is refused (descriptors are held from the mount on).
//! Needs root: the parent makes namespaces.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::mounts::in_own_mounts;
use rig::parent::{Dialect, Ended, Parent, write_bundle};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use serde_json::{Value, json};
use tempfile::TempDir;

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
const DIALECTS: [Dialect; 3] = [Dialect::V2022_12, Dialect::V2024, Dialect::V2026_08];
const FATAL: Ended = Ended::Status(128);

/// A bundle: a root with a file, a directory and a loop of links; a volume.
struct House {
    dir: TempDir,
}

impl House {
    fn new() -> House {
        let dir = TempDir::new().unwrap();
        let house = House { dir };
        for name in ["root/dir", "volume"] {
            fs::create_dir_all(house.path(name)).unwrap();
        }
        fs::write(house.path("root/file"), "").unwrap();
        fs::write(house.path("single"), "").unwrap();
        symlink("loop", house.path("root/loop")).unwrap();
        house.write(&json!({}));
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A stock spec with some keys replaced.
    fn write(&self, keys: &Value) {
        write_bundle(self.dir.path(), &self.path("root"), false, &json!([])).unwrap();
        let config = self.path("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        for (key, value) in keys.as_object().unwrap() {
            spec[key] = value.clone();
        }
        fs::write(config, spec.to_string()).unwrap();
    }

    fn bind(&self, source: &str, destination: &str, option: &str) -> Value {
        json!({
            "destination": destination,
            "type": "bind",
            "source": self.path(source),
            "options": ["rbind", option],
        })
    }

    fn parent(&self, dialect: Dialect, mounts: usize) -> Parent {
        let confs = vec!["lisafs:none"; 1 + mounts];
        Parent::new(Path::new(GOFER), dialect, self.dir.path(), &confs)
            .log(File::create(self.path("log")).unwrap())
    }

    /// The message of the one record.
    fn message(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap();
        let record: Value =
            serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log:?}"));
        assert_eq!(record["level"], "error");
        record["msg"].as_str().unwrap().to_owned()
    }

    /// Starts it and expects the failure.
    fn fails(&self, parent: Parent, ended: Ended, words: &[&str]) {
        let mut gofer = parent.start().unwrap();
        gofer.release();
        // The parent of v2026-08 that does not answer is another failure.
        gofer.rpc = None;
        assert_eq!(gofer.mounts().unwrap(), b"", "{words:?}");
        assert_eq!(gofer.wait().unwrap(), ended, "{words:?}");
        let message = self.message();
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
    }
}

/// A start in each dialect that fails for the mounts of the spec.
fn mounts_fail(mounts: impl Fn(&House) -> Vec<Value>, words: &[&str]) {
    for dialect in DIALECTS {
        let house = House::new();
        let mounts = mounts(&house);
        house.write(&json!({ "mounts": mounts }));
        house.fails(house.parent(dialect, mounts.len()), FATAL, words);
    }
}

#[test]
fn a2_flags_that_contradict_each_other_are_both_named() {
    for (flags, word) in [
        (["--overlay=true", "--overlay2=root:self"], "--overlay2"),
        (["--fsgofer-host-uds=true", "--host-uds=all"], "--host-uds"),
    ] {
        for dialect in DIALECTS {
            let house = House::new();
            let parent = house.parent(dialect, 0).flag(flags[0]).flag(flags[1]);
            house.fails(parent, FATAL, &[word, "only one"]);
        }
    }
}

#[test]
fn a3_logs_that_cannot_be_written_are_named() {
    for (flag, word) in [
        ("--debug-log=/no/such/folder/", "/no/such/folder/"),
        ("--debug-log-fd=77", "77"),
    ] {
        let house = House::new();
        let parent = house
            .parent(Dialect::V2024, 0)
            .flag("--debug=true")
            .flag(flag);
        house.fails(parent, FATAL, &[word]);
    }
    let house = House::new();
    let parent = house
        .parent(Dialect::V2024, 0)
        .flag("--debug-log-format=xml");
    let parent = parent.debug_log(File::create(house.path("debug")).unwrap());
    house.fails(parent, FATAL, &["--debug-log-format"]);
}

#[test]
fn a3_a_log_of_fatal_errors_that_cannot_be_written_is_told_on_the_standard_error() {
    let house = House::new();
    let output = Command::new("bash")
        .args(["-c", "exec -a runsc-gofer $0 --log=/no/such/folder/log gofer --bundle /b --spec-fd=3 --io-fds=4 3</dev/null 4</dev/null", GOFER])
        .current_dir(house.dir.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(128), "{stderr}");
    assert!(stderr.contains("/no/such/folder/log"), "{stderr}");
}

#[test]
fn a6_a_spec_without_a_root_or_with_another_shape_is_refused() {
    for dialect in DIALECTS {
        for (keys, word) in [
            (json!({ "root": null }), "root.path"),
            (json!({ "mounts": "none" }), "mounts"),
            (json!({ "annotations": [] }), "annotations"),
        ] {
            let house = House::new();
            house.write(&keys);
            let mut words = vec!["config.json"];
            // The decoder names the place; what it was to hold, we do.
            words.extend((word == "root.path").then_some(word));
            house.fails(house.parent(dialect, 0), FATAL, &words);
        }
    }
}

#[test]
fn a9_without_the_capability_to_mount_the_refused_call_and_its_errno_are_told() {
    let house = House::new();
    let script = "exec -a runsc-gofer $0 --log-fd=5 gofer --bundle $1 --gofer-mount-confs=lisafs:none --spec-fd=3 --io-fds=4 3<$1/config.json 4</dev/null 5>$1/log";
    // No new mount namespace either: what got through would be the test's own.
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"])
        .args(["bash", "-c", script, GOFER])
        .arg(house.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(128), "{output:?}");
    let message = house.message();
    assert!(
        message.contains("EPERM") || message.contains("Operation not permitted"),
        "{message}"
    );
}

#[test]
fn a9_a_root_that_is_missing_or_no_directory_is_named() {
    for dialect in DIALECTS {
        for name in ["nowhere", "single"] {
            let house = House::new();
            let root = house.path(name);
            house.write(&json!({ "root": { "path": root } }));
            house.fails(house.parent(dialect, 0), FATAL, &[root.to_str().unwrap()]);
        }
    }
}

#[test]
fn a9_a_destination_that_leads_in_circles_is_named() {
    let mounts = |house: &House| vec![house.bind("volume", "/loop/data", "rw")];
    mounts_fail(mounts, &["/loop/data"]);
}

#[test]
fn a9_a_mount_point_below_a_file_or_of_another_kind_is_named_with_its_source() {
    let below = |house: &House| vec![house.bind("volume", "/file/data", "rw")];
    mounts_fail(below, &["/file/data"]);
    let directory_on_file = |house: &House| vec![house.bind("volume", "/file", "rw")];
    mounts_fail(directory_on_file, &["/file", "volume"]);
    let file_on_directory = |house: &House| vec![house.bind("single", "/dir", "rw")];
    mounts_fail(file_on_directory, &["/dir", "single"]);
}

#[test]
fn a9_a_mount_point_that_is_missing_on_a_read_only_file_system_is_named_with_the_remedy() {
    in_own_mounts(|| {
        for dialect in DIALECTS {
            let house = House::new();
            let root = house.path("root");
            mount_bind(&root, &root).unwrap();
            mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
            house.write(&json!({ "mounts": [house.bind("volume", "/missing", "rw")] }));
            let words = ["/missing", "volume", "read-only", "make it in the image"];
            house.fails(house.parent(dialect, 1), FATAL, &words);
            unmount(&root, UnmountFlags::DETACH).unwrap();
        }
    });
}

#[test]
fn a9_a_propagation_that_would_lead_out_is_named() {
    let shared = |house: &House| vec![house.bind("volume", "/data", "rshared")];
    mounts_fail(shared, &["shared", "/data"]);
    for dialect in DIALECTS {
        let house = House::new();
        house.write(&json!({ "linux": { "rootfsPropagation": "shared" } }));
        house.fails(house.parent(dialect, 0), FATAL, &["shared"]);
    }
}

#[test]
fn a9_a_working_directory_that_cannot_be_made_is_named() {
    // v2026-08 leaves it to the sandbox.
    for dialect in [Dialect::V2022_12, Dialect::V2024] {
        let house = House::new();
        house.write(&json!({ "process": { "args": ["true"], "cwd": "/file/work" } }));
        house.fails(house.parent(dialect, 0), FATAL, &["/file/work"]);
    }
}

#[test]
fn a9_a_parent_that_opens_no_mount_source_is_told_with_the_source() {
    let house = House::new();
    let missing = json!({ "destination": "/data", "type": "bind", "source": "/no/such/source" });
    house.write(&json!({ "mounts": [missing] }));
    let parent = house.parent(Dialect::V2026_08, 1);
    house.fails(parent, FATAL, &["/no/such/source"]);
}

#[test]
fn b3_a_limit_that_only_a_stronger_process_could_set_is_a_warning() {
    for dialect in DIALECTS {
        let house = House::new();
        let debug = File::create(house.path("debug")).unwrap();
        let parent = house.parent(dialect, 0).debug_log(debug);
        // Beyond what the kernel allows anybody.
        let mut gofer = parent.flag("--fdlimit=4000000000").start().unwrap();
        gofer.release();
        assert_eq!(gofer.mounts().unwrap(), b"[]");
        gofer.sockets.clear();
        gofer.sentry_exit = None;
        assert_eq!(gofer.wait().unwrap(), Ended::Status(0));
        let log = fs::read_to_string(house.path("debug")).unwrap();
        assert!(log.contains("4000000000"), "{log}");
        assert_eq!(fs::read(house.path("log")).unwrap(), b"");
    }
}

#[test]
fn b5_a_reader_of_the_list_that_is_gone_ends_the_start_with_status_two() {
    for dialect in DIALECTS {
        let house = House::new();
        let mut gofer = house.parent(dialect, 0).sync_userns().start().unwrap();
        gofer.leave_mounts();
        gofer.release();
        assert_eq!(gofer.wait().unwrap(), Ended::Status(2), "{dialect:?}");
        assert!(house.message().contains("reader of the mounts list"));
    }
}

#[test]
fn b12_a_destination_that_is_not_absolute_is_named() {
    let relative = |house: &House| vec![house.bind("volume", "data", "rw")];
    mounts_fail(relative, &["mounts[0].destination", "data"]);
}
