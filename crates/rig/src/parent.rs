//! Plays the parent: starts a gofer, ours or the Go one, with the arguments, descriptors and
//! namespaces that a `runsc` of a given release gives it (`gofer-process.md` 2.2, 3, 13, 16).
//!
//! Must hold: nothing is left behind; a gofer that was not waited for is killed on drop.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};

use crate::spawn::{Plan, spawn};
use crate::watch::Watch;

/// Descriptors on their way to a child are kept above this number, out of the way of theirs.
const OUT_OF_THE_WAY: i32 = 200;

/// Whose command line is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Release 20221219.
    V2022_12,
    /// Releases of 2024.
    V2024,
    /// Release 20260817.
    V2026_08,
}

/// A gofer about to be started.
#[derive(Debug)]
pub struct Parent {
    program: PathBuf,
    dialect: Dialect,
    bundle: PathBuf,
    confs: Vec<String>,
    global_flags: Vec<String>,
    gofer_flags: Vec<String>,
    descriptors: Vec<(String, OwnedFd)>,
    user_namespace: bool,
    maps: Option<IdMaps>,
    privileged: bool,
    device_connection: bool,
    sync_userns: bool,
    sync_nvproxy: bool,
    watched: bool,
    environment: Vec<String>,
    output: Option<OwnedFd>,
    debug_log: Option<OwnedFd>,
    log: Option<OwnedFd>,
}

/// A gofer that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Gofer {
    /// Its process id.
    pub pid: Pid,
    /// Our ends of the connections: root first.
    pub sockets: Vec<OwnedFd>,
    /// Our end of the device connection.
    pub device_socket: Option<OwnedFd>,
    /// Our end of the service that opens mount sources (v2026-08).
    pub rpc: Option<OwnedFd>,
    /// Our end of the socket that may deliver the sandbox's pidfd (v2026-08).
    pub sentry_exit: Option<OwnedFd>,
    /// Our ends of the sync sockets: the gofer waits until they are closed.
    pub sync: Vec<OwnedFd>,
    mounts: Option<OwnedFd>,
    argv: Vec<String>,
    watch: Watch,
    late_maps: Option<IdMaps>,
    waited: bool,
}

/// How a gofer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Status(i32),
    /// By a signal.
    Signal(i32),
}

