//! `gofer serve`: a standing server. Each connection gets a confined process of its own.
//!
//! Belongs here: which connections are taken, and what becomes of their processes. Elsewhere: where
//! sockets come from (`listen`), the processes (`confined`).
//! Must hold: nothing that a client sends is read here; one thread.

mod listen;

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown, sockopt};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use self::listen::{Listener, Notify};
use super::Failure;
use crate::confined::{self, Confined, Limits, Serving, Starting};

/// How long connections may take to end once we are told to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long nobody is accepted after the host had no descriptor left for one more.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// What `gofer serve` accepts.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gofer serve --listen /run/user/1000/src.sock ~/src
  gofer serve --listen /run/g.sock --readonly --map logs=/var/log:ro /srv   # also /run/g.sock.logs
  systemd-socket-activate -l /run/g.sock gofer serve /srv

Clients choose a directory by the socket they connect to. docs/serve.md tells the rest.")]
pub(super) struct Args {
    /// Listen on this socket; a --map listens on SOCK.NAME
    #[arg(long, value_name = "SOCK", conflicts_with = "fd")]
    listen: Option<PathBuf>,
    /// Listen on this inherited socket, or, if it is connected, serve it and end
    #[arg(long, value_name = "N", conflicts_with = "map")]
    fd: Option<i32>,
    /// Refuse everything that changes a file, in every directory
    #[arg(long)]
    readonly: bool,
    /// Also serve another directory, on a socket of its own
    #[arg(long, value_name = "NAME=DIR[:ro]", value_parser = parse_map)]
    map: Vec<Map>,
    /// Let this user connect too; it can then do with the files what this server's user can
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,
    /// Connections at a time; more are refused
    #[arg(long, value_name = "N", default_value_t = 512)]
    connections_max: usize,
    /// Ids that one connection may hold
    #[arg(long, value_name = "N", default_value_t = Limits::default().ids_max)]
    ids_max: usize,
    /// Channels that one connection may make
    #[arg(long, value_name = "N", default_value_t = Limits::default().channels_max)]
    channels_max: usize,
    /// Do without a user namespace where there are no privileges: owners show as they are, but only
    /// Landlock and seccomp then keep a process from other files
    #[arg(long)]
    no_user_namespace: bool,
    /// The directory to serve
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// One `--map`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Map {
    name: String,
    dir: PathBuf,
    readonly: bool,
}

fn parse_map(text: &str) -> Result<Map, String> {
    let (name, dir) = text.split_once('=').ok_or("want NAME=DIR or NAME=DIR:ro")?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(good) {
        return Err(format!("{name:?}: a name is letters, digits, - and _"));
    }
    let (dir, readonly) = match dir.strip_suffix(":ro") {
        Some(dir) => (dir, true),
        None => (dir, false),
    };
    if dir.is_empty() {
        return Err("the directory is missing".to_owned());
    }
    Ok(Map {
        name: name.to_owned(),
        dir: dir.into(),
        readonly,
    })
}

/// A directory that is served.
struct Export {
    name: Option<String>,
    dir: OwnedFd,
    path: PathBuf,
    readonly: bool,
}

impl Export {
    fn open(name: Option<String>, dir: &Path, readonly: bool) -> Result<Export, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = dir.canonicalize().and_then(|path| {
            let dir = rustix::fs::open(&path, flags, Mode::empty())?;
            Ok(Export {
                name,
                dir,
                path,
                readonly,
            })
        });
        opened.map_err(|cause| Failure::File {
            what: "cannot serve",
            path: dir.to_owned(),
            cause,
        })
    }
}

/// One connection: its process, and the socket that ends it.
struct Connection {
    socket: OwnedFd,
    state: State,
}

enum State {
    Starting(Starting),
    Serving(Confined, OwnedFd),
}

