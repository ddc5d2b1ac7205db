//! The threads: one for each channel, one for each connection's socket once it first speaks, and
//! the caller's, which watches the sockets that have not spoken yet. An idle server does not wake.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::Builder;

use channel::{Bulk, ChannelError, Socket, SocketError};
use rustix::event::{EventfdFlags, epoll, eventfd};
use wire::limits::{PREAD_REPLY_FIXED_BYTES, PWRITE_FIXED_BYTES};
use wire::msg::data::PRead;
use wire::{Decode, Errno, Mid};

use crate::budget::{Budget, Shares};
use crate::connection::Connection;
use crate::dispatch::{Request, dispatch};
use crate::options::{Mount, Options};
use crate::reply::Reply;

/// Bytes of a connection thread's stack; what it never touches costs nothing.
const STACK_BYTES: usize = 256 << 10;
/// Marks the event that a connection has ended.
const ENDED: u64 = u64::MAX;

/// Serves connections under one configuration.
#[derive(Clone, Debug)]
pub struct Server {
    options: Arc<Options>,
}

impl Server {
    /// A server that serves nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options: Arc::new(options),
        }
    }

    /// Serves one connection on this thread until its client leaves or breaks the protocol. It
    /// may use everything the policy lets the process have open.
    ///
    /// # Errors
    /// What [`Options::on_thread`] said; then no byte of the client was read.
    pub fn serve_one(&self, socket: OwnedFd, mount: Mount) -> Result<(), String> {
        let alone = Shares::new(&self.options.policy, 1);
        self.serve_within(alone.budget(), socket, mount)
    }

    fn serve_within(&self, budget: Budget, socket: OwnedFd, mount: Mount) -> Result<(), String> {
        if let Some(on_thread) = &self.options.on_thread {
            on_thread(&mount)?;
        }
        let conn = Connection::new(Arc::clone(&self.options), mount, budget);
        socket_loop(&conn, &Socket::new(socket));
        conn.close();
        Ok(())
    }

    /// Serves all connections until the last has ended. Each gets its thread when its client first
    /// speaks, or leaves.
    ///
    /// # Errors
    /// The host's, if sockets cannot be watched.
    pub fn run(&self, connections: Vec<(OwnedFd, Mount)>) -> std::io::Result<()> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ended = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let in_ = epoll::EventFlags::IN;
        epoll::add(&watch, &*ended, epoll::EventData::new_u64(ENDED), in_)?;
        let mut waiting: Vec<Option<(OwnedFd, Mount)>> = Vec::with_capacity(connections.len());
        for (index, connection) in connections.into_iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(
                &watch,
                &connection.0,
                data,
                in_ | epoll::EventFlags::ONESHOT,
            )?;
            waiting.push(Some(connection));
        }
        let shares = Shares::new(&self.options.policy, waiting.len());
        let mut alive = waiting.len();
        let mut events = Vec::with_capacity(16);
        while alive > 0 {
            wait(&watch, &mut events)?;
            for event in events.drain(..) {
                if event.data.u64() == ENDED {
                    alive = alive.saturating_sub(take_count(&ended)?);
                    continue;
                }
                let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                if let Some((socket, mount)) = waiting.get_mut(index).and_then(Option::take) {
                    epoll::delete(&watch, &socket)?;
                    if !self.start(shares.budget(), socket, mount, &ended) {
                        alive -= 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the connection has its thread. One that gets none is over; the others live on.
    fn start(&self, budget: Budget, socket: OwnedFd, mount: Mount, ended: &Arc<OwnedFd>) -> bool {
        let (server, ended) = (self.clone(), Arc::clone(ended));
        let path = mount.path.escape_ascii().to_string();
        let served = path.clone();
        let serve = move || {
            if let Err(refused) = server.serve_within(budget, socket, mount) {
                server.failed(&format!("{served}: {refused}"));
            }
            // Cannot fail: the counter is far from full. Were it so, `run` would wait on.
            let _counted = rustix::io::write(&*ended, &1_u64.to_ne_bytes());
        };
        let thread = Builder::new()
            .name("connection".into())
            .stack_size(STACK_BYTES)
            .spawn(serve);
        if let Err(error) = &thread {
            self.failed(&format!("{path}: no thread to serve it: {error}"));
        }
        thread.is_ok()
    }

    fn failed(&self, what: &str) {
        if let Some(failed) = &self.options.on_failure {
            failed(what);
        }
    }
}

fn wait(watch: &OwnedFd, events: &mut Vec<epoll::Event>) -> rustix::io::Result<()> {
    loop {
        match epoll::wait(watch, rustix::buffer::spare_capacity(events), None) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(|_| ()),
        }
    }
}

fn take_count(ended: &OwnedFd) -> rustix::io::Result<usize> {
    let mut count = [0; 8];
    rustix::io::read(ended, &mut count)?;
    Ok(usize::try_from(u64::from_ne_bytes(count)).unwrap_or(usize::MAX))
}

/// One channel: wait for the turn, answer, give the turn back.
pub(crate) fn channel(conn: &Arc<Connection>, mut endpoint: channel::Server) {
    let (mut reply, mut head) = (Reply::default(), Vec::new());
    if endpoint.accept().is_err() {
        return;
    }
    while let Ok(turn) = endpoint.receive() {
        if answer_in_window(conn, &mut endpoint, turn, &mut head, &mut reply).is_err() {
            return;
        }
    }
}

fn answer_in_window(
    conn: &Arc<Connection>,
    endpoint: &mut channel::Server,
    turn: channel::Turn,
    head: &mut Vec<u8>,
    reply: &mut Reply,
) -> Result<(), ChannelError> {
    let mid = Mid(turn.mid);
    let answered = if turn.payload_bytes > conn.payload_bytes_max() {
        reply.fail(Errno::IO)
    } else {
        // Data to be written stay where they are; everything that is decided on is copied once.
        let copied = if mid == Mid::PWRITE {
            PWRITE_FIXED_BYTES
        } else {
            turn.payload_bytes
        };
        endpoint.copy_request(head, copied);
        let request = Request {
            mid,
            head,
            payload_bytes: turn.payload_bytes,
        };
        dispatch(conn, &request, &mut endpoint.bulk(), reply)
    };
    let Reply {
        payload,
        bulk_bytes,
        donations,
        ..
    } = reply;
    let sent = if *bulk_bytes > 0 {
        endpoint
            .reply_in_place(answered.0, payload, payload.len() + *bulk_bytes)
            .map(|()| 0)
    } else {
        match donations.as_slice() {
            [] => endpoint.reply(answered.0, payload, &[]),
            [one] => endpoint.reply(answered.0, payload, &[one.as_fd()]),
            [one, two, ..] => endpoint.reply(answered.0, payload, &[one.as_fd(), two.as_fd()]),
        }
    };
    donations.clear();
    sent.map(|_| ())
}

/// The connection's socket: one request after the other.
fn socket_loop(conn: &Arc<Connection>, socket: &Socket) {
    let (mut reply, mut request, mut room) = (Reply::default(), Vec::new(), Vec::new());
    loop {
        let answered = match socket.receive(&mut request, conn.max_message_size(), None) {
            Ok(header) => {
                answer_on_socket(conn, Mid(header.mid), &mut request, &mut room, &mut reply)
            }
            Err(SocketError::Oversized { .. }) => reply.fail(Errno::IO),
            Err(_) => return,
        };
        let Reply {
            payload,
            bulk_bytes,
            donations,
            ..
        } = &mut reply;
        let whole = match *bulk_bytes {
            0 => payload.as_slice(),
            // The data lie in `room`, behind the place of what goes before them.
            bulk_bytes => {
                let end = payload.len() + bulk_bytes;
                room[..payload.len()].copy_from_slice(payload);
                &room[..end]
            }
        };
        let sent = match donations.as_slice() {
            [] => socket.send(answered.0, whole, &[]),
            [one] => socket.send(answered.0, whole, &[one.as_fd()]),
            [one, two, ..] => socket.send(answered.0, whole, &[one.as_fd(), two.as_fd()]),
        };
        if sent.is_err() {
            return;
        }
        reply.clear();
        for buffer in [&mut request, &mut room] {
            buffer.clear();
            buffer.shrink_to(crate::reply::KEEP_BYTES);
        }
    }
}

fn answer_on_socket(
    conn: &Arc<Connection>,
    mid: Mid,
    request: &mut [u8],
    room: &mut Vec<u8>,
    reply: &mut Reply,
) -> Mid {
    let payload_bytes = request.len();
    let mut fixed = [0; PWRITE_FIXED_BYTES];
    let (head, bulk): (&[u8], &mut [u8]) = match mid {
        Mid::PWRITE => {
            let length = payload_bytes.min(PWRITE_FIXED_BYTES);
            fixed[..length].copy_from_slice(&request[..length]);
            (&fixed[..length], request)
        }
        Mid::PREAD => {
            room.resize(pread_room(request, conn.payload_bytes_max()), 0);
            (request, room)
        }
        _ => (request, &mut []),
    };
    let request = Request {
        mid,
        head,
        payload_bytes,
    };
    dispatch(conn, &request, &mut Bulk::private(bulk), reply)
}

/// Bytes that the reply to a `PRead` may take; the handler refuses what is more than that.
fn pread_room(request: &[u8], payload_bytes_max: usize) -> usize {
    let wanted = PRead::from_payload(request).map_or(0, |req| req.count as usize);
    wanted
        .saturating_add(PREAD_REPLY_FIXED_BYTES)
        .min(payload_bytes_max)
}
