//! Sockets: Connect 21, BindAt 29, Listen 30, Accept 31, ConnectWithCreds 32.

use super::message;
use crate::{FdId, Inode, NewNode, Text};

message! {
    /// Request 21. The reply has no body and donates the connected socket.
    Connect {
        /// Control id of a socket file.
        id: FdId = id,
        /// 1 stream, 2 datagram, 5 seqpacket, 0 any.
        sock_type: u32 = u32 pad 4,
    }
}

message! {
    /// Request 32: [`Connect`] under the application's ids.
    ConnectWithCreds {
        /// Control id of a socket file.
        id: FdId = id,
        /// As in [`Connect`].
        sock_type: u32 = u32 pad 4,
        /// The application's effective user id.
        uid: u32 = u32,
        /// The application's effective group id.
        gid: u32 = u32,
    }
}

message! {
    /// Request 29.
    BindAt<'a> {
        /// Where, whose, which mode.
        new: NewNode = block,
        /// As in [`Connect`].
        sock_type: u32 = u32,
        /// Name in the directory.
        name: Text<'a> = text,
    }
}

message! {
    /// Reply 29. Donates the bound socket.
    BindAtReply {
        /// The socket's file.
        child: Inode = block,
        /// The new bound socket id.
        bound: FdId = id,
    }
}

message! {
    /// Request 30.
    Listen {
        /// Bound socket id.
        bound: FdId = id,
        /// Length of the queue.
        backlog: i32 = i32 pad 4,
    }
}

message! {
    /// Request 31. The reply donates the accepted socket.
    Accept {
        /// Bound socket id.
        bound: FdId = id,
    }
}

message! {
    /// Reply 31.
    AcceptReply<'a> {
        /// Always empty: the host's addresses stay on the host.
        peer: Text<'a> = text,
    }
}
