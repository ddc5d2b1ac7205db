//! The one thread that may take on other ids: it connects to host sockets under the application's
//! (v2026-08, `ConnectWithCreds`), so that no thread that serves files needs the capability.
//!
//! Must hold: between two requests the thread has the process's own ids; if it cannot get them
//! back, the process ends.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

/// Bytes of the thread's stack.
const STACK_BYTES: usize = 64 << 10;

/// The types a client may ask for; 0 on the wire tries all.
const TYPES: [SocketType; 3] = [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET];

/// A handle on the thread; requests are served one at a time.
#[derive(Debug, Clone)]
pub struct Broker {
    requests: SyncSender<Request>,
}

struct Request {
    target: OwnedFd,
    sock_type: u32,
    uid: u32,
    gid: u32,
    answer: SyncSender<Result<OwnedFd, Errno>>,
}

impl Broker {
    /// Starts the thread. Its caller must not have tightened itself.
    ///
    /// # Errors
    /// No thread could be had.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (requests, received) = sync_channel(0);
        let name = "broker".to_owned();
        Builder::new()
            .name(name)
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&received))?;
        Ok(Self { requests })
    }

    /// Connects to the pinned socket file as `uid` and `gid`. Never waits for the listener.
    ///
    /// # Errors
    /// The host's; `NXIO` for an unknown type; `PERM` if the ids cannot be taken on.
    pub fn connect(
        &self,
        target: BorrowedFd<'_>,
        sock_type: u32,
        uid: u32,
        gid: u32,
    ) -> Result<OwnedFd, Errno> {
        // The number alone could be closed and used again before the broker looks.
        let target = rustix::io::fcntl_dupfd_cloexec(target, 3)?;
        let (answer, answered) = sync_channel(1);
        let request = Request {
            target,
            sock_type,
            uid,
            gid,
            answer,
        };
        self.requests.send(request).map_err(|_| Errno::IO)?;
        answered.recv().unwrap_or(Err(Errno::IO))
    }
}

fn serve(requests: &Receiver<Request>) {
    let own = (geteuid(), getegid());
    while let Ok(request) = requests.recv() {
        let result = connect_as(&request, own);
        // A client that has left meanwhile needs no answer.
        _ = request.answer.send(result);
    }
}

fn connect_as(request: &Request, own: (Uid, Gid)) -> Result<OwnedFd, Errno> {
    // All ones mean "leave it" to the kernel: nobody's id.
    if request.uid == u32::MAX || request.gid == u32::MAX {
        return Err(Errno::PERM);
    }
    // Effective ids only: what is checked on the way, and what the listener sees.
    let taken = set_thread_res_gid(None, Gid::from_raw(request.gid), None)
        .and_then(|()| set_thread_res_uid(None, Uid::from_raw(request.uid), None));
    let result = match taken {
        Ok(()) => connect_any(&request.target, request.sock_type),
        Err(_) => Err(Errno::PERM),
    };
    let restored =
        set_thread_res_uid(None, own.0, None).and_then(|()| set_thread_res_gid(None, own.1, None));
    if restored.is_err() {
        std::process::abort();
    }
    result
}

fn connect_any(target: &OwnedFd, sock_type: u32) -> Result<OwnedFd, Errno> {
    let mut result = Err(Errno::NXIO);
    for kind in TYPES
        .into_iter()
        .filter(|kind| sock_type == 0 || kind.as_raw() == sock_type)
    {
        let socket = socket_with(
            AddressFamily::UNIX,
            kind,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        let address = SocketAddrUnix::new(target.as_raw_fd().to_string())?;
        result = connect(&socket, &address).map(|()| socket);
        if !matches!(result, Err(Errno::PROTOTYPE)) {
            break;
        }
    }
    result
}
