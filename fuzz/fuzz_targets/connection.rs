//! A whole connection: a hostile client on the socket and on channels, in front of a real tree.
//!
//! After each run: every proper request was answered properly, no reply had content from outside
//! the tree, nothing outside was touched, the server's claims about the tree are true, and no
//! descriptor and no thread is left.
#![no_main]

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use channel::Socket;
use client::{Answer, Client};
use fuzz::messages::REPLIES;
use fuzz::peer::Peer;
use fuzz::world::{World, secret};
use fuzz::{claims, requests};
use libfuzzer_sys::fuzz_target;
use rig::Setup;
use wire::msg::session::{ChannelReply, ErrorReply};
use wire::msg::{open, socket, walk};
use wire::{Decode, Errno, Inode, Mid, limits};

const STEPS_MAX: usize = 40;
const CHANNELS_MAX: usize = 3;
/// How long claims may be wrong because a scribbled window still has requests in it.
const CLAIMS_SETTLE: Duration = Duration::from_secs(5);

fuzz_target!(|input: &[u8]| {
    let world = World::new();
    let mut u = Unstructured::new(input);
    let readonly = u.ratio(1, 16).unwrap_or(false);
    let (socket, server) = rig::serve(
        &world.tree(),
        Setup {
            readonly,
            ..Setup::default()
        },
    );
    {
        let mut attack = Attack::new(socket);
        let _end_of_input = attack.go(&mut u);
        attack.check(&world);
    }
    server.join().expect("the server panicked");
    world.check();
});

struct Attack {
    client: Client,
    /// The same socket, for what a client cannot be made to send.
    raw: Socket,
    channels: Vec<Peer>,
    /// What the server gave out.
    ids: Vec<u64>,
    fds: Vec<OwnedFd>,
}

impl Attack {
    fn new(socket: OwnedFd) -> Self {
        let raw = Socket::new(socket.try_clone().expect("a descriptor"));
        let client = Client::new(socket);
        Self {
            client,
            raw,
            channels: Vec::new(),
            ids: Vec::new(),
            fds: Vec::new(),
        }
    }

    fn go(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if !u.ratio(1, 32)? {
            self.on_socket(Mid::MOUNT, &[]);
        }
        for _ in 0..STEPS_MAX {
            if u.is_empty() {
                return Ok(());
            }
            self.step(u)?;
        }
        Ok(())
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (kind, which) = (u.int_in_range(0..=63_u8)?, usize::from(u8::arbitrary(u)?));
        let channels = self.channels.len();
        match kind {
            0..=2 if channels < CHANNELS_MAX => self.open_channel(),
            // A few of the connections below are left to the socket, or all would be channels'.
            3..=29 if channels > 0 => {
                let (mid, payload) = requests::request(u, &self.ids)?;
                if let Some((answered, reply)) =
                    self.channels[which % channels].ask(mid.0, &payload)
                {
                    self.learn(mid, Mid(answered), &reply);
                }
            }
            30 if channels > 0 => {
                let (state, length) = (u.int_in_range(0..=4_u32)?, u32::arbitrary(u)?);
                let state = if state > 3 { u32::arbitrary(u)? } else { state };
                let (mid, payload) = requests::request(u, &self.ids)?;
                let datagram = [&mid.0.to_le_bytes()[..], &[0, 0], &payload].concat();
                let peer = &mut self.channels[which % channels];
                peer.wild = true;
                peer.hand_over(state, length, &datagram);
            }
            31 if channels > 0 => {
                let words = (0..u.int_in_range(1..=4)?)
                    .map(|_| Ok((window_place(u)?, u32::arbitrary(u)?)))
                    .collect::<Result<Vec<_>>>()?;
                self.channels[which % channels].scribble(words);
            }
            32 => self.oversized(u.int_in_range(1..=5000)?),
            33 => {
                for fd in &self.fds {
                    // The server's own waits must not depend on what the client may change.
                    let _refused = rustix::fs::fcntl_setfl(fd, rustix::fs::OFlags::empty());
                }
            }
            34 => self.fds.clear(),
            _ => {
                let (mid, payload) = requests::request(u, &self.ids)?;
                self.on_socket(mid, &payload);
            }
        }
        Ok(())
    }

    fn on_socket(&mut self, mid: Mid, payload: &[u8]) -> Answer {
        let answer = self
            .client
            .request(mid, payload)
            .expect("a framed request gets a reply");
        self.learn(mid, answer.mid, &answer.payload);
        let mut answer = answer;
        if mid != Mid::CHANNEL {
            self.fds.append(&mut answer.fds);
        }
        answer
    }