/// Serves until told to end.
pub(super) fn run(args: &Args) -> Result<ExitStatus, Failure> {
    // First of all: what is inherited and not named is closed here.
    let given = listen::claim(args.fd)?;
    let termination = jail::signals::wait_for_termination()
        .map_err(|errno| Failure::Argument(format!("signals: {errno}")))?;
    let mut exports = vec![Export::open(None, &args.dir, args.readonly)?];
    for map in &args.map {
        let name = Some(map.name.clone());
        let export = Export::open(name, &map.dir, args.readonly || map.readonly)?;
        if exports.iter().any(|other| other.name == export.name) {
            return Err(Failure::Argument(format!("two maps named {}", map.name)));
        }
        exports.push(export);
    }
    let names: Vec<Option<&str>> = exports.iter().map(|e| e.name.as_deref()).collect();
    let open_to_all = !args.allow_uid.is_empty();
    let sockets = listen::sockets(given, args.listen.as_deref(), &names, open_to_all)?;
    let mut supervisor = Supervisor {
        args,
        exports,
        listeners: sockets.listeners,
        connections: Vec::new(),
        allowed: std::iter::once(rustix::process::geteuid().as_raw())
            .chain(args.allow_uid.iter().copied())
            .collect(),
        pausing: false,
        said: false,
    };
    if let Some(socket) = sockets.connected {
        supervisor.take(socket, 0);
    }
    let notify = Notify::from_environment();
    notify.say("READY=1");
    let ended = supervisor.run(&termination);
    notify.say("STOPPING=1");
    // Closes and removes the sockets: nobody waits in vain.
    supervisor.listeners.clear();
    ended?;
    supervisor.end(&termination)?;
    Ok(ExitStatus::default())
}

struct Supervisor<'a> {
    args: &'a Args,
    exports: Vec<Export>,
    listeners: Vec<Listener>,
    connections: Vec<Connection>,
    allowed: HashSet<u32>,
    /// Nobody is accepted until the next look.
    pausing: bool,
    /// Whether the first process has told how it is confined.
    said: bool,
}

