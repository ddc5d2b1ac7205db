//! Turns, messages and descriptors in a window, with honest and hostile peers.
//!
//! A raw peer reads and writes the window through its file: byte for byte what another process sees.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "control messages are compared byte for byte")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use channel::window::WINDOW_BYTES;
use channel::{ChannelError, Client, Offer, Server, Turn, Wait, Window, WindowFile};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use serde_json::Value;

const PAYLOAD_MAX: usize = WINDOW_BYTES - 20;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../wire/tests/vectors.json")).unwrap()
}

fn unhex(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// A server endpoint, its offer, and the window's file for a raw peer.
struct Rig {
    server: Server,
    offer: Offer,
    raw: Raw,
}

struct Raw(File);

impl Rig {
    fn new() -> Self {
        let (server, offer) = Server::open(&WindowFile::new().unwrap(), Wait::asleep()).unwrap();
        let raw = Raw(File::from(offer.memory.try_clone().unwrap()));
        Self { server, offer, raw }
    }

    /// A connected pair, and the raw view.
    fn connected() -> (Server, Client, Raw) {
        let Self {
            mut server,
            offer,
            raw,
        } = Self::new();
        let server = thread::spawn(move || server.accept().map(|()| server));
        let client = Client::connect(offer, Wait::asleep()).unwrap();
        (server.join().unwrap().unwrap(), client, raw)
    }
}

impl Raw {
    fn first(&self, bytes: usize) -> Vec<u8> {
        let mut first = vec![0; bytes];
        self.0.read_exact_at(&mut first, 0).unwrap();
        first
    }

    fn state(&self) -> u32 {
        u32::from_le_bytes(self.first(4).try_into().unwrap())
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, at).unwrap();
    }

    /// Writes a datagram as a client would, state last.
    fn datagram(&self, data_len: u32, datagram: &[u8]) {
        self.write(16, datagram);
        self.write(4, &data_len.to_le_bytes());
        self.write(0, &1_u32.to_le_bytes());
    }

    /// The handshake of a client that spoke before the server waited.
    fn hello(&self, server: &mut Server) {
        self.datagram(3, b"{}\n");
        server.accept().unwrap();
    }
}

#[test]
fn the_server_writes_what_the_reference_server_writes() {
    let vectors = vectors();
    let snapshot = |side: &str, step: usize| {
        unhex(&vectors["flipcall"][side][step]["window_first_32_bytes_hex"])
    };
    let Rig {
        mut server,
        raw,
        offer: _offer,
    } = Rig::new();
    assert_eq!(raw.first(32), snapshot("reference_client", 0));
    raw.write(0, &snapshot("reference_client", 1));
    server.accept().unwrap();
    assert_eq!(raw.first(32), snapshot("reference_server", 0));
    raw.write(0, &snapshot("reference_client", 3));
    assert_eq!(
        server.receive().unwrap(),
        Turn {
            mid: 3,
            payload_bytes: 8
        }
    );
    let mut request = Vec::new();
    server.copy_request(&mut request, 4096);
    assert_eq!(request, 1_u64.to_le_bytes());
    server.reply(0, &9_u32.to_le_bytes(), &[]).unwrap();
    // The reference's snapshot shows the rest of the request's payload overwritten: only dataLen
    // bytes are defined.
    assert_eq!(raw.first(24), snapshot("reference_server", 1)[..24]);
    server.closer().close();
    assert_eq!(raw.first(24), snapshot("reference_server", 2)[..24]);
}

#[test]
fn the_client_writes_what_the_reference_client_writes() {
    let vectors = vectors();
    let snapshot = |step: usize| {
        unhex(&vectors["flipcall"]["reference_client"][step]["window_first_32_bytes_hex"])
    };
    let Rig { server, offer, raw } = Rig::new();
    let waiting = server.closer();
    let client = thread::spawn(move || Client::connect(offer, Wait::asleep()).map(|_| ()));
    while raw.state() != 1 {
        thread::yield_now();
    }
    assert_eq!(raw.first(32), snapshot(1));
    waiting.close();
    assert_eq!(client.join().unwrap(), Err(ChannelError::ShutDown));

    let (mut server, mut client, raw) = Rig::connected();
    assert_eq!(raw.first(32), snapshot(2));
    let seen = thread::scope(|scope| {
        scope.spawn(|| client.call(3, &1_u64.to_le_bytes(), &mut Vec::new(), &mut Vec::new()));
        server.receive().unwrap();
        let seen = raw.first(32);
        server.reply(0, &9_u32.to_le_bytes(), &[]).unwrap();
        seen
    });
    assert_eq!(seen, snapshot(3));
    drop(client);
    assert_eq!(raw.first(24), snapshot(5)[..24]);
}

