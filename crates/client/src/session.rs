//! Mount, Channel, Close.

use std::os::fd::OwnedFd;

use channel::{Offer, Wait};
use wire::msg::session::{ChannelReply, Close, MountReply};
use wire::{Array, Decode, FdId, Inode, Mid};

use crate::line::encode;
use crate::{Client, Error, Line, TransportError, Violation};

/// Largest payload that a window holds; a server's own limit above it is cut to this.
const PAYLOAD_BYTES_MAX: u32 = 2 << 20;
/// Smallest limit that leaves room for every fixed message and a path.
const PAYLOAD_BYTES_MIN: u32 = 4096;

/// The server's answer to Mount.
#[derive(Debug)]
pub struct Mounted {
    /// The mount point.
    pub root: Inode,
    /// A descriptor on the mount point, if the server donated one.
    pub donated: Option<OwnedFd>,
}

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Longest payload, in bytes.
    pub payload_bytes_max: u32,
    /// Messages the server takes, ascending.
    pub supported: Vec<Mid>,
}

impl Negotiated {
    fn from_reply(reply: &MountReply<'_>) -> Result<Self, Violation> {
        let mut supported: Vec<Mid> = reply.supported.iter().map(Mid).collect();
        supported.sort_unstable();
        supported.dedup();
        if supported.is_empty() || reply.max_message_size < PAYLOAD_BYTES_MIN {
            return Err(Violation::EmptyOffer);
        }
        let payload_bytes_max = reply.max_message_size.min(PAYLOAD_BYTES_MAX);
        Ok(Self {
            payload_bytes_max,
            supported,
        })
    }

    /// Whether the server listed the message.
    #[must_use]
    pub fn lists(&self, mid: Mid) -> bool {
        self.supported.binary_search(&mid).is_ok()
    }
}

/// A new id, which must not be the one that names nothing.
pub(crate) fn fresh(id: FdId) -> Result<FdId, Violation> {
    if id == FdId(0) {
        Err(Violation::NoId)
    } else {
        Ok(id)
    }
}

impl Client {
    /// Mounts. May be repeated: each time makes another root id; the first one's limits stay.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn mount(&self) -> Result<Mounted, Error> {
        self.ask(
            Mid::MOUNT,
            |_| (),
            |payload, fds| {
                let reply = MountReply::from_payload(payload)?;
                fresh(reply.root.control)?;
                let negotiated = Negotiated::from_reply(&reply)?;
                // A second Mount says the same again.
                let _first = self.negotiated.set(negotiated);
                Ok(Mounted {
                    root: reply.root,
                    donated: fds.into_iter().next(),
                })
            },
        )
    }

    /// What Mount brought, once it has succeeded.
    #[must_use]
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.get()
    }

    /// Asks for channels until there are `wanted` more, or the server refuses; how many there are.
    ///
    /// # Errors
    /// If not even one could be opened: why.
    pub fn open_channels(&self, wanted: usize) -> Result<usize, Error> {
        for made in 0..wanted {
            match self.open_channel(Wait::asleep()) {
                Ok(_) => {}
                Err(Error::Refused(_)) if made > 0 => return Ok(made),
                Err(error) => return Err(error),
            }
        }
        Ok(wanted)
    }

    /// Opens one channel that waits for replies in the given way.
    ///
    /// # Errors
    /// The server's errno (`NOMEM`: no more channels), or what it did wrong.
    pub fn open_channel(&self, wait: Wait) -> Result<Line, Error> {
        let offer = self.ask(
            Mid::CHANNEL,
            |_| (),
            |payload, fds| {
                let reply = ChannelReply::from_payload(payload)?;
                let mut fds = fds.into_iter();
                let (Some(memory), Some(fd_socket)) = (fds.next(), fds.next()) else {
                    return Err(Violation::NoDescriptor.into());
                };
                let offset = u64::try_from(reply.data_offset).map_err(|_| Violation::Malformed)?;
                Ok(Offer {
                    memory,
                    fd_socket,
                    offset,
                    bytes: reply.data_length,
                })
            },
        )?;
        let channel = channel::Client::connect(offer, wait).map_err(TransportError::Channel)?;
        Ok(Line::Channel(self.lines.add(channel)))
    }

    /// Forgets ids. Unknown ones are ignored by the server.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn close(&self, ids: &[FdId]) -> Result<(), Error> {
        for batch in ids.chunks(wire::limits::COUNT_MAX) {
            let ids = Array::new(batch);
            self.ask(Mid::CLOSE, |out| encode(&Close { ids }, out), |_, _| Ok(()))?;
        }
        Ok(())
    }
}
