//! Read-only roots and volumes, destinations that need resolving, many mounts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::{fmt::Write as _, fs, os::unix::fs::symlink, path::Path};

use e2e::{
    bundle::Bundle,
    copy::WritableCopy,
    runsc::{HOLD, Runsc, text},
    stage::{Release, Stage},
};

/// Every release and file access that serves a mount in its own way.
const WAYS: [(Release, &[&str]); 3] = [
    (Release::V2022_12, &["--overlay2=none"]),
    (Release::V2024_07, &["--overlay2=none", "--directfs=true"]),
    (Release::V2024_07, &["--overlay2=none", "--directfs=false"]),
];

fn in_every_way(test: impl Fn(&Stage, &Runsc)) {
    let Some(stage) = Stage::set() else { return };
    for (release, flags) in WAYS {
        test(&stage, &Runsc::new(&stage, release, flags));
    }
}

/// Runs a bundle to a successful end and returns what it printed.
fn printed(runsc: &Runsc, bundle: Bundle, id: &str) -> String {
    let output = runsc.run(&bundle.write(&runsc.folder().join("bundle")), id);
    assert!(
        output.status.success(),
        "{} {:?}: {}\n{}\n{}",
        runsc.release().name(),
        runsc,
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    runsc.check_nothing_is_left();
    text(&output.stdout)
}

/// Tries to change a tree in every way a shell knows; prints each try that did not end with
/// "Read-only file system" and, last, how many did.
const TRY_TO_WRITE: &str = r#"
refused=0
try() {
    said=$("$@" 2>&1)
    case $said in
    *"ead-only file system"*) refused=$((refused + 1)) ;;
    *) echo "not refused: $*: $said" ;;
    esac
}
attempts() {
    try touch $1/new
    try sh -c "echo x >$1/file"
    try sh -c "echo x >>$1/file"
    try truncate -s 0 $1/file
    try mkdir $1/newdir
    try rmdir $1/dir
    try rm -f $1/file
    try mv $1/file $1/other
    try ln $1/file $1/hard
    try ln -s x $1/soft
    try mkfifo $1/fifo
    try chmod 600 $1/file
    try chown 1:1 $1/file
    try touch -d 2001-01-01 $1/file
}
"#;

#[test]
fn a_read_only_root_refuses_every_write() {
    in_every_way(|stage, runsc| {
        let copy = WritableCopy::new(&stage.busybox, &runsc.folder().join("copy"));
        let tree = copy.path().join("mnt");
        fs::create_dir(tree.join("dir")).unwrap();
        fs::write(tree.join("file"), "kept").unwrap();
        let script = format!("{HOLD}{TRY_TO_WRITE}attempts /mnt; echo refused $refused");
        let out = printed(
            runsc,
            Bundle::new(copy.path(), &script).readonly_root(),
            "ro-root",
        );
        assert_eq!(out, "refused 14\n");
        assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "kept");
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 2);
    });
}

#[test]
fn a_read_only_volume_refuses_every_write_and_its_neighbour_none() {
    in_every_way(|stage, runsc| {
        let volume = |name: &str| {
            let path = runsc.folder().join(name);
            fs::create_dir_all(path.join("dir")).unwrap();
            fs::write(path.join("file"), "kept").unwrap();
            path
        };
        let (closed, open) = (volume("closed"), volume("open"));
        let copy = WritableCopy::new(&stage.busybox, &runsc.folder().join("copy"));
        let script = format!(
            "{HOLD}{TRY_TO_WRITE}attempts /closed; echo refused $refused
            echo new >/open/file && mkdir /open/more && cat /open/file"
        );
        let bundle = Bundle::new(copy.path(), &script)
            .bind(&closed, "/closed", &["ro"])
            .bind(&open, "/open", &["rw"]);
        assert_eq!(printed(runsc, bundle, "ro-volume"), "refused 14\nnew\n");
        assert_eq!(fs::read_to_string(closed.join("file")).unwrap(), "kept");
        assert_eq!(fs::read_dir(&closed).unwrap().count(), 2);
        assert!(open.join("more").is_dir());
    });
}

#[test]
fn destinations_through_symlinks_end_up_inside_the_root() {
    in_every_way(|stage, runsc| {
        let copy = WritableCopy::new(&stage.busybox, &runsc.folder().join("copy"));
        let root = copy.path();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        symlink("/real", root.join("absolute")).unwrap();
        symlink("real/deep", root.join("relative")).unwrap();
        symlink("../../../../real", root.join("climbing")).unwrap();
        let volume = |name: &str| {
            let path = runsc.folder().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("name"), name).unwrap();
            path
        };
        let script = format!("{HOLD}for d in a deep/b c; do cat /real/$d/name; echo; done");
        let bundle = Bundle::new(root, &script)
            .bind(&volume("first"), "/absolute/a", &["rw"])
            .bind(&volume("second"), "/relative/b", &["rw"])
            .bind(&volume("third"), "/climbing/c", &["rw"]);
        assert_eq!(printed(runsc, bundle, "links"), "first\nsecond\nthird\n");
        assert!(
            !Path::new("/real").exists(),
            "nothing was made outside the root"
        );
    });
}

#[test]
fn volumes_inside_volumes_and_single_files_are_mounted() {
    in_every_way(|stage, runsc| {
        let copy = WritableCopy::new(&stage.busybox, &runsc.folder().join("copy"));
        let (outer, inner) = (runsc.folder().join("outer"), runsc.folder().join("inner"));
        fs::create_dir_all(&outer).unwrap();
        fs::create_dir_all(&inner).unwrap();
        fs::write(outer.join("outer-file"), "outer").unwrap();
        fs::write(inner.join("inner-file"), "inner").unwrap();
        let single = runsc.folder().join("single");
        fs::write(&single, "single").unwrap();
        let script = format!(
            "{HOLD}cat /v/outer-file /v/made/inner/inner-file /v/made/one /etc/one
            echo new >/v/made/inner/written"
        );
        let bundle = Bundle::new(copy.path(), &script)
            .bind(&outer, "/v", &["rw"])
            .bind(&inner, "/v/made/inner", &["rw"])
            .bind(&single, "/v/made/one", &["rw"])
            .bind(&single, "/etc/one", &["ro"]);
        assert_eq!(printed(runsc, bundle, "nested"), "outerinnersinglesingle");
        assert_eq!(fs::read_to_string(inner.join("written")).unwrap(), "new\n");
    });
}

#[test]
fn thirty_volumes_each_show_their_own_files() {
    in_every_way(|stage, runsc| {
        let copy = WritableCopy::new(&stage.busybox, &runsc.folder().join("copy"));
        let script = format!(
            "{HOLD}i=0; while [ $i -lt 30 ]; do
            cat /volumes/$i/name; echo $i >/volumes/$i/back; i=$((i + 1)); done"
        );
        let mut bundle = Bundle::new(copy.path(), &script);
        let mut expected = String::new();
        let volume = |i: usize| runsc.folder().join(format!("volume{i}"));
        for i in 0..30 {
            fs::create_dir(volume(i)).unwrap();
            fs::write(volume(i).join("name"), format!("volume {i}\n")).unwrap();
            writeln!(expected, "volume {i}").unwrap();
            bundle = bundle.bind(&volume(i), &format!("/volumes/{i}"), &["rw"]);
        }
        assert_eq!(printed(runsc, bundle, "thirty"), expected);
        for i in 0..30 {
            let back = fs::read_to_string(volume(i).join("back")).unwrap();
            assert_eq!(back, format!("{i}\n"));
        }
    });
}
