//! One of the two servers: its tree, its process, a client with a channel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use channel::Wait;
use client::{Answer, Client, Error, Line};
use rustix::fs::Mode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use wire::{Decode, FdId, Inode, Mid};

use super::op::{Op, Step};
use super::tree;
use crate::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use crate::{Setup, must, serve};

/// A request that takes longer is stuck. Far above what a busy machine needs.
const STUCK_AFTER: Duration = Duration::from_secs(60);

enum Server {
    Process(Gofer),
    Thread(JoinHandle<()>),
}

/// A server with a planted tree, mounted by a client.
pub(super) struct Side {
    pub(super) root: Inode,
    pub(super) tree: PathBuf,
    client: Option<Client>,
    channel: Line,
    server: Option<Server>,
    _bundle: TempDir,
}

impl Side {
    /// Starts `program` as the gofer of a `runsc` of 2024; without one, our server in this process.
    pub(super) fn start(program: Option<&Path>) -> Self {
        // As our server does, which may run in this process: both trees get the same modes.
        rustix::process::umask(Mode::empty());
        let bundle = must(tempfile::tempdir(), "a temporary directory");
        let root = bundle.path().join("root");
        must(std::fs::create_dir(&root), "the tree");
        tree::plant(&root);
        let (socket, server) = match program {
            None => {
                let (socket, thread) = serve(&root, Setup::default());
                (socket, Server::Thread(thread))
            }
            Some(program) => {
                must(
                    write_bundle(bundle.path(), &root, false, &json!([])),
                    "the bundle",
                );
                let parent = Parent::new(program, Dialect::V2024, bundle.path(), &["lisafs:none"])
                    .flag("--directfs=false")
                    .flag("--host-uds=all")
                    .flag("--host-fifo=open");
                let mut gofer = must(parent.start(), "a gofer");
                gofer.release();
                must(gofer.mounts(), "the gofer's set-up");
                (
                    must(gofer.take_socket(), "its socket"),
                    Server::Process(gofer),
                )
            }
        };
        let (client, mounted) = must(Client::connect(socket), "Mount");
        let channel = must(client.open_channel(Wait::asleep()), "a channel");
        Self {
            root: mounted.root,
            tree: root,
            client: Some(client),
            channel,
            server: Some(server),
            _bundle: bundle,
        }
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        match &self.server {
            Some(Server::Process(gofer)) => Some(gofer.pid),
            _ => None,
        }
    }

    fn client(&self) -> &Client {
        // Taken only in `end`, which takes the side itself.
        self.client
            .as_ref()
            .expect("a side has its client until it ends")
    }

    /// Puts a step to the server, in the server's own numbers.
    pub(super) fn ask(
        &self,
        step: &Step,
        op: &Op,
        id_of: &dyn Fn(super::Ref) -> FdId,
    ) -> Result<Answer, Error> {
        let mut payload = op.payload(id_of);
        step.twist.apply(&mut payload);
        let line = if step.channel {
            self.channel
        } else {
            Line::Socket
        };
        self.client().request_on(line, op.mid(), &payload)
    }

    /// Attributes of an id.
    pub(super) fn stat(&self, id: FdId) -> Option<wire::Statx> {
        let payload = id.0.to_le_bytes();
        let answer = self.client().request(Mid::FSTAT, &payload).ok()?;
        if answer.mid != Mid::FSTAT {
            return None;
        }
        wire::Statx::from_payload(&answer.payload).ok()
    }

    /// Sends what takes back an allowed difference. It must succeed.
    pub(super) fn take_back(&self, op: &Op, id_of: &dyn Fn(super::Ref) -> FdId) {
        let answer = must(
            self.client().request(op.mid(), &op.payload(id_of)),
            "taking back",
        );
        assert_eq!(answer.mid, op.mid(), "{op:?} could not be taken back");
    }

    pub(super) fn close(&self, ids: &[FdId]) {
        if !ids.is_empty() {
            must(self.client().close(ids), "Close");
        }
    }

    /// Leaves; the server must end by itself, in peace.
    pub(super) fn end(mut self) -> Result<(), String> {
        drop(self.client.take());
        match self.server.take() {
            Some(Server::Process(gofer)) => match must(gofer.wait(), "the gofer's end") {
                Ended::Status(0) => Ok(()),
                other => Err(format!("the gofer ended with {other:?}")),
            },
            Some(Server::Thread(thread)) => {
                thread.join().map_err(|_| "the server panicked".to_owned())
            }
            None => Ok(()),
        }
    }
}

/// Kills servers that do not answer any more, so that the client sees an error instead.
pub(super) struct Watch {
    beats: Arc<AtomicU64>,
    /// Dropped to end the thread.
    _alive: std::sync::mpsc::Sender<()>,
}

impl Watch {
    pub(super) fn over(pids: Vec<Pid>) -> Self {
        let beats = Arc::new(AtomicU64::new(0));
        let (alive, gone) = std::sync::mpsc::channel::<()>();
        let seen = Arc::clone(&beats);
        std::thread::spawn(move || {
            let mut last = 0;
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
                gone.recv_timeout(STUCK_AFTER)
            {
                let now = seen.load(Ordering::Relaxed);
                if now == last {
                    for pid in &pids {
                        _ = kill_process(*pid, Signal::KILL);
                    }
                    return;
                }
                last = now;
            }
        });
        Self {
            beats,
            _alive: alive,
        }
    }

    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}
