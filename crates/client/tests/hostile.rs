//! A server that lies: every reply that breaks the protocol is an error, none panics, and
//! descriptors that came with it are closed.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, spawn};

use channel::Socket;
use client::{Client, Error, TransportError, Violation};
use proptest::prelude::*;
use wire::msg::{session, socket, walk};
use wire::{Array, Encode, Errno, FdId, Inode, Mid, NewNode, Owner, Statx, limits};

const PAYLOAD_BYTES_MAX: u32 = limits::payload_bytes_max(4096);

/// One scripted reply: message, payload, how many descriptors.
type Scripted = (Mid, Vec<u8>, usize);

/// A server that answers the script in order, whatever it is asked, and then what it was asked.
fn server(script: Vec<Scripted>) -> (Client, JoinHandle<Vec<Mid>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serve = move || {
        let socket = Socket::new(theirs.into());
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let mut asked = Vec::new();
        let mut payload = Vec::new();
        for (mid, reply, fds) in script {
            let Ok(header) = socket.receive(&mut payload, u32::MAX, None) else {
                break;
            };
            asked.push(Mid(header.mid));
            let fds: Vec<BorrowedFd<'_>> = (0..fds).map(|_| file.as_fd()).collect();
            socket.send(mid.0, &reply, &fds).unwrap();
        }
        asked
    };
    (Client::new(ours.into()), spawn(serve))
}

/// What the client makes of one reply; the server is asked nothing else.
fn told<T>(reply: Scripted, ask: impl FnOnce(&Client) -> Result<T, Error>) -> Result<T, Error> {
    let (client, server) = server(vec![reply]);
    let result = ask(&client);
    assert_eq!(server.join().unwrap().len(), 1);
    result
}

fn inode(id: u64) -> Inode {
    Inode {
        control: FdId(id),
        stat: Statx::default(),
    }
}

fn mount_reply(root: u64, max_message_size: u32, supported: &[u16]) -> Scripted {
    let supported = Array::new(supported);
    let reply = session::MountReply {
        root: inode(root),
        max_message_size,
        supported,
    };
    (Mid::MOUNT, reply.to_payload(), 0)
}

const NEW: NewNode = NewNode {
    dir: FdId(1),
    owner: Owner::KEEP,
    mode: 0o644,
};

#[test]
fn an_error_reply_is_an_errno_unless_it_is_too_short() {
    let refused = (Mid::ERROR, vec![2, 0, 0, 0], 0);
    let result = told(refused, |client| client.fstat(FdId(1)));
    assert_eq!(result, Err(Error::Refused(Errno::NOENT)));
    for length in 0..4 {
        let short = (Mid::ERROR, vec![2; length], 1);
        let result = told(short, |client| client.fstat(FdId(1)));
        assert_eq!(result, Err(Violation::Malformed.into()), "{length} bytes");
    }
}

#[test]
fn a_reply_to_another_request_is_refused_and_shown_as_einval() {
    let result = told((Mid::PREAD, vec![0; 144], 0), |client| {
        client.fstat(FdId(1))
    });
    assert_eq!(result, Err(Violation::OtherMessage(Mid::PREAD).into()));
    assert_eq!(result.unwrap_err().errno(), Errno::INVAL);
}

#[test]
fn counts_above_what_was_asked_for_are_refused() {
    for count in [17, 1 << 32, (1 << 32) + 4, u64::MAX] {
        let mut reply = count.to_le_bytes().to_vec();
        reply.extend([7; 64]);
        let read = |client: &Client| client.pread(FdId(1), 0, &mut [0; 16]);
        assert_eq!(
            told((Mid::PREAD, reply, 0), read),
            Err(Violation::TooMany.into()),
            "{count}"
        );
        let written = (Mid::PWRITE, count.to_le_bytes().to_vec(), 0);
        let write = |client: &Client| client.pwrite(FdId(1), 0, &[0; 16]);
        assert_eq!(
            told(written, write),
            Err(Violation::TooMany.into()),
            "{count}"
        );
    }
    let reply = [&16_u64.to_le_bytes()[..], &[7; 15]].concat();
    let read = |client: &Client| client.pread(FdId(1), 0, &mut [0; 16]);
    assert_eq!(
        told((Mid::PREAD, reply, 0), read),
        Err(Violation::Malformed.into())
    );
}

