//! `gofer serve` as real processes: who may connect, what a connection may do, how it ends.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use client::{Client, Mounted};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use wire::{Errno, NewNode, Owner};

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
/// Somebody without privileges.
const NOBODY: u32 = 65534;

/// A directory to serve, a place for sockets, and a server that is ready.
struct Serve {
    place: TempDir,
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Serve {
    fn start(words: &[&str]) -> Serve {
        Serve::start_by(Path::new(GOFER), words, |_| ())
    }

    fn start_by(program: &Path, words: &[&str], change: impl FnOnce(&mut Command)) -> Serve {
        let place = TempDir::new().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        for dir in ["tree", "other"] {
            fs::create_dir(place.path().join(dir)).unwrap();
            fs::write(place.path().join(dir).join("name"), dir).unwrap();
        }
        fs::write(place.path().join("outside"), "secret").unwrap();
        let notified = UnixDatagram::bind(place.path().join("notify")).unwrap();
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(place.path().join("notify"), everybody).unwrap();
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(words)
            .arg("tree")
            .current_dir(place.path())
            .env("NOTIFY_SOCKET", place.path().join("notify"))
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut word = [0; 64];
        let length = notified.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1");
        Serve { place, child, said }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn connect(&self) -> (Client, Mounted) {
        self.connect_to("socket")
    }

    fn connect_to(&self, socket: &str) -> (Client, Mounted) {
        Client::connect(UnixStream::connect(self.at(socket)).unwrap()).unwrap()
    }

    /// Process ids of those that serve.
    fn processes(&self) -> Vec<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let text = fs::read_to_string(children).unwrap();
        text.split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        let mut text = String::new();
        self.said.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap(), text)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // Both fail after `end`.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: becoming another user needs root");
    }
    root
}

fn content(client: &Client, mounted: &Mounted, name: &[u8]) -> String {
    let file = client.walk_one(mounted.root.control, name).unwrap();
    let open = client.open_at(file.control, 0).unwrap();
    let mut bytes = vec![0; 100];
    let length = client.read_at(open.id, 0, &mut bytes).unwrap();
    client.close(&[file.control, open.id]).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

fn new_dir(client: &Client, mounted: &Mounted) -> Result<wire::Inode, client::Error> {
    let new = NewNode {
        dir: mounted.root.control,
        owner: Owner::KEEP,
        mode: 0o755,
    };
    client.mkdir_at(new, b"made")
}

#[test]
fn each_socket_serves_its_directory_and_refuses_writes_where_told() {
    let serve = Serve::start(&["--listen", "socket", "--map", "more=other:ro"]);
    let (client, mounted) = serve.connect();
    assert_eq!(client.open_channels(2), Ok(2));
    assert_eq!(content(&client, &mounted, b"name"), "tree");
    new_dir(&client, &mounted).unwrap();
    assert!(serve.at("tree/made").is_dir());
    let (client, mounted) = serve.connect_to("socket.more");
    assert_eq!(content(&client, &mounted, b"name"), "other");
    let refused = new_dir(&client, &mounted).unwrap_err();
    assert_eq!(refused.errno(), Errno::ROFS);
    assert!(!serve.at("other/made").exists());
    let (status, _) = serve.end();
    assert!(status.success(), "{status}");
}

#[test]
fn readonly_holds_for_every_directory() {
    let serve = Serve::start(&["--listen", "socket", "--readonly", "--map", "more=other"]);
    for socket in ["socket", "socket.more"] {
        let (client, mounted) = serve.connect_to(socket);
        let refused = new_dir(&client, &mounted).unwrap_err();
        assert_eq!(refused.errno(), Errno::ROFS, "{socket}");
    }
}

#[test]
fn a_connections_process_is_confined_before_it_is_spoken_to() {
    let serve = Serve::start(&["--listen", "socket"]);
    let (client, mounted) = serve.connect();
    assert_eq!(content(&client, &mounted, b"name"), "tree");
    let [process] = serve.processes()[..] else {
        panic!("one process for one connection");
    };
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, and no others.
    let capabilities = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    assert_eq!(capabilities & !0b1_1111, 0, "{capabilities:#x}");
    assert_eq!(field("CapInh:"), "0000000000000000");
    if is_root() {
        // An empty root: the tree hangs in it, and the host's mounts are gone.
        let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 2, "{mounts}");
        let root = fs::read_dir(format!("/proc/{process}/root")).unwrap();
        let names: Vec<_> = root.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["tree"]);
    }
}

