//! Bulk data in private memory, and counters that two mappings share.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use channel::counters::COUNTERS_MAX;
use channel::{Bulk, Counters};
use rustix::io::Errno;

fn file_of(bytes: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![b'f'; bytes]).unwrap();
    file
}

#[test]
fn a_read_stops_at_the_end_of_the_file_and_touches_nothing_outside_its_range() {
    let file = file_of(10);
    let mut room = vec![b'.'; 20];
    let mut bulk = Bulk::private(&mut room);
    assert_eq!(bulk.pread(file.as_fd(), 5, 10, 4), Ok(6));
    assert_eq!(bulk.pread(file.as_fd(), 0, 20, 10), Ok(0), "at the end");
    assert_eq!(bulk.pread(file.as_fd(), 20, 0, 0), Ok(0));
    assert_eq!(room, b".....ffffff.........");
}

#[test]
fn a_claim_touches_a_byte_of_each_cache_line_and_nothing_behind_what_is_claimed() {
    #[repr(align(64))]
    struct Lines([u8; 256]);
    for (at, bytes, touched) in [
        (0, 0, &[][..]),
        (0, 64, &[0]),
        (20, 144, &[20, 64, 128]),
        (20, 44, &[20]),
        (20, 45, &[20, 64]),
        (192, usize::MAX, &[192]),
    ] {
        let mut room = Lines([b'.'; 256]);
        Bulk::private(&mut room.0[at..]).claim(bytes);
        let found: Vec<usize> = (0..256).filter(|at| room.0[*at] != b'.').collect();
        assert_eq!(found, touched, "{bytes} at {at}");
    }
}

#[test]
fn a_long_read_arrives_whole_at_any_address() {
    let content: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    for at in [0, 1, 8, 28, 32, 63] {
        for len in [511, 512, 2049, 32 << 10, (32 << 10) + 1, 70_000, 120_000] {
            let mut room = vec![b'.'; 63 + 120_000 + 1];
            let read = Bulk::private(&mut room).pread(file.as_fd(), at, len, 3);
            let bytes = len.min(content.len() - 3);
            assert_eq!(read, Ok(bytes), "{len} at {at}");
            assert!(
                room[at..at + bytes] == content[3..3 + bytes],
                "{len} at {at}"
            );
            let outside = room[..at].iter().chain(&room[at + bytes..]);
            assert!(outside.copied().all(|byte| byte == b'.'), "{len} at {at}");
        }
    }
}

#[test]
fn a_range_outside_the_room_or_the_file_s_offsets_is_refused() {
    let file = file_of(10);
    let mut room = [0; 20];
    let mut bulk = Bulk::private(&mut room);
    for (at, len) in [(0, 21), (20, 1), (21, 0), (usize::MAX, 2), (1, usize::MAX)] {
        assert_eq!(bulk.pread(file.as_fd(), at, len, 0), Err(Errno::FAULT));
        assert_eq!(bulk.pwrite(file.as_fd(), at, len, 0), Err(Errno::FAULT));
    }
    assert_eq!(bulk.pread(file.as_fd(), 0, 1, -1), Err(Errno::INVAL));
    assert_eq!(bulk.pwrite(file.as_fd(), 0, 1, i64::MIN), Err(Errno::INVAL));
    assert_eq!(bulk.pread(file.as_fd(), 0, 20, i64::MAX), Err(Errno::INVAL));
    assert_eq!(file.metadata().unwrap().len(), 10);
}

#[test]
fn the_host_s_errno_is_reported() {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let mut room = [0; 4];
    assert_eq!(
        Bulk::private(&mut room).pread(reader.as_fd(), 0, 4, 0),
        Err(Errno::SPIPE)
    );
    let readable = File::open("/proc/self/exe").unwrap();
    assert_eq!(
        Bulk::private(&mut room).pwrite(readable.as_fd(), 0, 4, 0),
        Err(Errno::BADF)
    );
}

#[test]
fn counters_are_seen_through_another_mapping_and_stay_inside_their_page() {
    let file = tempfile::tempfile().unwrap();
    let (ours, theirs) = (
        Counters::map(file.as_fd()).unwrap(),
        Counters::map(file.as_fd()).unwrap(),
    );
    ours.add(3, 2);
    ours.add(3, 5);
    ours.add(COUNTERS_MAX - 1, 1);
    ours.add(COUNTERS_MAX, 1);
    ours.add(usize::MAX, 1);
    assert_eq!((theirs.load(3), theirs.load(COUNTERS_MAX - 1)), (7, 1));
    assert_eq!((theirs.load(COUNTERS_MAX), theirs.load(0)), (0, 0));
    assert_eq!(file.metadata().unwrap().len(), 4096);
}