/// Writes `config.json` for a root and mounts into `bundle`.
///
/// # Errors
/// The host's.
pub fn write_bundle(bundle: &Path, root: &Path, readonly: bool, mounts: &Value) -> io::Result<()> {
    let spec = json!({
        "ociVersion": "1.0.0",
        "process": { "args": ["/bin/true"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": root, "readonly": readonly },
        "mounts": mounts,
        "linux": {},
    });
    std::fs::write(bundle.join("config.json"), spec.to_string())
}

impl Parent {
    /// A gofer for the bundle, with one conf for the root and one for each mount of the spec that a
    /// gofer backs. Each conf whose lower layer is `lisafs` gets a connection (before 2024: each).
    #[must_use]
    pub fn new(program: &Path, dialect: Dialect, bundle: &Path, confs: &[&str]) -> Self {
        Self {
            program: program.to_owned(),
            dialect,
            bundle: bundle.to_owned(),
            confs: confs.iter().map(|&conf| conf.to_owned()).collect(),
            global_flags: Vec::new(),
            gofer_flags: Vec::new(),
            descriptors: Vec::new(),
            user_namespace: false,
            maps: None,
            privileged: true,
            device_connection: false,
            sync_userns: false,
            sync_nvproxy: false,
            watched: false,
            environment: Vec::new(),
            output: None,
            debug_log: None,
            log: None,
        }
    }

    /// Adds a global flag, as `--name=value`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.global_flags.push(flag.to_owned());
        self
    }

    /// Adds a flag of the subcommand, as `--name=value`.
    #[must_use]
    pub fn gofer_flag(mut self, flag: &str) -> Self {
        self.gofer_flags.push(flag.to_owned());
        self
    }

    /// Gives one more descriptor, named by this flag of the subcommand.
    #[must_use]
    pub fn descriptor(mut self, flag: &str, file: impl Into<OwnedFd>) -> Self {
        self.descriptors.push((flag.to_owned(), file.into()));
        self
    }

    /// In a new user namespace with identity maps, as runsc does by default since 2024.
    #[must_use]
    pub const fn user_namespace(mut self) -> Self {
        self.user_namespace = true;
        self
    }

    /// In a new user namespace with other maps, as for a container whose spec names them.
    #[must_use]
    pub const fn id_maps(mut self, maps: IdMaps) -> Self {
        self.user_namespace = true;
        self.maps = Some(maps);
        self
    }

    /// As started by a parent that is not root: in a user namespace whose maps are written only
    /// after the start, by [`Gofer::release`]; until then with ambient capabilities.
    #[must_use]
    pub const fn unprivileged(mut self, maps: IdMaps) -> Self {
        self.privileged = false;
        self.sync_userns = true;
        self.id_maps(maps)
    }

    /// With a connection for `/dev`.
    #[must_use]
    pub const fn device_connection(mut self) -> Self {
        self.device_connection = true;
        self
    }

    /// With the sync socket of a parent that is not root.
    #[must_use]
    pub const fn sync_userns(mut self) -> Self {
        self.sync_userns = true;
        self
    }

    /// With the sync socket of NVIDIA hooks (2024 only).
    #[must_use]
    pub const fn sync_nvproxy(mut self) -> Self {
        self.sync_nvproxy = true;
        self
    }

    /// Adds a variable to its environment, which is empty otherwise, as `NAME=value`.
    #[must_use]
    pub fn variable(mut self, variable: &str) -> Self {
        self.environment.push(variable.to_owned());
        self
    }

    /// With every system call told to [`Gofer::watch`].
    #[must_use]
    pub const fn watched(mut self) -> Self {
        self.watched = true;
        self
    }

    /// Standard output and error go here instead of `/dev/null`.
    #[must_use]
    pub fn output(mut self, file: impl Into<OwnedFd>) -> Self {
        self.output = Some(file.into());
        self
    }

    /// The debug log.
    #[must_use]
    pub fn debug_log(mut self, file: impl Into<OwnedFd>) -> Self {
        self.debug_log = Some(file.into());
        self
    }

    /// The log of fatal errors.
    #[must_use]
    pub fn log(mut self, file: impl Into<OwnedFd>) -> Self {
        self.log = Some(file.into());
        self
    }

    /// Starts it. It waits for nothing but the sync sockets, see [`Gofer::release`].
    ///
    /// # Errors
    /// The host's; among others `EPERM` without privileges.
    pub fn start(self) -> io::Result<Gofer> {
        let mut given = Given::new(&self)?;
        let mut gofer = self.arguments(&mut given)?;
        let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let [go_read, go_write] = [go_read, go_write].map(out_of_the_way);
        let (go_read, go_write) = (go_read?, go_write?);
        let c_string = |text: &[u8]| CString::new(text).map_err(io::Error::other);
        let program = c_string(self.program.as_os_str().as_bytes())?;
        let c_strings = |texts: &[String]| -> io::Result<Vec<CString>> {
            texts.iter().map(|text| c_string(text.as_bytes())).collect()
        };
        let pid = spawn(&Plan {
            namespaces: self.namespaces(),
            setsid: self.dialect != Dialect::V2022_12,
            become_root: self.user_namespace && self.privileged,
            ambient: !self.privileged,
            watched: self.watched,
            go: (&go_read, &go_write),
            fds: &given.fds,
            program: &program,
            argv: &c_strings(&gofer.argv)?,
            environment: &c_strings(&self.environment)?,
        })?;
        gofer.pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no process id"))?;
        gofer.waited = false;
        if self.user_namespace {
            let maps = self.maps.map_or_else(IdMaps::own, Ok)?;
            if self.privileged {
                maps.write(gofer.pid)?;
            } else {
                gofer.late_maps = Some(maps);
            }
        }
        File::from(go_write).write_all(b"g")?;
        if self.watched {
            gofer.watch = Watch::start(pid)?;
        }
        Ok(gofer)
    }

    const fn namespaces(&self) -> u64 {
        let mut all = libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNET;
        if self.user_namespace {
            all |= libc::CLONE_NEWUSER;
        }
        all as u64
    }

    fn connections(&self) -> usize {
        let served = |conf: &&String| conf.starts_with("lisafs");
        match self.dialect {
            Dialect::V2022_12 => self.confs.len(),
            Dialect::V2024 | Dialect::V2026_08 => self.confs.iter().filter(served).count(),
        }
    }

    /// The argument vector in the order of 2.2, and the descriptors it names.
    fn arguments(&self, given: &mut Given) -> io::Result<Gofer> {
        let mut argv = vec!["runsc-gofer".to_owned()];
        argv.extend(self.global_flags.iter().cloned());
        for (name, file) in [("log-fd", &self.log), ("debug-log-fd", &self.debug_log)] {
            if let Some(file) = file {
                argv.push(given.flag(name, file.try_clone()?)?);
            }
        }
        argv.push("gofer".to_owned());
        argv.extend([
            "--bundle".to_owned(),
            self.bundle.to_string_lossy().into_owned(),
        ]);
        if self.dialect != Dialect::V2022_12 {
            argv.push(format!("--gofer-mount-confs={}", self.confs.join(",")));
        }
        argv.extend(self.gofer_flags.iter().cloned());
        let spec = File::open(self.bundle.join("config.json"))?;
        argv.push(given.flag("spec-fd", spec.into())?);
        for (name, fd) in &self.descriptors {
            argv.push(given.flag(name, fd.try_clone()?)?);
        }
        let (mounts, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        argv.push(given.flag("mounts-fd", theirs)?);
        let (mut rpc, mut sentry_exit) = (None, None);
        if self.dialect == Dialect::V2026_08 {
            rpc = Some(given.pair("rpc-fd", SocketType::STREAM, &mut argv)?);
            // A ring would only be kept open; any file can be.
            argv.push(given.flag("pin-ring-fd", File::open("/dev/null")?.into())?);
            sentry_exit =
                Some(given.pair("sync-sentry-exit-fd", SocketType::SEQPACKET, &mut argv)?);
        }
        let stream = SocketType::STREAM;
        let mut sockets = Vec::new();
        for _ in 0..self.connections() {
            sockets.push(given.pair("io-fds", stream, &mut argv)?);
        }
        let mut device_socket = None;
        if self.device_connection {
            device_socket = Some(given.pair("dev-io-fd", stream, &mut argv)?);
        }
        let mut sync = Vec::new();
        if self.sync_userns {
            sync.push(given.pair("sync-userns-fd", stream, &mut argv)?);
        }
        if self.sync_nvproxy && self.dialect == Dialect::V2024 {
            sync.push(given.pair("sync-nvproxy-fd", stream, &mut argv)?);
        }
        if self.dialect == Dialect::V2026_08 {
            sync.push(given.pair("sync-chroot-fd", stream, &mut argv)?);
            argv.push("rig-container".to_owned());
        }
        let (pid, waited) = (Pid::INIT, true);
        let mounts = Some(mounts);
        Ok(Gofer {
            pid,
            sockets,
            device_socket,
            rpc,
            sentry_exit,
            sync,
            mounts,
            argv,
            watch: Watch::default(),
            late_maps: None,
            waited,
        })
    }
}

/// Descriptors as the child will see them, by their place.
struct Given {
    fds: Vec<OwnedFd>,
}

impl Given {
    fn new(parent: &Parent) -> io::Result<Self> {
        let null = File::options().read(true).open("/dev/null")?;
        let output = match &parent.output {
            Some(file) => file.try_clone()?,
            None => File::options().write(true).open("/dev/null")?.into(),
        };
        let standard = [null.into(), output.try_clone()?, output];
        let fds: io::Result<_> = standard.into_iter().map(out_of_the_way).collect();
        Ok(Self { fds: fds? })
    }

    /// Hands over a descriptor; the word that names it.
    fn flag(&mut self, name: &str, fd: OwnedFd) -> io::Result<String> {
        self.fds.push(out_of_the_way(fd)?);
        Ok(format!("--{name}={}", self.fds.len() - 1))
    }

    /// Hands over one end of a pair; the other end.
    fn pair(
        &mut self,
        name: &str,
        kind: SocketType,
        argv: &mut Vec<String>,
    ) -> io::Result<OwnedFd> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        argv.push(self.flag(name, theirs)?);
        Ok(ours)
    }
}

fn out_of_the_way(fd: OwnedFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(&fd, OUT_OF_THE_WAY)?)
}

