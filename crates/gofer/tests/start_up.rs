//! The process, started the way `runsc` starts it: what it does with bad input, how it ends.
//!
//! Needs root: the parent makes namespaces.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rig::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use tempfile::TempDir;

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");

/// Runs the process with descriptor 3 as `log-fd` and 4 as the spec; bash redirects the rest.
fn run(spec: &str, words: &str) -> (Output, String) {
    let dir = TempDir::new().unwrap();
    let (log, config) = (dir.path().join("log"), dir.path().join("config.json"));
    fs::write(&config, spec).unwrap();
    let script = format!(
        "exec -a runsc-gofer {GOFER} {words} 3>>$0 4<$1 5>/dev/null 6</dev/null 7</dev/null 2>&2"
    );
    let output = Command::new("bash")
        .arg("-c")
        .arg(script)
        .arg(&log)
        .arg(&config)
        .output()
        .unwrap();
    (output, fs::read_to_string(log).unwrap_or_default())
}

/// Asserts the status of the specification, one line on stderr and one record, both naming `what`.
fn assert_fatal(spec: &str, words: &str, what: &str) {
    let (output, log) = run(spec, words);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(128), "{words}: {stderr}");
    assert!(
        stderr.lines().count() == 1 && stderr.contains(what),
        "{words}: {stderr}"
    );
    let record: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(record["level"], "error");
    assert!(
        record["msg"].as_str().unwrap().contains(what),
        "{words}: {log}"
    );
    assert!(!log.ends_with('\n'), "records follow each other directly");
}

/// A spec of a root and some mounts.
fn spec(mounts: &Value) -> String {
    json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["true"], "cwd": "/" },
        "root": { "path": "/" },
        "mounts": mounts,
    })
    .to_string()
}

#[test]
fn a_missing_or_unknown_flag_is_named() {
    let good = spec(&json!([]));
    let base = "--log-fd=3 gofer --bundle /b --mounts-fd=5 --io-fds=6";
    assert_fatal(&good, base, "--spec-fd");
    assert_fatal(
        &good,
        &format!("{base} --spec-fd=4 --brand-new-fd=9"),
        "brand-new-fd",
    );
    assert_fatal(&good, &format!("{base} --spec-fd=40"), "descriptor 40");
    assert_fatal(&good, &format!("{base} --spec-fd=x"), "spec-fd");
    assert_fatal(
        &good,
        "--log-fd=3 gofer --bundle /b --spec-fd=4 --mounts-fd=5",
        "--io-fds",
    );
    assert_fatal(
        &good,
        "--log-fd=3 --TESTONLY-unsafe-nonroot gofer --bundle /b",
        "confinement",
    );
}

#[test]
fn a_bad_spec_is_named() {
    let words = "--log-fd=3 gofer --bundle /b --gofer-mount-confs=lisafs:none --spec-fd=4 --mounts-fd=5 --io-fds=6";
    assert_fatal("{ \"root\": ", words, "config.json");
    assert_fatal("", words, "config.json");
    let relative = json!([{ "destination": "data", "type": "bind", "source": "/tmp" }]);
    let words = words
        .replace("lisafs:none", "lisafs:none,lisafs:none")
        .replace("=6", "=6,7");
    assert_fatal(&spec(&relative), &words, "data");
}

#[test]
fn too_few_and_too_many_sockets_or_configurations_are_refused_before_any_mount() {
    let bind = json!([{ "destination": "/data", "type": "bind", "source": "/tmp" }]);
    let words = |confs: &str, io: &str| {
        format!(
            "--log-fd=3 gofer --bundle /b --gofer-mount-confs={confs} --spec-fd=4 --mounts-fd=5 --io-fds={io}"
        )
    };
    assert_fatal(
        &spec(&bind),
        &words("lisafs:none,lisafs:none", "6"),
        "io-fds",
    );
    assert_fatal(&spec(&json!([])), &words("lisafs:none", "6,7"), "io-fds");
    assert_fatal(
        &spec(&bind),
        &words("lisafs:none", "6"),
        "gofer-mount-confs",
    );
}

#[test]
fn a_bad_global_flag_is_a_usage_error_that_no_log_sees() {
    for words in [
        "--brand-new gofer",
        "--debug=maybe gofer",
        "---debug gofer",
        "--host-uds=some gofer",
        "serve",
        "",
    ] {
        let (output, log) = run("{}", words);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words}: {stderr}");
        assert!(
            stderr.contains("Subcommands") && log.is_empty(),
            "{words}: {stderr}"
        );
    }
}

