//! Requests and replies in a window: the two endpoints of a channel.
//!
//! Belongs here: the handshake, headers, payloads, descriptors beside them.
//! Belongs elsewhere: whose turn it is (`turns`), what a message means (`wire`).
//! Must hold: what is decided on has been copied out first; what we wrote is never read back.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use crate::bulk::Bulk;
use crate::turns::{ChannelError, Closer, Side, Turns};
use crate::wait::Wait;
use crate::window::{DATAGRAM_AT, HEADER_BYTES, PAYLOAD_AT, WINDOW_BYTES, Window, WindowFile};

/// Both sides' part of the handshake, as every known client and server sends it.
const HELLO: &[u8] = b"{}\n";
/// As much of a peer's part as is looked at.
const HELLO_BYTES_MAX: usize = 4096;

/// What a server hands to the client that asked for a channel.
#[derive(Debug)]
pub struct Offer {
    /// A copy of the memory file's descriptor: donated first.
    pub memory: OwnedFd,
    /// The client's end of the socket for descriptors: donated second.
    pub fd_socket: OwnedFd,
    /// Where the window lies in the memory file.
    pub offset: u64,
    /// Bytes of the window.
    pub bytes: u64,
}

/// A message that arrived: its header, copied out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which message.
    pub mid: u16,
    /// Bytes of its payload, which all lie in the window.
    pub payload_bytes: usize,
}

/// The header as it lies in the window: one little-endian word.
#[derive(Debug, Clone, Copy)]
struct Head {
    mid: u16,
    fds: u8,
}

impl Head {
    fn load(window: &Window) -> Self {
        let [low, high, fds, _padding] = window
            .mapping()
            .word32(DATAGRAM_AT)
            .load(Relaxed)
            .to_ne_bytes();
        Self {
            mid: u16::from_le_bytes([low, high]),
            fds,
        }
    }

    fn store(self, window: &Window) {
        let [low, high] = self.mid.to_le_bytes();
        let word = u32::from_ne_bytes([low, high, self.fds, 0]);
        window.mapping().word32(DATAGRAM_AT).store(word, Relaxed);
    }
}

/// The server's end of one channel. Dropping it shuts the channel down.
#[derive(Debug)]
pub struct Server {
    turns: Turns,
    fd_socket: OwnedFd,
    request: Turn,
}

impl Server {
    /// Cuts a window from `file` and makes the socket beside it.
    ///
    /// # Errors
    /// The host's errno.
    pub fn open(file: &WindowFile, wait: Wait) -> Result<(Self, Offer), Errno> {
        let memory = rustix::io::fcntl_dupfd_cloexec(file, 0)?;
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (fd_socket, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        let (window, offset) = file.add_window()?;
        let offer = Offer {
            memory,
            fd_socket: theirs,
            offset,
            bytes: WINDOW_BYTES as u64,
        };
        Ok((Self::new(window, fd_socket, wait), offer))
    }

    /// An endpoint in a window, with the socket on which it sends descriptors.
    #[must_use]
    pub fn new(window: Window, fd_socket: OwnedFd, wait: Wait) -> Self {
        let turns = Turns::new(window, Side::Server, wait);
        Self {
            turns,
            fd_socket,
            request: Turn {
                mid: 0,
                payload_bytes: 0,
            },
        }
    }

    /// What shuts this endpoint down from another thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        self.turns.closer()
    }

    /// Waits for the client's handshake and answers it. Once, before the first request.
    ///
    /// # Errors
    /// Any but `TooLong`; the channel is then shut down.
    pub fn accept(&mut self) -> Result<(), ChannelError> {
        expect_hello(&mut self.turns)?;
        send_hello(&mut self.turns)
    }

    /// Waits for the next request. Descriptors it may announce are ignored: clients give us none.
    ///
    /// # Errors
    /// Any but `TooLong`; the channel is then shut down.
    pub fn receive(&mut self) -> Result<Turn, ChannelError> {
        (self.request, _) = receive_message(&mut self.turns)?;
        Ok(self.request)
    }

