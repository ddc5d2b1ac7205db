//! Real work in a Debian root, for every release, file access and overlay that exist together.
//!
//! One container per combination runs one script of sections, because starting one costs more
//! than most of what it does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::{fs, path::Path, process::Command};

use e2e::{
    bundle::Bundle,
    copy::WritableCopy,
    runsc::{HOLD, Runsc, text},
    stage::{Release, Stage},
    traces::files_below,
};

/// What one container does. Every section prints `=== NAME STATUS`; three also print a value
/// that the host must agree with.
const WORK: &str = include_str!("matrix.sh");

const SECTIONS: [&str; 9] = [
    "list",
    "count",
    "tar",
    "git",
    "c",
    "python",
    "sqlite",
    "sqlite-wal",
    "many",
];

/// Prints what the host counts and sums in the same tree, with the same tools (the tree's own).
const HOST: &str = "echo \"value list $(find /usr -printf '%M %U %G %p %l\\n' | sort | sha256sum)\"
echo \"value count $(find / -xdev | wc -l)\"
echo \"value tar $(tar --sort=name --format=gnu --numeric-owner -C / -cf - usr/lib | sha256sum)\"";

#[derive(Clone, Copy, PartialEq)]
enum Overlay {
    None,
    Memory,
}

struct Combination {
    release: Release,
    flags: Vec<&'static str>,
    overlay: Overlay,
}

impl Combination {
    fn new(release: Release, flags: &[&'static str], overlay: Overlay) -> Self {
        let mut flags = flags.to_vec();
        flags.push(match overlay {
            Overlay::None => "--overlay2=none",
            Overlay::Memory => "--overlay2=all:memory",
        });
        // With two processors it takes half the time of the newer default, and asks the same.
        flags.push("--platform=ptrace");
        Self {
            release,
            flags,
            overlay,
        }
    }

    /// What the script must know. The older client's sandbox answers `EINVAL` to any `statx` with
    /// `AT_NO_AUTOMOUNT`, which is how coreutils since 9 list, before it asks any gofer;
    /// `find` learns the same of every file without that flag.
    fn settings(&self) -> &'static str {
        match self.release {
            Release::V2022_12 => "ls=refused\n",
            Release::V2024_07 => "ls=works\n",
        }
    }

    fn shown(&self) -> String {
        format!("{} {}", self.release.name(), self.flags.join(" "))
    }
}

fn value<'o>(output: &'o str, name: &str) -> Option<&'o str> {
    let prefix = format!("value {name} ");
    output.lines().find_map(|line| line.strip_prefix(&prefix))
}

fn status(output: &str, section: &str) -> Option<i32> {
    let prefix = format!("=== {section} ");
    let line = output.lines().find_map(|line| line.strip_prefix(&prefix))?;
    line.parse().ok()
}

/// What the host says about a tree, seen as a root.
fn on_the_host(root: &Path) -> String {
    let output = Command::new("chroot")
        .arg(root)
        .args(["sh", "-c", HOST])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn does_real_work(stage: &Stage, combination: &Combination) {
    let runsc = Runsc::new(stage, combination.release, &combination.flags);
    let volume = runsc.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    // Below an in-memory overlay the cached root cannot be written to; otherwise work on a copy.
    let copy = (combination.overlay == Overlay::None)
        .then(|| WritableCopy::new(&stage.debian, &runsc.folder().join("copy")));
    let root = copy.as_ref().map_or(&*stage.debian, WritableCopy::path);
    let host = on_the_host(root);
    let script = format!("{HOLD}{}{WORK}", combination.settings());
    let bundle = Bundle::new(root, &script)
        .bind(&volume, "/mnt", &["rw"])
        .write(&runsc.folder().join("bundle"));
    let output = runsc.run(&bundle, "worker");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let failed: Vec<_> = SECTIONS
        .into_iter()
        .filter(|section| status(&out, section) != Some(0))
        .collect();
    let shown = combination.shown();
    assert!(
        failed.is_empty() && output.status.success(),
        "{shown}: {failed:?} failed ({})\n{out}\n{err}",
        output.status
    );
    assert_eq!(value(&out, "list"), value(&host, "list"), "{shown}");
    assert_eq!(value(&out, "count"), value(&host, "count"), "{shown}");
    assert_eq!(value(&out, "tar"), value(&host, "tar"), "{shown}");
    match combination.overlay {
        Overlay::None => assert_eq!(
            value(&out, "database"),
            Some(&*sum(&volume.join("sqlite/plain.db"))),
            "{shown}: what was written reached the host"
        ),
        Overlay::Memory => assert!(
            files_below(&volume).is_empty(),
            "{shown}: nothing reached it"
        ),
    }
    runsc.check_nothing_is_left();
}

fn sum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    text(&output.stdout).split(' ').next().unwrap().to_owned()
}

/// All that go together: the shared file access of a root excludes an overlay.
fn every_overlay_and_access(release: Release, flags: &[&'static str]) {
    let Some(stage) = Stage::set() else { return };
    for (access, overlay) in [
        ("--file-access=exclusive", Overlay::None),
        ("--file-access=exclusive", Overlay::Memory),
        ("--file-access=shared", Overlay::None),
    ] {
        let combination = Combination::new(release, &[flags, &[access]].concat(), overlay);
        let start = std::time::Instant::now();
        does_real_work(&stage, &combination);
        println!("{}: {:.0?}", combination.shown(), start.elapsed());
    }
}

#[test]
fn a_debian_of_v2022_12_does_real_work() {
    every_overlay_and_access(Release::V2022_12, &[]);
}

#[test]
fn a_debian_of_v2024_07_with_directfs_does_real_work() {
    every_overlay_and_access(Release::V2024_07, &["--directfs=true"]);
}

#[test]
fn a_debian_of_v2024_07_without_directfs_does_real_work() {
    every_overlay_and_access(Release::V2024_07, &["--directfs=false"]);
}

#[test]
fn shared_file_access_and_an_overlay_exclude_each_other() {
    let Some(stage) = Stage::set() else { return };
    for release in Release::ALL {
        let flags = ["--file-access=shared", "--overlay2=all:memory"];
        let runsc = Runsc::new(&stage, release, &flags);
        let bundle = Bundle::new(&stage.busybox, "true").write(&runsc.folder().join("bundle"));
        let output = runsc.call(&["run", "--bundle", bundle.to_str().unwrap(), "never"]);
        assert!(!output.status.success(), "{}", release.name());
        runsc.check_nothing_is_left();
    }
}

/// A fact about the client, not about us, and the reason why its `list` section uses `find` alone:
/// with its own gofer as with ours, its sandbox refuses `ls` before anything reaches a gofer.
#[test]
fn ls_fails_in_the_older_client_with_either_gofer() {
    let Some(mut stage) = Stage::set() else {
        return;
    };
    for gofer in [stage.gofer.clone(), None] {
        stage.gofer = gofer;
        let runsc = Runsc::new(&stage, Release::V2022_12, &["--overlay2=none"]);
        let bundle = Bundle::new(&stage.debian, &format!("{HOLD}ls -ld /usr"))
            .readonly_root()
            .write(&runsc.folder().join("bundle"));
        let output = runsc.run(&bundle, "fact");
        let told = text(&output.stderr);
        assert!(!output.status.success(), "{told}");
        assert!(told.contains("'/usr': Invalid argument"), "{told}");
    }
}
