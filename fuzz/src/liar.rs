//! A server between a client and a true server: it passes on what both say, or says something else.
//!
//! Must hold: every request gets one reply, so that only the client can be at fault if it waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use arbitrary::{Arbitrary, Result, Unstructured};
use channel::Socket;
use client::{Answer, Client};
use wire::{Errno, Mid, limits};

/// Starts it: between `client_end` and the server at the other end of `server`, with `script` to say
/// when it lies and how. It ends when the client leaves.
#[must_use]
pub fn start(client_end: OwnedFd, server: OwnedFd, script: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (socket, server) = (Socket::new(client_end), Client::new(server));
        let mut script = Unstructured::new(&script);
        let mut payload = Vec::new();
        let bytes_max = limits::payload_bytes_max(1 << 20);
        while let Ok(header) = socket.receive(&mut payload, bytes_max, None) {
            let Ok(mut answer) = server.request(Mid(header.mid), &payload) else {
                return;
            };
            // The first is believed, or there would be no mount to look at.
            if Mid(header.mid) != Mid::MOUNT {
                // At the end of the script nothing is changed any more.
                _ = distort(&mut script, &mut answer);
            }
            let fds: Vec<BorrowedFd<'_>> = answer.fds.iter().map(AsFd::as_fd).collect();
            if socket.send(answer.mid.0, &answer.payload, &fds).is_err() {
                return;
            }
        }
    })
}

fn distort(u: &mut Unstructured<'_>, answer: &mut Answer) -> Result<()> {
    if u.is_empty() || !u.ratio(1, 3)? {
        return Ok(());
    }
    let length = answer.payload.len();
    match u.int_in_range(0..=11_u8)? {
        0 => {
            answer.mid = Mid::ERROR;
            let errno = if u.ratio(1, 2)? {
                u32::from(u8::arbitrary(u)?)
            } else {
                u32::arbitrary(u)?
            };
            // This one is waited out, which is slow.
            let errno = if matches!(errno, 23 | 24) {
                Errno::IO.raw()
            } else {
                errno
            };
            answer.payload = errno.to_le_bytes().to_vec();
            answer.fds.clear();
        }
        1 => answer.mid = Mid(u16::arbitrary(u)?),
        2 => answer.payload.truncate(u.int_in_range(0..=length)?),
        3 => answer.payload.extend_from_slice(&<[u8; 16]>::arbitrary(u)?),
        4 => answer.fds.clear(),
        5 => answer.fds = vec![some_descriptor(u)?],
        6 => answer.fds.push(some_descriptor(u)?),
        _ if length == 0 => {}
        // A number somewhere: attributes, counts, ids, names.
        7 | 8 => {
            let at = u.int_in_range(0..=length - 1)? / 8 * 8;
            for byte in answer.payload.iter_mut().skip(at).take(8) {
                *byte = u8::arbitrary(u)?;
            }
        }
        9 => {
            let at = u.choose_index(length)?;
            let value = *u.choose(&[0, 1, b'/', b'.', 0x7f, 0x80, 0xff])?;
            answer.payload[at] = value;
        }
        _ => {
            let at = u.choose_index(length)?;
            answer.payload[at] = u8::arbitrary(u)?;
        }
    }
    Ok(())
}

/// What no file of a tree is donated as.
fn some_descriptor(u: &mut Unstructured<'_>) -> Result<OwnedFd> {
    let path = *u.choose(&["/dev/null", "/dev/zero", "/", "/proc/self/status"])?;
    let file = std::fs::File::open(path).expect("a file that every host has");
    Ok(file.into())
}