#[test]
fn channel_frames_of_the_vectors_appear_in_the_window() {
    let vectors = vectors();
    let frames = vectors["frames"].as_array().unwrap().iter();
    let mut replies = 0;
    for frame in frames.filter(|frame| frame["transport"] == "channel") {
        let image = unhex(&frame["hex"]);
        let Rig {
            mut server,
            raw,
            offer: _offer,
        } = Rig::new();
        raw.hello(&mut server);
        if image[0] == 1 {
            raw.write(0, &image);
            let turn = server.receive().unwrap();
            let mut payload = Vec::new();
            server.copy_request(&mut payload, usize::MAX);
            assert_eq!(turn.mid, u16::from_le_bytes([image[16], image[17]]));
            assert_eq!(payload, image[20..]);
        } else {
            raw.datagram(4, &[1, 0, 0, 0]);
            server.receive().unwrap();
            let file = tempfile::tempfile().unwrap();
            let fds = vec![file.as_fd(); usize::from(image[18])];
            server
                .reply(
                    u16::from_le_bytes([image[16], image[17]]),
                    &image[20..],
                    &fds,
                )
                .unwrap();
            assert_eq!(raw.first(image.len()), image);
            replies += 1;
        }
    }
    assert_eq!(replies, 3);
}

#[test]
fn windows_lie_and_the_file_grows_as_in_the_reference() {
    let vectors = vectors();
    let file = WindowFile::new().unwrap();
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
    assert!(
        seals.contains(SealFlags::SHRINK | SealFlags::SEAL) && !seals.contains(SealFlags::GROW)
    );
    for expected in vectors["flipcall"]["windows"].as_array().unwrap() {
        let (window, offset) = file.add_window().unwrap();
        assert_eq!(offset, expected["offset"].as_u64().unwrap());
        assert_eq!(
            window.datagram_bytes_max() as u64 + 16,
            expected["length"].as_u64().unwrap()
        );
        let file_bytes = rustix::fs::fstat(&file).unwrap().st_size as u64;
        assert_eq!(file_bytes, expected["file_size_after"].as_u64().unwrap());
    }
    assert_eq!(
        rustix::fs::ftruncate(&file, 0),
        Err(Errno::PERM),
        "it cannot shrink"
    );
}

#[test]
fn a_client_refuses_a_window_that_could_vanish_or_is_not_there() {
    let file = WindowFile::new().unwrap();
    file.add_window().unwrap();
    let bytes = WINDOW_BYTES as u64;
    let map = |offset, bytes| Window::map(file.as_fd(), offset, bytes).map(|_| ());
    assert_eq!(map(0, bytes), Ok(()));
    for (offset, bytes) in [
        (1, 4096),
        (0, 0),
        (0, 4095),
        (0, 1 << 32),
        (bytes, bytes),
        (u64::MAX, bytes),
    ] {
        assert_eq!(map(offset, bytes), Err(Errno::INVAL), "{offset} {bytes}");
    }
    let unsealed = rustix::fs::memfd_create("unsealed", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, bytes).unwrap();
    assert_eq!(
        Window::map(unsealed.as_fd(), 0, bytes).map(|_| ()),
        Err(Errno::PERM)
    );
}

#[test]
fn a_call_carries_payloads_of_every_kind_of_length_both_ways() {
    let (mut server, mut client, _raw) = Rig::connected();
    let echo = thread::spawn(move || {
        let mut request = Vec::new();
        while let Ok(turn) = server.receive() {
            server.copy_request(&mut request, usize::MAX);
            server.reply(turn.mid + 1, &request, &[]).unwrap();
        }
    });
    let mut reply = Vec::new();
    for len in [0, 1, 7, 8, 4096, 4097, 2_093_056, PAYLOAD_MAX] {
        let request: Vec<u8> = (0..len).map(|at| at as u8).collect();
        assert_eq!(client.call(7, &request, &mut reply, &mut Vec::new()), Ok(8));
        assert!(reply == request, "{len} bytes differ");
    }
    let too_long = vec![0; PAYLOAD_MAX + 1];
    assert_eq!(
        client.call(7, &too_long, &mut reply, &mut Vec::new()),
        Err(ChannelError::TooLong)
    );
    assert_eq!(
        client.call(7, &[], &mut reply, &mut Vec::new()),
        Ok(8),
        "the channel lives on"
    );
    drop(client);
    echo.join().unwrap();
}