#[test]
fn a_crash_log_takes_the_place_of_standard_error_and_without_logs_lines_go_there() {
    let words = "--panic-log-fd=3 gofer --bundle /b --spec-fd=4 --mounts-fd=5";
    let (output, log) = run("{}", words);
    assert_eq!(output.status.code(), Some(128));
    assert!(log.contains("gofer: ") && log.contains("--io-fds"), "{log}");
    assert!(output.stderr.is_empty(), "it went to the other file");

    let (output, _) = run(
        "{}",
        "--alsologtostderr=true gofer --bundle /b --spec-fd=4 --mounts-fd=5",
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("] Version "), "{stderr}");
}

#[test]
fn a_profile_descriptor_is_accepted_with_one_line_and_let_go_of() {
    // One socket too few, so that the start ends before any mount.
    let bind = spec(&json!([{ "destination": "/data", "type": "bind", "source": "/tmp" }]));
    for flag in table_of_profiles() {
        let words = format!(
            "--debug-log-fd=3 gofer --bundle /b --spec-fd=4 --mounts-fd=5 --io-fds=6 --{flag}=7"
        );
        let (output, log) = run(&bind, &words);
        assert_eq!(output.status.code(), Some(128), "{log}");
        let told = log
            .lines()
            .filter(|line| line.contains(flag) && line.starts_with('W'));
        assert_eq!(told.count(), 1, "{flag}: {log}");
    }
}

fn table_of_profiles() -> [&'static str; 5] {
    [
        "profile-block-fd",
        "profile-cpu-fd",
        "profile-heap-fd",
        "profile-mutex-fd",
        "trace-fd",
    ]
}

#[test]
fn the_version_lists_the_dialects() {
    let (output, _) = run("{}", "--version");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for dialect in ["v2022-12", "v2024-03", "v2024-07", "v2026-08"] {
        assert!(stdout.contains(dialect), "{stdout}");
    }
}

/// A bundle with a root directory of one file, and the log of a gofer on it.
struct House {
    dir: TempDir,
}

impl House {
    fn new(mounts: &Value) -> House {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::write(dir.path().join("root/file"), "contents").unwrap();
        write_bundle(dir.path(), &dir.path().join("root"), false, mounts).unwrap();
        House { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn parent(&self, dialect: Dialect, confs: &[&str]) -> Parent {
        let open = |name| {
            File::options()
                .append(true)
                .create(true)
                .open(self.path(name))
                .unwrap()
        };
        Parent::new(Path::new(GOFER), dialect, self.dir.path(), confs)
            .debug_log(open("debug"))
            .log(open("log"))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

/// Starts it, lets it go on, reads the list; then it serves, or has failed.
fn started(parent: Parent) -> (Gofer, Vec<u8>) {
    let mut gofer = parent.start().unwrap();
    gofer.release();
    let list = gofer.mounts().unwrap();
    (gofer, list)
}

const DIALECTS: [Dialect; 3] = [Dialect::V2022_12, Dialect::V2024, Dialect::V2026_08];

#[test]
fn every_dialect_ends_with_status_zero_when_its_clients_have_left() {
    for dialect in DIALECTS {
        let house = House::new(&json!([]));
        let (mut gofer, list) = started(house.parent(dialect, &["lisafs:none"]));
        assert_eq!(list, b"[]", "{dialect:?}: {}", house.read("debug"));
        gofer.sockets.clear();
        gofer.sentry_exit = None;
        assert_eq!(
            gofer.wait().unwrap(),
            Ended::Status(0),
            "{dialect:?}: {}",
            house.read("debug")
        );
        assert_eq!(house.read("log"), "");
        assert!(house.read("debug").contains("All connections have ended"));
    }
}

#[test]
fn a_missing_source_is_named_with_its_destination() {
    for dialect in DIALECTS {
        let missing = json!([{ "destination": "/data", "type": "bind", "source": "/no/such/dir" }]);
        let house = House::new(&missing);
        let parent = house.parent(dialect, &["lisafs:none", "lisafs:none"]);
        let mut gofer = parent.start().unwrap();
        gofer.release();
        gofer.rpc = None;
        let list = gofer.mounts().unwrap();
        assert_eq!(list, b"", "no list means: not set up");
        assert_eq!(gofer.wait().unwrap(), Ended::Status(128), "{dialect:?}");
        let record: Value = serde_json::from_str(&house.read("log")).unwrap();
        assert!(
            record["msg"].as_str().unwrap().contains("/no/such/dir"),
            "{dialect:?}: {record}"
        );
        assert!(house.read("debug").contains("/no/such/dir"));
    }
}

#[test]
fn signals_end_the_first_process_of_its_namespace() {
    for (signal, status) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)] {
        let house = House::new(&json!([]));
        let (gofer, _) = started(house.parent(Dialect::V2024, &["lisafs:none"]));
        wait_until(|| house.read("debug").contains("Serving"));
        let pid: Pid = gofer.pid;
        kill_process(pid, signal).unwrap();
        assert_eq!(gofer.wait().unwrap(), Ended::Status(status), "{signal:?}");
    }
}

/// A house whose spec has one createContainer hook: this shell script, in the bundle.
fn with_hook(script: &str) -> House {
    let house = House::new(&json!([]));
    let config = house.path("config.json");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let script = format!("cd {}; {script}", house.dir.path().display());
    let hook =
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b"], "timeout": 5 });
    spec["hooks"] = json!({ "createContainer": [hook] });
    fs::write(config, spec.to_string()).unwrap();
    house
}

#[test]
fn the_newest_dialect_runs_create_container_hooks() {
    let house = with_hook("cat > state; echo $A > env; /usr/bin/head -c 200000 /dev/zero >&2");
    let (gofer, list) = started(house.parent(Dialect::V2026_08, &["lisafs:none"]));
    assert_eq!(list, b"[]", "{}", house.read("debug"));
    drop(gofer);
    let state: Value = serde_json::from_str(&house.read("state")).unwrap();
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("creating"), &json!(-1))
    );
    assert_eq!(house.read("env"), "b\n");

