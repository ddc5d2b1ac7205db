//! A container's life as its client steers it, and its end, however that comes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::{fs, path::Path};

use e2e::{
    bundle::Bundle,
    runsc::{HOLD, Runsc, text},
    stage::{Release, Stage},
    traces,
};
use rustix::process::{Pid, Signal, kill_process};

/// Runs `test` with a client of each release.
fn with_each_release(flags: &[&str], test: impl Fn(&Stage, &Runsc)) {
    let Some(stage) = Stage::set() else { return };
    for release in Release::ALL {
        test(&stage, &Runsc::new(&stage, release, flags));
    }
}

/// A bundle on the busybox root, shared read-only by all tests.
fn bundle(stage: &Stage, runsc: &Runsc, script: &str) -> String {
    let bundle =
        Bundle::new(&stage.busybox, script)
            .readonly_root()
            .bind(&volume(runsc), "/mnt", &["rw"]);
    bundle
        .write(&runsc.folder().join("bundle"))
        .to_str()
        .unwrap()
        .to_owned()
}

fn volume(runsc: &Runsc) -> std::path::PathBuf {
    let volume = runsc.folder().join("volume");
    fs::create_dir_all(&volume).unwrap();
    volume
}

fn status(runsc: &Runsc, id: &str) -> String {
    let state: serde_json::Value = serde_json::from_str(&runsc.must(&["state", id])).unwrap();
    state["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_container_is_created_started_entered_killed_and_deleted() {
    with_each_release(&[], |stage, runsc| {
        let bundle = bundle(stage, runsc, "echo started >/mnt/said; sleep 1000");
        runsc.must(&["create", "--bundle", &bundle, "life"]);
        assert_eq!(status(runsc, "life"), "created");
        runsc.check_server("life");
        assert!(!volume(runsc).join("said").exists());

        runsc.must(&["start", "life"]);
        let said = volume(runsc).join("said");
        traces::wait_until("the container writes to the volume", || {
            fs::read_to_string(&said).is_ok_and(|text| text == "started\n")
        });
        assert_eq!(status(runsc, "life"), "running");
        runsc.check_server("life");

        let seen = runsc.must(&[
            "exec",
            "life",
            "sh",
            "-c",
            "cat /mnt/said; echo again >/mnt/said",
        ]);
        assert_eq!(seen, "started\n");
        assert_eq!(fs::read_to_string(&said).unwrap(), "again\n");
        let refused = runsc.call(&["exec", "life", "sh", "-c", "exit 7"]);
        assert_eq!(
            refused.status.code(),
            Some(7),
            "exec's status is the command's"
        );

        runsc.must(&["kill", "life", "KILL"]);
        traces::wait_until("the container has stopped", || {
            status(runsc, "life") == "stopped"
        });
        runsc.must(&["delete", "life"]);
        runsc.check_nothing_is_left();
    });
}

#[test]
fn a_paused_container_stands_still_and_goes_on_when_resumed() {
    with_each_release(&[], |stage, runsc| {
        let script = "i=0; while true; do i=$((i + 1)); echo $i >/mnt/count; done";
        let bundle = bundle(stage, runsc, script);
        runsc.must(&["create", "--bundle", &bundle, "clock"]);
        runsc.must(&["start", "clock"]);
        let count = || -> u64 {
            let text = fs::read_to_string(volume(runsc).join("count")).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        traces::wait_until("the container counts", || count() > 3);
        runsc.must(&["pause", "clock"]);
        assert_eq!(status(runsc, "clock"), "paused");
        let stamp = || {
            fs::metadata(volume(runsc).join("count"))
                .unwrap()
                .modified()
                .unwrap()
        };
        let (held, at) = (count(), stamp());
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!((count(), stamp()), (held, at), "paused, it must not write");
        runsc.must(&["resume", "clock"]);
        traces::wait_until("the container counts on", || count() > held + 3);
        runsc.check_server("clock");
        runsc.must(&["kill", "clock", "KILL"]);
        traces::wait_until("the container has stopped", || {
            status(runsc, "clock") == "stopped"
        });
        runsc.must(&["delete", "clock"]);
        runsc.check_nothing_is_left();
    });
}

/// What a container does from its checkpoint on: wait for a file, then show what it remembers.
/// The descriptor opened before the checkpoint must be found again by a new gofer.
const REMEMBER: &str = "exec 3</mnt/story; read first <&3; echo ready >/mnt/ready
while [ ! -e /mnt/go ]; do sleep 0.1; done
read second <&3; echo \"$first $second\" >/mnt/told";

fn goes_on_from_a_checkpoint(stage: &Stage, runsc: &Runsc) {
    let bundle = bundle(stage, runsc, REMEMBER);
    let volume = volume(runsc);
    fs::write(volume.join("story"), "once\nagain\n").unwrap();
    runsc.must(&["create", "--bundle", &bundle, "before"]);
    runsc.must(&["start", "before"]);
    traces::wait_until("the container has read", || volume.join("ready").exists());
    let image = runsc.folder().join("image");
    fs::create_dir(&image).unwrap();
    let image = format!("--image-path={}", image.display());
    runsc.must(&["checkpoint", &image, "before"]);
    let state = runsc.call(&["state", "before"]);
    if state.status.success() {
        runsc.must(&["delete", "--force", "before"]);
    }
    runsc.check_nothing_is_left();

    runsc.must(&["restore", &image, "--detach", "--bundle", &bundle, "after"]);
    runsc.check_server("after");
    assert!(!volume.join("told").exists());
    fs::write(volume.join("go"), "").unwrap();
    let told = volume.join("told");
    traces::wait_until("the container tells", || {
        fs::read_to_string(&told).is_ok_and(|text| text == "once again\n")
    });
    traces::wait_until("the container has stopped", || {
        status(runsc, "after") == "stopped"
    });
    runsc.must(&["delete", "after"]);
    runsc.check_nothing_is_left();
}

#[test]
fn a_checkpointed_container_goes_on_under_a_new_gofer() {
    with_each_release(&["--overlay2=none"], goes_on_from_a_checkpoint);
}

#[test]
fn a_checkpointed_container_without_directfs_goes_on_under_a_new_gofer() {
    let Some(stage) = Stage::set() else { return };
    let flags = ["--overlay2=none", "--directfs=false"];
    goes_on_from_a_checkpoint(&stage, &Runsc::new(&stage, Release::V2024_07, &flags));
}

#[test]
fn a_killed_gofer_kills_the_container() {
    with_each_release(&[], |stage, runsc| {
        let script = format!("{HOLD}exit 0");
        let bundle = bundle(stage, runsc, &format!("echo up; {script}"));
        let mut running = runsc.start(Path::new(&bundle), "orphan");
        running.wait_for_line("up");
        running.check_server();
        let gofer = Pid::from_raw(running.gofer_pid()).unwrap();
        kill_process(gofer, Signal::KILL).unwrap();
        let pid = gofer.as_raw_nonzero().get();
        traces::wait_until("the gofer is gone", || traces::executable(pid).is_none());
        // Its input stays open, so nothing else ends it.
        let output = running.wait();
        assert_eq!(
            output.status.code(),
            Some(128 + 9),
            "{}",
            text(&output.stderr)
        );
        runsc.check_nothing_is_left();
    });
}

#[test]
fn a_gofer_killed_before_its_container_starts_fails_the_start_and_nothing_hangs() {
    with_each_release(&[], |stage, runsc| {
        let bundle = bundle(stage, runsc, "echo started >/mnt/said");
        runsc.must(&["create", "--bundle", &bundle, "unserved"]);
        runsc.check_server("unserved");
        let gofer = Pid::from_raw(runsc.gofer_pid("unserved")).unwrap();
        kill_process(gofer, Signal::KILL).unwrap();
        let pid = gofer.as_raw_nonzero().get();
        traces::wait_until("the gofer is gone", || traces::executable(pid).is_none());
        let refused = runsc.call(&["start", "unserved"]);
        assert_eq!(
            refused.status.code(),
            Some(128),
            "{}",
            text(&refused.stderr)
        );
        let said = text(&refused.stderr);
        assert!(said.contains("input/output error"), "{said}");
        runsc.must(&["delete", "--force", "unserved"]);
        assert!(!volume(runsc).join("said").exists());
        runsc.check_nothing_is_left();
    });
}

#[test]
fn a_container_s_exit_status_is_the_client_s() {
    with_each_release(&[], |stage, runsc| {
        let bundle = bundle(
            stage,
            runsc,
            &format!("{HOLD}echo out; echo err >&2; exit 42"),
        );
        let output = runsc.run(Path::new(&bundle), "status");
        assert_eq!(output.status.code(), Some(42), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "out\n");
        assert_eq!(text(&output.stderr), "err\n");
        runsc.check_nothing_is_left();
    });
}

#[test]
fn ten_containers_one_after_the_other_leave_nothing_behind() {
    with_each_release(&[], |stage, runsc| {
        let bundle = bundle(stage, runsc, &format!("{HOLD}ls -lR /bin >/mnt/list"));
        for round in 0..10 {
            let output = runsc.run(Path::new(&bundle), &format!("round{round}"));
            assert!(output.status.success(), "{}", text(&output.stderr));
            runsc.check_nothing_is_left();
        }
        let names = traces::files_below(&volume(runsc));
        assert_eq!(names, [Path::new("list")]);
    });
}

/// What the jail must have done, seen from outside, whichever release asks.
#[test]
fn a_serving_gofer_can_do_little() {
    with_each_release(&[], |stage, runsc| {
        let bundle = bundle(stage, runsc, HOLD);
        let running = runsc.start(Path::new(&bundle), "jailed");
        let pid = running.gofer_pid();
        running.check_server();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status
                .lines()
                .find(|line| line.starts_with(&format!("{name}:")));
            line.unwrap().split_whitespace().last().unwrap().to_owned()
        };
        assert_eq!(field("Seccomp"), "2", "a filter is installed");
        assert_eq!(field("NoNewPrivs"), "1");
        let held = u64::from_str_radix(&field("CapEff"), 16).unwrap();
        assert_eq!(
            held & !0x4_001f,
            0,
            "nothing beyond what file ownership needs"
        );
        assert!(running.finish().status.success());
        runsc.check_nothing_is_left();
    });
}
