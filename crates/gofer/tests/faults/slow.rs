//! Clients that take their time: they get the right answers, and nobody waits for them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use client::Client;
use rustix::process::{Pid, Signal, kill_process};
use wire::msg::data::PRead;
use wire::{Encode, FdId, Mid};

use crate::{Dice, House, Kind, header, new_node, spawn_victim};

/// Makes and removes a directory as often.
fn work(client: &Client, root: FdId, rounds: usize) {
    for _ in 0..rounds {
        let made = client.mkdir_at(new_node(root), b"dir").unwrap();
        client.rmdir_at(root, b"dir").unwrap();
        client.close(&[made.control]).unwrap();
    }
}

/// Reads as many bytes, a few at a time.
fn sip(socket: &mut File, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    for few in all.chunks_mut(1500) {
        socket.read_exact(few).unwrap();
        std::thread::yield_now();
    }
    all
}

#[test]
fn a_client_that_sips_its_answers_gets_every_byte_and_holds_up_nobody() {
    const BYTES: usize = 1 << 20;
    let house = House::new(2);
    let content: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
    fs::write(house.volume(0).join("file"), &content).unwrap();
    let mut served = house.start(&[]);
    let socket = served.gofer.take_socket().unwrap();
    let mut slow = File::from(socket.as_fd().try_clone_to_owned().unwrap());
    let (client, mounted) = Client::connect(socket).unwrap();
    let file = client.walk_one(mounted.root.control, b"file").unwrap();
    let open = client.open_at(file.control, 0).unwrap().id;
    let (other, other_root) = served.connect();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| work(&other, other_root, 200));
        for _ in 0..4 {
            let (offset, count) = (0, BYTES as u32);
            let request = PRead {
                offset,
                open,
                count,
            };
            let request = request.to_payload();
            slow.write_all(&header(Mid::PREAD, request.len() as u32))
                .unwrap();
            slow.write_all(&request).unwrap();
            // The answer fills the socket: its sender waits in the middle of it, and we let it.
            served.check_alive();
            let head = sip(&mut slow, 8);
            assert_eq!(head[4..6], Mid::PREAD.0.to_le_bytes(), "not refused");
            let answer = sip(&mut slow, 8 + BYTES);
            assert_eq!(answer[..8], (BYTES as u64).to_le_bytes());
            assert!(answer[8..] == content, "every byte in its place");
        }
        busy.join().unwrap();
    });
    drop((client, slow, other));
    served.end();
}

/// The victims compare what they read back with what they wrote, and die if it differs.
#[test]
fn clients_that_stall_again_and_again_go_on_where_they_were_on_both_transports() {
    let house = House::new(3);
    let mut served = house.start(&[]);
    let kinds = [Kind::Socket, Kind::Channels];
    let mut victims = kinds.map(|kind| spawn_victim(kind, served.gofer.take_socket().unwrap()));
    let (client, root) = served.connect();
    client.open_channels(2).unwrap();
    let mut dice = Dice(3);
    let (run, stop) = (Signal::CONT, Signal::STOP);
    for _ in 0..100 {
        for victim in &victims {
            kill_process(Pid::from_child(victim), stop).unwrap();
        }
        work(&client, root, 20);
        for victim in &victims {
            kill_process(Pid::from_child(victim), run).unwrap();
        }
        std::thread::sleep(Duration::from_micros(dice.below(5_000)));
    }
    served.check_alive();
    for victim in &mut victims {
        assert_eq!(victim.try_wait().unwrap(), None, "it found a wrong answer");
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    drop(client);
    served.end();
}
