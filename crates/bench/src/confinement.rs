//! What the jail costs each open: the same loop in processes that are not confined, in Landlock
//! domains alone, and in the whole jail.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use channel::Socket;
use landlock::{ABI, Access, AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr};
use rustix::fs::{Mode, OFlags, openat};
use rustix::path::DecInt;

use crate::failure::{Result, Tried};
use crate::results::{Key, Results, Section};
use crate::sample::median;
use crate::tree::Tree;

/// The hidden command by which the benchmark starts itself again.
pub(crate) const COMMAND: &str = "confined";
const OPENS: usize = 20_000;
/// Opens that are timed together: the clock costs too.
const BATCH: usize = 100;
/// A server's thread is in the process's domain and in its own.
const DOMAINS: usize = 2;

/// What is around the loop.
const KINDS: [(&str, &str); 3] = [
    ("open_free", "free"),
    ("open_landlock", "landlock"),
    ("open_jail", "jail"),
];

/// Each kind in turn, `rounds` times; the figures are ours.
pub(crate) fn measure(tree: &Tree, rounds: usize, who: &str, results: &mut Results) -> Result<()> {
    for _ in 0..rounds {
        for (case, kind) in KINDS {
            match one(tree, kind) {
                Ok(us) => {
                    let key = Key {
                        section: Section::More,
                        case,
                        metric: "calls",
                        unit: "µs",
                    };
                    results.add(key, who, us);
                    results.count(case, who, OPENS);
                }
                Err(why) => results.note(format!("{case}: {why}")),
            }
        }
    }
    Ok(())
}

fn one(tree: &Tree, kind: &str) -> Result<f64> {
    let (ours, theirs) = rig::pair();
    let mut child = Command::new("/proc/self/exe")
        .args([COMMAND, kind])
        .arg(tree.root())
        .stdin(Stdio::from(theirs))
        .spawn()
        .tried("starting a confined process")?;
    let mut payload = Vec::new();
    let received = Socket::new(ours).receive(&mut payload, 64, None);
    // It ends after its answer, or has ended without one.
    child.wait().tried("a confined process")?;
    received.tried("a confined process ended")?;
    let ns = payload.first_chunk().copied().map(u64::from_le_bytes);
    Ok(ns.ok_or("no time")? as f64 / 1000.0)
}

/// What the other process does: gets where it is told, opens, and tells the median time.
pub(crate) fn serve(kind: Option<String>, root: Option<String>) -> Result<()> {
    let root = root.ok_or("no root")?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty()).tried("the tree")?;
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let (root, descriptors, socket) = match kind.as_deref() {
        Some("jail") => jailed(root, socket)?,
        Some(kind @ ("landlock" | "free")) => {
            if kind == "landlock" {
                for _ in 0..DOMAINS {
                    enter_domain(&root)?;
                }
            }
            let descriptors = rustix::fs::open("/proc/self/fd", OFlags::PATH, Mode::empty());
            (root, descriptors.tried("/proc/self/fd")?, socket)
        }
        _ => return Err("no such kind".into()),
    };
    let pin = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&root, "file", pin, Mode::empty()).tried("file")?;
    let ns = opens(&descriptors, &file)?.as_nanos() as u64;
    let socket = Socket::new(socket);
    socket.send(0, &ns.to_le_bytes(), &[]).tried("answer")
}

fn jailed(root: OwnedFd, socket: OwnedFd) -> Result<(OwnedFd, OwnedFd, OwnedFd)> {
    let directory = jail::Directory {
        dir: root,
        sockets: vec![socket],
        path: b"tree".to_vec(),
        readonly: false,
        user_namespace: false,
        descriptors_max: 1024,
    };
    let sealed = directory.enter()?.confine()?.seal()?;
    let mut connections = sealed.connections;
    let connection = connections.pop().ok_or("no connection")?;
    sealed.threads.tighten(connection.root.as_fd(), false)?;
    Ok((connection.root, sealed.descriptor_dir, connection.io))
}

/// A domain like the jail's: every right is handled, those on the tree are given.
fn enter_domain(root: &OwnedFd) -> Result<()> {
    let all = AccessFs::from_all(ABI::V9);
    Ruleset::default()
        .handle_access(all)?
        .create()?
        .add_rule(PathBeneath::new(root.as_fd(), all))?
        .restrict_self()?;
    Ok(())
}

/// The median time of an open and its close, as the server opens.
fn opens(descriptors: &OwnedFd, file: &OwnedFd) -> Result<Duration> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut times = Vec::new();
    for _ in 0..OPENS / BATCH {
        let begun = Instant::now();
        for _ in 0..BATCH {
            let number = DecInt::from_fd(file);
            drop(openat(
                descriptors,
                number.as_c_str(),
                flags,
                Mode::empty(),
            )?);
        }
        times.push(begun.elapsed().as_secs_f64() / BATCH as f64);
    }
    Ok(Duration::from_secs_f64(median(times).ok_or("no open")?))
}
