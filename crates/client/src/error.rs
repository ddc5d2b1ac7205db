//! Why a request has no result: who erred.

use channel::{ChannelError, SocketError};
use thiserror::Error;
use wire::{Errno, Malformed, Mid};

/// Why a request has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Error {
    /// The server refused, or the request is one it did not list (`OPNOTSUPP`, nothing was sent).
    #[error("refused: {0}")]
    Refused(#[from] Errno),
    /// The request or the reply did not get through. This communicator is dead.
    #[error("the transport failed")]
    Transport(#[from] TransportError),
    /// The server broke the protocol.
    #[error("the server broke the protocol")]
    Protocol(#[from] Violation),
}

/// What failed below the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TransportError {
    /// The socket.
    #[error(transparent)]
    Socket(SocketError),
    /// A channel.
    #[error(transparent)]
    Channel(ChannelError),
    /// Our request is longer than the server takes. Nothing was sent.
    #[error("the request is too long")]
    TooLong,
    /// There is no such channel, or it died earlier.
    #[error("no such communicator")]
    NoSuchLine,
}

/// How a server broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// The payload is longer than the server's own limit.
    #[error("a reply of {0} bytes")]
    Oversized(u32),
    /// The reply belongs to another request.
    #[error("a reply to {0}")]
    OtherMessage(Mid),
    /// The payload ends too early. Error replies of fewer than four bytes are of this kind.
    #[error("a reply that ends too early")]
    Malformed,
    /// More was counted than asked for.
    #[error("a reply with more than was asked for")]
    TooMany,
    /// The reply says "stopped" though nothing is left, or the reverse.
    #[error("a status that contradicts the count")]
    Status,
    /// A new id is 0.
    #[error("an id that names nothing")]
    NoId,
    /// The descriptor that is the point of the request is missing.
    #[error("a descriptor is missing")]
    NoDescriptor,
    /// The answer to Mount offers no messages, or no room for any.
    #[error("an empty offer")]
    EmptyOffer,
}

impl Error {
    /// What an application would see, as the sandbox translates it (`lisafs.md` 12.9).
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Refused(errno) => *errno,
            Self::Protocol(Violation::OtherMessage(_)) => Errno::INVAL,
            Self::Protocol(Violation::NoDescriptor) => Errno::BADF,
            Self::Transport(_) | Self::Protocol(_) => Errno::IO,
        }
    }
}

impl From<Malformed> for Error {
    fn from(_: Malformed) -> Self {
        Self::Protocol(Violation::Malformed)
    }
}
