//! The process: how soon it serves, how soon it is gone, what it holds, whether it rests.

use std::thread::sleep;
use std::time::Duration;

use client::Client;
use wire::msg::attr::FStat;
use wire::{FdId, Mid};

use crate::contender::Contender;
use crate::failure::{Result, Tried};
use crate::proc::{self, Memory};
use crate::results::{Key, Results, Section};
use crate::sample::Times;
use crate::session::{Session, Waiting};
use crate::tree::Tree;

/// Control ids that are held at once.
pub(crate) const IDS: usize = 15_000;
/// Gofers that run at once.
const GOFERS: usize = 50;
/// More channels than any server gives to one connection.
const CHANNELS_TRIED: usize = 16;
const MOUNTS: usize = 20;
const IDLE: Duration = Duration::from_secs(10);
const IDLE_SECONDS: f64 = 10.0;

const fn key<'k>(
    section: Section,
    case: &'k str,
    metric: &'static str,
    unit: &'static str,
) -> Key<'k> {
    Key {
        section,
        case,
        metric,
        unit,
    }
}

/// Starts and ends, `starts` times each.
pub(crate) fn start_up(
    tree: &Tree,
    contenders: &[Contender],
    starts: usize,
    results: &mut Results,
) -> Result<()> {
    for mounts in [1, MOUNTS] {
        let mut all: Vec<_> = contenders
            .iter()
            .map(|who| (who, Starts::default()))
            .collect();
        for _ in 0..starts {
            for (contender, starts) in &mut all {
                if let Err(why) = starts.add(tree, contender, mounts) {
                    results.note(format!("start-up of {}: {why}", contender.name));
                }
            }
        }
        for (contender, starts) in all {
            starts.report(mounts, contender, results);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Starts {
    list: Times,
    mount: Times,
    exit: Times,
}

impl Starts {
    fn add(&mut self, tree: &Tree, contender: &Contender, mounts: usize) -> Result<()> {
        let running = contender.start(tree, mounts)?;
        self.list.push(running.until_list);
        self.mount.push(running.until_mount);
        self.exit.push(running.end()?);
        Ok(())
    }

    fn report(self, mounts: usize, contender: &Contender, results: &mut Results) {
        let who = contender.name.as_str();
        let case = |what: &str| format!("{what}{mounts}");
        let startup = case("startup");
        if let Some(summary) = self.mount.summary(None) {
            results.add(
                key(Section::Rows, &startup, "ms", "ms"),
                who,
                summary.median / 1e3,
            );
            results.add(
                key(Section::More, &startup, "p99", "ms"),
                who,
                summary.p99 / 1e3,
            );
            results.add(
                key(Section::More, &startup, "mean", "ms"),
                who,
                summary.mean / 1e3,
            );
            results.count(&startup, who, summary.count);
        }
        for (what, times) in [("startup_list", self.list), ("exit", self.exit)] {
            if let Some(summary) = times.summary(None) {
                results.add(
                    key(Section::More, &case(what), "ms", "ms"),
                    who,
                    summary.median / 1e3,
                );
            }
        }
    }
}

/// What it holds: after the first Mount, with everything connected, for each id.
pub(crate) fn memory(
    tree: &Tree,
    contenders: &[Contender],
    rounds: usize,
    results: &mut Results,
) -> Result<()> {
    let channels = channels_of_all(tree, contenders)?;
    for _ in 0..rounds {
        for contender in contenders {
            let who = &contender.name;
            let measured = [
                ("memory", mounted(tree, contender, results)),
                ("memory20", connected(tree, contender, channels, results)),
                ("memory_per_id", ids(tree, contender, results)),
            ];
            for (what, measured) in measured {
                if let Err(why) = measured {
                    results.note(format!("{what} of {who}: {why}"));
                }
            }
        }
    }
    Ok(())
}

fn add_memory(results: &mut Results, suffix: &str, who: &str, memory: Memory) {
    let rows = if suffix.is_empty() {
        Section::Rows
    } else {
        Section::More
    };
    for (section, what, value) in [
        (rows, "rss", memory.resident),
        (rows, "anon", memory.anonymous),
        (Section::More, "pss", memory.proportional),
    ] {
        let case = format!("memory{suffix}_{what}");
        results.add(key(section, &case, "kib", "KiB"), who, value);
        results.count(&case, who, 1);
    }
    let case = format!("threads{suffix}");
    results.add(
        key(Section::More, &case, "count", "threads"),
        who,
        memory.threads,
    );
}

fn mounted(tree: &Tree, contender: &Contender, results: &mut Results) -> Result<()> {
    let running = contender.start(tree, 1)?;
    add_memory(
        results,
        "",
        &contender.name,
        proc::memory(running.gofer.pid)?,
    );
    running.end()?;
    Ok(())
}

/// Sessions until the server gives no more to this connection, or until there are `most`.
fn open_channels(client: &Client, root: FdId, most: usize) -> Vec<Session<'_>> {
    let more = |_| Session::new(client, root, Waiting::Asleep).ok();
    (0..most).map_while(more).collect()
}

/// How many channels each contender gives to one connection: the least of them, so that all hold
/// the same number.
fn channels_of_all(tree: &Tree, contenders: &[Contender]) -> Result<usize> {
    let mut least = CHANNELS_TRIED;
    for contender in contenders {
        let running = contender.start(tree, 1)?;
        let (client, mounted) = &running.clients[0];
        let given = open_channels(client, mounted.root.control, CHANNELS_TRIED).len();
        least = least.min(given);
        running.end()?;
    }
    Ok(least)
}

fn connected(
    tree: &Tree,
    contender: &Contender,
    channels: usize,
    results: &mut Results,
) -> Result<()> {
    let running = contender.start(tree, MOUNTS)?;
    let sessions: Vec<_> = running
        .clients
        .iter()
        .flat_map(|(client, mounted)| open_channels(client, mounted.root.control, channels))
        .collect();
    add_memory(
        results,
        "20",
        &contender.name,
        proc::memory(running.gofer.pid)?,
    );
    let channels = key(Section::More, "channels20", "count", "channels");
    results.add(channels, &contender.name, sessions.len() as f64);
    drop(sessions);
    running.end()?;
    Ok(())
}

/// Holds control ids of different files.
pub(crate) fn hold(client: &Client, root: FdId, ids: std::ops::Range<usize>) -> Result<Vec<FdId>> {
    let dir = client.walk_one(root, b"d100000").tried("Walk")?.control;
    ids.map(|id| {
        let name = format!("f{id:06}");
        let inode = client.walk_one(dir, name.as_bytes());
        Ok(inode.tried(format_args!("id {id}"))?.control)
    })
    .collect()
}

fn ids(tree: &Tree, contender: &Contender, results: &mut Results) -> Result<()> {
    let running = contender.start(tree, 1)?;
    let (client, mounted) = &running.clients[0];
    hold(client, mounted.root.control, 0..1)?;
    let before = proc::memory(running.gofer.pid)?;
    hold(client, mounted.root.control, 1..IDS)?;
    let after = proc::memory(running.gofer.pid)?;
    let bytes = (after.resident - before.resident) * 1024.0 / IDS as f64;
    results.add(
        key(Section::Rows, "memory_per_id", "bytes", "bytes"),
        &contender.name,
        bytes,
    );
    results.count("memory_per_id", &contender.name, 1);
    running.end()?;
    Ok(())
}

/// Many gofers at once, each mounted.
pub(crate) fn fifty(tree: &Tree, contenders: &[Contender], results: &mut Results) -> Result<()> {
    for contender in contenders {
        let started: Result<Vec<_>> = (0..GOFERS).map(|_| contender.start(tree, 1)).collect();
        match started {
            Ok(all) => {
                let mut kib = 0.0;
                for running in &all {
                    kib += proc::memory(running.gofer.pid)?.proportional;
                }
                results.add(
                    key(Section::Rows, "gofers50_pss", "kib", "KiB"),
                    &contender.name,
                    kib,
                );
                results.count("gofers50_pss", &contender.name, 1);
                for running in all {
                    running.end()?;
                }
            }
            Err(why) => results.note(format!("gofers50_pss of {}: {why}", contender.name)),
        }
    }
    Ok(())
}

/// How often each wakes up when nothing is asked of it, all watched at the same time.
pub(crate) fn idle(tree: &Tree, contenders: &[Contender], results: &mut Results) -> Result<()> {
    let mut all = Vec::new();
    for contender in contenders {
        match contender.start(tree, 1) {
            Ok(running) => all.push((contender, running)),
            Err(why) => results.note(format!("idle of {}: {why}", contender.name)),
        }
    }
    let mut sessions = Vec::new();
    for (_, running) in &all {
        let (client, mounted) = &running.clients[0];
        let id = mounted.root.control;
        let mut session = Session::new(client, id, Waiting::Asleep)?;
        for _ in 0..1000 {
            session.call(Mid::FSTAT, &FStat { id })?;
        }
        sessions.push(session);
    }
    sleep(IDLE / 10);
    let sleeps = || {
        all.iter()
            .map(|(_, running)| proc::sleeps(running.gofer.pid))
            .collect()
    };
    let before: Result<Vec<f64>> = sleeps();
    let cpu = || {
        all.iter()
            .map(|(_, running)| proc::cpu(running.gofer.pid))
            .collect()
    };
    let cpu_before: Result<Vec<Duration>> = cpu();
    sleep(IDLE);
    let (after, cpu_after): (Result<Vec<f64>>, Result<Vec<Duration>>) = (sleeps(), cpu());
    let wakeups = before?
        .into_iter()
        .zip(after?)
        .map(|(before, after)| after - before);
    let cpu = cpu_before?
        .into_iter()
        .zip(cpu_after?)
        .map(|(before, after)| after - before);
    for (((contender, _), wakeups), cpu) in all.iter().zip(wakeups).zip(cpu) {
        let who = contender.name.as_str();
        results.add(
            key(Section::More, "idle_wakeups", "count", "in 10 s"),
            who,
            wakeups,
        );
        let cpu = cpu.as_secs_f64() * 1e6 / IDLE_SECONDS;
        results.add(key(Section::More, "idle_cpu", "cpu", "µs/s"), who, cpu);
    }
    drop(sessions);
    for (_, running) in all {
        running.end()?;
    }
    Ok(())
}
