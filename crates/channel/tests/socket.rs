//! The stream socket: framing, descriptors, ends and hostile lengths.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use channel::socket::SOCKET_FDS_MAX;
use channel::{Header, Socket, SocketError};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

const MAX: u32 = 2_093_056;

fn pair() -> (Socket, UnixStream) {
    let (ours, raw) = UnixStream::pair().unwrap();
    (Socket::new(OwnedFd::from(ours)), raw)
}

fn both(nonblocking: bool) -> (Socket, Socket) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(nonblocking).unwrap();
    b.set_nonblocking(nonblocking).unwrap();
    (Socket::new(OwnedFd::from(a)), Socket::new(OwnedFd::from(b)))
}

fn socket_frames() -> Vec<Vec<u8>> {
    let vectors: Value =
        serde_json::from_str(include_str!("../../wire/tests/vectors.json")).unwrap();
    let frames = vectors["frames"].as_array().unwrap().iter();
    let hex = |frame: &Value| frame["hex"].as_str().unwrap().to_owned();
    let byte = |hex: &str, at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    frames
        .filter(|frame| frame["transport"] == "socket")
        .map(hex)
        .map(|hex| (0..hex.len()).step_by(2).map(|at| byte(&hex, at)).collect())
        .collect()
}

fn mid_of(frame: &[u8]) -> u16 {
    u16::from_le_bytes([frame[4], frame[5]])
}

#[test]
fn frames_of_the_vectors_are_sent_and_received_byte_for_byte() {
    let frames = socket_frames();
    assert!(frames.len() >= 8);
    for frame in frames {
        let (socket, mut raw) = pair();
        socket.send(mid_of(&frame), &frame[8..], &[]).unwrap();
        let mut sent = vec![0; frame.len()];
        raw.read_exact(&mut sent).unwrap();
        assert_eq!(sent, frame);
        raw.write_all(&frame).unwrap();
        let mut payload = vec![9; 3000];
        let header = socket.receive(&mut payload, MAX, None).unwrap();
        assert_eq!(header.mid, mid_of(&frame));
        assert_eq!(payload, frame[8..]);
    }
}

#[test]
fn a_message_split_at_any_byte_arrives_whole() {
    let frame = &socket_frames()[3];
    for nonblocking in [false, true] {
        for split in 0..=frame.len() {
            let (socket, mut raw) = pair();
            rustix::io::ioctl_fionbio(&socket, nonblocking).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    raw.write_all(&frame[..split]).unwrap();
                    thread::yield_now();
                    raw.write_all(&frame[split..]).unwrap();
                });
                let mut payload = Vec::new();
                let header = socket.receive(&mut payload, MAX, None).unwrap();
                let payload_bytes = payload.len() as u32;
                assert_eq!(
                    header,
                    Header {
                        mid: mid_of(frame),
                        payload_bytes
                    }
                );
                assert_eq!(payload, frame[8..]);
            });
        }
    }
}

#[test]
fn an_end_at_any_byte_is_told_from_an_end_between_messages() {
    let frame = &socket_frames()[3];
    for cut in 0..frame.len() {
        let (socket, mut raw) = pair();
        raw.write_all(&frame[..cut]).unwrap();
        drop(raw);
        let expected = if cut == 0 {
            SocketError::Left
        } else {
            SocketError::LeftInside
        };
        assert_eq!(
            socket.receive(&mut Vec::new(), MAX, None),
            Err(expected),
            "cut at {cut}"
        );
    }
}

#[test]
fn two_messages_sent_ahead_are_received_one_by_one() {
    let (socket, mut raw) = pair();
    raw.write_all(b"\x03\0\0\0\x07\0\0\0abc\0\0\0\0\x09\0\xff\xff")
        .unwrap();
    let mut payload = Vec::new();
    assert_eq!(
        socket.receive(&mut payload, 3, None).unwrap(),
        Header {
            mid: 7,
            payload_bytes: 3
        },
        "exactly as long as allowed"
    );
    assert_eq!(payload, b"abc");
    assert_eq!(socket.receive(&mut payload, 3, None).unwrap().mid, 9);
    assert_eq!(payload, b"");
}

#[test]
fn an_oversized_payload_is_thrown_away_without_being_buffered() {
    let (socket, mut raw) = pair();
    thread::scope(|scope| {
        scope.spawn(move || {
            raw.write_all(&(MAX + 10_000).to_le_bytes()).unwrap();
            raw.write_all(&[5, 0, 0, 0]).unwrap();
            raw.write_all(&vec![1; MAX as usize + 10_000]).unwrap();
            raw.write_all(b"\x01\0\0\0\x06\0\0\0x").unwrap();
        });
        let mut payload = Vec::new();
        assert_eq!(
            socket.receive(&mut payload, MAX, None),
            Err(SocketError::Oversized {
                mid: 5,
                payload_bytes: MAX + 10_000
            })
        );
        assert_eq!(payload.capacity(), 0);
        assert_eq!(
            socket.receive(&mut payload, MAX, None).unwrap().mid,
            6,
            "it lives on"
        );
        assert_eq!(payload, b"x");
    });
}

