//! What the first process of a sandbox tells whoever started it, over a socket that keeps messages
//! apart.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Longest message about a failure, in bytes.
const BYTES_MAX: usize = 4096;
const ROOM: usize = rustix::cmsg_space!(ScmRights(1));

/// One message.
#[derive(Debug)]
pub(super) enum Word {
    /// The next tree is mounted and wants an answer on this device.
    Mounted(OwnedFd),
    /// The command runs.
    Running,
    /// The command is stopped, or no more.
    Stopped(bool),
    /// The command has ended, with this status of `wait(2)`.
    Ended(i32),
    /// There is no command, and this is why.
    Failed(String),
}

/// The end that tells.
#[derive(Debug)]
pub(super) struct Teller(pub(super) OwnedFd);

impl Teller {
    /// # Errors
    /// Nobody listens.
    pub(super) fn mounted(&self, device: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); ROOM];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [device];
        // There is room for one.
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        self.send(b"m", &mut ancillary)
    }

    /// # Errors
    /// Nobody listens.
    pub(super) fn running(&self) -> Result<(), Errno> {
        self.plain(b"r")
    }

    /// To whoever listens: those that do not will hear of the end.
    pub(super) fn stopped(&self, is: bool) {
        _ = self.plain(if is { b"s" } else { b"c" });
    }

    /// To whoever listens.
    pub(super) fn ended(&self, status: i32) {
        _ = self.plain(&[b"x", &status.to_ne_bytes()[..]].concat());
    }

    /// To whoever listens.
    pub(super) fn failed(&self, why: &str) {
        let why = why.as_bytes();
        let short = why.get(..BYTES_MAX - 1).unwrap_or(why);
        _ = self.plain(&[&[jail::apart::FAILED], short].concat());
    }

    fn plain(&self, words: &[u8]) -> Result<(), Errno> {
        self.send(words, &mut SendAncillaryBuffer::default())
    }

    fn send(
        &self,
        words: &[u8],
        ancillary: &mut SendAncillaryBuffer<'_, '_, '_>,
    ) -> Result<(), Errno> {
        let parts = [IoSlice::new(words)];
        retry_on_intr(|| sendmsg(&self.0, &parts, ancillary, SendFlags::NOSIGNAL)).map(|_| ())
    }
}

/// The next message; nothing once the other end is closed, or makes no sense.
pub(super) fn hear(socket: impl AsFd) -> Option<Word> {
    let mut bytes = [0; BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); ROOM];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        recvmsg(&socket, &mut parts, &mut ancillary, flags)
    });
    let length = received.ok()?.bytes;
    let fd = ancillary.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match bytes.get(..length)? {
        b"m" => fd.map(Word::Mounted),
        b"r" => Some(Word::Running),
        b"s" => Some(Word::Stopped(true)),
        b"c" => Some(Word::Stopped(false)),
        [b'x', status @ ..] => {
            let status = status.try_into().ok()?;
            Some(Word::Ended(i32::from_ne_bytes(status)))
        }
        [jail::apart::FAILED, why @ ..] => {
            Some(Word::Failed(String::from_utf8_lossy(why).into_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn what_is_told_is_heard_and_the_end_is_silence() {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let teller = Teller(theirs);
        teller.mounted(std::io::stdin().as_fd()).unwrap();
        teller.running().unwrap();
        teller.stopped(true);
        teller.ended(0x0300);
        teller.failed(&"long".repeat(BYTES_MAX));
        assert!(matches!(hear(&ours), Some(Word::Mounted(_))));
        assert!(matches!(hear(&ours), Some(Word::Running)));
        assert!(matches!(hear(&ours), Some(Word::Stopped(true))));
        assert!(matches!(hear(&ours), Some(Word::Ended(0x0300))));
        assert!(matches!(hear(&ours), Some(Word::Failed(why)) if why.len() == BYTES_MAX - 1));
        drop(teller);
        assert!(hear(&ours).is_none());
    }
}