    /// Replaces `into` by the first bytes of the request's payload, at most `bytes_max`. Each byte
    /// is read from the window once by each call.
    pub fn copy_request(&self, into: &mut Vec<u8>, bytes_max: usize) {
        let bytes = self.request.payload_bytes.min(bytes_max);
        // `receive` has checked the length against the window, so this cannot fail.
        self.turns
            .window()
            .mapping()
            .copy_out(PAYLOAD_AT, bytes, into);
    }

    /// The window's room for payloads: the request's bulk data, and room for the reply's.
    ///
    /// It is as large as the window allows, whatever the request's length: check that first.
    pub fn bulk(&mut self) -> Bulk<'_> {
        Bulk::shared(self.turns.window())
    }

    /// Sends `payload`, and before it `fds`, as many as go out; says how many did.
    ///
    /// # Errors
    /// `TooLong` if the payload does not fit: nothing was sent, another reply may be. Otherwise the
    /// channel has ended.
    pub fn reply(
        &mut self,
        mid: u16,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<usize, ChannelError> {
        let data_len = datagram_bytes(self.turns.window(), payload.len())?;
        let sent = send_fds(self.fd_socket.as_fd(), fds);
        let head = Head { mid, fds: sent };
        put_message(self.turns.window(), head, payload);
        self.turns.hand_over(data_len)?;
        Ok(usize::from(sent))
    }

    /// Sends a payload whose bulk data is in the window already: `head` goes before it, and the
    /// whole has `payload_bytes`.
    ///
    /// # Errors
    /// As [`Server::reply`]; `TooLong` also if `head` is longer than the whole.
    pub fn reply_in_place(
        &mut self,
        mid: u16,
        head: &[u8],
        payload_bytes: usize,
    ) -> Result<(), ChannelError> {
        let data_len = datagram_bytes(self.turns.window(), payload_bytes)?;
        if head.len() > payload_bytes {
            return Err(ChannelError::TooLong);
        }
        put_message(self.turns.window(), Head { mid, fds: 0 }, head);
        self.turns.hand_over(data_len)
    }
}

/// The client's end of one channel. Dropping it shuts the channel down.
#[derive(Debug)]
pub struct Client {
    turns: Turns,
    fd_socket: OwnedFd,
}

impl Client {
    /// Maps the offered window and shakes hands.
    ///
    /// # Errors
    /// `Host` if the window cannot be mapped or fails the checks of [`Window::map`], otherwise what
    /// ended the channel.
    pub fn connect(offer: Offer, wait: Wait) -> Result<Self, ChannelError> {
        let window = Window::map(offer.memory.as_fd(), offer.offset, offer.bytes)?;
        let mut client = Self::new(window, offer.fd_socket, wait);
        client.shake_hands()?;
        Ok(client)
    }

    /// An endpoint in a window that has not shaken hands yet.
    #[must_use]
    pub fn new(window: Window, fd_socket: OwnedFd, wait: Wait) -> Self {
        Self {
            turns: Turns::new(window, Side::Client, wait),
            fd_socket,
        }
    }

    /// Sends our handshake and waits for the server's. Once, before the first call.
    ///
    /// # Errors
    /// Any but `TooLong`; the channel is then shut down.
    pub fn shake_hands(&mut self) -> Result<(), ChannelError> {
        send_hello(&mut self.turns)?;
        expect_hello(&mut self.turns)
    }

    /// What shuts this endpoint down from another thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        self.turns.closer()
    }

    /// The longest payload that a call can carry.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.turns.window().payload_bytes_max()
    }

    /// Sends a request, waits for the reply, and replaces `reply` by its payload. Descriptors that
    /// came along are appended to `fds`. Returns the reply's message number.
    ///
    /// # Errors
    /// `TooLong` if the request does not fit: nothing was sent. Otherwise the channel has ended.
    pub fn call(
        &mut self,
        mid: u16,
        request: &[u8],
        reply: &mut Vec<u8>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<u16, ChannelError> {
        let data_len = datagram_bytes(self.turns.window(), request.len())?;
        put_message(self.turns.window(), Head { mid, fds: 0 }, request);
        self.turns.hand_over(data_len)?;
        let (turn, announced) = receive_message(&mut self.turns)?;
        self.turns
            .window()
            .mapping()
            .copy_out(PAYLOAD_AT, turn.payload_bytes, reply);
        receive_fds(self.fd_socket.as_fd(), announced, fds);
        Ok(turn.mid)
    }
}

