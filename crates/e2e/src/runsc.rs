//! A `runsc` with a state folder of its own, that runs bundles through the gofer under test.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    stage::{Release, Stage},
    traces::{self, Process},
};

/// An unmodified `runsc` of one release, and where it keeps what it knows.
#[derive(Debug)]
pub struct Runsc {
    release: Release,
    client: PathBuf,
    gofer: Option<PathBuf>,
    server: PathBuf,
    flags: Vec<String>,
    folder: TempDir,
}

impl Runsc {
    /// A client without network and cgroups, plus `flags`.
    ///
    /// # Panics
    /// If the scratch folder refuses.
    #[must_use]
    pub fn new(stage: &Stage, release: Release, flags: &[&str]) -> Self {
        let folder = stage.scratch();
        for name in ["state", "tmp"] {
            fs::create_dir(folder.path().join(name)).expect("a new folder can be written to");
        }
        Self {
            release,
            client: stage.client(release),
            gofer: stage.gofer.clone(),
            server: stage.server(release),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            folder,
        }
    }

    /// The release that runs.
    #[must_use]
    pub fn release(&self) -> Release {
        self.release
    }

    /// A folder of this test's own, for bundles and volumes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// `runsc FLAGS… ARGS…`, through our gofer if there is one.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = if let Some(gofer) = &self.gofer {
            let mut command = Command::new(gofer);
            command
                .args(["runsc", "--runsc"])
                .arg(&self.client)
                .arg("--");
            command
        } else {
            Command::new(&self.client)
        };
        let mut root = std::ffi::OsString::from("--root=");
        root.push(self.state());
        command
            .arg(root)
            .args(["--network=none", "--ignore-cgroups"])
            .args(&self.flags)
            .args(args)
            .env("TMPDIR", self.folder.path().join("tmp"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a subcommand that ends by itself. Its output goes through files, because a sandbox
    /// that stays would hold a pipe open.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Output {
        let file = |name: &str| self.folder.path().join("tmp").join(name);
        let (out, err) = (file("call.out"), file("call.err"));
        let create = |path: &Path| fs::File::create(path).expect("a scratch file can be made");
        let mut command = self.command(args);
        command.stdout(create(&out)).stderr(create(&err));
        let status = self
            .watched(|| command.status())
            .expect("the client can be started");
        let take = |path: &Path| {
            let text = fs::read(path).expect("a file just written can be read");
            fs::remove_file(path).expect("a file of ours can be removed");
            text
        };
        Output {
            status,
            stdout: take(&out),
            stderr: take(&err),
        }
    }

    /// Runs a subcommand that must succeed; its standard output.
    ///
    /// # Panics
    /// If it fails.
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(
            output.status.success(),
            "{args:?} under {}: {}\n{}{}",
            self.release.name(),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Waits for something that takes minutes at most; after [`STUCK`] every process of these
    /// containers is killed, so that a test that hangs becomes one that fails.
    fn watched<T>(&self, wait: impl FnOnce() -> T) -> T {
        let (done, watched) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                if watched.recv_timeout(STUCK) == Err(RecvTimeoutError::Timeout) {
                    eprintln!("killed after {STUCK:?}: containers in {:?}", self.state());
                    self.kill_all();
                }
            });
            let result = wait();
            drop(done);
            result
        })
    }

    fn kill_all(&self) {
        for process in traces::processes_of(&self.state()) {
            kill(&process);
        }
    }

    /// Starts a container from a bundle; it holds until [`Running::go_on`].
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(&self, bundle: &Path, id: &str) -> Running<'_> {
        let child = self
            .command(&["run", "--bundle"])
            .arg(bundle)
            .arg(id)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client can be started");
        Running {
            runsc: self,
            id: id.to_owned(),
            child: Some(child),
        }
    }

    /// Runs a container to its end, with a check on the way that the right binary serves it. Its
    /// script must begin with `read go` (see [`HOLD`]).
    ///
    /// # Panics
    /// If the wrong binary serves, or none.
    #[must_use]
    pub fn run(&self, bundle: &Path, id: &str) -> Output {
        let running = self.start(bundle, id);
        running.check_server();
        running.finish()
    }

    /// The process that serves a container, by the client's own account, once there is one.
    ///
    /// # Panics
    /// If the container's state does not show up.
    #[must_use]
    pub fn gofer_pid(&self, id: &str) -> i32 {
        let mut pid = 0;
        traces::wait_until("the client has written the container's state", || {
            pid = self.recorded_gofer(id).unwrap_or(0);
            pid != 0
        });
        pid
    }

    fn recorded_gofer(&self, id: &str) -> Option<i32> {
        let path = self.state().join(format!("{id}_sandbox:{id}.state"));
        let state: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        i32::try_from(state["goferPid"].as_i64()?).ok()
    }

    /// Checks that a container is served by the gofer under test.
    ///
    /// # Panics
    /// If it is not.
    pub fn check_server(&self, id: &str) {
        let pid = self.gofer_pid(id);
        assert_eq!(
            traces::executable(pid).as_deref(),
            Some(&*self.server),
            "the process that serves {id}"
        );
    }

    /// Checks that nothing of any container is left: no process, no mount, no file.
    ///
    /// # Panics
    /// If something is.
    pub fn check_nothing_is_left(&self) {
        let state = self.state();
        traces::wait_until("every process of the container has gone", || {
            traces::processes_of(&state).is_empty()
        });
        let mounts = traces::mounts_of(&state);
        assert!(mounts.is_empty(), "mounts left behind: {mounts:#?}");
        let mut files = traces::files_below(&state);
        // The client's own habit: the lock of a container outlives it in some releases.
        files.retain(|path| path.extension().is_none_or(|end| end != "lock"));
        files.extend(traces::files_below(&self.folder.path().join("tmp")));
        assert!(files.is_empty(), "files left behind: {files:?}");
    }
}

