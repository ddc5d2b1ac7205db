//! A gofer killed at any moment under a workload: what the application was told is written is on the
//! host, the container ends, nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::{fs, path::Path, thread, time::Duration};

use e2e::{
    bundle::Bundle,
    runsc::{Runsc, text},
    stage::{Release, Stage},
};
use rustix::process::{Pid, Signal, kill_process};

/// Makes a file, writes it, moves it into place, and only then says so.
const WORKLOAD: &str = "echo up; i=0
while true; do
    i=$((i + 1))
    echo \"content $i\" >/mnt/new && mv /mnt/new /mnt/file$i && echo $i
done";

/// Longest wait before the gofer is killed.
const KILL_WITHIN: Duration = Duration::from_millis(400);

/// Numbers that look random and are the same each time.
fn dice(round: u32) -> u32 {
    round.wrapping_mul(2_654_435_761) >> 8
}

/// How long a sandbox may take to end with its gofer before it counts as one that has not noticed.
/// It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Both releases in turn; the older knows no directfs and gets no flag for it. How many containers
/// did not end with their gofer.
fn kill_gofers(rounds: u32, newer: &[&str]) -> u32 {
    let Some(stage) = Stage::set() else { return 0 };
    let (mut acknowledged, mut stayed) = (0, 0);
    for round in 0..rounds {
        let release = Release::ALL[round as usize % Release::ALL.len()];
        let flags = match release {
            Release::V2022_12 => &[][..],
            _ => newer,
        };
        let runsc = Runsc::new(&stage, release, flags);
        let (last, has_stayed) = kill_one(&stage, &runsc, dice(round));
        acknowledged += last;
        stayed += u32::from(has_stayed);
    }
    assert!(acknowledged > 0, "no workload got as far as its first file");
    println!("  {stayed} of {rounds} containers did not end with their gofer");
    stayed
}

/// Kills the gofer of one container; how many writes had been acknowledged by its end, and whether
/// that had to be brought about.
fn kill_one(stage: &Stage, runsc: &Runsc, dice: u32) -> (u32, bool) {
    let volume = runsc.folder().join("volume");
    fs::create_dir_all(&volume).unwrap();
    let bundle = Bundle::new(&stage.busybox, WORKLOAD)
        .readonly_root()
        .bind(&volume, "/mnt", &["rw"])
        .write(&runsc.folder().join("bundle"));
    let mut running = runsc.start(Path::new(&bundle), "killed");
    running.wait_for_line("up");
    running.check_server();
    let gofer = Pid::from_raw(running.gofer_pid()).unwrap();
    thread::sleep(KILL_WITHIN * (dice % 1000) / 1000);
    kill_process(gofer, Signal::KILL).unwrap();
    let (output, stayed) = running.wait_or_delete(PATIENCE);
    assert!(!output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    // A last line may have been cut by the end.
    let whole = said.rfind('\n').map_or("", |end| &said[..end]);
    let last = whole
        .lines()
        .filter_map(|line| line.parse::<u32>().ok())
        .max();
    let last = last.unwrap_or(0);
    for number in 1..=last {
        let content = fs::read_to_string(volume.join(format!("file{number}")));
        let content = content.unwrap_or_else(|error| panic!("file {number} of {last}: {error}"));
        assert_eq!(content, format!("content {number}\n"), "of {last}");
    }
    runsc.check_nothing_is_left();
    (last, stayed)
}

#[test]
fn two_hundred_gofers_killed_under_a_workload_lose_no_acknowledged_write() {
    assert_eq!(kill_gofers(200, &["--directfs=false"]), 0);
}

/// Under directfs the sandbox writes without its gofer, and this release does not always notice that
/// it has none any more (`docs/faults.md`): then its container goes on, and so do its writes.
fn kill_gofers_under_directfs(rounds: u32) {
    let stayed = kill_gofers(rounds, &[]);
    assert!(stayed * 4 < rounds, "{stayed} of {rounds}");
}

#[test]
fn gofers_killed_under_directfs_lose_no_acknowledged_write() {
    kill_gofers_under_directfs(40);
}

#[test]
#[ignore = "takes minutes"]
fn two_hundred_gofers_killed_under_directfs_lose_no_acknowledged_write() {
    kill_gofers_under_directfs(200);
}