/// Waits for our turn and copies the header out.
fn receive_message(turns: &mut Turns) -> Result<(Turn, u8), ChannelError> {
    let bytes = turns.receive()?;
    let Some(payload_bytes) = bytes.checked_sub(HEADER_BYTES) else {
        return Err(turns.end(ChannelError::Length(bytes as u32)));
    };
    let head = Head::load(turns.window());
    Ok((
        Turn {
            mid: head.mid,
            payload_bytes,
        },
        head.fds,
    ))
}

fn put_message(window: &Window, head: Head, payload: &[u8]) {
    head.store(window);
    // The caller has measured the payload with `datagram_bytes`, so this cannot fail.
    window.mapping().copy_in(PAYLOAD_AT, payload);
}

/// The length of a datagram with such a payload, if it fits.
fn datagram_bytes(window: &Window, payload_bytes: usize) -> Result<u32, ChannelError> {
    if payload_bytes > window.payload_bytes_max() {
        return Err(ChannelError::TooLong);
    }
    u32::try_from(payload_bytes + HEADER_BYTES).map_err(|_| ChannelError::TooLong)
}

fn send_hello(turns: &mut Turns) -> Result<(), ChannelError> {
    turns.window().mapping().copy_in(DATAGRAM_AT, HELLO);
    turns.hand_over(HELLO.len() as u32)
}

fn expect_hello(turns: &mut Turns) -> Result<(), ChannelError> {
    let bytes = turns.receive()?.min(HELLO_BYTES_MAX);
    let mut hello = Vec::new();
    turns
        .window()
        .mapping()
        .copy_out(DATAGRAM_AT, bytes, &mut hello);
    if starts_with_object_or_null(&hello) {
        Ok(())
    } else {
        Err(turns.end(ChannelError::Handshake))
    }
}

/// Whether the text begins with `null` or with an object that ends. Its members are nobody's
/// business: none has a meaning, so only brackets and strings are followed.
fn starts_with_object_or_null(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    text.starts_with(b"null") || (text.starts_with(b"{") && closes(text))
}

/// Whether the first bracket is closed.
fn closes(text: &[u8]) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return byte == b'}',
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    false
}

/// Sends each descriptor in a message of its own, without waiting for room; how many went out.
fn send_fds(socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> u8 {
    let mut sent = 0;
    for fd in fds.iter().take(usize::from(u8::MAX)) {
        if send_fd(socket, *fd).is_err() {
            break;
        }
        sent += 1;
    }
    sent
}

fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let one = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&one)) {
        return Err(Errno::NOBUFS);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::io::retry_on_intr(|| sendmsg(socket, &[] as &[IoSlice<'_>], &mut control, flags))
        .map(|_bytes| ())
}

/// Receives the descriptors a reply announced; those that do not come are simply missing.
fn receive_fds(socket: BorrowedFd<'_>, announced: u8, into: &mut Vec<OwnedFd>) {
    for _ in 0..announced {
        match receive_fd(socket) {
            Ok(fd) => into.push(fd),
            Err(_) => break,
        }
    }
}

fn receive_fd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::io::retry_on_intr(|| recvmsg(socket, &mut [], &mut control, flags))?;
    // Surplus descriptors are closed with `fds`, by drop.
    let mut fds = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = fds.next().and_then(|mut fds| fds.next());
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::BADMSG);
    }
    fd.ok_or(Errno::BADMSG)
}

#[cfg(test)]
mod tests {
    use super::starts_with_object_or_null as accepted;

    #[test]
    fn a_handshake_is_an_object_that_ends_or_null() {
        for hello in [
            &b"{}\n"[..],
            b" \n{}garbage",
            b"null",
            b"{\"a\":[1,{}],\"}\":\"\\\"\"}",
            b"{}{",
        ] {
            assert!(accepted(hello), "{hello:?}");
        }
        for hello in [
            &b""[..],
            b"{",
            b"[]",
            b"\"{}\"",
            b"1",
            b"true",
            b"nul",
            b"{\"}",
            b"{]",
            b"\0{}",
        ] {
            assert!(!accepted(hello), "{hello:?}");
        }
    }
}
