//! Plays the parent: bundle, descriptors, namespaces, and a look from outside.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use serde_json::{Value, json};

use crate::child::{CONFIG, Config};

/// Mounts of the cases stay ours, but are shared, as on a host with systemd: what leaks from the
/// jail shows up here.
pub(crate) fn own_mount_namespace() {
    // SAFETY: one thread; only the mount namespace changes.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .unwrap();
    mount_change(
        "/",
        MountPropagationFlags::SHARED | MountPropagationFlags::REC,
    )
    .unwrap();
}

/// One start-up: a bundle with a root filesystem and volumes, to be filled by the case.
pub(crate) struct Start {
    dir: tempfile::TempDir,
    pub(crate) dialect: u16,
    pub(crate) user_namespace: bool,
    pub(crate) classic: bool,
    /// Whether the process tells of a violation before it ends.
    pub(crate) tells: bool,
    pub(crate) readonly: bool,
    pub(crate) host_open: bool,
    pub(crate) host_create: bool,
    pub(crate) device_connection: bool,
    pub(crate) confs: Option<String>,
    pub(crate) root_path: String,
    pub(crate) extra: Value,
    mounts: Vec<Value>,
    host_mounts: Vec<PathBuf>,
}

impl Drop for Start {
    fn drop(&mut self) {
        for point in self.host_mounts.iter().rev() {
            _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl Start {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rootfs")).unwrap();
        Self {
            dir,
            dialect: 2024,
            user_namespace: false,
            classic: false,
            tells: false,
            readonly: false,
            host_open: false,
            host_create: false,
            device_connection: false,
            confs: None,
            root_path: "rootfs".into(),
            extra: json!({}),
            mounts: Vec::new(),
            host_mounts: Vec::new(),
        }
    }

    /// A path below the bundle.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn dir(&self, path: &str) -> PathBuf {
        fs::create_dir_all(self.at(path)).unwrap();
        self.at(path)
    }

    pub(crate) fn file(&self, path: &str, text: &str) -> PathBuf {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
        self.at(path)
    }

    /// A tmpfs on the host.
    pub(crate) fn tmpfs(&mut self, path: &str) -> PathBuf {
        let point = self.dir(path);
        mount("none", &point, "tmpfs", MountFlags::empty(), None).unwrap();
        self.host_mounts.push(point.clone());
        point
    }

    /// A bind of a directory onto itself with attributes.
    pub(crate) fn bound(&mut self, path: &str, flags: MountFlags) {
        let point = self.dir(path);
        mount_bind(&point, &point).unwrap();
        self.host_mounts.push(point.clone());
        rustix::mount::mount_remount(&point, MountFlags::BIND | flags, c"").unwrap();
    }

    /// One more gofer mount.
    pub(crate) fn volume(&mut self, source: impl AsRef<Path>, destination: &str, options: &[&str]) {
        self.mounts.push(json!({
            "destination": destination, "type": "bind",
            "source": source.as_ref().to_str().unwrap(), "options": options,
        }));
    }

    pub(crate) fn other_mount(&mut self, value: Value) {
        self.mounts.push(value);
    }

    fn confs(&self) -> Option<String> {
        let bound = self
            .mounts
            .iter()
            .filter(|mount| mount["type"] == "bind")
            .count();
        let default = || vec!["lisafs:none"; bound + 1].join(",");
        (self.dialect != 2022).then(|| self.confs.clone().unwrap_or_else(default))
    }

    fn spec(&self) -> Value {
        let mut spec = json!({
            "ociVersion": "1.0.0",
            "process": {"args": ["true"], "cwd": "/"},
            "root": {"path": self.root_path, "readonly": self.readonly},
            "mounts": self.mounts,
        });
        for (key, value) in self.extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    }

    /// Starts and expects a sealed process.
    pub(crate) fn sealed(&self) -> Running {
        self.run()
            .unwrap_or_else(|message| panic!("not sealed: {message}"))
    }

    /// Starts and expects an error.
    pub(crate) fn fails(&self) -> String {
        match self.run() {
            Ok(_) => panic!("came up"),
            Err(message) => message,
        }
    }

    pub(crate) fn run(&self) -> Result<Running, String> {
        fs::write(self.at("config.json"), self.spec().to_string()).unwrap();
        let spec: OwnedFd = fs::File::open(self.at("config.json")).unwrap().into();
        let (list, mounts) = rustix::pipe::pipe().unwrap();
        let confs = self.confs();
        let sockets = match &confs {
            Some(confs) => confs
                .split(',')
                .filter(|conf| conf.starts_with("lisafs"))
                .count(),
            None => {
                self.mounts
                    .iter()
                    .filter(|mount| mount["type"] == "bind")
                    .count()
                    + 1
            }
        };
        let pairs: Vec<(UnixStream, UnixStream)> =
            (0..=sockets).map(|_| UnixStream::pair().unwrap()).collect();
        let (rpc, _service) = UnixStream::pair().unwrap();
        let number = |fd: &dyn AsRawFd| fd.as_raw_fd();
        let config = Config {
            dialect: self.dialect,
            bundle: self.dir.path().to_str().unwrap().into(),
            confs,
            user_namespace: self.user_namespace,
            classic: self.classic,
            tells: self.tells,
            host_open: self.host_open,
            host_create: self.host_create,
            spec: number(&spec),
            mounts: number(&mounts),
            io: pairs[..sockets]
                .iter()
                .map(|(_, theirs)| number(theirs))
                .collect(),
            dev_io: if self.device_connection {
                number(&pairs[sockets].1)
            } else {
                -1
            },
            sync: -1,
            rpc: if self.dialect == 2026 {
                number(&rpc)
            } else {
                -1
            },
            ready: false,
        };
        let mut handed = config.io.clone();
        handed.extend([config.spec, config.mounts, config.dev_io, config.rpc]);
        let child = spawn(&config, handed);
        drop((mounts, spec, rpc));
        Running::follow(child, self.user_namespace, list, pairs)
    }
}

fn spawn(config: &Config, handed: Vec<i32>) -> Child {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env(CONFIG, serde_json::to_string(config).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // SAFETY: between fork and exec only fcntl is called.
    unsafe {
        command.pre_exec(move || {
            for number in handed.iter().filter(|number| **number >= 0) {
                libc::fcntl(*number, libc::F_SETFD, 0);
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// A sealed process under the case's hand.
pub(crate) struct Running {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) warnings: Vec<String>,
    /// The cleaned mounts list.
    pub(crate) list: Value,
    _sockets: Vec<(UnixStream, UnixStream)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Running {
    fn follow(
        mut child: Child,
        user_namespace: bool,
        list: OwnedFd,
        sockets: Vec<(UnixStream, UnixStream)>,
    ) -> Result<Self, String> {
        let mut commands = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line, "unshared\n");
        if user_namespace {
            let identity = "0 0 4294967295";
            fs::write(format!("/proc/{}/uid_map", child.id()), identity).unwrap();
            fs::write(format!("/proc/{}/gid_map", child.id()), identity).unwrap();
        }
        commands.write_all(b"go\n").unwrap();
        let mut bytes = Vec::new();
        fs::File::from(list).read_to_end(&mut bytes).unwrap();
        let mut warnings = Vec::new();
        loop {
            line.clear();
            if answers.read_line(&mut line).unwrap() == 0 {
                return Err(format!("died: {:?}", child.wait().unwrap()));
            }
            match line.trim_end().split_once(' ') {
                Some(("error", message)) => {
                    _ = child.wait();
                    return Err(message.to_owned());
                }
                Some(("warning", text)) => warnings.push(text.to_owned()),
                _ => break,
            }
        }
        assert_eq!(line, "sealed\n");
        let list = serde_json::from_slice(&bytes).unwrap();
        Ok(Self {
            child,
            commands,
            answers,
            warnings,
            list,
            _sockets: sockets,
        })
    }

    /// One command, one answer; `None` if the process died of it.
    pub(crate) fn try_ask(&mut self, command: &str) -> Option<String> {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }

    /// One more line of an answer.
    pub(crate) fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.try_ask(command)
            .unwrap_or_else(|| panic!("died of {command:?}: {:?}", self.child.wait().unwrap()))
    }

    /// Signal that ended the process.
    pub(crate) fn end(&mut self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.child.wait().unwrap())
    }

    pub(crate) fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn destinations(&self) -> Vec<String> {
        let list = self.list.as_array().unwrap();
        list.iter()
            .map(|mount| mount["destination"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Options of the topmost mount at `point`, as the kernel lists them.
    pub(crate) fn attributes(&self, point: &str) -> String {
        let mountinfo = self.proc("mountinfo");
        let line = mountinfo
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some(point));
        let line = line.unwrap_or_else(|| panic!("{point} is no mount:\n{mountinfo}"));
        line.split(' ').nth(5).unwrap().to_owned()
    }
}