/// A copy that another user can reach, wherever cargo builds to.
fn for_everybody(place: &TempDir) -> PathBuf {
    let program = place.path().join("gofer");
    fs::copy(GOFER, &program).unwrap();
    for path in [place.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    program
}

#[test]
fn only_the_servers_user_and_those_allowed_come_in() {
    if !is_root() {
        return;
    }
    let place = TempDir::new().unwrap();
    let program = for_everybody(&place);
    let as_nobody = |command: &mut Command| {
        command.uid(NOBODY).gid(NOBODY);
    };
    // Permissions of the socket file do not stop root; its id does.
    let serve = Serve::start_by(&program, &["--listen", "socket"], as_nobody);
    let stream = UnixStream::connect(serve.at("socket")).unwrap();
    assert!(Client::connect(stream).is_err());
    let (status, said) = serve.end();
    assert!(status.success(), "{status}");
    assert!(said.contains("refused user 0; --allow-uid 0"), "{said}");

    let words = ["--listen", "socket", "--allow-uid", "0"];
    let serve = Serve::start_by(&program, &words, as_nobody);
    let (client, mounted) = serve.connect();
    assert_eq!(content(&client, &mounted, b"name"), "tree");
    // Without privileges: what nobody may not do, no client can.
    assert_eq!(
        new_dir(&client, &mounted).unwrap_err().errno(),
        Errno::ACCES
    );
    let [process] = serve.processes()[..] else {
        panic!("one process for one connection");
    };
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let (_, said) = serve.end();
    let namespaces = Command::new("unshare")
        .args(["-Um", "true"])
        .uid(NOBODY)
        .gid(NOBODY)
        .status();
    if namespaces.is_ok_and(|status| status.success()) {
        assert!(said.contains("root: user and mount namespace"), "{said}");
    } else {
        println!("skipped: this machine has no user namespaces for users");
    }
}

#[test]
fn limits_bound_connections_and_what_each_may_hold() {
    let limits = [
        "--connections-max",
        "2",
        "--ids-max",
        "2",
        "--channels-max",
        "1",
    ];
    let serve = Serve::start(&[&["--listen", "socket"], &limits[..]].concat());
    let (client, mounted) = serve.connect();
    assert_eq!(client.open_channels(3), Ok(1));
    let root = mounted.root.control;
    let held = client.walk_one(root, b"name").unwrap();
    let refused = client.walk_one(root, b"name").unwrap_err();
    assert_eq!(refused.errno(), Errno::MFILE);
    // Another connection has its own, and what is given back can be taken again.
    let (other, others) = serve.connect();
    assert_eq!(other.open_channels(3), Ok(1));
    other.walk_one(others.root.control, b"name").unwrap();
    client.close(&[held.control]).unwrap();
    client.walk_one(root, b"name").unwrap();
    let third = || Client::connect(UnixStream::connect(serve.at("socket")).unwrap());
    assert!(third().is_err());
    drop(other);
    // The one that has left makes room, once its process has ended. Not asked for at every moment:
    // the server tells of each refusal, to a pipe that nobody reads yet.
    while third().is_err() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (_, said) = serve.end();
    assert!(said.contains("--connections-max is reached"), "{said}");
}

#[test]
fn a_socket_given_by_number_or_by_systemd_is_served() {
    // A shell puts the socket where systemd would: at 3, which only the child can know its id for.
    for (words, variables) in [
        ("--fd 3", ""),
        (
            "--map more=other",
            "LISTEN_FDS=1 LISTEN_FDNAMES=more LISTEN_PID=$$",
        ),
    ] {
        let place = TempDir::new().unwrap();
        for dir in ["tree", "other"] {
            fs::create_dir(place.path().join(dir)).unwrap();
            fs::write(place.path().join(dir).join("name"), dir).unwrap();
        }
        let listener = UnixListener::bind(place.path().join("socket")).unwrap();
        let script =
            format!("exec 3<&0 0</dev/null; exec env {variables} {GOFER} serve {words} tree");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .current_dir(place.path())
            .stdin(std::os::fd::OwnedFd::from(listener))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stream = UnixStream::connect(place.path().join("socket")).unwrap();
        let (client, mounted) = Client::connect(stream).unwrap();
        let expected = if variables.is_empty() {
            "tree"
        } else {
            "other"
        };
        assert_eq!(content(&client, &mounted, b"name"), expected);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(
            place.path().join("socket").exists(),
            "it is not ours to remove"
        );
    }
}

#[test]
fn a_connected_socket_is_served_until_its_client_leaves() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("name"), "here").unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("exec 3<&0 0</dev/null; exec {GOFER} serve --fd 3 ."),
        ])
        .current_dir(place.path())
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (client, mounted) = Client::connect(ours).unwrap();
    assert_eq!(content(&client, &mounted, b"name"), "here");
    drop(client);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_termination_ends_connections_and_removes_the_sockets() {
    let serve = Serve::start(&["--listen", "socket"]);
    let (client, mounted) = serve.connect();
    assert_eq!(content(&client, &mounted, b"name"), "tree");
    let socket = serve.at("socket");
    assert!(socket.exists());
    let (status, said) = serve.end();
    assert!(status.success(), "{status}: {said}");
    assert!(!socket.exists());
    assert!(client.fstat(mounted.root.control).is_err());
    assert!(!said.contains("process"), "none had to be killed: {said}");
}

