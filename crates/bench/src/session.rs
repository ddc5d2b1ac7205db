//! One channel of one mount, as a client with nothing else to do would drive it: requests are
//! encoded into a kept buffer, replies copied out of the window once, donated descriptors closed.

use std::os::fd::OwnedFd;

use channel::{Offer, Wait};
use client::{Answer, Client};
use wire::msg::session::{ChannelReply, ErrorReply};
use wire::{Decode, Encode, Errno, FdId, Mid, Writer};

use crate::failure::{Result, Tried};

/// Longer than any reply takes: the client never sleeps.
const SPIN_US: u64 = 10_000_000;

#[derive(Debug)]
pub(crate) struct Session<'c> {
    /// The connection, for what is not measured, and for its socket.
    pub(crate) client: &'c Client,
    pub(crate) root: FdId,
    channel: channel::Client,
    request: Vec<u8>,
    reply: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// How the client waits for replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// On a futex, as gVisor's client does.
    Asleep,
    /// Holding its CPU.
    Spinning,
}

impl Waiting {
    pub(crate) fn wait(self) -> Wait {
        match self {
            Self::Asleep => Wait::asleep(),
            Self::Spinning => Wait::fixed(SPIN_US),
        }
    }
}

/// What a server offers as an answer to Channel.
pub(crate) fn offer(answer: Answer) -> Result<Offer> {
    if answer.mid != Mid::CHANNEL {
        return Err(format!("no channel: {}", refusal(answer.mid, &answer.payload)).into());
    }
    let reply = ChannelReply::from_payload(&answer.payload).tried("Channel")?;
    let mut fds = answer.fds.into_iter();
    let memory = fds.next().ok_or("no memory file")?;
    let fd_socket = fds.next().ok_or("no descriptor socket")?;
    Ok(Offer {
        memory,
        fd_socket,
        offset: u64::try_from(reply.data_offset)?,
        bytes: reply.data_length,
    })
}

fn refusal(mid: Mid, payload: &[u8]) -> String {
    match ErrorReply::from_payload(payload) {
        Ok(reply) if mid == Mid::ERROR => Errno::new(reply.errno).to_string(),
        _ => format!("message {}", mid.0),
    }
}

impl<'c> Session<'c> {
    pub(crate) fn new(client: &'c Client, root: FdId, waiting: Waiting) -> Result<Self> {
        let answer = client.request(Mid::CHANNEL, &[]).tried("Channel")?;
        let channel = channel::Client::connect(offer(answer)?, waiting.wait()).tried("channel")?;
        Ok(Self {
            client,
            root,
            channel,
            request: Vec::new(),
            reply: Vec::new(),
            fds: Vec::new(),
        })
    }

    /// One request over the channel; the reply's payload.
    pub(crate) fn call(&mut self, mid: Mid, request: &impl Encode) -> Result<&[u8]> {
        self.request.clear();
        request.encode(&mut Writer::new(&mut self.request));
        let request = std::mem::take(&mut self.request);
        let done = self.exchange(mid, &request);
        self.request = request;
        done?;
        Ok(&self.reply)
    }

    /// One request that is encoded already.
    pub(crate) fn call_encoded(&mut self, mid: Mid, request: &[u8]) -> Result<&[u8]> {
        self.exchange(mid, request)?;
        Ok(&self.reply)
    }

    fn exchange(&mut self, mid: Mid, request: &[u8]) -> Result<()> {
        let answered = self
            .channel
            .call(mid.0, request, &mut self.reply, &mut self.fds)?;
        self.fds.clear();
        if answered == mid.0 {
            return Ok(());
        }
        let why = refusal(Mid(answered), &self.reply);
        Err(format!("request {} failed: {why}", mid.0).into())
    }

    /// A new control id for a path below the root.
    pub(crate) fn walk(&self, path: &[&str]) -> Result<FdId> {
        let names: Vec<&[u8]> = path.iter().map(|name| name.as_bytes()).collect();
        let walked = self.client.walk(self.root, &names).tried("Walk")?;
        let last = walked
            .inodes
            .last()
            .filter(|_| walked.inodes.len() == path.len());
        Ok(last.ok_or_else(|| format!("{path:?} is missing"))?.control)
    }

    /// A new open id for a path below the root.
    pub(crate) fn open(&self, path: &[&str], flags: u32) -> Result<FdId> {
        let id = self.walk(path)?;
        Ok(self.client.open_at(id, flags).tried("OpenAt")?.id)
    }
}
