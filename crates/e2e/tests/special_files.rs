//! Unix sockets and FIFOs of a volume, with each value of `--host-uds` and `--host-fifo`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use e2e::{
    bundle::Bundle,
    runsc::{HOLD, Runsc, text},
    stage::{Release, Stage},
    traces,
};

/// How each release is told what it may do, in every way of serving.
const WAYS: [(Release, &[&str]); 3] = [
    (Release::V2022_12, &[]),
    (Release::V2024_07, &["--directfs=true"]),
    (Release::V2024_07, &["--directfs=false"]),
];

fn in_every_way(flag: &str, test: impl Fn(&Runsc, &Path, &Stage)) {
    let Some(stage) = Stage::set() else { return };
    for (release, flags) in WAYS {
        let flags = [flags, &["--overlay2=none", flag]].concat();
        let runsc = Runsc::new(&stage, release, &flags);
        let volume = runsc.folder().join("v");
        fs::create_dir(&volume).unwrap();
        test(&runsc, &volume, &stage);
        runsc.check_nothing_is_left();
    }
}

fn bundle(runsc: &Runsc, volume: &Path, root: &Path, script: &str) -> PathBuf {
    Bundle::new(root, &format!("{HOLD}{script}"))
        .readonly_root()
        .bind(volume, "/mnt", &["rw"])
        .write(&runsc.folder().join("bundle"))
}

/// Connects to the host's listener in the volume and talks to it.
const CONNECT: &str = "python3 -c '
import socket
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(\"/mnt/host.sock\")
    s.sendall(b\"hello host\")
    s.shutdown(socket.SHUT_WR)
    print(s.recv(100).decode())
except OSError as e:
    print(type(e).__name__)
'";

/// Binds a socket in the volume and serves one connection on it.
const BIND: &str = "python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(\"/mnt/guest.sock\")
s.listen(1)
print(\"listening\", flush=True)
if sys.stdin.readline() == \"go\\n\":
    c, _ = s.accept()
    c.sendall(b\"from inside: \" + c.recv(100))
    c.close()
'";

fn connects(flag: &str, allowed: bool) {
    in_every_way(flag, |runsc, volume, stage| {
        let listener = UnixListener::bind(volume.join("host.sock")).unwrap();
        listener.set_nonblocking(!allowed).unwrap();
        let bundle = bundle(runsc, volume, &stage.debian, CONNECT);
        let host = thread::spawn(move || {
            let (mut stream, _) = listener.accept().ok()?;
            let mut heard = String::new();
            stream.read_to_string(&mut heard).ok()?;
            stream.write_all(b"hello guest").ok()?;
            Some(heard)
        });
        let output = runsc.run(&bundle, "connect");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let what = format!("{flag} {:?}: {out}{err}", runsc.release());
        if allowed {
            assert_eq!(out, "hello guest\n", "{what}");
            assert_eq!(
                host.join().unwrap().as_deref(),
                Some("hello host"),
                "{what}"
            );
        } else {
            assert!(
                out == "ConnectionRefusedError\n" || out == "PermissionError\n",
                "{what}"
            );
            assert_eq!(host.join().unwrap(), None, "{what}");
        }
    });
}

#[test]
fn host_uds_none_lets_nobody_connect_to_a_socket_of_the_host() {
    connects("--host-uds=none", false);
}

#[test]
fn host_uds_open_lets_a_container_connect_to_a_socket_of_the_host() {
    connects("--host-uds=open", true);
}

#[test]
fn host_uds_create_alone_does_not_let_a_container_connect() {
    connects("--host-uds=create", false);
}

#[test]
fn host_uds_all_lets_a_container_connect_to_a_socket_of_the_host() {
    connects("--host-uds=all", true);
}

/// A socket bound inside is always there for the container; only with `create` for the host.
fn binds(flag: &str, host_can_connect: bool) {
    in_every_way(flag, |runsc, volume, stage| {
        let script = format!("{BIND}; test -S /mnt/guest.sock && echo socket");
        let bundle = bundle(runsc, volume, &stage.debian, &script);
        let mut running = runsc.start(&bundle, "bind");
        running.check_server();
        running.go_on();
        let what = format!("{flag} {:?}", runsc.release());
        if host_can_connect {
            running.wait_for_line("listening");
            let path = volume.join("guest.sock");
            assert!(
                fs::metadata(&path).unwrap().file_type().is_socket(),
                "{what}"
            );
            running.go_on();
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(b"outside").unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "from inside: outside", "{what}");
            let output = running.wait();
            assert!(
                text(&output.stdout).ends_with("socket\n"),
                "{what}: {output:?}"
            );
        } else {
            running.say("no");
            let output = running.wait();
            let reachable = UnixStream::connect(volume.join("guest.sock")).is_ok();
            assert!(!reachable, "{what}: {output:?}");
        }
    });
}

#[test]
fn host_uds_none_keeps_a_container_s_sockets_from_the_host() {
    binds("--host-uds=none", false);
}

#[test]
fn host_uds_open_keeps_a_container_s_sockets_from_the_host() {
    binds("--host-uds=open", false);
}

#[test]
fn host_uds_create_offers_a_container_s_sockets_to_the_host() {
    binds("--host-uds=create", true);
}

#[test]
fn host_uds_all_offers_a_container_s_sockets_to_the_host() {
    binds("--host-uds=all", true);
}

fn fifo(volume: &Path, name: &str) -> PathBuf {
    let path = volume.join(name);
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    path
}

#[test]
fn host_fifo_open_joins_container_and_host() {
    in_every_way("--host-fifo=open", |runsc, volume, stage| {
        let (question, answer) = (fifo(volume, "question"), fifo(volume, "answer"));
        let script = "head -n 1 /mnt/question; echo answer | tee /mnt/answer";
        let bundle = bundle(runsc, volume, &stage.busybox, script);
        let host = thread::spawn(move || {
            // Held until the answer is there: a sandbox with directfs opens a FIFO more than once
            // and waits for ever if the writer has come and gone in between.
            let mut asking = fs::OpenOptions::new().write(true).open(question).unwrap();
            asking.write_all(b"question\n").unwrap();
            fs::read_to_string(answer).unwrap()
        });
        let output = runsc.run(&bundle, "fifo");
        let what = format!("{:?}: {output:?}", runsc.release());
        assert_eq!(text(&output.stdout), "question\nanswer\n", "{what}");
        assert_eq!(host.join().unwrap(), "answer\n", "{what}");
    });
}

#[test]
fn host_fifo_none_keeps_the_host_s_end_out_of_reach() {
    in_every_way("--host-fifo=none", |runsc, volume, stage| {
        let path = fifo(volume, "fifo");
        // Opened for both, the host's end is there and holds a line nobody inside may get.
        let mut host = fs::OpenOptions::new().read(true).write(true).open(path);
        host.as_mut().unwrap().write_all(b"secret\n").unwrap();
        let script = "timeout 2 cat /mnt/fifo; stat -c %F /mnt/fifo";
        let bundle = bundle(runsc, volume, &stage.busybox, script);
        let output = runsc.run(&bundle, "fifo");
        let what = format!("{:?}: {output:?}", runsc.release());
        assert_eq!(text(&output.stdout), "fifo\n", "{what}");
        assert!(traces::files_below(volume).len() == 1, "{what}");
    });
}
