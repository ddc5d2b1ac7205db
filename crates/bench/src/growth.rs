//! What grows with what: the cost of a request with ids and mounts, start-up with mounts, memory
//! with channels. Nothing may grow faster than the work does, so each is measured at several sizes,
//! and the slope named.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wire::msg::attr::FStat;
use wire::{FdId, Mid};

use crate::contender::{Contender, Running};
use crate::failure::{Result, Tried};
use crate::proc;
use crate::process::{IDS, hold};
use crate::progress::Progress;
use crate::requests::sample;
use crate::results::{Curve, Key, Results, Section};
use crate::sample::{median, slope};
use crate::session::{Session, Waiting};
use crate::tree::Tree;

const HELD: [usize; 7] = [1, 100, 1000, 3000, 6000, 10_000, IDS];
const MOUNTS_SERVING: [usize; 6] = [1, 2, 5, 10, 20, 50];
const MOUNTS_STARTING: [usize; 5] = [1, 10, 25, 50, 100];
const CHANNELS: [usize; 6] = [1, 5, 10, 20, 30, 40];
const MOUNTS_OF_CHANNELS: usize = 20;
/// Starts for each point of a round.
const STARTS: usize = 5;

/// Size, and what was measured there.
type Points = Vec<(f64, f64)>;

/// One curve: what is measured for one contender, at all sizes.
struct Kind {
    case: &'static str,
    x: &'static str,
    y: &'static str,
    /// The slope is for so many of `x`.
    per: f64,
    unit: &'static str,
    /// What the values of all rounds at one size become.
    over_rounds: fn(&[f64]) -> Option<f64>,
    measure: fn(&Tree, &Contender, Duration) -> Result<Points>,
}

const KINDS: [Kind; 4] = [
    Kind {
        case: "fstat_by_ids",
        x: "ids held",
        y: "µs",
        per: 1000.0,
        unit: "µs per 1,000 ids",
        over_rounds: quickest,
        measure: fstat_by_ids,
    },
    Kind {
        case: "fstat_by_mounts",
        x: "mounts",
        y: "µs",
        per: 1.0,
        unit: "µs per mount",
        over_rounds: quickest,
        measure: fstat_by_mounts,
    },
    Kind {
        case: "startup_by_mounts",
        x: "mounts",
        y: "ms",
        per: 1.0,
        unit: "ms per mount",
        over_rounds: middle,
        measure: startup_by_mounts,
    },
    Kind {
        case: "memory_by_channels",
        x: "channels",
        y: "KiB resident",
        per: 1.0,
        unit: "KiB per channel",
        over_rounds: middle,
        measure: memory_by_channels,
    },
];

/// For short requests: a turn takes one of several times, by whether the other side was asleep, and
/// that is chance and not what grows. The round in which it was awake says what the request costs.
fn quickest(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::min)
}

fn middle(values: &[f64]) -> Option<f64> {
    median(values.iter().copied())
}

/// How many steps of progress a run of so many rounds takes.
pub(crate) const fn steps(rounds: usize) -> usize {
    rounds * KINDS.len()
}

/// All curves, interleaved: each contender once, then again.
pub(crate) fn measure(
    tree: &Tree,
    contenders: &[Contender],
    rounds: usize,
    time: Duration,
    progress: &Progress,
    results: &mut Results,
) {
    for kind in &KINDS {
        let mut all: BTreeMap<String, Points> = BTreeMap::new();
        for _ in 0..rounds {
            for contender in contenders {
                match (kind.measure)(tree, contender, time) {
                    Ok(points) => all
                        .entry(contender.name.clone())
                        .or_default()
                        .extend(points),
                    Err(why) => results.note(format!("{} of {}: {why}", kind.case, contender.name)),
                }
            }
            progress.step("growth");
        }
        for (who, points) in &all {
            name_the_slope(kind, who, points, results);
        }
        let medians = all
            .into_iter()
            .map(|(who, points)| (who, over_rounds(&points, kind.over_rounds)));
        results.curves.push(Curve {
            case: kind.case.to_owned(),
            x: kind.x,
            y: kind.y,
            points: medians.collect(),
        });
    }
}

fn name_the_slope(kind: &Kind, who: &str, points: &[(f64, f64)], results: &mut Results) {
    // From one value for each size: an interrupted measurement would tilt the whole line.
    let Some((slope, error)) = slope(&over_rounds(points, kind.over_rounds)) else {
        return;
    };
    for (metric, value) in [("slope", slope), ("error", error)] {
        let key = Key {
            section: Section::Growth,
            case: kind.case,
            metric,
            unit: kind.unit,
        };
        results.add(key, who, value * kind.per);
    }
    results.count(kind.case, who, points.len());
}

