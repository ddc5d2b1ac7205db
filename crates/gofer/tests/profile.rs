//! `--profile-cpu-fd`: what is in the file after each way in which a gofer ends.
//!
//! Needs root: the parent makes namespaces.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use client::Client;
use rig::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
/// More requests than any machine answers without using up some periods of processor time.
const REQUESTS_MAX: usize = 3_000_000;

struct House {
    dir: TempDir,
}

impl House {
    fn new() -> House {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "content").unwrap();
        write_bundle(dir.path(), &root, false, &json!([])).unwrap();
        House { dir }
    }

    fn profile(&self) -> PathBuf {
        self.dir.path().join("cpu")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("debug")).unwrap()
    }

    fn start(&self, dialect: Dialect) -> Gofer {
        let mut gofer = Parent::new(Path::new(GOFER), dialect, self.dir.path(), &["lisafs:none"])
            .debug_log(File::create(self.dir.path().join("debug")).unwrap())
            .descriptor("profile-cpu-fd", File::create(self.profile()).unwrap())
            .start()
            .unwrap();
        gofer.release();
        assert!(!gofer.mounts().unwrap().is_empty(), "{}", self.log());
        gofer
    }
}

/// Asks until the gofer has put samples into the file: what a client's work leads to.
fn work(house: &House, client: &Client, root: wire::FdId) {
    for _ in 0..REQUESTS_MAX / 1000 {
        for _ in 0..1000 {
            let file = client.walk_one(root, b"file").unwrap().control;
            client.close(&[file]).unwrap();
        }
        if Profile::read(&house.profile()).samples > 10 {
            return;
        }
    }
    panic!("no sample in {REQUESTS_MAX} requests: {}", house.log());
}

/// One field of a protocol buffer: its number, and what it holds.
enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes
            .split_first()
            .expect("a message that ends within a number");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(value)
            }
            layout => panic!("field {} is laid out as {layout}", tag >> 3),
        };
        found.push((tag >> 3, value));
    }
    found
}

fn number(message: &[u8], field: u64) -> u64 {
    let value = fields(message).into_iter().find(|(at, _)| *at == field);
    match value {
        Some((_, Value::Number(value))) => value,
        _ => 0,
    }
}

fn packed(message: &[u8], field: u64) -> Vec<u64> {
    let mut all = Vec::new();
    for (at, value) in fields(message) {
        if let (true, Value::Bytes(mut bytes)) = (at == field, value) {
            while !bytes.is_empty() {
                all.push(varint(&mut bytes));
            }
        }
    }
    all
}

/// What the tests want to know of a file in the format of pprof.
#[derive(Debug, Default)]
struct Profile {
    samples: u64,
    nanoseconds: u64,
    deepest: usize,
    mappings: Vec<String>,
    /// Locations of samples that lie in no mapping.
    outside: usize,
    period: u64,
}

impl Profile {
    fn read(path: &Path) -> Profile {
        let bytes = fs::read(path).unwrap();
        let all = fields(&bytes);
        let of = |field| {
            all.iter().filter_map(move |(at, value)| match value {
                Value::Bytes(bytes) if *at == field => Some(*bytes),
                _ => None,
            })
        };
        let strings: Vec<&str> = of(6)
            .map(|text| std::str::from_utf8(text).unwrap())
            .collect();
        let mut profile = Profile {
            period: number(&bytes, 12),
            ..Profile::default()
        };
        for mapping in of(3) {
            let name = strings[usize::try_from(number(mapping, 5)).unwrap()];
            profile.mappings.push(name.to_owned());
        }
        let locations: Vec<u64> = of(4).map(|location| number(location, 1)).collect();
        profile.outside = of(4).filter(|location| number(location, 2) == 0).count();
        for sample in of(2) {
            let stack = packed(sample, 1);
            assert!(stack.iter().all(|id| locations.contains(id)));
            let values = packed(sample, 2);
            profile.samples += values[0];
            profile.nanoseconds += values[1];
            profile.deepest = profile.deepest.max(stack.len());
        }
        profile
    }
}

#[track_caller]
fn assert_tells_of_the_program(house: &House) {
    let profile = Profile::read(&house.profile());
    assert!(profile.samples > 10, "{profile:?}");
    assert_eq!(profile.nanoseconds, profile.samples * profile.period);
    let program = fs::canonicalize(GOFER).unwrap();
    let named = |name: &String| Path::new(name) == program;
    assert!(profile.mappings.iter().any(named), "{profile:?}");
    assert!(profile.deepest > 3, "stacks, not only places: {profile:?}");
    assert_eq!(profile.outside, 0, "{profile:?}");
}

#[test]
fn a_cpu_profile_is_written_in_every_dialect_while_the_process_serves() {
    for dialect in [Dialect::V2022_12, Dialect::V2024, Dialect::V2026_08] {
        let house = House::new();
        let mut gofer = house.start(dialect);
        let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
        work(&house, &client, mounted.root.control);
        client.open_channels(2).unwrap();
        for _ in 0..20_000 {
            client.fstat(mounted.root.control).unwrap();
        }
        drop(client);
        gofer.sentry_exit = None;
        assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", house.log());
        assert_tells_of_the_program(&house);
    }
}

#[test]
fn a_killed_process_leaves_its_profile_too() {
    let house = House::new();
    let mut gofer = house.start(Dialect::V2024);
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    work(&house, &client, mounted.root.control);
    kill_process(gofer.pid, Signal::KILL).unwrap();
    assert_eq!(gofer.wait().unwrap(), Ended::Signal(9));
    assert_tells_of_the_program(&house);
}

#[test]
fn a_signal_ends_the_process_with_its_status_after_the_profile_is_written() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let house = House::new();
        let mut gofer = house.start(Dialect::V2024);
        let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
        work(&house, &client, mounted.root.control);
        fs::write(house.profile(), "").unwrap();
        kill_process(gofer.pid, signal).unwrap();
        assert_eq!(gofer.wait().unwrap(), Ended::Status(status));
        assert_tells_of_the_program(&house);
    }
}

#[test]
fn a_descriptor_that_no_profile_can_be_written_to_costs_nothing_but_a_warning() {
    let house = House::new();
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let mut gofer = Parent::new(
        Path::new(GOFER),
        Dialect::V2024,
        house.dir.path(),
        &["lisafs:none"],
    )
    .debug_log(File::create(house.dir.path().join("debug")).unwrap())
    .descriptor("profile-cpu-fd", writer)
    .start()
    .unwrap();
    gofer.release();
    assert!(!gofer.mounts().unwrap().is_empty(), "{}", house.log());
    let (client, mounted) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    client.fstat(mounted.root.control).unwrap();
    let warned = |line: &str| line.starts_with('W') && line.contains("profile-cpu-fd");
    assert!(house.log().lines().any(warned), "{}", house.log());
    drop(client);
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "{}", house.log());
}