#[test]
fn the_supervisors_death_is_that_of_the_processes_it_has_started() {
    let mut serve = Serve::start(&["--listen", "socket"]);
    let (client, mounted) = serve.connect();
    assert_eq!(content(&client, &mounted, b"name"), "tree");
    let [process] = serve.processes()[..] else {
        panic!("one process for one connection");
    };
    serve.signal(Signal::KILL);
    serve.child.wait().unwrap();
    // Its end closes the connection, which would otherwise live as long as the client.
    while client.fstat(mounted.root.control).is_ok() {
        std::thread::yield_now();
    }
    while fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty()) {
        std::thread::yield_now();
    }
}

#[test]
fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let serve = Serve::start(&["--listen", "socket"]);
    let second = Command::new(GOFER)
        .args(["serve", "--listen", "socket", "tree"])
        .current_dir(serve.place.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"));
    serve.signal(Signal::KILL);
    let mut rest = String::new();
    let mut serve = serve;
    serve.said.read_line(&mut rest).unwrap();
    serve.child.wait().unwrap();
    let mut third = Command::new(GOFER)
        .args(["serve", "--listen", "socket", "tree"])
        .current_dir(serve.place.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let served = loop {
        // The socket file is there all the time; who listens changes.
        if let Ok(stream) = UnixStream::connect(serve.at("socket")) {
            break Client::connect(stream).is_ok();
        }
        std::thread::yield_now();
    };
    assert!(served);
    third.kill().unwrap();
    third.wait().unwrap();
}

fn come_and_go(connections: usize) {
    let serve = Serve::start(&["--listen", "socket"]);
    for _ in 0..connections {
        let (client, mounted) = serve.connect();
        assert_eq!(content(&client, &mounted, b"name"), "tree");
    }
    let descriptors = fs::read_dir(format!("/proc/{}/fd", serve.child.id())).unwrap();
    // Nothing is kept of those that have left; the last few may still be leaving.
    assert!(descriptors.count() < 100);
    let (status, said) = serve.end();
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn two_hundred_clients_are_served_at_once() {
    let serve = Serve::start(&["--listen", "socket"]);
    let clients: Vec<_> = (0..200).map(|_| serve.connect()).collect();
    assert_eq!(serve.processes().len(), 200);
    for (client, mounted) in &clients {
        assert_eq!(content(client, mounted, b"name"), "tree");
    }
    let (status, said) = serve.end();
    assert!(status.success(), "{status}: {said}");
    assert!(!said.contains("process"), "none had to be killed: {said}");
}

#[test]
fn thousands_of_clients_come_and_go_and_nothing_stays() {
    come_and_go(5000);
}

#[test]
fn a_path_is_found_without_following_links_and_leaves_no_ids_behind() {
    let serve = Serve::start(&["--listen", "socket", "--ids-max", "4"]);
    fs::create_dir_all(serve.at("tree/a/b")).unwrap();
    fs::write(serve.at("tree/a/b/c"), "deep").unwrap();
    std::os::unix::fs::symlink("a", serve.at("tree/link")).unwrap();
    let (client, mounted) = serve.connect();
    let errno = |path: &[u8]| client.find(mounted.root, path).unwrap_err().errno();
    for _ in 0..10 {
        assert_eq!(client.find(mounted.root, b"/").unwrap(), mounted.root);
        let found = client.find(mounted.root, b"/a//b/c").unwrap();
        assert_eq!(found.stat.size, 4);
        client.close(&[found.control]).unwrap();
        assert_eq!(errno(b"a/x/c"), Errno::NOENT);
        assert_eq!(errno(b"link/b"), Errno::LOOP);
    }
}

/// The examples of the crate `client`, built where this test's program is.
fn examples() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "client", "--examples"])
        .status()
        .unwrap();
    assert!(built.success(), "{built}");
    Path::new(GOFER).parent().unwrap().join("examples")
}

#[test]
fn the_clients_examples_show_what_is_served() {
    let examples = examples();
    let serve = Serve::start(&["--listen", "socket"]);
    fs::create_dir_all(serve.at("tree/a/b")).unwrap();
    fs::write(serve.at("tree/a/b/c"), "deep").unwrap();
    let run = |example: &str, path: &str| {
        let mut command = Command::new(examples.join(example));
        let output = command.arg(serve.at("socket")).arg(path).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), said)
    };
    assert_eq!(run("cat", "a/b/c"), (true, "deep".to_owned()));
    let (done, listed) = run("ls", "/");
    let mut names: Vec<_> = listed.lines().map(|line| line.rsplit(' ').next()).collect();
    names.sort_unstable();
    assert_eq!((done, names), (true, vec![Some("a"), Some("name")]));
    assert_eq!(run("tree", "a"), (true, "a\n  b\n    c\n".to_owned()));
    assert_eq!(run("cat", "none"), (false, String::new()));
}