impl Drop for Runsc {
    /// A test that fails midway leaves a sandbox; it would keep its scratch folder busy for ever.
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn kill(process: &Process) {
    if let Some(pid) = rustix::process::Pid::from_raw(process.pid) {
        // It may have ended since it was listed.
        _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// No container of these tests works for half as long.
const STUCK: Duration = Duration::from_mins(8);

/// The first line of a script whose container is started with [`Runsc::start`] or [`Runsc::run`]:
/// it waits until the test has looked at the host.
pub const HOLD: &str = "read go\n";

/// A container in the foreground, waiting for a line of input.
#[derive(Debug)]
pub struct Running<'r> {
    runsc: &'r Runsc,
    id: String,
    child: Option<Child>,
}

impl Running<'_> {
    /// Checks that the gofer under test serves it.
    ///
    /// # Panics
    /// If it does not; the message then holds what the client printed.
    pub fn check_server(&self) {
        self.runsc.check_server(&self.id);
    }

    /// The process that serves it.
    #[must_use]
    pub fn gofer_pid(&self) -> i32 {
        self.runsc.gofer_pid(&self.id)
    }

    /// Reads the container's output up to and with a line.
    ///
    /// # Panics
    /// If the output ends before.
    pub fn wait_for_line(&mut self, line: &str) {
        let out = self.child.as_mut().and_then(|child| child.stdout.as_mut());
        let out = out.expect("the client was started with a pipe");
        let (mut seen, mut byte) = (Vec::new(), [0]);
        let wanted = format!("{line}\n");
        while !seen.ends_with(wanted.as_bytes()) {
            let count = out.read(&mut byte).expect("a pipe can be read");
            assert!(count == 1, "ended before {line:?}: {}", text(&seen));
            seen.push(byte[0]);
        }
    }

    /// Sends the one line that a script reads before it goes on.
    pub fn go_on(&mut self) {
        self.say("go");
    }

    /// Sends another line.
    pub fn say(&mut self, line: &str) {
        let input = self.child.as_mut().and_then(|child| child.stdin.as_mut());
        // One that has ended already says so by its status.
        _ = input.map(|input| input.write_all(format!("{line}\n").as_bytes()));
    }

    /// Lets it go on, and waits for its end.
    ///
    /// # Panics
    /// If the host refuses to wait.
    #[must_use]
    pub fn finish(mut self) -> Output {
        self.go_on();
        self.wait()
    }

    /// Waits for its end, its input held open meanwhile: it must end by itself.
    ///
    /// # Panics
    /// If the host refuses to wait.
    #[must_use]
    pub fn wait(mut self) -> Output {
        let mut child = self.child.take().expect("only `wait` takes the child");
        let input = child.stdin.take();
        let output = self
            .runsc
            .watched(|| child.wait_with_output())
            .expect("a child can be waited for");
        drop(input);
        output
    }
}

impl Running<'_> {
    /// Waits for its end, its input held open meanwhile. One that goes on longer than `patience` is
    /// deleted as an operator would; whether that was needed.
    ///
    /// # Panics
    /// If the host refuses to wait.
    #[must_use]
    pub fn wait_or_delete(mut self, patience: Duration) -> (Output, bool) {
        let mut child = self.child.take().expect("only a wait takes the child");
        let input = child.stdin.take();
        let (done, watched) = mpsc::channel::<()>();
        let (runsc, id) = (self.runsc, self.id.as_str());
        let ended = thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let late = watched.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
                if late {
                    runsc.must(&["delete", "--force", id]);
                }
                late
            });
            let output = runsc.watched(|| child.wait_with_output());
            drop(done);
            (output, watch.join())
        });
        drop(input);
        let (output, deleted) = ended;
        let output = output.expect("a child can be waited for");
        (output, deleted.expect("deleting does not panic"))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Output as text, for messages and comparisons.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