    /// A payload longer than any may be: refused, and the connection lives on.
    fn oversized(&mut self, surplus: usize) {
        let payload = vec![0; limits::payload_bytes_max(4096) as usize + surplus];
        self.raw
            .send(Mid::PWRITE.0, &payload, &[])
            .expect("a long message");
        let mut reply = Vec::new();
        let header = self.raw.receive(&mut reply, 4096, None).expect("a reply");
        self.learn(Mid::PWRITE, Mid(header.mid), &reply);
        assert_eq!(Mid(header.mid), Mid::ERROR);
    }

    fn open_channel(&mut self) {
        let answer = self.on_socket(Mid::CHANNEL, &[]);
        if answer.mid != Mid::CHANNEL {
            return;
        }
        let reply = ChannelReply::from_payload(&answer.payload).expect("a checked reply");
        let mut fds = answer.fds.into_iter();
        let (Some(memory), Some(fd_socket)) = (fds.next(), fds.next()) else {
            panic!("a channel without its descriptors");
        };
        let mut peer = Peer::new(&memory, fd_socket, reply.data_offset as u64);
        peer.shake_hands();
        self.channels.push(peer);
    }

    /// Checks a reply and keeps its ids.
    fn learn(&mut self, asked: Mid, answered: Mid, payload: &[u8]) {
        assert!(
            answered == asked || answered == Mid::ERROR,
            "{answered} answers {asked}"
        );
        let leaked = payload.windows(secret().len()).any(|part| part == secret());
        assert!(!leaked, "a reply to {asked} has content from outside");
        if let Some((_, check)) = REPLIES.iter().find(|(mid, _)| *mid == answered) {
            assert!(check(payload), "a malformed reply to {asked}");
        } else {
            assert!(payload.is_empty(), "a reply to {asked} has a body");
        }
        match answered {
            Mid::ERROR => {
                let errno = ErrorReply::from_payload(payload)
                    .expect("a checked reply")
                    .errno;
                assert!((1..4096).contains(&errno), "errno {errno}");
                assert_ne!(errno, Errno::REMOTEIO.raw(), "a handler panicked");
            }
            Mid::MOUNT | Mid::MKDIR_AT | Mid::MKNOD_AT | Mid::SYMLINK_AT | Mid::LINK_AT => {
                self.inode(payload);
            }
            Mid::WALK => {
                let reply = walk::WalkReply::from_payload(payload).expect("a checked reply");
                self.ids
                    .extend(reply.inodes.iter().map(|inode| inode.control.0));
            }
            Mid::OPEN_AT => {
                let reply = open::OpenAtReply::from_payload(payload).expect("a checked reply");
                self.ids.push(reply.open.0);
            }
            Mid::OPEN_CREATE_AT => {
                let reply = open::OpenCreateAtReply::from_payload(payload).expect("checked");
                self.ids.extend([reply.child.control.0, reply.open.0]);
            }
            Mid::BIND_AT => {
                let reply = socket::BindAtReply::from_payload(payload).expect("a checked reply");
                self.ids.extend([reply.child.control.0, reply.bound.0]);
            }
            _ => {}
        }
    }

    fn inode(&mut self, payload: &[u8]) {
        let inode = Inode::from_payload(payload).expect("a checked reply");
        assert_ne!(inode.control.0, 0);
        self.ids.push(inode.control.0);
    }

    /// The server still answers, and tells the truth.
    fn check(mut self, world: &World) {
        self.channels.iter_mut().for_each(Peer::calm);
        let settled = Instant::now() + CLAIMS_SETTLE;
        let root = self
            .client
            .mount()
            .expect("the server still answers")
            .root
            .control;
        loop {
            match claims::check(&self.client, root, &world.tree()) {
                Ok(()) => return,
                // A scribbled window may still hold a request that changes the tree.
                Err(_)
                    if self.channels.iter().any(|peer| peer.wild) && Instant::now() < settled => {}
                Err(wrong) => panic!("{wrong}"),
            }
        }
    }
}

/// A place of the window where something is decided: mostly its first words.
fn window_place(u: &mut Unstructured<'_>) -> Result<u32> {
    if u.ratio(7, 8)? {
        u.int_in_range(0..=80)
    } else {
        u.int_in_range(0..=(2 << 20) - 4)
    }
}
