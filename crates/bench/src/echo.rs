//! The other process of the limits: it answers at once, whatever it is asked.
//!
//! It waits like our gofer does, so what a turn costs here is what no gofer with such a policy can
//! go below.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use channel::{Socket, Wait, WindowFile};
use client::Client;
use wire::msg::session::ChannelReply;
use wire::{Encode, Mid};

use crate::failure::{Result, Tried};
use crate::session::Waiting;

/// As long as the answer to FStat.
const ANSWER: [u8; 144] = [0; 144];
const PAYLOAD_BYTES_MAX: u32 = 2 << 20;

/// The hidden command by which the benchmark starts itself again.
pub(crate) const COMMAND: &str = "echo";

/// The other process, while it runs.
#[derive(Debug)]
pub(crate) struct Echo {
    child: Child,
    pub(crate) client: Client,
}

impl Echo {
    pub(crate) fn start() -> Result<Self> {
        let (ours, theirs) = rig::pair();
        let child = Command::new("/proc/self/exe")
            .arg(COMMAND)
            .stdin(Stdio::from(theirs))
            .spawn()
            .tried("starting the echo")?;
        Ok(Self {
            child,
            client: Client::new(ours),
        })
    }

    /// One turn there and back.
    pub(crate) fn channel(&self, waiting: Waiting) -> Result<channel::Client> {
        let answer = self.client.request(Mid::CHANNEL, &[]).tried("Channel")?;
        let offer = crate::session::offer(answer)?;
        channel::Client::connect(offer, waiting.wait()).tried("channel")
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.client.shutdown();
        // It ends with its socket; a child that does not would be reaped with us.
        _ = self.child.wait();
    }
}

/// What the other process does until its standard input, a socket, is closed.
pub(crate) fn serve() -> Result<()> {
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = Socket::new(socket);
    let wait = Wait::adaptive();
    let file = WindowFile::new().tried("window file")?;
    let mut payload = Vec::new();
    while let Ok(header) = socket.receive(&mut payload, PAYLOAD_BYTES_MAX, None) {
        if Mid(header.mid) == Mid::CHANNEL {
            offer(&socket, &file, wait.clone())?;
        } else {
            socket.send(header.mid, &ANSWER, &[]).tried("answer")?;
        }
    }
    Ok(())
}

fn offer(socket: &Socket, file: &WindowFile, wait: Wait) -> Result<()> {
    let (mut server, offer) = channel::Server::open(file, wait).tried("channel")?;
    std::thread::spawn(move || {
        let mut request = Vec::new();
        if server.accept().is_err() {
            return;
        }
        while let Ok(turn) = server.receive() {
            server.copy_request(&mut request, turn.payload_bytes);
            if server.reply(turn.mid, &ANSWER, &[]).is_err() {
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
