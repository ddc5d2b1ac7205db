//! `cargo xtask test`: what the tests need, the release binary, then every test.
//!
//! Must hold: a machine that has everything is not changed and needs no network.

use std::process::Command;

use crate::{
    clients, fuzz, packages, reproduce, rootfs,
    task::{self, Failure, cargo, target},
    tools,
};

/// What the tests start, beyond a minimal Debian: engines, plain tools, what makes the disks that
/// fill up, and suites and programs that work on files.
const PACKAGES: [&str; 11] = [
    "podman",
    "docker.io",
    "debootstrap",
    "tar",
    "e2fsprogs",
    "btrfs-progs",
    "stress-ng",
    "dbench",
    "git",
    "sqlite3",
    "postgresql",
];

/// The tests whose server may be a process of its own (`rig`).
const SEALED: [&str; 8] = [
    "--package",
    "rig",
    "--test",
    "errnos",
    "--test",
    "weak_spots",
    "--test",
    "service",
];

/// How many set-ups run while names are swapped under them; `cargo test` alone runs fewer.
const SWAPPED_STARTS: &str = "2000";
/// How long each fuzz target runs here, in seconds; with `--long` the other. Two run at a time, and
/// the corpora in the repository, which already hold what was found, are played first.
const FUZZ_SECONDS: [u32; 2] = [30, 180];

/// What `cargo xtask test` accepts.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also what takes long: everything marked `#[ignore]`
    #[arg(long)]
    long: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// The crates' own tests first: what they find is easier to read than a failed container.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    clients::run()?;
    packages::need(&PACKAGES)?;
    tools::run()?;
    rootfs::run()?;
    task::run(&mut cargo(&["build", "--release", "--package", "gofer"]))?;
    reproduce::check_names(&target().join("release/gofer"))?;
    task::run(&mut test(&["--workspace", "--exclude", "e2e"], args, &[]))?;
    // The complete behaviour of a server once more, this time by the sealed process.
    task::run(test(&SEALED, args, &[]).env("RIG_GOFER", target().join("release/gofer")))?;
    if args.filter.is_none() {
        fuzz::run_for(&[], FUZZ_SECONDS[usize::from(args.long)], false)?;
    }
    if args.long && args.filter.is_none() {
        reproduce::run()?;
    }
    // Containers are many processes each, and `nothing is left behind` wants a quiet machine.
    task::run(&mut test(
        &["--package", "e2e"],
        args,
        &["--test-threads=1"],
    ))
}

fn test(which: &[&str], args: &Args, harness: &[&str]) -> Command {
    let mut test = cargo(&["test", "--quiet"]);
    test.args(which)
        .args(&args.filter)
        .arg("--")
        .args(harness)
        .args(args.long.then_some("--include-ignored"))
        .env("JAIL_TEST_SWAPS", SWAPPED_STARTS)
        .env("GOFER_BIN", target().join("release/gofer"))
        .env("ROOTFS_DEBIAN", rootfs::folder().join("debian"))
        .env("ROOTFS_BUSYBOX", rootfs::folder().join("busybox"));
    test
}