#[test]
fn a_length_of_four_gigabytes_neither_allocates_nor_crashes() {
    let (socket, mut raw) = pair();
    raw.write_all(b"\xff\xff\xff\xff\x01\0\0\0some bytes")
        .unwrap();
    drop(raw);
    let mut payload = Vec::new();
    assert_eq!(
        socket.receive(&mut payload, MAX, None),
        Err(SocketError::LeftInside)
    );
    assert_eq!(payload.capacity(), 0);
}

#[test]
fn a_large_message_crosses_in_many_pieces_on_any_kind_of_socket() {
    for nonblocking in [false, true] {
        let (a, b) = both(nonblocking);
        let message: Vec<u8> = (0..MAX).map(|at| (at / 7) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| a.send(11, &message, &[]).unwrap());
            let mut payload = Vec::new();
            assert_eq!(b.receive(&mut payload, MAX, None).unwrap().mid, 11);
            assert!(payload == message);
        });
    }
}

#[test]
fn descriptors_ride_on_the_first_byte_and_keep_their_order() {
    let (server, client) = both(true);
    let files: Vec<File> = (0..2_u64).map(file_of).collect();
    let donated: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    server.send(2, b"offer", &donated).unwrap();
    server.send(3, b"none", &[]).unwrap();
    let (mut payload, mut fds) = (Vec::new(), Vec::new());
    client.receive(&mut payload, MAX, Some(&mut fds)).unwrap();
    let sizes = fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_size);
    assert_eq!(sizes.collect::<Vec<_>>(), [0, 1]);
    let closed_on_exec = |fd: &OwnedFd| rustix::io::fcntl_getfd(fd).unwrap().bits() == 1;
    assert!(fds.iter().all(closed_on_exec));
    fds.clear();
    client.receive(&mut payload, MAX, Some(&mut fds)).unwrap();
    assert!(fds.is_empty());
    let many = vec![files[0].as_fd(); SOCKET_FDS_MAX + 1];
    assert_eq!(server.send(2, b"", &many), Err(SocketError::TooLong));
}

fn file_of(bytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    file
}

#[test]
fn a_server_never_adopts_descriptors_of_a_client() {
    let (server, raw) = pair();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    for frame in [&b"\0\0\0\0\x01\0\0\0"[..], b"\x02\0\0\0\x01\0\0\0ab"] {
        send_with_fd(&raw, frame, &writer);
        server.receive(&mut Vec::new(), MAX, None).unwrap();
    }
    drop(writer);
    // The pipe has no writer left, neither in a table nor on its way.
    assert_eq!(File::from(reader).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_client_adopts_no_more_descriptors_than_a_message_carries() {
    let (client, raw) = pair();
    let file = tempfile::tempfile().unwrap();
    let surplus = vec![file.as_fd(); SOCKET_FDS_MAX + 5];
    let mut room = vec![MaybeUninit::uninit(); 1024];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&surplus)));
    let frame = [IoSlice::new(b"\0\0\0\0\x01\0\0\0")];
    sendmsg(&raw, &frame, &mut control, SendFlags::empty()).unwrap();
    let mut fds = Vec::new();
    client
        .receive(&mut Vec::new(), MAX, Some(&mut fds))
        .unwrap();
    assert!(fds.len() <= SOCKET_FDS_MAX && !fds.is_empty());
}

fn send_with_fd(raw: &UnixStream, frame: &[u8], fd: &OwnedFd) {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let fds = [fd.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(
        raw,
        &[IoSlice::new(frame)],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
}

#[test]
fn shutdown_wakes_a_receiver_and_a_sender() {
    for nonblocking in [false, true] {
        let (a, _b) = both(nonblocking);
        thread::scope(|scope| {
            let receiving = scope.spawn(|| a.receive(&mut Vec::new(), MAX, None));
            a.shutdown();
            assert_eq!(receiving.join().unwrap(), Err(SocketError::Left));
        });
        let (a, _b) = both(nonblocking);
        thread::scope(|scope| {
            let sending = scope.spawn(|| a.send(1, &vec![0; MAX as usize], &[]));
            thread::yield_now();
            a.shutdown();
            assert_eq!(sending.join().unwrap(), Err(SocketError::Left));
        });
    }
}

#[test]
fn sending_to_a_peer_that_left_is_an_error_and_no_signal() {
    let (socket, raw) = pair();
    drop(raw);
    assert_eq!(socket.send(1, b"x", &[]), Err(SocketError::Left));
}