#[test]
fn a_walk_with_surplus_files_closes_them_and_fails() {
    let inodes = [inode(2), inode(3)];
    let reply = walk::WalkReply {
        status: 0,
        inodes: Array::new(&inodes),
    };
    let script = vec![
        (Mid::WALK, reply.to_payload(), 0),
        (Mid::CLOSE, Vec::new(), 0),
    ];
    let (client, server) = server(script);
    let walked = client.walk(FdId(1), &[b"one"]);
    assert_eq!(walked, Err(Violation::TooMany.into()));
    assert_eq!(server.join().unwrap(), [Mid::WALK, Mid::CLOSE]);
}

#[test]
fn a_walk_whose_status_contradicts_its_count_fails() {
    let one = [inode(2)];
    type Lie<'l> = (u8, &'l [Inode], &'l [&'l [u8]]);
    let lies: [Lie<'_>; 5] = [
        (0, &[], &[b"a"]),
        (1, &one, &[b"a"]),
        (2, &one, &[b"a"]),
        (2, &[], &[b"a"]),
        (3, &one, &[b"a", b"b"]),
    ];
    for (status, inodes, path) in lies {
        let reply = walk::WalkReply {
            status,
            inodes: Array::new(inodes),
        };
        let script = vec![
            (Mid::WALK, reply.to_payload(), 0),
            (Mid::CLOSE, Vec::new(), 0),
        ];
        let (client, server) = server(script);
        let walked = client.walk(FdId(1), path);
        assert_eq!(walked, Err(Violation::Status.into()), "status {status}");
        drop(client);
        server.join().unwrap();
    }
}

#[test]
fn descriptors_that_are_the_point_of_a_request_must_come() {
    let connect = |client: &Client| client.connect_to(FdId(1), 1).map(|_| ());
    let missing: Result<(), Error> = Err(Violation::NoDescriptor.into());
    assert_eq!(told((Mid::CONNECT, Vec::new(), 0), connect), missing);
    assert_eq!(told((Mid::CONNECT, Vec::new(), 1), connect), Ok(()));
    assert_eq!(
        told((Mid::CONNECT, Vec::new(), 3), connect),
        Ok(()),
        "surplus ones are closed"
    );
    let accept = |client: &Client| client.accept(FdId(1)).map(|_| ());
    assert_eq!(told((Mid::ACCEPT, vec![0, 0], 0), accept), missing);
    let channel = session::ChannelReply {
        data_offset: 0,
        data_length: 1 << 21,
    }
    .to_payload();
    let open = |client: &Client| client.open_channels(1).map(|_| ());
    assert_eq!(told((Mid::CHANNEL, channel, 1), open), missing);
}

#[test]
fn a_bind_without_a_descriptor_closes_both_ids() {
    let reply = socket::BindAtReply {
        child: inode(2),
        bound: FdId(3),
    }
    .to_payload();
    let (client, server) = server(vec![(Mid::BIND_AT, reply, 0), (Mid::CLOSE, Vec::new(), 0)]);
    let bound = client.bind_at(NEW, b"socket", 1).map(|_| ());
    assert_eq!(bound, Err(Violation::NoDescriptor.into()));
    assert_eq!(server.join().unwrap(), [Mid::BIND_AT, Mid::CLOSE]);
}

#[test]
fn a_window_that_cannot_be_one_is_refused() {
    for (data_offset, data_length) in [(0, 1 << 21), (-1, 1 << 21), (0, 0), (0, u64::MAX), (1, 64)]
    {
        let reply = session::ChannelReply {
            data_offset,
            data_length,
        }
        .to_payload();
        let open = |client: &Client| client.open_channels(1);
        let result = told((Mid::CHANNEL, reply, 2), open);
        // The "memory file" is `/dev/null`: no offset and length of it are any good.
        assert!(
            matches!(result, Err(Error::Transport(_) | Error::Protocol(_))),
            "{result:?}"
        );
    }
}

