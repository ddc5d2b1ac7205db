//! The other process of the limits: it makes the bare system calls of a case, or none, and answers.
//!
//! Belongs here: what no gofer with such a policy can go below: the same code for a turn, the same
//! waiting, nothing decoded, looked up or encoded. Belongs elsewhere: the calls (`bare`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use channel::{Socket, Wait, WindowFile};
use client::Client;
use wire::limits::{PREAD_REPLY_FIXED_BYTES, PWRITE_FIXED_BYTES};
use wire::msg::session::ChannelReply;
use wire::{Encode, Mid};

use crate::bare::{self, Calls, Data, Way};
use crate::failure::{Result, Tried};
use crate::sample::median;
use crate::session::Waiting;

/// As long as the answer to FStat.
const ANSWER: [u8; 144] = [0; 144];
const PAYLOAD_BYTES_MAX: u32 = 2 << 20;
const REQUEST: [u8; 8] = [0; 8];

/// The hidden command by which the benchmark starts itself again.
pub(crate) const COMMAND: &str = "echo";
/// What ours reads too: how long to look before sleeping, instead of the adaptive policy.
pub(crate) const SPIN_VARIABLE: &str = "GOFER_SPIN_US";

/// Take up the calls of the case that the payload names.
const PREPARE: Mid = Mid(1000);
/// Make them once, then answer.
const WORK: Mid = Mid(1001);
/// Remove what they left behind.
const AFTER: Mid = Mid(1002);
/// Answer.
const NOTHING: Mid = Mid(1003);
/// Make them for a while, and answer with the median time of one round.
const BARE: Mid = Mid(1004);
const BARE_TIME: Duration = Duration::from_millis(20);
const BARE_ROUNDS_MAX: usize = 20_000;

/// The other process, while it runs.
#[derive(Debug)]
pub(crate) struct Echo {
    child: Child,
    client: Client,
}

/// A channel to it.
#[derive(Debug)]
pub(crate) struct Turns {
    channel: channel::Client,
    /// What asks for the calls of the case.
    pub(crate) request: Vec<u8>,
    reply: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Echo {
    /// One that works on the files below `root`.
    pub(crate) fn start(root: &Path) -> Result<Self> {
        let (ours, theirs) = rig::pair();
        let child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .arg(root)
            .stdin(Stdio::from(theirs))
            .spawn()
            .tried("starting the echo")?;
        Ok(Self {
            child,
            client: Client::new(ours),
        })
    }

    fn ask(&self, mid: Mid, request: &[u8]) -> Result<Vec<u8>> {
        let answer = self.client.request(mid, request).tried("the echo")?;
        if answer.mid != mid {
            return Err("the echo failed".into());
        }
        Ok(answer.payload)
    }

    /// Makes it ready for a case; how long the case's request is, if it knows its calls.
    pub(crate) fn prepare(&self, case: &str) -> Result<Option<usize>> {
        let answer = self.ask(PREPARE, case.as_bytes())?;
        let bytes = answer.first_chunk().copied().map(u64::from_le_bytes);
        Ok(bytes.map(usize::try_from).transpose()?)
    }

    /// Microseconds that the calls alone take there.
    pub(crate) fn bare(&self) -> Result<f64> {
        let answer = self.ask(BARE, &[])?;
        let ns = answer.first_chunk().copied().map(u64::from_le_bytes);
        Ok(ns.ok_or("the echo has no calls")? as f64 / 1000.0)
    }

    /// A turn over the socket, with the calls of the case.
    pub(crate) fn socket_turn(&self, works: bool) -> Result<Duration> {
        let begun = Instant::now();
        self.ask(if works { WORK } else { NOTHING }, &REQUEST)?;
        Ok(begun.elapsed())
    }

    pub(crate) fn channel(&self, waiting: Waiting) -> Result<Turns> {
        let answer = self.client.request(Mid::CHANNEL, &[]).tried("Channel")?;
        let offer = crate::session::offer(answer)?;
        Ok(Turns {
            channel: channel::Client::connect(offer, waiting.wait()).tried("channel")?,
            request: REQUEST.to_vec(),
            reply: Vec::new(),
            fds: Vec::new(),
        })
    }
}

impl Turns {
    fn call(&mut self, mid: Mid) -> Result<()> {
        let request = if mid == WORK {
            self.request.as_slice()
        } else {
            &REQUEST
        };
        let answered = self
            .channel
            .call(mid.0, request, &mut self.reply, &mut self.fds)
            .tried("a turn")?;
        if answered == mid.0 {
            return Ok(());
        }
        Err("the echo failed".into())
    }

    /// A turn there and back in which nothing is done.
    pub(crate) fn turn(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.call(NOTHING)?;
        Ok(begun.elapsed())
    }

    /// As many turns as the case takes; its calls are all made in the first.
    pub(crate) fn case(&mut self, turns: u32) -> Result<Duration> {
        let begun = Instant::now();
        self.call(WORK)?;
        for _ in 1..turns {
            self.call(NOTHING)?;
        }
        let took = begun.elapsed();
        // What follows an operation of a client takes a turn too, and so keeps the pace.
        self.call(AFTER)?;
        Ok(took)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.client.shutdown();
        // It ends with its socket; a child that does not would be reaped with us.
        _ = self.child.wait();
    }
}

/// What is prepared. The lock is free whenever a turn arrives: there is one client.
#[derive(Clone)]
struct Prepared(Arc<Mutex<Option<Calls>>>);

impl Prepared {
    fn set(&self, calls: Option<Calls>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = calls;
    }

