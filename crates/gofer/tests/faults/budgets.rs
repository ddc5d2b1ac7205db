//! Every budget: one client fills it, the others go on; it gives back, and all works again.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

use wire::{Errno, Mid};

use crate::{Holdings, House, PER_CONNECTION, header, new_node, refused, take_all};

/// What one connection may make (`server::Policy`).
const CHANNELS_MAX: usize = 4;

#[test]
fn a_client_that_takes_every_channel_leaves_the_others_theirs_and_gives_all_back() {
    let house = House::new(3);
    let mut served = house.start(&[]);
    let before = served.holdings();
    let (greedy, root) = served.connect();
    assert_eq!(greedy.open_channels(100), Ok(CHANNELS_MAX));
    let more = greedy.request(Mid::CHANNEL, &[]).unwrap();
    assert_eq!(more.mid, Mid::ERROR);
    assert_eq!(more.payload, Errno::NOMEM.raw().to_le_bytes());
    // Refused for good: what is left works on.
    greedy.mkdir_at(new_node(root), b"dir").unwrap();
    let (modest, modest_root) = served.connect();
    assert_eq!(modest.open_channels(CHANNELS_MAX), Ok(CHANNELS_MAX));
    modest.mkdir_at(new_node(modest_root), b"dir").unwrap();
    let full = served.holdings();
    // For each of the two: a thread for its socket and one for each channel.
    assert_eq!(full.threads, before.threads + 2 * (1 + CHANNELS_MAX));
    drop((greedy, modest));
    served.settle(Holdings {
        descriptors: before.descriptors - 2 * PER_CONNECTION,
        threads: before.threads,
    });
    let (next, next_root) = served.connect();
    assert_eq!(next.open_channels(CHANNELS_MAX), Ok(CHANNELS_MAX));
    next.mkdir_at(new_node(next_root), b"dir").unwrap();
    drop(next);
    served.end();
}

#[test]
fn descriptors_and_so_ids_that_are_given_back_serve_whoever_asks_next() {
    let house = House::new(2);
    for volume in 0..2 {
        fs::write(house.volume(volume).join("file"), "content").unwrap();
    }
    let mut served = house.start(&["--fdlimit=600"]);
    let (one, one_root) = served.connect();
    let (two, two_root) = served.connect();
    let most = take_all(&one, one_root);
    let part = take_all(&two, two_root);
    assert!(part.len() < most.len() && !part.is_empty());
    one.close(&most).unwrap();
    let more = take_all(&two, two_root);
    assert!(more.len() >= most.len() - part.len(), "the common half");
    // Leaving gives back as well.
    drop(two);
    one.mkdir_at(new_node(one_root), b"dir").unwrap();
    let mut again = 0;
    // The connection that ends gives back in its own time.
    for _ in 0..5000 {
        let taken = take_all(&one, one_root);
        one.close(&taken).unwrap();
        again = again.max(taken.len());
        if again + 1 >= most.len() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(again + 1 >= most.len(), "{again} of {}", most.len());
    drop(one);
    served.end();
}

#[test]
fn messages_longer_than_allowed_are_never_buffered_and_the_next_one_is_answered() {
    const BYTES: u32 = 256 << 20;
    let house = House::new(2);
    let mut served = house.start(&[]);
    let mut socket = File::from(served.gofer.take_socket().unwrap());
    let (other, other_root) = served.connect();
    let before = served.memory_kib();
    socket.write_all(&header(Mid::PWRITE, BYTES)).unwrap();
    let piece = vec![1; 1 << 20];
    for round in 0..BYTES as usize / piece.len() {
        socket.write_all(&piece).unwrap();
        if round == 200 {
            let now = served.memory_kib();
            assert!(now < before + 4096, "{before} KiB became {now} KiB");
            other.mkdir_at(new_node(other_root), b"meanwhile").unwrap();
        }
    }
    let mut reply = [0; 12];
    socket.read_exact(&mut reply).unwrap();
    assert_eq!(reply[4..6], Mid::ERROR.0.to_le_bytes());
    assert_eq!(reply[8..], Errno::IO.raw().to_le_bytes());
    socket.write_all(&header(Mid::MOUNT, 0)).unwrap();
    socket.read_exact(&mut reply[..8]).unwrap();
    assert_eq!(reply[4..6], Mid::MOUNT.0.to_le_bytes());
    drop((socket, other));
    served.end();
}

/// Fills a server's first volume with ids of as many different files, checks each, and gives them
/// back; how many there were.
fn fill_and_check(house: &House, limit: u64) -> usize {
    const FILES: usize = 1000;
    let names: Vec<String> = (0..FILES).map(|number| format!("file{number}")).collect();
    let inode = |name: &String| {
        let path = house.volume(0).join(name);
        _ = File::create(&path).unwrap();
        fs::metadata(path).unwrap().ino()
    };
    let inodes: Vec<u64> = names.iter().map(inode).collect();
    let mut served = house.start(&[&format!("--fdlimit={limit}")]);
    let before = served.memory_kib();
    let (client, root) = served.connect();
    let (other, other_root) = served.connect();
    client.open_channels(1).unwrap();
    let mut ids = Vec::new();
    for number in 0.. {
        match client.walk(root, &[names[number % FILES].as_bytes()]) {
            Ok(walked) => ids.push(walked.inodes[0].control),
            refusal => {
                assert_eq!(refused(refusal), Errno::MFILE);
                break;
            }
        }
    }
    let bytes = (served.memory_kib() - before) * 1024 / ids.len() as u64;
    println!("{limit} descriptors: {} ids, {bytes} bytes each", ids.len());
    // Others have their part, and a file without a name is still what it was.
    other.mkdir_at(new_node(other_root), b"dir").unwrap();
    fs::remove_file(house.volume(0).join("file7")).unwrap();
    for (number, id) in ids.iter().enumerate() {
        let stat = client.fstat(*id).unwrap();
        assert_eq!(stat.ino, inodes[number % FILES]);
        assert_eq!(stat.nlink, u32::from(number % FILES != 7));
    }
    for some in ids.chunks(1000) {
        client.close(some).unwrap();
    }
    client.mkdir_at(new_node(root), b"dir").unwrap();
    drop((client, other));
    served.end();
    ids.len()
}

/// The limit decides, and nothing else does.
#[test]
fn ten_times_the_limit_is_ten_times_the_ids_and_each_answers_for_its_own_file() {
    let few = fill_and_check(&House::new(3), 2_000);
    let many = fill_and_check(&House::new(3), 20_000);
    assert!(many > 12_000 && many > 10 * few, "{few} and {many}");
}