#[test]
fn a_spinning_server_and_client_answer_as_well_as_sleeping_ones() {
    for wait in [Wait::adaptive(), Wait::fixed(20), Wait::asleep()] {
        let (mut server, offer) = Server::open(&WindowFile::new().unwrap(), wait.clone()).unwrap();
        let serving = thread::spawn(move || {
            server.accept().unwrap();
            let mut served = 0;
            while let Ok(turn) = server.receive() {
                served += 1;
                server.reply(turn.mid, b"", &[]).unwrap();
            }
            served
        });
        let mut client = Client::connect(offer, wait).unwrap();
        for mid in 0..2000 {
            assert_eq!(
                client.call(mid, b"", &mut Vec::new(), &mut Vec::new()),
                Ok(mid)
            );
        }
        drop(client);
        assert_eq!(serving.join().unwrap(), 2000);
    }
}

#[test]
fn a_reply_that_does_not_fit_is_refused_and_another_one_can_be_sent() {
    let Rig {
        mut server,
        raw,
        offer: _offer,
    } = Rig::new();
    raw.hello(&mut server);
    raw.datagram(4, &[5, 0, 0, 0]);
    server.receive().unwrap();
    let long = vec![0; PAYLOAD_MAX + 1];
    assert_eq!(server.reply(5, &long, &[]), Err(ChannelError::TooLong));
    assert_eq!(
        server.reply_in_place(5, &[], PAYLOAD_MAX + 1),
        Err(ChannelError::TooLong)
    );
    assert_eq!(
        server.reply_in_place(5, &[0; 8], 7),
        Err(ChannelError::TooLong)
    );
    assert_eq!(raw.state(), 1, "still the server's turn");
    assert_eq!(server.reply(0, &[5, 0, 0, 0], &[]), Ok(0));
    assert_eq!(raw.state(), 0);
}

#[test]
fn a_descriptor_crosses_in_the_reference_s_control_message() {
    let Rig {
        mut server,
        raw,
        offer,
    } = Rig::new();
    raw.hello(&mut server);
    raw.datagram(4, &[7, 0, 0, 0]);
    server.receive().unwrap();
    let file = tempfile::tempfile().unwrap();
    assert_eq!(server.reply(7, b"", &[file.as_fd()]), Ok(1));

    let mut control = [0_u64; 4];
    // SAFETY: all-zero is a valid msghdr; `control` outlives the call and is as long as stated.
    let (got, header) = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = 20;
        let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        (
            libc::recvmsg(offer.fd_socket.as_raw_fd(), &raw mut header, flags),
            header,
        )
    };
    let mut control: Vec<u8> = control.iter().flat_map(|word| word.to_le_bytes()).collect();
    control.truncate(header.msg_controllen);
    assert_eq!((got, header.msg_flags), (0, 0));
    control[16..].copy_from_slice(&5_u32.to_le_bytes());
    let expected =
        &vectors()["fd_passing"]["fd_channel_message"]["control_bytes_hex_with_fd_number_5"];
    assert_eq!(control, unhex(expected));
}

#[test]
fn descriptors_arrive_in_order_and_belong_to_their_own_reply() {
    let (mut server, mut client, _raw) = Rig::connected();
    let serving = thread::spawn(move || {
        for names in [&["a", "b"][..], &[], &["c"]] {
            server.receive().unwrap();
            let files: Vec<File> = names.iter().map(|name| named(name)).collect();
            let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            assert_eq!(server.reply(2, b"x", &fds), Ok(names.len()));
        }
        _ = server.receive();
    });
    for names in ["ab", "", "c"] {
        let mut fds = Vec::new();
        client.call(2, b"", &mut Vec::new(), &mut fds).unwrap();
        assert_eq!(fds.into_iter().map(content).collect::<String>(), names);
    }
    drop(client);
    serving.join().unwrap();
}

fn named(name: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(name.as_bytes()).unwrap();
    file
}