/// Which ids of a user namespace are which of ours: id inside, id outside, how many.
#[derive(Debug, Clone, Copy)]
pub struct IdMaps {
    /// Of users and of groups.
    pub ids: (u32, u32, u32),
}

impl IdMaps {
    /// What is mapped for ourselves, by the same numbers.
    fn own() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/uid_map")?;
        let words: Vec<u32> = text
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        match *words.as_slice() {
            [inside, _, size, ..] => Ok(Self {
                ids: (inside, inside, size),
            }),
            _ => Err(io::Error::other("/proc/self/uid_map cannot be read")),
        }
    }

    fn write(self, pid: Pid) -> io::Result<()> {
        let (inside, outside, size) = self.ids;
        for map in ["uid_map", "gid_map"] {
            let file = format!("/proc/{}/{map}", pid.as_raw_nonzero());
            std::fs::write(file, format!("{inside} {outside} {size}\n"))?;
        }
        Ok(())
    }
}

impl Gofer {
    /// The argument vector it was started with.
    #[must_use]
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// What is told of its system calls, if they are watched; also after its end.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Writes the maps of ids that are still to be written, then closes our ends of the sync
    /// sockets: the gofer may go on.
    pub fn release(&mut self) {
        if let Some(maps) = self.late_maps.take() {
            // A gofer that has died already says so by its status.
            _ = maps.write(self.pid);
        }
        self.sync.clear();
    }

