//! Podman and Docker Engine, both unmodified, with gofer as their runtime.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use e2e::{
    runsc::text,
    stage::{Release, Stage},
    traces,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// What the container prints, after the test has looked at the host.
const HELLO: &str = "read go; ls -l /bin/sh >/dev/null && echo hello";

/// A tar of the busybox root, as both engines import it.
fn image(stage: &Stage, folder: &Path) -> PathBuf {
    let tar = folder.join("busybox.tar");
    succeed(
        Command::new("tar")
            .arg("-C")
            .arg(&stage.busybox)
            .arg("-cf")
            .arg(&tar)
            .arg("."),
    );
    tar
}

/// A script that runs a release's client through our gofer (or alone, to compare), because an
/// engine passes neither arguments nor variables on.
fn script(stage: &Stage, release: Release, folder: &Path) -> PathBuf {
    let client = stage.client(release);
    let through = stage.gofer.as_ref().map_or(String::new(), |gofer| {
        format!("{} runsc --runsc ", gofer.display())
    });
    let end = if stage.gofer.is_some() { " --" } else { "" };
    let text = format!(
        "#!/bin/sh\nexec {through}{}{end} --network=none --ignore-cgroups \"$@\"\n",
        client.display()
    );
    let path = folder.join("runtime");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {told}");
    text(&output.stdout)
}

/// Runs an engine's `run` command; while the container waits, checks who serves it. Containers
/// of this engine have `folder` in their gofer's command line.
fn hello(stage: &Stage, release: Release, folder: &Path, run: &mut Command) -> Output {
    let mut child = run
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = None;
    traces::wait_until("a gofer serves the engine's container", || {
        server = traces::gofers_of(folder)
            .first()
            .and_then(traces::Process::executable);
        server.is_some() || child.try_wait().is_ok_and(|ended| ended.is_some())
    });
    // The gofer's own process changes its binary at most once, before it serves anything.
    let ours = stage.server(release);
    traces::wait_until("the gofer under test serves", || {
        let gofers = traces::gofers_of(folder);
        gofers
            .iter()
            .any(|gofer| gofer.executable().as_deref() == Some(&*ours))
            || child.try_wait().is_ok_and(|ended| ended.is_some())
    });
    let served = traces::gofers_of(folder);
    let served: Vec<_> = served
        .iter()
        .filter_map(traces::Process::executable)
        .collect();
    if let Some(mut input) = child.stdin.take() {
        // One that has ended already says so by its status.
        _ = std::io::Write::write_all(&mut input, b"go\n");
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(served, [ours], "{}: {output:?}", release.name());
    output
}

fn says_hello(release: Release, output: &Output) {
    let told = format!("{}: {output:?}", release.name());
    assert!(output.status.success(), "{told}");
    assert_eq!(text(&output.stdout), "hello\n", "{told}");
}

#[test]
fn podman_runs_hello() {
    let Some(stage) = Stage::set() else { return };
    for release in Release::ALL {
        let scratch = stage.scratch();
        let folder = scratch.path();
        let podman = || {
            let mut podman = Command::new("podman");
            for (option, name) in [("--root", "s"), ("--runroot", "r"), ("--tmpdir", "t")] {
                podman.arg(option).arg(folder.join(name));
            }
            podman.args([
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "--events-backend=file",
            ]);
            podman
        };
        succeed(
            podman()
                .arg("import")
                .arg(image(&stage, folder))
                .arg("busybox"),
        );
        let mut run = podman();
        run.arg("--runtime")
            .arg(script(&stage, release, folder))
            .args([
                "run",
                "--rm",
                "--interactive",
                "--network=none",
                "busybox",
                "sh",
                "-c",
            ])
            .arg(HELLO);
        let output = hello(&stage, release, folder, &mut run);
        says_hello(release, &output);
        traces::wait_until("podman's processes have gone", || {
            traces::processes_of(folder).is_empty()
        });
        assert!(traces::mounts_of(&folder.join("r")).is_empty());
    }
}

/// A Docker Engine of this test's own, beside any the machine runs.
struct Docker {
    daemon: Child,
    folder: PathBuf,
}

impl Docker {
    fn start(folder: &Path, runtime: &Path, client: &Path) -> Self {
        let socket = format!("unix://{}", folder.join("sock").display());
        let config = json!({
            "data-root": folder.join("data"),
            "exec-root": folder.join("exec"),
            "pidfile": folder.join("pid"),
            "hosts": [socket],
            "bridge": "none",
            "iptables": false,
            "storage-driver": "vfs",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "runtimes": {"under-test": {
                "path": runtime, "runtimeArgs": ["--network=none", "--ignore-cgroups"],
            }},
        });
        fs::write(folder.join("daemon.json"), config.to_string()).unwrap();
        let log = fs::File::create(folder.join("dockerd.log")).unwrap();
        let daemon = Command::new("dockerd")
            .arg("--config-file")
            .arg(folder.join("daemon.json"))
            .env("GOFER_RUNSC", client)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Self {
            daemon,
            folder: folder.to_path_buf(),
        };
        traces::wait_until("dockerd answers", || {
            let info = docker.command().arg("info").output();
            info.is_ok_and(|output| output.status.success())
        });
        docker
    }

    fn command(&self) -> Command {
        let mut docker = Command::new("docker");
        docker
            .arg("--host")
            .arg(format!("unix://{}", self.folder.join("sock").display()));
        docker
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw);
        // Asked to end, it ends its containerd too.
        _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        _ = self.daemon.wait();
    }
}

#[test]
fn docker_runs_hello() {
    let Some(stage) = Stage::set() else { return };
    for release in Release::ALL {
        let scratch = stage.scratch();
        let folder = scratch.path();
        // Docker gets the binary itself, under the name that makes it a runtime.
        let runtime = folder.join("runsc");
        let client = stage.client(release);
        symlink(stage.gofer.as_ref().unwrap_or(&client), &runtime).unwrap();
        let docker = Docker::start(folder, &runtime, &client);
        succeed(
            docker
                .command()
                .arg("import")
                .arg(image(&stage, folder))
                .arg("busybox"),
        );
        let mut run = docker.command();
        run.args([
            "run",
            "--rm",
            "--interactive",
            "--network=none",
            "--runtime=under-test",
        ])
        .args(["busybox", "sh", "-c", HELLO]);
        let output = hello(&stage, release, folder, &mut run);
        says_hello(release, &output);
        drop(docker);
        traces::wait_until("docker's processes have gone", || {
            traces::processes_of(folder).is_empty()
        });
        assert!(traces::mounts_of(folder).is_empty());
    }
}