impl Supervisor<'_> {
    /// Until there is a signal, or nothing left to do.
    fn run(&mut self, termination: &OwnedFd) -> Result<(), Failure> {
        while !(self.listeners.is_empty() && self.connections.is_empty()) {
            let timeout = self.pausing.then_some(PAUSE);
            let ready = self.wait(termination, timeout.as_ref())?;
            let accepting = !std::mem::take(&mut self.pausing);
            if ready.first() == Some(&true) {
                return Ok(());
            }
            let (processes, listeners) = ready[1..].split_at(self.connections.len());
            self.look_after(processes);
            for (index, _) in listeners.iter().enumerate().filter(|(_, ready)| **ready) {
                if accepting {
                    self.accept(index);
                }
            }
        }
        Ok(())
    }

    /// Which are ready: termination, each connection's process, each listener.
    fn wait(
        &self,
        termination: &OwnedFd,
        timeout: Option<&Timespec>,
    ) -> Result<Vec<bool>, Failure> {
        let mut fds = vec![PollFd::new(termination, PollFlags::IN)];
        fds.extend(
            self.connections
                .iter()
                .map(|connection| match &connection.state {
                    State::Starting(starting) => {
                        PollFd::from_borrowed_fd(starting.control(), PollFlags::IN)
                    }
                    State::Serving(_, pidfd) => PollFd::new(pidfd, PollFlags::IN),
                }),
        );
        if !self.pausing {
            let listeners = self.listeners.iter();
            fds.extend(listeners.map(|l| PollFd::from_borrowed_fd(l.socket(), PollFlags::IN)));
        }
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(vec![false; fds.len()]),
            Err(errno) => return Err(Failure::Argument(format!("poll: {errno}"))),
        }
        Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    /// Moves on those whose process has something new: it is sealed, or it has ended.
    fn look_after(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        for mut connection in std::mem::take(&mut self.connections) {
            if ready.next() != Some(&true) {
                self.connections.push(connection);
                continue;
            }
            match connection.state {
                State::Starting(starting) => match serving(starting) {
                    Ok((confined, pidfd)) => {
                        self.tell(&confined);
                        connection.state = State::Serving(confined, pidfd);
                        self.connections.push(connection);
                    }
                    Err(why) => eprintln!("gofer: {why}"),
                },
                // Dropping our copy of the socket lets the client see the end.
                State::Serving(mut confined, _) => match confined.wait() {
                    Ok(status) if status.success() => {}
                    Ok(status) => eprintln!("gofer: process {}: {status}", confined.id()),
                    Err(error) => eprintln!("gofer: process {}: {error}", confined.id()),
                },
            }
        }
    }

    /// All are confined alike, so the first speaks for all.
    fn tell(&mut self, confined: &Confined) {
        if !std::mem::replace(&mut self.said, true) {
            eprintln!("gofer: confined by {}", confined.report());
        }
    }

    fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get(index) else {
            return;
        };
        let (export, taken) = (
            listener.export,
            accept_with(listener.socket(), SocketFlags::CLOEXEC),
        );
        match taken {
            Ok(socket) => self.take(socket, export),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => self.pausing = true,
            // Whoever wanted to connect has gone.
            Err(_) => {}
        }
    }

    /// Starts a process for the connection, if it may have one; dropping the socket refuses it.
    fn take(&mut self, socket: OwnedFd, export: usize) {
        let peer = match sockopt::socket_peercred(&socket) {
            Ok(peer) if self.allowed.contains(&peer.uid.as_raw()) => peer,
            Ok(peer) => {
                let uid = peer.uid.as_raw();
                eprintln!("gofer: refused user {uid}; --allow-uid {uid} would let it in");
                return;
            }
            Err(errno) => return eprintln!("gofer: refused a connection from nobody: {errno}"),
        };
        if self.connections.len() >= self.args.connections_max {
            let uid = peer.uid.as_raw();
            return eprintln!("gofer: refused user {uid}: --connections-max is reached");
        }
        let Some(export) = self.exports.get(export) else {
            return;
        };
        let serving = Serving {
            dir: export.dir.as_fd(),
            path: &export.path,
            readonly: export.readonly,
            user_namespace: !self.args.no_user_namespace,
            limits: Limits {
                ids_max: self.args.ids_max,
                channels_max: self.args.channels_max,
            },
            special_files: false,
            end_with_parent: true,
        };
        match confined::begin(&serving, &[socket.as_fd()]) {
            Ok(starting) => self.connections.push(Connection {
                socket,
                state: State::Starting(starting),
            }),
            Err(why) => eprintln!("gofer: {why}"),
        }
    }

    /// Lets the processes finish what they are at; then, or on a second signal, ends them.
    fn end(&mut self, termination: &OwnedFd) -> Result<(), Failure> {
        for connection in &self.connections {
            // Its client sees the end once the answer under way is out.
            _ = shutdown(&connection.socket, Shutdown::Read);
        }
        drain(termination);
        let deadline = Instant::now() + GRACE;
        while !self.connections.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or(PAUSE);
            let ready = self.wait(termination, Some(&timeout))?;
            if left.is_zero() || ready.first() == Some(&true) {
                break;
            }
            self.look_after(&ready[1..]);
        }
        for connection in self.connections.drain(..) {
            match connection.state {
                State::Starting(starting) => starting.kill(),
                State::Serving(mut confined, _) => {
                    confined.kill();
                    // A process that was killed is gone soon; it fails only if it is gone.
                    _ = confined.wait();
                }
            }
        }
        Ok(())
    }
}

fn serving(starting: Starting) -> Result<(Confined, OwnedFd), String> {
    let mut confined = starting.finish().map_err(|error| error.to_string())?;
    let id = i32::try_from(confined.id()).ok();
    let pidfd = id.and_then(rustix::process::Pid::from_raw);
    match pidfd.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(pidfd)) => Ok((confined, pidfd)),
        _ => {
            confined.kill();
            _ = confined.wait();
            Err("cannot watch a process: no descriptor for it".to_owned())
        }
    }
}

/// Takes the signals that were told already, so that only another one counts.
fn drain(termination: &OwnedFd) {
    let mut room = [0; 1024];
    // Empty is as good.
    _ = rustix::io::read(termination, &mut room);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_a_plain_name_and_a_directory() {
        let map = |readonly| Map {
            name: "a-1".into(),
            dir: "/b:c".into(),
            readonly,
        };
        assert_eq!(parse_map("a-1=/b:c"), Ok(map(false)));
        assert_eq!(parse_map("a-1=/b:c:ro"), Ok(map(true)));
        for text in ["/a", "=/a", "a/b=/c", "a.b=/c", "a=", "a=:ro"] {
            assert!(parse_map(text).is_err(), "{text}");
        }
    }
}
