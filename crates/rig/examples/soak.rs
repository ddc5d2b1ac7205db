//! A sealed gofer under mixed load for as long as one likes: `cargo xtask soak --minutes N`.
//!
//! Four mounts, each with a worker that stays and visitors that come and go. Every answer is compared
//! with what the worker knows its directory to hold, and in the end with the host. Every few seconds
//! all stand still and the gofer's memory, descriptors and threads are counted: the lines through
//! those counts must be flat.
#![allow(clippy::unwrap_used, reason = "the first surprise ends it")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use client::{Client, WalkStatus};
use rig::parent::{Dialect, Ended, Gofer, Parent, write_bundle};
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::{FdId, NewNode, Owner};

const MOUNTS: usize = 4;
const BETWEEN_SAMPLES: Duration = Duration::from_secs(2);
const BETWEEN_VISITORS: Duration = Duration::from_millis(1500);
/// Of the samples, one in this many at the beginning does not count: heaps grow to their size.
const WARM_UP: usize = 5;
/// What a connection holds before its client speaks, and lets go in the end: its socket and its
/// mount point.
const PER_CONNECTION: usize = 2;
/// Files a worker keeps at a time, and the longest content.
const FILES_MAX: u64 = 40;
const CONTENT_BYTES_MAX: u64 = 600_000;
/// Growth of memory that is more than chance, in KiB per minute.
const MEMORY_SLOPE_MAX: f64 = 8.0;
const O_RDWR: u32 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [gofer, minutes] = args.as_slice() else {
        eprintln!("usage: soak GOFER MINUTES (cargo xtask soak fills this in)");
        return ExitCode::FAILURE;
    };
    let minutes: f64 = minutes.parse().unwrap();
    let duration = Duration::from_secs_f64(minutes * 60.0);
    let house = House::new((duration.as_secs_f64() / BETWEEN_VISITORS.as_secs_f64()) as usize + 1);
    let gofer = house.start(Path::new(gofer));
    let (samples, requests, gofer) = load(&house, gofer, duration);
    assert_eq!(gofer.wait().unwrap(), Ended::Status(0), "the gofer's end");
    println!("{requests} answers checked, {} visitors", house.visitors);
    if judge(&samples) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The directories on the host.
struct House {
    dir: TempDir,
    visitors: usize,
}

impl House {
    fn new(visitors: usize) -> House {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        for mount in 0..MOUNTS {
            fs::create_dir(dir.path().join(format!("tree{mount}"))).unwrap();
        }
        House { dir, visitors }
    }

    fn tree(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("tree{}", number % MOUNTS))
    }

    /// A connection for each worker, then one for each visitor.
    fn start(&self, program: &Path) -> Gofer {
        let connections = MOUNTS + self.visitors;
        let bind = |number: usize| {
            json!({
                "destination": format!("/mount{number}"), "type": "bind",
                "source": self.tree(number), "options": ["rbind", "rw"],
            })
        };
        let mounts: Vec<Value> = (0..connections).map(bind).collect();
        let bundle = self.dir.path();
        write_bundle(bundle, &bundle.join("root"), false, &json!(mounts)).unwrap();
        let confs = vec!["lisafs:none"; 1 + connections];
        let log = bundle.join("log");
        let mut gofer = Parent::new(program, Dialect::V2026_08, bundle, &confs)
            .flag("--directfs=false")
            .log(File::create(&log).unwrap())
            .start()
            .unwrap();
        gofer.release();
        let list = gofer.mounts().unwrap();
        assert!(!list.is_empty(), "{}", fs::read_to_string(log).unwrap());
        gofer.sentry_exit = None;
        gofer
    }
}

/// What the gofer held while everybody stood still.
struct Sample {
    minutes: f64,
    memory_kib: f64,
    descriptors: f64,
    threads: f64,
}

fn sample(proc: &Path, begun: Instant, departed: usize) -> Sample {
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    let count = |name: &str| fs::read_dir(proc.join(name)).unwrap().count();
    Sample {
        minutes: begun.elapsed().as_secs_f64() / 60.0,
        memory_kib: kib.parse().unwrap(),
        descriptors: (count("fd") + departed * PER_CONNECTION) as f64,
        threads: count("task") as f64,
    }
}