    let older = with_hook("touch ran");
    drop(started(older.parent(Dialect::V2024, &["lisafs:none"])));
    assert!(
        !older.path("ran").exists(),
        "the parent of an older dialect does not expect it"
    );
}

#[test]
fn a_failing_hook_is_named_with_what_it_said() {
    let house = with_hook("echo the disk is full >&2; exit 3");
    let (gofer, list) = started(house.parent(Dialect::V2026_08, &["lisafs:none"]));
    assert_eq!(list, b"");
    assert_eq!(gofer.wait().unwrap(), Ended::Status(128));
    let log = house.read("log");
    assert!(
        log.contains("/bin/sh") && log.contains("the disk is full"),
        "{log}"
    );
}

#[test]
fn a_sandbox_that_stays_is_waited_for_but_not_for_long() {
    let house = House::new(&json!([]));
    let (mut gofer, _) = started(house.parent(Dialect::V2026_08, &["lisafs:none"]));
    let mut sandbox = Command::new("sleep").arg("600").spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(sandbox.id()).unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [pidfd.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let socket = gofer.sentry_exit.take().unwrap();
    sendmsg(
        &socket,
        &[IoSlice::new(&[0])],
        &mut ancillary,
        SendFlags::empty(),
    )
    .unwrap();
    gofer.sockets.clear();
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0));
    assert!(
        house.read("debug").contains("the sandbox has not ended"),
        "{}",
        house.read("debug")
    );
    sandbox.kill().unwrap();
    sandbox.wait().unwrap();
}

#[test]
fn a_json_log_holds_one_object_a_line() {
    let house = House::new(&json!([]));
    let parent = house.parent(Dialect::V2024, &["lisafs:none"]);
    let (mut gofer, _) = started(
        parent
            .flag("--debug-log-format=json")
            .flag("--brand-new=1")
            .flag("--debug=true"),
    );
    gofer.sockets.clear();
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0));
    let log = house.read("debug");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.iter().all(|line| line["time"].is_string()));
    assert!(log.contains("--brand-new=1"), "the skipped flag is told");
}

#[test]
fn the_counters_that_the_environment_names_are_kept() {
    let house = House::new(&json!([]));
    let page = house.path("stats");
    File::create(&page).unwrap().write_all(&[0; 4096]).unwrap();
    let mut gofer = Command::new("bash")
        .args(["-c", &format!("exec -a runsc-gofer {GOFER} gofer --bundle /b --spec-fd=4 --io-fds=6 4</dev/null 6</dev/null")])
        .env("GOFER_STATS", &page)
        .spawn()
        .unwrap();
    assert_eq!(gofer.wait().unwrap().code(), Some(128), "an empty spec");
    let started = &fs::read(&page).unwrap()[65 * 8..66 * 8];
    assert_ne!(
        started, [0; 8],
        "the start was noted before the spec was read"
    );
}

fn wait_until(done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < limit, "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
