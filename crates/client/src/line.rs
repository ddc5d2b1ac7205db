//! Communicators: the socket, and channels of which idle ones are preferred, latest first.
//!
//! Must hold: one request at a time on each; a dead channel is never used again; a request is never
//! repeated on another communicator.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use channel::{ChannelError, Closer, Socket, SocketError};
use wire::msg::session::ErrorReply;
use wire::{Decode, Encode, Errno, Mid};

use crate::{Client, Error, TransportError, Violation};

/// Longest payload before the server has told its own limit, in bytes.
const PAYLOAD_BYTES_BEFORE_MOUNT: u32 = 1 << 20;

/// By which way a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Line {
    /// The connection's socket.
    Socket,
    /// A channel, numbered from 0 in the order in which they were opened.
    Channel(usize),
}

/// A reply as it came, unchecked.
#[derive(Debug)]
pub struct Answer {
    /// Which message it says it is.
    pub mid: Mid,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Descriptors that came along, in order.
    pub fds: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(crate) struct Lines {
    socket: Socket,
    socket_buffers: Mutex<Buffers>,
    channels: RwLock<Vec<Arc<ChannelLine>>>,
    idle: Mutex<Vec<usize>>,
}

#[derive(Debug)]
struct ChannelLine {
    closer: Closer,
    ends: Mutex<(channel::Client, Buffers)>,
}

/// Kept between requests, so that a request allocates nothing.
#[derive(Debug, Default)]
struct Buffers {
    request: Vec<u8>,
    reply: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A panic of another thread leaves nothing half done here: buffers are overwritten anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Socket::new(socket),
            socket_buffers: Mutex::default(),
            channels: RwLock::default(),
            idle: Mutex::default(),
        }
    }

    pub(crate) fn shutdown(&self) {
        self.socket.shutdown();
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        for channel in channels.iter() {
            channel.closer.close();
        }
    }

    /// Puts a connected channel to use; its number.
    pub(crate) fn add(&self, channel: channel::Client) -> usize {
        let mut channels = self
            .channels
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        channels.push(Arc::new(ChannelLine {
            closer: channel.closer(),
            ends: Mutex::new((channel, Buffers::default())),
        }));
        let number = channels.len() - 1;
        lock(&self.idle).push(number);
        number
    }

    fn channel(&self, number: usize) -> Result<Arc<ChannelLine>, TransportError> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        channels
            .get(number)
            .cloned()
            .ok_or(TransportError::NoSuchLine)
    }

    /// Sends what `fill` writes over the given line and lets `read` look at the reply.
    fn exchange<T>(
        &self,
        line: Line,
        mid: Mid,
        payload_bytes_max: u32,
        fill: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(Mid, &[u8], Vec<OwnedFd>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match line {
            Line::Socket => {
                let mut buffers = lock(&self.socket_buffers);
                buffers.write(payload_bytes_max, fill)?;
                let mid = self.exchange_on_socket(&mut buffers, mid, payload_bytes_max)?;
                buffers.read(mid, payload_bytes_max, read)
            }
            Line::Channel(number) => {
                let channel = self.channel(number)?;
                let mut ends = lock(&channel.ends);
                let (endpoint, buffers) = &mut *ends;
                buffers.write(payload_bytes_max, fill)?;
                let Buffers {
                    request,
                    reply,
                    fds,
                } = buffers;
                let mid =
                    endpoint
                        .call(mid.0, request, reply, fds)
                        .map_err(|error| match error {
                            ChannelError::TooLong => TransportError::TooLong,
                            other => TransportError::Channel(other),
                        })?;
                buffers.read(Mid(mid), payload_bytes_max, read)
            }
        }
    }

    fn exchange_on_socket(
        &self,
        buffers: &mut Buffers,
        mid: Mid,
        payload_bytes_max: u32,
    ) -> Result<Mid, Error> {
        let Buffers {
            request,
            reply,
            fds,
        } = buffers;
        self.socket
            .send(mid.0, request, &[])
            .map_err(TransportError::Socket)?;
        match self.socket.receive(reply, payload_bytes_max, Some(fds)) {
            Ok(header) => Ok(Mid(header.mid)),
            Err(SocketError::Oversized { payload_bytes, .. }) => {
                fds.clear();
                Err(Violation::Oversized(payload_bytes).into())
            }
            Err(error) => {
                fds.clear();
                Err(TransportError::Socket(error).into())
            }
        }
    }
}