/// Runs workers and visitors; the samples, and how many requests were answered.
fn load(house: &House, mut gofer: Gofer, duration: Duration) -> (Vec<Sample>, u64, Gofer) {
    let (root, _) = Client::connect(gofer.take_socket().unwrap()).unwrap();
    let workers: Vec<OwnedFd> = (0..MOUNTS).map(|_| gofer.take_socket().unwrap()).collect();
    let visitors = Mutex::new(std::mem::take(&mut gofer.sockets));
    let (proc, begun) = (gofer.proc(""), Instant::now());
    // Held shared while a request may be under way or an id open, alone while counting.
    let still = RwLock::new(());
    let (over, requests) = (AtomicBool::new(false), AtomicU64::new(0));
    let (over, requests, still, visitors) = (&over, &requests, &still, &visitors);
    let samples = std::thread::scope(|scope| {
        for (number, socket) in workers.into_iter().enumerate() {
            let tree = house.tree(number);
            scope.spawn(move || {
                let mut worker = Worker::arrive(socket, &tree, "stays", number as u64, 2);
                while !over.load(Relaxed) {
                    let _moving = still.read().unwrap();
                    requests.fetch_add(worker.round(), Relaxed);
                }
                worker.leave();
            });
        }
        let arriving = scope.spawn(move || {
            let mut departed = 0;
            while !over.load(Relaxed) {
                {
                    let _moving = still.read().unwrap();
                    let mut left = visitors.lock().unwrap();
                    let Some(socket) = (!left.is_empty()).then(|| left.remove(0)) else {
                        break;
                    };
                    requests.fetch_add(visit(socket, house, departed), Relaxed);
                    departed += 1;
                }
                std::thread::sleep(BETWEEN_VISITORS);
            }
        });
        let mut samples = Vec::new();
        let all = house.visitors;
        while begun.elapsed() < duration {
            std::thread::sleep(BETWEEN_SAMPLES);
            let _still = still.write().unwrap();
            // A connection that has ended takes its threads along a moment later.
            std::thread::sleep(Duration::from_millis(100));
            let departed = all - visitors.lock().unwrap().len();
            samples.push(sample(&proc, begun, departed));
        }
        over.store(true, Relaxed);
        arriving.join().unwrap();
        samples
    });
    drop(root);
    visitors.lock().unwrap().clear();
    (samples, requests.load(Relaxed), gofer)
}

/// One client that comes, works for a moment, and goes: in good order, or in the middle of it all.
fn visit(socket: OwnedFd, house: &House, number: usize) -> u64 {
    let tree = house.tree(number);
    let name = format!("visitor{number}");
    let mut worker = Worker::arrive(socket, &tree, &name, number as u64, number % 4);
    let mut requests = 0;
    for _ in 0..5 {
        requests += worker.round();
    }
    if number.is_multiple_of(2) {
        worker.leave();
    } else {
        drop(worker);
        fs::remove_dir_all(tree.join(name)).unwrap();
    }
    requests
}

/// A client in a directory of its own, and what it knows to be there.
struct Worker {
    client: Client,
    root: FdId,
    dir: FdId,
    name: Vec<u8>,
    host: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    dice: u64,
    requests: u64,
}