    /// How long the request is that asks for the calls.
    fn request_bytes(&self) -> Option<usize> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let data = calls.as_ref()?.data.as_ref();
        let sent = data.filter(|data| data.way == Way::FromClient);
        Some(sent.map_or(REQUEST.len(), |data| PWRITE_FIXED_BYTES + data.bytes))
    }

    /// The calls of a case whose data cross the window, done there; how much is in it then, behind the
    /// reply's head. `None` if the case has no data.
    fn run_in_window(&self, server: &mut channel::Server) -> Option<Result<usize>> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Data { file, bytes, way } = calls.as_ref()?.data.as_ref()?;
        let mut bulk = server.bulk();
        Some(match way {
            Way::ToClient => bulk
                .pread(file.as_fd(), PREAD_REPLY_FIXED_BYTES, *bytes, 0)
                .tried("pread"),
            Way::FromClient => bulk
                .pwrite(file.as_fd(), PWRITE_FIXED_BYTES, *bytes, 0)
                .tried("pwrite")
                .map(|_| 0),
        })
    }

    fn run(&self, mid: Mid) -> Result<()> {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (mid, calls.as_mut()) {
            (WORK, Some(calls)) => (calls.work)(),
            (AFTER, Some(calls)) => calls.after.as_mut().map_or(Ok(()), |after| after()),
            (NOTHING, _) => Ok(()),
            _ => Err("nothing is prepared".into()),
        }
    }

    /// What it answers with.
    fn answers(&self, mid: Mid) -> Mid {
        match self.run(mid) {
            Ok(()) => mid,
            Err(why) => {
                eprintln!("bench: the limit: {why}");
                Mid::ERROR
            }
        }
    }

    fn bare_ns(&self) -> Result<u64> {
        let begun = Instant::now();
        let mut times = Vec::new();
        while times.is_empty() || (begun.elapsed() < BARE_TIME && times.len() < BARE_ROUNDS_MAX) {
            let one = Instant::now();
            self.run(WORK)?;
            times.push(one.elapsed().as_nanos() as f64);
            self.run(AFTER)?;
        }
        Ok(median(times).ok_or("no time")? as u64)
    }
}

/// The waiting that our gofer would do.
fn wait() -> Wait {
    let fixed = std::env::var(SPIN_VARIABLE).ok();
    fixed
        .and_then(|us| us.parse().ok())
        .map_or_else(Wait::adaptive, Wait::fixed)
}

/// What the other process does until its standard input, a socket, is closed.
pub(crate) fn serve(root: Option<String>) -> Result<()> {
    let root = PathBuf::from(root.ok_or("no root")?);
    std::env::set_current_dir("/proc/self/fd").tried("/proc/self/fd")?;
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = Socket::new(socket);
    let wait = wait();
    let file = WindowFile::new().tried("window file")?;
    let prepared = Prepared(Arc::default());
    let mut payload = Vec::new();
    while let Ok(header) = socket.receive(&mut payload, PAYLOAD_BYTES_MAX, None) {
        let mid = Mid(header.mid);
        let (mid, answer) = match mid {
            Mid::CHANNEL => {
                offer(&socket, &file, wait.clone(), prepared.clone())?;
                continue;
            }
            PREPARE => {
                let calls = bare::calls(&root, &String::from_utf8_lossy(&payload));
                prepared.set(calls.ok().flatten());
                let bytes = prepared.request_bytes().map(|bytes| bytes as u64);
                (mid, bytes.map_or(Vec::new(), |n| n.to_le_bytes().to_vec()))
            }
            BARE => match prepared.bare_ns() {
                Ok(ns) => (mid, ns.to_le_bytes().to_vec()),
                Err(_) => (Mid::ERROR, Vec::new()),
            },
            _ => (prepared.answers(mid), ANSWER.to_vec()),
        };
        socket.send(mid.0, &answer, &[]).tried("answer")?;
    }
    Ok(())
}

fn offer(socket: &Socket, file: &WindowFile, wait: Wait, prepared: Prepared) -> Result<()> {
    let (mut server, offer) = channel::Server::open(file, wait).tried("channel")?;
    std::thread::spawn(move || {
        if server.accept().is_err() {
            return;
        }
        let mut request = Vec::new();
        while let Ok(turn) = server.receive() {
            let mid = Mid(turn.mid);
            let in_window = (mid == WORK).then(|| prepared.run_in_window(&mut server));
            let answered = match in_window.flatten() {
                Some(Ok(bytes)) => {
                    let whole = PREAD_REPLY_FIXED_BYTES + bytes;
                    server.reply_in_place(turn.mid, &REQUEST, whole)
                }
                _ => {
                    server.copy_request(&mut request, turn.payload_bytes);
                    let answered = prepared.answers(mid);
                    server.reply(answered.0, &ANSWER, &[]).map(|_| ())
                }
            };
            if answered.is_err() {
                return;
            }
        }
    });
    let reply = ChannelReply {
        data_offset: i64::try_from(offer.offset)?,
        data_length: offer.bytes,
    };
    let fds = [offer.memory.as_fd(), offer.fd_socket.as_fd()];
    socket
        .send(Mid::CHANNEL.0, &reply.to_payload(), &fds)
        .tried("offer")
}