    /// The list of mounts as the gofer wrote it, once its set-up is done. Empty if it died first.
    ///
    /// # Errors
    /// The host's.
    pub fn mounts(&mut self) -> io::Result<Vec<u8>> {
        let mut list = Vec::new();
        if let Some(pipe) = self.mounts.take() {
            File::from(pipe).read_to_end(&mut list)?;
        }
        Ok(list)
    }

    /// Closes the list's pipe unread, as a sandbox that has died does.
    pub fn leave_mounts(&mut self) {
        self.mounts = None;
    }

    /// Takes our end of the first connection that is left.
    ///
    /// # Errors
    /// If none is left.
    pub fn take_socket(&mut self) -> io::Result<OwnedFd> {
        if self.sockets.is_empty() {
            return Err(io::Error::other("no connection is left"));
        }
        Ok(self.sockets.remove(0))
    }

    /// A path below its `/proc` directory.
    #[must_use]
    pub fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid.as_raw_nonzero()))
    }

    /// `/proc/PID/task/TID/status` of every thread that lives; those that end meanwhile are left out.
    ///
    /// # Errors
    /// The host's.
    pub fn thread_statuses(&self) -> io::Result<Vec<String>> {
        let mut statuses = Vec::new();
        for task in std::fs::read_dir(self.proc("task"))? {
            match std::fs::read_to_string(task?.path().join("status")) {
                Ok(status) => statuses.push(status),
                Err(error) if has_ended(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(statuses)
    }

    /// Closes everything of ours and waits for its end.
    ///
    /// # Errors
    /// The host's.
    pub fn wait(mut self) -> io::Result<Ended> {
        self.release();
        self.sockets.clear();
        (self.device_socket, self.rpc, self.sentry_exit) = (None, None, None);
        self.reap()
    }

    /// Makes its main thread, which waits for its clients, call the kernel: the call of this number
    /// on this architecture, without valid arguments. Needs the privilege to trace it.
    ///
    /// # Errors
    /// The host's.
    #[cfg(target_arch = "x86_64")]
    pub fn inject(&self, number: i64) -> io::Result<()> {
        crate::inject::call(self.pid.as_raw_nonzero().get(), number)
    }

    /// Kills it, as the end of a container does.
    ///
    /// # Errors
    /// The host's.
    pub fn kill(mut self) -> io::Result<Ended> {
        kill_process(self.pid, Signal::KILL)?;
        self.reap()
    }

    fn reap(&mut self) -> io::Result<Ended> {
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(None) => {}
                Ok(Some((_, status))) => {
                    self.waited = true;
                    let by_signal = status.terminating_signal().map(Ended::Signal);
                    let by_itself = status.exit_status().map(Ended::Status);
                    return by_itself
                        .or(by_signal)
                        .ok_or_else(|| io::Error::other("stopped"));
                }
            }
        }
    }
}

impl Drop for Gofer {
    fn drop(&mut self) {
        if !self.waited {
            // It may be dead already; then there is only the corpse to collect.
            _ = kill_process(self.pid, Signal::KILL);
            _ = self.reap();
        }
    }
}

/// Whether a file of `/proc` could not be read because its thread is no more.
fn has_ended(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(
        errno,
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH)
    )
}