fn content(fd: OwnedFd) -> String {
    let (mut file, mut text) = (File::from(fd), String::new());
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_client_that_never_takes_its_descriptors_gets_fewer_but_still_its_reply() {
    let Rig {
        mut server,
        raw,
        offer,
    } = Rig::new();
    raw.hello(&mut server);
    let file = tempfile::tempfile().unwrap();
    let fds = vec![file.as_fd(); 300];
    let mut last = usize::MAX;
    for round in 0..50 {
        raw.datagram(4, &[2, 0, 0, 0]);
        server.receive().unwrap();
        last = server.reply(2, b"reply", &fds).unwrap();
        assert!(last <= 255, "the count is one byte");
        assert_eq!(usize::from(raw.first(19)[18]), last, "round {round}");
        assert_eq!(raw.state(), 0);
    }
    assert_eq!(last, 0, "the queue is full");
    drop(offer);
    raw.datagram(4, &[2, 0, 0, 0]);
    server.receive().unwrap();
    assert_eq!(server.reply(2, b"", &fds), Ok(0), "nobody dies of SIGPIPE");
}

#[test]
fn descriptors_that_a_request_announces_are_ignored() {
    let Rig {
        mut server,
        raw,
        offer: _offer,
    } = Rig::new();
    raw.hello(&mut server);
    raw.datagram(4, &[9, 0, 200, 77]);
    assert_eq!(
        server.receive().unwrap(),
        Turn {
            mid: 9,
            payload_bytes: 0
        }
    );
    server.reply(9, b"", &[]).unwrap();
    assert_eq!(raw.first(20)[16..], [9, 0, 0, 0]);
}

#[test]
fn an_impossible_length_ends_the_channel_and_tells_the_peer() {
    for length in [0, 1, 2, 3, WINDOW_BYTES as u32 - 15, u32::MAX] {
        let Rig {
            mut server,
            raw,
            offer: _offer,
        } = Rig::new();
        raw.hello(&mut server);
        raw.datagram(length, &[3, 0, 0, 0]);
        assert_eq!(server.receive(), Err(ChannelError::Length(length)));
        assert_eq!(raw.state(), 2);
        raw.datagram(4, &[3, 0, 0, 0]);
        assert_eq!(server.receive(), Err(ChannelError::ShutDown), "for good");
        assert_eq!(server.reply(3, b"", &[]), Err(ChannelError::ShutDown));
    }
}

#[test]
fn an_impossible_state_ends_the_channel_and_tells_the_peer() {
    let Rig {
        mut server,
        raw,
        offer: _offer,
    } = Rig::new();
    raw.hello(&mut server);
    raw.write(0, &7_u32.to_le_bytes());
    assert_eq!(server.receive(), Err(ChannelError::State(7)));
    assert_eq!(raw.state(), 2);

    let Rig {
        mut server,
        raw,
        offer: _offer,
    } = Rig::new();
    raw.hello(&mut server);
    raw.datagram(4, &[3, 0, 0, 0]);
    server.receive().unwrap();
    raw.write(0, &0_u32.to_le_bytes());
    assert_eq!(
        server.reply(3, b"", &[]),
        Err(ChannelError::State(0)),
        "taken back by the peer"
    );
    assert_eq!(raw.state(), 2);
}

#[test]
fn a_handshake_that_is_no_object_ends_the_channel_and_wakes_the_peer() {
    for hello in [&b"[]\n"[..], b"", b"1", b"{"] {
        let Rig {
            mut server,
            raw,
            offer: _offer,
        } = Rig::new();
        raw.datagram(hello.len() as u32, hello);
        assert_eq!(server.accept(), Err(ChannelError::Handshake));
        assert_eq!(raw.state(), 2);
    }
    let Rig {
        mut server,
        raw,
        offer: _offer,
    } = Rig::new();
    raw.datagram(11, b"{\"v\": [1]} ");
    assert_eq!(server.accept(), Ok(()));
    assert_eq!(raw.first(19)[16..], *b"{}\n");
}

#[test]
fn a_peer_that_flips_the_state_and_rewrites_the_window_at_full_speed_harms_only_itself() {
    for round in 0..20_u32 {
        let Rig {
            mut server,
            raw,
            offer: _offer,
        } = Rig::new();
        raw.hello(&mut server);
        let (stop, closer) = (AtomicBool::new(false), server.closer());
        thread::scope(|scope| {
            let hostile = scope.spawn(|| {
                let mut n = round;
                while !stop.load(Ordering::Relaxed) {
                    n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Mostly valid states and lengths, so that many requests get through.
                    let state = if n % 512 == 0 { n } else { (n >> 8) & 1 };
                    let length = if n % 300 == 0 {
                        n
                    } else {
                        4 + (n >> 12) % 1000
                    };
                    raw.write(16, &n.to_le_bytes());
                    raw.write(4, &length.to_le_bytes());
                    raw.write(0, &state.to_le_bytes());
                }
            });
            let serving = scope.spawn(move || {
                let mut request = Vec::new();
                loop {
                    match server.receive() {
                        Ok(turn) => {
                            assert!(turn.payload_bytes <= PAYLOAD_MAX);
                            server.copy_request(&mut request, usize::MAX);
                            assert_eq!(request.len(), turn.payload_bytes);
                        }
                        Err(error) => return error,
                    }
                    if let Err(error) = server.reply(1, b"answer", &[]) {
                        return error;
                    }
                }
            });
            for _ in 0..200 {
                thread::yield_now();
            }
            assert!(
                closer.close(),
                "the server's thread leaves although the peer writes on"
            );
            assert_ne!(serving.join().unwrap(), ChannelError::TooLong);
            stop.store(true, Ordering::Relaxed);
            hostile.join().unwrap();
        });
    }
}

#[test]
fn closing_wakes_the_local_thread_and_the_peer_whoever_waits() {
    // The server waits for a request; it is closed from its own side, then from the client's.
    for from_client in [false, true] {
        let (mut server, client, raw) = Rig::connected();
        let closer = if from_client {
            client.closer()
        } else {
            server.closer()
        };
        let waiting = thread::spawn(move || server.receive());
        assert!(closer.close());
        assert_eq!(waiting.join().unwrap(), Err(ChannelError::ShutDown));
        assert_eq!(raw.state(), 2);
    }
    // The client waits for a reply while the server is active.
    for from_client in [false, true] {
        let (mut server, mut client, raw) = Rig::connected();
        let closer = if from_client {
            client.closer()
        } else {
            server.closer()
        };
        let calling = thread::spawn(move || client.call(3, b"", &mut Vec::new(), &mut Vec::new()));
        server.receive().unwrap();
        assert!(closer.close());
        assert_eq!(calling.join().unwrap(), Err(ChannelError::ShutDown));
        assert_eq!(server.reply(3, b"", &[]), Err(ChannelError::ShutDown));
        assert_eq!(raw.state(), 2);
    }
}

#[test]
fn dropping_either_end_wakes_the_other() {
    let (mut server, client, _raw) = Rig::connected();
    let waiting = thread::spawn(move || server.receive());
    drop(client);
    assert_eq!(waiting.join().unwrap(), Err(ChannelError::ShutDown));

    let (mut server, mut client, _raw) = Rig::connected();
    let calling = thread::spawn(move || client.call(3, b"", &mut Vec::new(), &mut Vec::new()));
    server.receive().unwrap();
    drop(server);
    assert_eq!(calling.join().unwrap(), Err(ChannelError::ShutDown));
}

#[test]
fn bulk_data_goes_between_file_and_window() {
    let (mut server, mut client, _raw) = Rig::connected();
    let serving = thread::spawn(move || {
        let file = tempfile::tempfile().unwrap();
        let written = server.receive().unwrap().payload_bytes;
        let count = server
            .bulk()
            .pwrite(file.as_fd(), 4, written - 4, 10)
            .unwrap();
        server
            .reply(11, &(count as u64).to_le_bytes(), &[])
            .unwrap();
        server.receive().unwrap();
        // The file holds 10 bytes of hole and what was written: the read is cut at its end.
        let count = server.bulk().pread(file.as_fd(), 8, 1000, 8).unwrap();
        server
            .reply_in_place(12, &(count as u64).to_le_bytes(), 8 + count)
            .unwrap();
        _ = server.receive();
    });
    let (mut reply, mut fds) = (Vec::new(), Vec::new());
    assert_eq!(
        client.call(11, b"HEADbulk data", &mut reply, &mut fds),
        Ok(11)
    );
    assert_eq!(reply, 9_u64.to_le_bytes());
    assert_eq!(client.call(12, b"", &mut reply, &mut fds), Ok(12));
    assert_eq!(reply[..8], 11_u64.to_le_bytes());
    assert_eq!(reply[8..], *b"\0\0bulk data");
    drop(client);
    serving.join().unwrap();
}
