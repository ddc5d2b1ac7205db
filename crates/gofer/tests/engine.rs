//! `gofer do --engine fuse`: what the command sees, what it cannot, and what stays behind: nothing.
//!
//! Needs root and `/dev/fuse`; the tests without privileges become another user themselves.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
/// Nobody in particular.
const SOMEBODY: u32 = 65_533;
/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
/// SYS_CHROOT, SETFCAP.
const CAPABILITIES: &str = "00000000800405fb";

/// Whether this machine can; a line if it cannot.
fn can() -> bool {
    let can = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(
            !ci,
            "under CI nothing may be skipped: no root or no /dev/fuse"
        );
        println!("skipped: needs root and /dev/fuse");
    }
    can
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(GOFER);
    command
        .args(["do", "--engine", "fuse"])
        .args(words)
        .stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a shell script that succeeds.
fn script(options: &[&str], script: &str) -> String {
    let output = run(&[options, &["sh", "-c", script]].concat());
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

/// A directory that everybody may enter, whose name is in no other.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    place
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A root that has the host's programs and nothing else; the options that make it one.
fn bare_root(place: &TempDir) -> Vec<String> {
    let root = place.path().join("root");
    fs::create_dir_all(root.join("usr")).unwrap();
    for link in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{link}"), root.join(link)).unwrap();
    }
    let words = ["--rootfs", shown(&root), "--bind", "/usr:/usr:ro"];
    words.map(str::to_owned).to_vec()
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

/// Command lines of the confined gofers that serve something below a path.
fn servers_of(path: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines
        .filter(|line| line.starts_with(b"gofer-confined") && text(line).contains(shown(path)))
        .count()
}

#[test]
fn the_command_runs_its_status_is_ours_and_nothing_stays() {
    if !can() {
        return;
    }
    let place = place();
    fs::write(place.path().join("file"), "content\n").unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = bare_root(&place);
    let bind = format!("{}:/bound", shown(place.path()));
    let asked = [
        &words(&root)[..],
        &["--bind", &bind, "sh", "-c", "cat /bound/file; exit 3"],
    ];
    let output = run(&asked.concat());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(text(&output.stdout), "content\n");
    assert_eq!(
        text(&output.stderr),
        "",
        "an engine that was asked for is not told"
    );
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(servers_of(place.path()), 0);
}

#[test]
fn options_end_at_the_commands_name() {
    if !can() {
        return;
    }
    let output = run(&["ls", "-l", "/"]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains(" etc\n"), "{output:?}");
}

#[test]
fn changes_to_the_hosts_files_are_seen_inside_and_nowhere_else() {
    if !can() {
        return;
    }
    let place = place();
    for name in ["kept", "removed"] {
        fs::write(place.path().join(name), name).unwrap();
    }
    let inside = script(
        &["--workdir", shown(place.path())],
        "echo new > new; echo more >> kept; rm removed; mkdir dir; echo x > dir/x; chown 5 kept; \
         cat *; cat dir/x; stat -c %u kept; [ ! -e removed ]",
    );
    assert_eq!(inside, "keptmore\nnew\nx\n5\n");
    let mut names: Vec<_> = fs::read_dir(place.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["kept", "removed"]);
    assert_eq!(fs::read(place.path().join("kept")).unwrap(), b"kept");
    assert_eq!(fs::metadata(place.path().join("kept")).unwrap().uid(), 0);
}

#[test]
fn a_writable_root_is_written_by_its_ids() {
    if !can() {
        return;
    }
    let place = place();
    let root = bare_root(&place);
    let options = [&words(&root)[..], &["--writable"]].concat();
    script(
        &options,
        "echo made > /made; mkdir /dir; chown 7:8 /dir; mv /made /dir/moved",
    );
    let moved = place.path().join("root/dir/moved");
    assert_eq!(fs::read_to_string(&moved).unwrap(), "made\n");
    assert_eq!(fs::metadata(&moved).unwrap().uid(), 0);
    let dir = fs::metadata(place.path().join("root/dir")).unwrap();
    assert_eq!((dir.uid(), dir.gid()), (7, 8));
}

#[test]
fn binds_are_written_unless_they_are_read_only() {
    if !can() {
        return;
    }
    let place = place();
    for dir in ["open", "shut"] {
        fs::create_dir(place.path().join(dir)).unwrap();
        fs::write(place.path().join(dir).join("file"), dir).unwrap();
    }
    fs::write(place.path().join("single"), "single").unwrap();
    let at = |name: &str, rest: &str| format!("{}{rest}", shown(&place.path().join(name)));
    let options = [
        "--bind",
        &at("open", ":/made/for/it"),
        "--bind",
        &at("shut", ":/srv:ro"),
        "--bind",
        &at("single", ":/one/file"),
    ];
    let said = script(
        &options,
        "cat /made/for/it/file /srv/file /one/file; echo new > /made/for/it/new; \
         echo changed > /one/file; for f in /srv/new /srv/file; do echo no 2>&1 > $f && exit 1; done; \
         rm /srv/file 2>&1; ls /one",
    );
    assert!(said.starts_with("openshutsingle"), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(
        said.ends_with("file\n"),
        "only the file that is bound: {said}"
    );
    assert_eq!(
        fs::read_to_string(place.path().join("open/new")).unwrap(),
        "new\n"
    );
    assert_eq!(
        fs::read_to_string(place.path().join("single")).unwrap(),
        "changed\n"
    );
    assert_eq!(
        fs::read_to_string(place.path().join("shut/file")).unwrap(),
        "shut"
    );
    assert!(!Path::new("/made").exists() && !Path::new("/one").exists());
}

#[test]
fn what_lies_outside_of_the_root_cannot_be_reached() {
    if !can() {
        return;
    }
    let place = place();
    fs::write(place.path().join("secret"), "secret").unwrap();
    let root = bare_root(&place);
    symlink(place.path(), place.path().join("root/way")).unwrap();
    let secret = shown(place.path()).to_owned() + "/secret";
    // Everything that a process has a name for, from every process there is.
    let tries = format!(
        "for dir in / /way/.. /proc/1/root /proc/1/cwd /proc/self/root /proc/$PPID/root /proc/1/fd/* \
         /proc/*/task/*/root; do cat $dir{secret} $dir/../secret $dir/../../secret; done 2>/dev/null; \
         cat /proc/1/environ 2>/dev/null; cut -d ' ' -f 5- /proc/self/mountinfo; exit 0"
    );
    let said = script(&words(&root), &tries);
    assert!(!said.contains("secret"), "{said}");
    let kinds = said.lines().map(|line| {
        let (_, after) = line.split_once(" - ").unwrap();
        after.split(' ').next().unwrap()
    });
    let mut kinds: Vec<&str> = kinds.collect();
    kinds.sort_unstable();
    let devices = kinds
        .iter()
        .filter(|kind| **kind == "devtmpfs" || **kind == "tmpfs")
        .count();
    // Six devices, /dev, /dev/shm.
    assert_eq!(devices, 8, "{said}");
    kinds.retain(|kind| *kind != "devtmpfs" && *kind != "tmpfs");
    assert_eq!(
        kinds,
        ["devpts", "fuse.gofer", "overlay", "proc", "sysfs"],
        "{said}"
    );
}

#[test]
fn the_command_has_no_rights_on_the_host_and_none_to_regain() {
    if !can() {
        return;
    }
    let said = script(
        &[],
        "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status; \
         id -u; hostname; cat /proc/sys/user/max_user_namespaces; grep -c : /proc/net/dev; \
         read inside outside count < /proc/self/uid_map; echo $inside $count; \
         [ $outside -gt 1879048191 ] && echo far; \
         for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/power/state; do \
            (echo x > $f) 2>/dev/null && echo wrote $f; done; \
         mount -t tmpfs none /mnt 2>/dev/null && echo mounted; \
         unshare -U true 2>/dev/null && echo unshared; \
         umount /proc 2>/dev/null && echo unmounted; \
         mknod /disk b 8 0 2>/dev/null && echo made; \
         echo x > /proc/1/mem 2>/dev/null && echo changed; exit 0",
    );
    let expected = format!(
        "CapInh:\t0000000000000000\nCapPrm:\t{CAPABILITIES}\nCapEff:\t{CAPABILITIES}\n\
         CapBnd:\t{CAPABILITIES}\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n\
         0\ngofer\n0\n1\n0 65536\nfar\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn the_network_is_empty_but_for_itself_unless_the_hosts_is_asked_for() {
    if !can() {
        return;
    }
    let own = "cat /sys/class/net/lo/operstate; readlink /proc/self/ns/net";
    let said = script(&[], own);
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(
        said.starts_with("unknown\n"),
        "the loopback interface is up: {said}"
    );
    assert!(!said.contains(shown(&host)), "{said}");
    let said = script(
        &["--network", "host"],
        "readlink /proc/self/ns/net; ls /sys",
    );
    assert_eq!(said.trim_end(), shown(&host), "and no devices in /sys");
}

#[test]
fn a_commands_death_by_a_signal_is_ours() {
    if !can() {
        return;
    }
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11)] {
        let output = run(&["sh", "-c", &format!("kill -{name} $$")]);
        assert_eq!(output.status.signal(), Some(number), "{output:?}");
    }
}

#[test]
fn a_command_that_is_not_there_or_no_program_is_told_apart() {
    if !can() {
        return;
    }
    for (program, status) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let output = run(&[program]);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(text(&output.stderr).contains(program), "{output:?}");
    }
}