impl Buffers {
    fn write(
        &mut self,
        payload_bytes_max: u32,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TransportError> {
        self.request.clear();
        fill(&mut self.request);
        if self.request.len() > payload_bytes_max as usize {
            return Err(TransportError::TooLong);
        }
        Ok(())
    }

    fn read<T>(
        &mut self,
        mid: Mid,
        payload_bytes_max: u32,
        read: impl FnOnce(Mid, &[u8], Vec<OwnedFd>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let fds = std::mem::take(&mut self.fds);
        if self.reply.len() > payload_bytes_max as usize {
            return Err(Violation::Oversized(self.reply.len() as u32).into());
        }
        read(mid, &self.reply, fds)
    }
}

impl Client {
    /// Sends any message over the socket and returns the reply unchecked: for tests.
    ///
    /// # Errors
    /// Transport errors, and `Oversized`.
    pub fn request(&self, mid: Mid, payload: &[u8]) -> Result<Answer, Error> {
        self.request_on(Line::Socket, mid, payload)
    }

    /// Sends any message over a named communicator, waiting for it if it is busy, and returns the
    /// reply unchecked: for tests.
    ///
    /// # Errors
    /// Transport errors, and `Oversized`.
    pub fn request_on(&self, line: Line, mid: Mid, payload: &[u8]) -> Result<Answer, Error> {
        let fill = |request: &mut Vec<u8>| request.extend_from_slice(payload);
        self.lines.exchange(
            line,
            mid,
            self.payload_bytes_max(),
            fill,
            |mid, payload, fds| {
                Ok(Answer {
                    mid,
                    payload: payload.to_vec(),
                    fds,
                })
            },
        )
    }

    /// Longest payload in either direction, in bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> u32 {
        self.negotiated
            .get()
            .map_or(PAYLOAD_BYTES_BEFORE_MOUNT, |n| n.payload_bytes_max)
    }

    /// How many channels were opened, dead ones included.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.lines
            .channels
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// One request, with the checks of `lisafs.md` 12.9 in their order.
    pub(crate) fn ask<T>(
        &self,
        mid: Mid,
        fill: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(&[u8], Vec<OwnedFd>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.negotiated.get().is_some_and(|n| !n.lists(mid)) {
            return Err(Errno::OPNOTSUPP.into());
        }
        let line = lock(&self.lines.idle)
            .pop()
            .map_or(Line::Socket, Line::Channel);
        let most = self.payload_bytes_max();
        let result = self
            .lines
            .exchange(line, mid, most, fill, |answered, payload, fds| {
                if answered == Mid::ERROR {
                    let errno = ErrorReply::from_payload(payload)?.errno;
                    return Err(Errno::new(errno).into());
                }
                if answered != mid {
                    return Err(Violation::OtherMessage(answered).into());
                }
                read(payload, fds)
            });
        let dead = matches!(result, Err(Error::Transport(TransportError::Channel(_))));
        if let (Line::Channel(number), false) = (line, dead) {
            lock(&self.lines.idle).push(number);
        }
        result
    }

    /// A request whose reply matters only in that there is one.
    pub(crate) fn tell(&self, mid: Mid, request: &impl Encode) -> Result<(), Error> {
        self.ask(mid, |out| encode(request, out), |_, _| Ok(()))
    }

    /// A request whose reply has a fixed shape and no descriptors.
    pub(crate) fn fetch<T>(&self, mid: Mid, request: &impl Encode) -> Result<T, Error>
    where
        T: for<'a> Decode<'a>,
    {
        let read = |payload: &[u8], _| Ok(T::from_payload(payload)?);
        self.ask(mid, |out| encode(request, out), read)
    }
}

pub(crate) fn encode(message: &impl Encode, out: &mut Vec<u8>) {
    message.encode(&mut wire::Writer::new(out));
}