impl Worker {
    fn arrive(socket: OwnedFd, tree: &Path, name: &str, seed: u64, channels: usize) -> Worker {
        let (client, mounted) = Client::connect(socket).unwrap();
        if channels > 0 {
            assert_eq!(client.open_channels(channels), Ok(channels));
        }
        let (root, host) = (mounted.root.control, tree.join(name));
        let new = new_node(root, 0o755);
        let dir = client.mkdir_at(new, name.as_bytes()).unwrap().control;
        Worker {
            client,
            root,
            dir,
            name: name.into(),
            host,
            files: BTreeMap::new(),
            dice: seed,
            requests: 0,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % end
    }

    fn some_file(&mut self) -> Option<String> {
        let count = self.files.len() as u64;
        let index = self.below(count.max(1)) as usize;
        self.files.keys().nth(index).cloned()
    }

    /// Some requests after which no id but those of the root and the directory is left; how many.
    fn round(&mut self) -> u64 {
        self.requests = 0;
        for _ in 0..10 {
            match self.below(6) {
                0 | 1 => self.make(),
                2 => self.read(),
                3 => self.rename(),
                4 => self.list(),
                _ => self.remove(),
            }
        }
        self.requests
    }

    fn make(&mut self) {
        let name = format!("file{}", self.below(FILES_MAX));
        let (length, first) = (self.below(CONTENT_BYTES_MAX), self.below(251));
        let content: Vec<u8> = (first..first + length).map(|i| (i % 251) as u8).collect();
        if self.files.contains_key(&name) {
            self.client.unlink_at(self.dir, name.as_bytes(), 0).unwrap();
        }
        let new = new_node(self.dir, 0o600);
        let made = self.client.open_create_at(new, name.as_bytes(), O_RDWR);
        let made = made.unwrap();
        let ids = [made.child.control, made.opened.id];
        assert_eq!(self.client.write_at(ids[1], 0, &content), Ok(content.len()));
        self.client
            .fset_xattr(ids[0], b"user.length", &length.to_le_bytes(), 0)
            .unwrap();
        self.client.close(&ids).unwrap();
        self.files.insert(name, content);
        self.requests += 5;
    }

    fn read(&mut self) {
        let Some(name) = self.some_file() else { return };
        let expected = &self.files[&name];
        let file = self.client.walk_one(self.dir, name.as_bytes()).unwrap();
        assert_eq!(file.stat.size, expected.len() as u64);
        let open = self.client.open_at(file.control, 0).unwrap();
        let mut back = vec![0; expected.len() + 10];
        assert_eq!(
            self.client.read_at(open.id, 0, &mut back),
            Ok(expected.len())
        );
        assert!(back[..expected.len()] == expected[..], "content of {name}");
        let length = self.client.fget_xattr(file.control, b"user.length", 8);
        assert_eq!(length.unwrap(), (expected.len() as u64).to_le_bytes());
        self.client.close(&[file.control, open.id]).unwrap();
        self.requests += 5;
    }

    fn rename(&mut self) {
        let Some(old) = self.some_file() else { return };
        let new = format!("file{}", self.below(FILES_MAX));
        let (from, to) = ((self.dir, old.as_bytes()), (self.dir, new.as_bytes()));
        self.client.rename_at(from, to).unwrap();
        if let Some(content) = self.files.remove(&old) {
            self.files.insert(new, content);
        }
        self.requests += 1;
    }

    fn list(&mut self) {
        let open = self.client.open_at(self.dir, 0).unwrap();
        let entries = self.client.read_dir(open.id);
        let mut names: Vec<Vec<u8>> = entries.map(|entry| entry.unwrap().name).collect();
        names.sort();
        let expected: Vec<&[u8]> = self.files.keys().map(|name| name.as_bytes()).collect();
        assert_eq!(names, expected);
        self.client.close(&[open.id]).unwrap();
        self.requests += 3;
    }

    fn remove(&mut self) {
        let Some(name) = self.some_file() else { return };
        self.client.unlink_at(self.dir, name.as_bytes(), 0).unwrap();
        self.files.remove(&name);
        let gone = self.client.walk(self.dir, &[name.as_bytes()]).unwrap();
        assert_eq!(gone.status, WalkStatus::Missing);
        self.requests += 2;
    }

    /// Compares with the host, and tidies up.
    fn leave(self) {
        let entries = fs::read_dir(&self.host).unwrap();
        assert_eq!(entries.count(), self.files.len());
        for (name, content) in &self.files {
            assert!(
                fs::read(self.host.join(name)).unwrap() == *content,
                "{name}"
            );
            self.client.unlink_at(self.dir, name.as_bytes(), 0).unwrap();
        }
        self.client.rmdir_at(self.root, &self.name).unwrap();
        assert!(!self.host.exists());
    }
}

fn new_node(dir: FdId, mode: u16) -> NewNode {
    NewNode {
        dir,
        owner: Owner::KEEP,
        mode,
    }
}

/// The least-squares line's slope per minute and its standard error, and the mean.
fn line(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / count;
    let xx: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let xy: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let slope = xy / xx;
    let rest = |p: &(f64, f64)| (p.1 - mean_y - slope * (p.0 - mean_x)).powi(2);
    let error = (points.iter().map(rest).sum::<f64>() / (count - 2.0) / xx).sqrt();
    (slope, error, mean_y)
}

/// Prints the lines through the samples; whether all are flat.
fn judge(samples: &[Sample]) -> bool {
    let counted = &samples[samples.len() / WARM_UP..];
    assert!(counted.len() > 2, "too short to tell anything");
    let mut flat = true;
    println!(
        "{} samples, of which {} count",
        samples.len(),
        counted.len()
    );
    type Field = fn(&Sample) -> f64;
    let rows: [(&str, Field, f64); 3] = [
        ("memory, KiB", |s| s.memory_kib, MEMORY_SLOPE_MAX),
        ("descriptors", |s| s.descriptors, 0.0),
        ("threads", |s| s.threads, 0.0),
    ];
    for (what, field, slope_max) in rows {
        let points: Vec<_> = counted.iter().map(|s| (s.minutes, field(s))).collect();
        let (slope, error, mean) = line(&points);
        let grows = slope - 3.0 * error > slope_max;
        flat &= !grows;
        let word = if grows { "GROWS" } else { "flat" };
        println!("{what:12} mean {mean:9.1}, slope {slope:+8.3} ± {error:.3} per minute: {word}");
    }
    flat
}