/// A command that is running and has said so.
struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Running { child, said }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What was said until everybody was gone who could say something.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        rest
    }
}

#[test]
fn a_signal_to_gofer_reaches_the_command() {
    if !can() {
        return;
    }
    let trap = "trap 'echo heard; exit 9' USR1; echo ready; while :; do sleep 0.01; done";
    let mut running = Running::start(command(&["sh", "-c", trap]));
    running.signal(Signal::USR1);
    assert_eq!(running.rest(), "heard\n");
    assert_eq!(running.child.wait().unwrap().code(), Some(9));
    let mut running = Running::start(command(&["sh", "-c", "echo ready; exec sleep 1000"]));
    running.signal(Signal::TERM);
    assert_eq!(running.rest(), "");
    assert_eq!(running.child.wait().unwrap().signal(), Some(15));
}

#[test]
fn killing_gofer_ends_the_command_and_its_servers() {
    if !can() {
        return;
    }
    let place = place();
    let root = bare_root(&place);
    let started = [
        &words(&root)[..],
        &["sh", "-c", "sleep 1000 & echo ready; sleep 1000"],
    ];
    let mut running = Running::start(command(&started.concat()));
    assert_eq!(servers_of(&place.path().join("root")), 1);
    running.signal(Signal::KILL);
    assert_eq!(running.rest(), "", "both ends of the pipe are gone");
    running.child.wait().unwrap();
    while servers_of(&place.path().join("root")) > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn process_1_takes_in_orphans_and_lets_nobody_outlive_the_command() {
    if !can() {
        return;
    }
    let mut running = Running::start(command(&[
        "sh",
        "-c",
        "sh -c 'sleep 1000 & echo $! > /tmp/pid'; read pid < /tmp/pid; echo ready; \
         grep PPid /proc/$pid/status; kill $pid; while [ -e /proc/$pid ]; do :; done; \
         sleep 1000 & exit 0",
    ]));
    assert_eq!(
        running.rest(),
        "PPid:\t1\n",
        "and it was waited for when it died"
    );
    assert!(running.child.wait().unwrap().success());
}

#[test]
fn a_terminal_passes_through() {
    if !can() {
        return;
    }
    let inside = "[ -t 0 ] && [ -t 1 ] && echo x > /dev/tty && stty size && echo is a terminal";
    let asked = format!("{GOFER} do --engine fuse -- sh -c '{inside}'");
    let mut script = Command::new("script");
    let output = script
        .args(["-qec", &asked, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("is a terminal"), "{output:?}");
}

#[test]
fn standard_streams_can_be_opened_by_name() {
    if !can() {
        return;
    }
    let output = run(&[
        "sh",
        "-c",
        "echo out > /dev/stdout; echo err > /dev/stderr; cat < /dev/null",
    ]);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("out\n".into(), "err\n".into())
    );
}

#[test]
fn without_runsc_the_engine_says_which_it_is_and_what_it_does_not_isolate() {
    if !can() {
        return;
    }
    let empty = tempfile::tempdir().unwrap();
    let auto = |words: &[&str]| {
        let mut command = Command::new(GOFER);
        command.arg("do").args(words).env("PATH", empty.path());
        command.env_remove("GOFER_RUNSC").output().unwrap()
    };
    let output = auto(&["/bin/true"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("engine fuse") && said.contains("kernel"),
        "{said}"
    );
    // What only the other engine has asks for it.
    let output = auto(&["--stats", "/bin/true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("found no runsc"),
        "{output:?}"
    );
    let output = run(&["--directfs", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("--directfs"), "{output:?}");
}

#[test]
fn what_cannot_be_done_says_why() {
    if !can() {
        return;
    }
    for (words, why) in [
        (
            vec!["--workdir", "/no/such/place", "true"],
            "/no/such/place",
        ),
        (vec!["--bind", "/dev/null:/x", "true"], "/dev/null"),
        (vec!["--rootfs", "/no/such/root", "true"], "/no/such/root"),
        (vec!["--bind", "/etc:/etc/passwd", "true"], "/etc/passwd"),
    ] {
        let output = run(&words);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(text(&output.stderr).contains(why), "{output:?}");
    }
}

/// Runs as somebody without privileges, on a machine whose `/dev/fuse` is open to all, as it is
/// where `udev` is.
fn run_rootless(place: &TempDir, words: &[&str]) -> Output {
    let gofer = place.path().join("gofer");
    if !gofer.exists() {
        fs::copy(GOFER, &gofer).unwrap();
        fs::set_permissions(&gofer, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let node = shown(place.path()).to_owned() + "/fuse";
    let become_somebody = format!(
        "mknod -m 666 {node} c 10 229 2>/dev/null; mount --bind {node} /dev/fuse && \
         exec setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups \"$@\""
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &become_somebody, "sh", shown(&gofer)])
        .args(["do", "--engine", "fuse"])
        .args(words);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_user_without_privileges_is_root_inside_and_nobody_more_outside() {
    if !can() {
        return;
    }
    let place = place();
    let home = place.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    fs::write(place.path().join("shut"), "secret").unwrap();
    fs::set_permissions(place.path().join("shut"), fs::Permissions::from_mode(0o600)).unwrap();
    let at = shown(place.path()).to_owned();
    let bind = format!("{at}/home:/home");
    let tries = format!(
        "id -u; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; cat {at}/shut && exit 1; \
         echo x > {at}/new && cat {at}/new; echo more >> /etc/hostname && echo in memory; \
         echo mine > /home/mine; stat -c %u /home/mine /etc; exit 5"
    );
    let output = run_rootless(&place, &["--bind", &bind, "sh", "-c", &tries]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        "0\nNoNewPrivs:\t1\nSeccomp:\t2\nx\nin memory\n0\n0\n",
        "{output:?}"
    );
    assert!(!place.path().join("new").exists());
    let mine = fs::metadata(home.join("mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid()), (SOMEBODY, SOMEBODY));
}

#[test]
fn mounts_that_a_user_may_not_look_into_are_no_obstacle_to_its_sandbox() {
    if !can() {
        return;
    }
    let place = place();
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).status().unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    // One behind a directory that only root may search, and another user's FUSE mount.
    let shut = place.path().join("shut");
    let (inner, fuse) = (shut.join("inner"), place.path().join("viewed"));
    fs::create_dir_all(&inner).unwrap();
    fs::create_dir(&fuse).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    run("mount", &["-t", "tmpfs", "none", shown(&inner)]);
    run(GOFER, &["mount", shown(&shut), shown(&fuse)]);
    let output = run_rootless(&place, &["echo", "there"]);
    run(GOFER, &["umount", shown(&fuse)]);
    run("umount", &[shown(&inner)]);
    assert_eq!(text(&output.stdout), "there\n", "{output:?}");
}

#[test]
fn a_user_without_privileges_writes_a_root_of_its_own() {
    if !can() {
        return;
    }
    let place = place();
    let root = bare_root(&place);
    let own: PathBuf = place.path().join("root");
    chown(&own, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let script = [
        "--writable",
        "sh",
        "-c",
        "echo made > /made; echo no > /usr/no; cat /made",
    ];
    let output = run_rootless(&place, &[&words(&root)[..], &script].concat());
    assert_eq!(text(&output.stdout), "made\n", "{output:?}");
    assert_eq!(fs::metadata(own.join("made")).unwrap().uid(), SOMEBODY);
    assert!(!Path::new("/usr/no").exists());
}