/// One value for each size.
fn over_rounds(points: &[(f64, f64)], one: fn(&[f64]) -> Option<f64>) -> Points {
    let mut sizes: Vec<f64> = points.iter().map(|(x, _)| *x).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let at = |size: f64| -> Vec<f64> {
        let there = points.iter().filter(|(x, _)| *x == size);
        there.map(|(_, y)| *y).collect()
    };
    sizes
        .into_iter()
        .filter_map(|size| Some((size, one(&at(size))?)))
        .collect()
}

/// The median of asking for the attributes of each id in turn, the client spinning: its own
/// sleeping is not what grows.
fn fstats(session: &mut Session<'_>, ids: &[FdId], time: Duration) -> Result<f64> {
    let mut next = ids.iter().cycle();
    let mut ask = || {
        let id = *next.next().ok_or("no id")?;
        let begun = Instant::now();
        session.call(Mid::FSTAT, &FStat { id })?;
        Ok(begun.elapsed())
    };
    sample(time / 4, &mut ask)?;
    let times = sample(time, ask)?;
    Ok(times.summary(None).ok_or("no operation")?.median)
}

fn first_of(running: &Running) -> Result<(Session<'_>, FdId)> {
    let (client, mounted) = &running.clients[0];
    let root = mounted.root.control;
    Ok((Session::new(client, root, Waiting::Spinning)?, root))
}

fn fstat_by_ids(tree: &Tree, contender: &Contender, time: Duration) -> Result<Points> {
    let running = contender.start(tree, 1)?;
    let client = &running.clients[0].0;
    let (mut session, root) = first_of(&running)?;
    let (mut ids, mut points) = (Vec::new(), Vec::new());
    for size in HELD {
        ids.extend(hold(client, root, ids.len()..size)?);
        // All of them in turn where there are many, so that no cache holds the answer.
        points.push((size as f64, fstats(&mut session, &ids, time)?));
    }
    drop(session);
    running.end()?;
    Ok(points)
}

fn fstat_by_mounts(tree: &Tree, contender: &Contender, time: Duration) -> Result<Points> {
    let mut points = Vec::new();
    for mounts in MOUNTS_SERVING {
        let running = contender.start(tree, mounts)?;
        let (mut session, root) = first_of(&running)?;
        points.push((mounts as f64, fstats(&mut session, &[root], time)?));
        drop(session);
        running.end()?;
    }
    Ok(points)
}

fn startup_by_mounts(tree: &Tree, contender: &Contender, _: Duration) -> Result<Points> {
    let mut points = Vec::new();
    for mounts in MOUNTS_STARTING {
        for _ in 0..STARTS {
            let running = contender.start(tree, mounts)?;
            points.push((mounts as f64, running.until_mount.as_secs_f64() * 1e3));
            running.end()?;
        }
    }
    Ok(points)
}

/// Channels are opened over the mounts in turn, and each has answered once.
fn memory_by_channels(tree: &Tree, contender: &Contender, _: Duration) -> Result<Points> {
    let running = contender.start(tree, MOUNTS_OF_CHANNELS)?;
    let (mut sessions, mut points) = (Vec::new(), Vec::new());
    let mut connections = running.clients.iter().cycle();
    for size in CHANNELS {
        while sessions.len() < size {
            let (client, mounted) = connections.next().ok_or("no connection")?;
            let id = mounted.root.control;
            let mut session = Session::new(client, id, Waiting::Asleep)
                .tried(format_args!("channel {}", sessions.len()))?;
            session.call(Mid::FSTAT, &FStat { id })?;
            sessions.push(session);
        }
        let memory = proc::memory(running.gofer.pid)?;
        points.push((size as f64, memory.resident));
    }
    drop(sessions);
    running.end()?;
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_each_size_is_taken_over_the_rounds() {
        let points = [(1.0, 5.0), (2.0, 7.0), (1.0, 1.0), (2.0, 9.0), (1.0, 2.0)];
        assert_eq!(over_rounds(&points, middle), [(1.0, 2.0), (2.0, 8.0)]);
        assert_eq!(over_rounds(&points, quickest), [(1.0, 1.0), (2.0, 7.0)]);
    }
}