#[test]
fn an_offer_of_nothing_is_refused() {
    let max = PAYLOAD_BYTES_MAX;
    let mount = |reply| told(reply, |client| client.mount().map(|_| ()));
    assert_eq!(
        mount(mount_reply(1, max, &[])),
        Err(Violation::EmptyOffer.into())
    );
    assert_eq!(
        mount(mount_reply(1, 19, &[3])),
        Err(Violation::EmptyOffer.into())
    );
    assert_eq!(
        mount(mount_reply(0, max, &[3])),
        Err(Violation::NoId.into())
    );
    assert_eq!(mount(mount_reply(1, max, &[3, 65535])), Ok(()));
}

#[test]
fn what_the_server_did_not_list_is_not_sent() {
    let (client, server) = server(vec![mount_reply(1, PAYLOAD_BYTES_MAX, &[1, 3])]);
    client.mount().unwrap();
    assert_eq!(client.flush(FdId(2)), Err(Error::Refused(Errno::OPNOTSUPP)));
    assert_eq!(server.join().unwrap(), [Mid::MOUNT]);
}

#[test]
fn a_request_above_the_limit_is_not_sent_and_a_reply_above_it_is_refused() {
    let (client, server) = server(vec![
        mount_reply(1, 4096, &[3, 11]),
        (Mid::FSTAT, vec![0; 4097], 1),
    ]);
    client.mount().unwrap();
    let written = client.pwrite(FdId(2), 0, &[0; 4077]);
    assert_eq!(written, Err(Error::Transport(TransportError::TooLong)));
    assert_eq!(
        client.fstat(FdId(1)),
        Err(Violation::Oversized(4097).into())
    );
    assert_eq!(server.join().unwrap(), [Mid::MOUNT, Mid::FSTAT]);
}

#[test]
fn a_server_that_leaves_is_a_transport_error() {
    let (client, server) = server(Vec::new());
    server.join().unwrap();
    let error = client.fstat(FdId(1)).unwrap_err();
    assert!(
        matches!(error, Error::Transport(TransportError::Socket(_))),
        "{error:?}"
    );
    assert_eq!(error.errno(), Errno::IO);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn noise_in_any_reply_never_panics(mid in 1_u16..34, noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mid = Mid(mid);
        let reply = (mid, noise, 0);
        let (client, server) = server(vec![reply, (Mid::CLOSE, Vec::new(), 0)]);
        let id = FdId(1);
        match mid {
            Mid::MOUNT => drop(client.mount()),
            Mid::CHANNEL => drop(client.open_channels(1)),
            Mid::FSTAT => drop(client.fstat(id)),
            Mid::WALK => drop(client.walk(id, &[b"a", b"b"])),
            Mid::WALK_STAT => drop(client.walk_stat(id, &[b"", b"b"])),
            Mid::OPEN_AT => drop(client.open_at(id, 0)),
            Mid::OPEN_CREATE_AT => drop(client.open_create_at(NEW, b"n", 0)),
            Mid::PREAD => drop(client.pread(id, 0, &mut [0; 300])),
            Mid::PWRITE => drop(client.pwrite(id, 0, &[0; 300])),
            Mid::MKDIR_AT => drop(client.mkdir_at(NEW, b"n")),
            Mid::READ_LINK_AT => drop(client.read_link(id)),
            Mid::GETDENTS64 => drop(client.getdents64(id, 100)),
            Mid::FGET_XATTR => drop(client.fget_xattr(id, b"user.x", 10)),
            Mid::FLIST_XATTR => drop(client.flist_xattr(id, 0)),
            Mid::BIND_AT => drop(client.bind_at(NEW, b"n", 1)),
            Mid::ACCEPT => drop(client.accept(id)),
            _ => drop(client.fstatfs(id)),
        }
        // Whatever the client made of it, the next exchange works: nothing was left over. (Mount may
        // have brought a list without Close.)
        let _closed = client.close(&[id]);
        drop(client);
        let asked = server.join().unwrap();
        prop_assert!(mid == Mid::MOUNT || asked.last() == Some(&Mid::CLOSE), "{:?}", asked);
    }
}
