//! The hook around small programs: what is replaced, what passes through, what is left behind.
//!
//! Bash plays `runsc`: `(exec -a runsc-gofer /bin/false …)` is its gofer. Where `/bin/cat` takes
//! the gofer's place, its arguments name what the test wants to see of that process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// The example that is nothing but the hook; `cargo test -p hook` builds it.
fn hook(replacement: &str, program: &str) -> Command {
    let deps = std::env::current_exe().unwrap();
    let example = deps.ancestors().nth(2).unwrap().join("examples/hook-runsc");
    assert!(
        example.exists(),
        "built by a `cargo test -p hook` without --test"
    );
    let mut command = Command::new(example);
    command.args([replacement, program]);
    command
}

fn bash(replacement: &str, script: &str) -> Command {
    let mut command = hook(replacement, "/bin/bash");
    command.args(["-c", script]);
    command
}

fn output(mut command: Command) -> Output {
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("hook-{name}-{}", std::process::id()));
    _ = fs::remove_file(&path);
    path
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).unwrap()
}

/// A field of `/proc/PID/status`, `None` if there is no such process.
fn status_field(pid: &str, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Waits for something that must come to pass; a hang fails by the test runner's own limit.
fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_gofer_is_replaced_and_keeps_its_arguments() {
    let script = "(exec -a runsc-gofer /bin/false /proc/self/cmdline --); echo $?";
    let told = stdout(&output(bash("/bin/cat", script)));
    assert_eq!(told, "runsc-gofer\0/proc/self/cmdline\0--\x000\n");
}

#[test]
fn a_gofer_is_replaced_and_keeps_its_environment() {
    let script = "(exec -a runsc-gofer /bin/false /proc/self/environ)";
    let mut command = bash("/bin/cat", script);
    command.env_clear().env("ONE", "1");
    assert!(stdout(&output(command)).contains("ONE=1\0"));

    let script = "(exec -c -a runsc-gofer /bin/false /proc/self/environ); echo $?";
    assert_eq!(
        stdout(&output(bash("/bin/cat", script))),
        "0\n",
        "emptied, so empty"
    );
}

#[test]
fn several_gofers_are_all_replaced_and_reported() {
    let log = scratch("log");
    let script =
        "for i in 1 2 3; do (echo $BASHPID; exec -a runsc-gofer /bin/false /dev/null); done";
    let mut command = bash("/bin/cat", script);
    command.env("HOOK_LOG", &log);
    let told = stdout(&output(command));
    assert_eq!(told.lines().count(), 3);
    assert_eq!(fs::read_to_string(&log).unwrap(), told);
    fs::remove_file(log).unwrap();
}

#[test]
fn other_children_run_what_they_execute() {
    let script = "(exec -a runsc-sandbox /bin/echo one); /bin/echo two; (exec -a x-gofer echo 3)";
    assert_eq!(stdout(&output(bash("/bin/false", script))), "one\ntwo\n3\n");
}

#[test]
fn a_program_that_starts_itself_anew_is_followed() {
    let script = "bash -c '(exec -a runsc-gofer /bin/false /proc/self/comm); exit 6'";
    let output = output(bash("/bin/cat", script));
    assert_eq!(
        (stdout(&output).as_str(), output.status.code()),
        ("cat\n", Some(6))
    );
}

#[test]
fn the_exit_status_is_the_programs() {
    assert_eq!(output(bash("/bin/cat", "exit 42")).status.code(), Some(42));
    assert_eq!(
        output(bash("/bin/cat", "kill -TERM $$")).status.signal(),
        Some(15)
    );
    assert_eq!(
        output(bash("/bin/cat", "kill -SEGV $$")).status.signal(),
        Some(11)
    );
}

#[test]
fn a_signal_sent_to_us_reaches_the_program_once() {
    let script =
        "trap 'echo got' USR1; trap 'exit 3' TERM; echo ready; while :; do sleep .01; done";
    let mut child = bash("/bin/cat", script)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill_process(pid(child.id()), Signal::USR1).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got");
    kill_process(pid(child.id()), Signal::TERM).unwrap();
    assert!(lines.next().is_none(), "one signal, one line");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_job_stops_and_continues_as_a_whole() {
    let mut command = bash("/bin/cat", "echo $$; read line; exit $line");
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut program = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut program)
        .unwrap();
    let stopped = || {
        status_field(program.trim(), "State")
            .unwrap()
            .starts_with(['t', 'T'])
    };

    kill_process(pid(child.id()), Signal::TSTP).unwrap();
    let (_, status) = waitpid(Some(pid(child.id())), WaitOptions::UNTRACED)
        .unwrap()
        .unwrap();
    assert!(status.stopped(), "{status:?}");
    assert!(stopped());

    kill_process(pid(child.id()), Signal::CONT).unwrap();
    until(|| !stopped());
    child.stdin.take().unwrap().write_all(b"9\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn what_the_program_leaves_running_outlives_us_untraced() {
    // One child has executed another program, the other has not: it was still followed.
    let script =
        "sleep 100 >&- 2>&- & echo $!; (while :; do read -t 100 <> <(:); done) >&- 2>&- & echo $!";
    let told = stdout(&output(bash("/bin/cat", script)));
    assert_eq!(told.lines().count(), 2);
    for left in told.lines() {
        until(|| status_field(left, "TracerPid").is_none_or(|tracer| tracer == "0"));
        assert!(
            !status_field(left, "State")
                .unwrap()
                .starts_with(['t', 'T', 'Z'])
        );
        kill_process(pid(left.parse().unwrap()), Signal::KILL).unwrap();
    }
}

#[test]
fn a_gofer_that_cannot_be_replaced_is_killed_and_the_reason_told() {
    let garbage = scratch("garbage");
    fs::write(&garbage, "\u{7f}not a program").unwrap();
    fs::set_permissions(&garbage, PermissionsExt::from_mode(0o755)).unwrap();
    let script = "(exec -a runsc-gofer /bin/echo served); echo $?";
    let output = output(bash(garbage.to_str().unwrap(), script));
    fs::remove_file(&garbage).unwrap();
    assert_eq!(
        stdout(&output),
        "137\n",
        "the original gofer did not run either"
    );
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(garbage.to_str().unwrap()), "{told}");
    assert!(told.contains("Exec format error"), "{told}");
}

#[test]
fn what_cannot_be_run_is_named() {
    let missing = Path::new("/no/such/runsc");
    for command in [
        hook("/bin/cat", "/no/such/runsc"),
        hook("/no/such/runsc", "/bin/true"),
    ] {
        let output = output(command);
        assert_eq!(output.status.code(), Some(125));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(missing.to_str().unwrap()), "{told}");
        assert!(told.contains("No such file"), "{told}");
    }
}
