//! Messages on a stream socket, with descriptors beside the first byte.
//!
//! Belongs here: framing, partial reads and writes, `SCM_RIGHTS`, bounds on what is buffered.
//! Belongs elsewhere: what a message means (`wire`), when a connection ends (`server`).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recv, recvmsg, sendmsg, shutdown,
};
use thiserror::Error;

/// Bytes of a message's header.
const HEADER_BYTES: usize = 8;
/// Descriptors that one message carries at most. Replies carry two; surplus ones are never adopted.
pub const SOCKET_FDS_MAX: usize = 4;
/// Piece in which an oversized payload is read and thrown away.
const DISCARD_BYTES: usize = 4096;

/// A message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which message.
    pub mid: u16,
    /// Bytes that follow.
    pub payload_bytes: u32,
}

impl Header {
    fn from_wire(wire: [u8; HEADER_BYTES]) -> Self {
        let [a, b, c, d, low, high, _, _] = wire;
        let payload_bytes = u32::from_le_bytes([a, b, c, d]);
        Self {
            mid: u16::from_le_bytes([low, high]),
            payload_bytes,
        }
    }

    fn to_wire(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.payload_bytes.to_le_bytes();
        let [low, high] = self.mid.to_le_bytes();
        [a, b, c, d, low, high, 0, 0]
    }
}

/// Why no message came in, or none went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SocketError {
    /// The peer left between two messages, or we shut the socket down.
    #[error("the peer left")]
    Left,
    /// The peer left inside a message.
    #[error("the peer left inside a message")]
    LeftInside,
    /// The payload was longer than allowed. It was thrown away; the next message can be received.
    #[error("the peer sent a payload of {payload_bytes} bytes")]
    Oversized {
        /// Which message.
        mid: u16,
        /// Bytes announced, and thrown away.
        payload_bytes: u32,
    },
    /// Our own message is longer, or carries more descriptors, than a message can. Nothing was sent.
    #[error("the message is too long to send")]
    TooLong,
    /// The host refused. The connection is unusable.
    #[error("the host refused: {0}")]
    Host(#[from] Errno),
}

/// One end of a stream. Blocking and non-blocking descriptors work alike.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Takes over a connected `AF_UNIX`, `SOCK_STREAM` socket.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Waits for a message and replaces `payload` by its payload of at most `payload_bytes_max`.
    ///
    /// Without `fds`, descriptors sent along are dropped by the kernel. With it, up to
    /// [`SOCKET_FDS_MAX`] that ride on the first byte are appended, also if an error follows.
    ///
    /// # Errors
    /// After `Oversized` the next message can be received; any other error ends the connection.
    pub fn receive(
        &self,
        payload: &mut Vec<u8>,
        payload_bytes_max: u32,
        fds: Option<&mut Vec<OwnedFd>>,
    ) -> Result<Header, SocketError> {
        let header = self.receive_header(fds)?;
        if header.payload_bytes > payload_bytes_max {
            payload.clear();
            self.discard(header.payload_bytes)?;
            let Header { mid, payload_bytes } = header;
            return Err(SocketError::Oversized { mid, payload_bytes });
        }
        // Bytes left from earlier messages are overwritten, so only growth has to be cleared.
        payload.resize(header.payload_bytes as usize, 0);
        self.fill(payload)?;
        Ok(header)
    }

    /// Sends a message; `fds` ride on its first byte.
    ///
    /// # Errors
    /// `TooLong` if nothing was sent; any other error ends the connection.
    pub fn send(
        &self,
        mid: u16,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SocketError> {
        let payload_bytes = u32::try_from(payload.len()).map_err(|_| SocketError::TooLong)?;
        if fds.len() > SOCKET_FDS_MAX {
            return Err(SocketError::TooLong);
        }
        let header = Header { mid, payload_bytes }.to_wire();
        let mut parts = [IoSlice::new(&header), IoSlice::new(payload)];
        let mut rest = &mut parts[..];
        let mut fds = fds;
        while rest.iter().any(|part| !part.is_empty()) {
            let sent = self.when_ready(PollFlags::OUT, || send_some(self.fd.as_fd(), rest, fds))?;
            IoSlice::advance_slices(&mut rest, sent);
            fds = &[];
        }
        Ok(())
    }

    /// Ends the stream in both directions, from any thread: both sides' waits return.
    pub fn shutdown(&self) {
        // Fails only if the peer has gone already, which is what we want.
        _ = shutdown(&self.fd, Shutdown::Both);
    }

    fn receive_header(&self, fds: Option<&mut Vec<OwnedFd>>) -> Result<Header, SocketError> {
        let mut wire = [0; HEADER_BYTES];
        let got = match fds {
            None => self.receive_some(&mut wire)?,
            Some(fds) => self.receive_with_fds(&mut wire, fds)?,
        };
        if got == 0 {
            return Err(SocketError::Left);
        }
        self.fill(&mut wire[got..])?;
        Ok(Header::from_wire(wire))
    }

    fn fill(&self, mut into: &mut [u8]) -> Result<(), SocketError> {
        while !into.is_empty() {
            match self.receive_some(into)? {
                0 => return Err(SocketError::LeftInside),
                got => into = &mut into[got..],
            }
        }
        Ok(())
    }

    fn discard(&self, mut bytes: u32) -> Result<(), SocketError> {
        let mut piece = [0; DISCARD_BYTES];
        while bytes > 0 {
            let wanted = DISCARD_BYTES.min(bytes as usize);
            self.fill(&mut piece[..wanted])?;
            bytes -= wanted as u32;
        }
        Ok(())
    }

    /// No room for descriptors: the kernel drops those that come.
    fn receive_some(&self, into: &mut [u8]) -> Result<usize, SocketError> {
        self.when_ready(PollFlags::IN, || {
            recv(&self.fd, &mut *into, RecvFlags::empty()).map(|(got, _)| got)
        })
    }

    fn receive_with_fds(
        &self,
        into: &mut [u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Result<usize, SocketError> {
        let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKET_FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let got = self.when_ready(PollFlags::IN, || {
            let mut parts = [IoSliceMut::new(into)];
            recvmsg(&self.fd, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(donated) = message {
                // The room is rounded up, so more may come; the iterator's drop closes those.
                fds.extend(donated.take(SOCKET_FDS_MAX));
            }
        }
        Ok(got.bytes)
    }

    /// Repeats `call` until it neither was interrupted nor would have blocked.
    fn when_ready<T>(
        &self,
        ready: PollFlags,
        mut call: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, SocketError> {
        loop {
            match call() {
                Ok(done) => return Ok(done),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(ready)?,
                // What a reset or a closed peer looks like depends on the direction and the moment.
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(SocketError::Left),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn wait(&self, ready: PollFlags) -> Result<(), Errno> {
        let mut polled = [PollFd::new(&self.fd, ready)];
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn send_some(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKET_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(socket, parts, &mut control, SendFlags::NOSIGNAL)
}
