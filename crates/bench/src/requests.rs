//! Requests, one at a time: rounds in which each contender answers the same case in turn.

use std::time::{Duration, Instant};

use crate::bare::{self, Calls};
use crate::cases::{CASES, Case, FSTAT_SOCKET};
use crate::contender::{Contender, Running};
use crate::echo::Echo;
use crate::failure::{Result, Tried};
use crate::proc;
use crate::results::{Key, Results, Section};
use crate::sample::{Summary, Times};
use crate::session::{Session, Waiting};
use crate::tree::Tree;

/// How much is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// For each case, contender and round.
    pub(crate) time: Duration,
    pub(crate) waitings: Vec<Waiting>,
    /// Cases to measure; all if empty.
    pub(crate) only: Vec<String>,
}

const OPERATIONS_MAX: usize = 20_000;
const OPERATIONS_MIN: usize = 3;
const WARM_UP: Duration = Duration::from_millis(10);

/// One contender in one round: its process, and a session for each way of waiting.
struct Seat<'r> {
    contender: &'r Contender,
    running: &'r Running,
    session: Session<'r>,
}

pub(crate) fn measure(
    tree: &Tree,
    contenders: &[Contender],
    effort: &Effort,
    results: &mut Results,
) -> Result<()> {
    for round in 0..effort.rounds {
        let mut running = Vec::new();
        for contender in contenders {
            match contender.start(tree, 1) {
                Ok(started) => running.push((contender, started)),
                Err(why) => results.note(format!("{}: {why}", contender.name)),
            }
        }
        // Who goes first changes.
        if !running.is_empty() {
            let first = round % running.len();
            running.rotate_left(first);
        }
        for &waiting in &effort.waitings {
            measure_waiting(tree, &running, waiting, effort, results)?;
        }
        for (_, running) in running {
            running.end()?;
        }
        eprintln!("bench: requests, round {} of {}", round + 1, effort.rounds);
    }
    Ok(())
}

fn measure_waiting(
    tree: &Tree,
    running: &[(&Contender, Running)],
    waiting: Waiting,
    effort: &Effort,
    results: &mut Results,
) -> Result<()> {
    let mut seats = Vec::new();
    for (contender, running) in running {
        let (client, mounted) = &running.clients[0];
        match Session::new(client, mounted.root.control, waiting) {
            Ok(session) => seats.push(Seat {
                contender,
                running,
                session,
            }),
            Err(why) => results.note(format!("{}: {why}", contender.name)),
        }
    }
    let section = match waiting {
        Waiting::Asleep => Section::Rows,
        Waiting::Spinning => Section::Spinning,
    };
    let turn = turn(waiting, effort, section, results)?;
    let socket_turn = socket_turn(effort, section, results)?;
    for case in CASES {
        if !effort.only.is_empty() && !effort.only.iter().any(|name| name == case.name) {
            continue;
        }
        if case.name == "fgetxattr" && !tree.xattrs {
            results.note("fgetxattr: the tree's file system takes no user attributes".to_owned());
            continue;
        }
        let turn = if case.name == FSTAT_SOCKET {
            socket_turn
        } else {
            turn
        };
        limit(tree, case, turn, effort, section, results)?;
        for seat in &mut seats {
            match seat.measure(case, effort.time) {
                Ok(summary) => {
                    results.add_summary(section, case.name, &seat.contender.name, &summary);
                }
                Err(why) => {
                    results.note(format!("{} of {}: {why}", case.name, seat.contender.name));
                }
            }
        }
    }
    Ok(())
}

impl Seat<'_> {
    fn measure(&mut self, case: &Case, time: Duration) -> Result<Summary> {
        let mut operation = (case.prepare)(&self.session)?;
        sample(WARM_UP, || operation(&mut self.session))?;
        let pid = self.running.gofer.pid;
        let before = proc::cpu(pid)?;
        let times = sample(time, || operation(&mut self.session))?;
        let cpu = proc::cpu(pid)?.saturating_sub(before);
        Ok(times.summary(Some(cpu)).ok_or("no operation")?)
    }
}

/// Repeats an operation for some time.
pub(crate) fn sample(
    time: Duration,
    mut operation: impl FnMut() -> Result<Duration>,
) -> Result<Times> {
    let mut times = Times::default();
    let begun = Instant::now();
    while times.count() < OPERATIONS_MIN
        || (times.count() < OPERATIONS_MAX && begun.elapsed() < time)
    {
        times.push(operation()?);
    }
    Ok(times)
}

/// A turn there and back with a process that answers at once.
fn turn(
    waiting: Waiting,
    effort: &Effort,
    section: Section,
    results: &mut Results,
) -> Result<Summary> {
    let echo = Echo::start()?;
    let mut channel = echo.channel(waiting)?;
    let (mut reply, mut fds) = (Vec::new(), Vec::new());
    let mut operation = || {
        let begun = Instant::now();
        channel
            .call(3, &[0; 8], &mut reply, &mut fds)
            .tried("a turn")?;
        Ok(begun.elapsed())
    };
    sample(WARM_UP, &mut operation)?;
    let summary = sample(effort.time, operation)?
        .summary(None)
        .ok_or("no turn")?;
    add_turn(section, "turn", &summary, results);
    Ok(summary)
}

fn socket_turn(effort: &Effort, section: Section, results: &mut Results) -> Result<Summary> {
    let echo = Echo::start()?;
    let operation = || {
        let begun = Instant::now();
        let request = [0; 8];
        echo.client
            .request(wire::Mid::FSTAT, &request)
            .tried("a turn")?;
        Ok(begun.elapsed())
    };
    sample(WARM_UP, operation)?;
    let summary = sample(effort.time, operation)?
        .summary(None)
        .ok_or("no turn")?;
    add_turn(section, "turn_socket", &summary, results);
    Ok(summary)
}

fn add_turn(section: Section, case: &str, summary: &Summary, results: &mut Results) {
    let case = match section {
        Section::Spinning => format!("{case}_spinning"),
        _ => case.to_owned(),
    };
    for (metric, value) in [("median", summary.median), ("mean", summary.mean)] {
        let key = Key {
            section: Section::More,
            case: &case,
            metric,
            unit: "µs",
        };
        results.add_limit(key, value);
    }
    results.count(&case, "limit", summary.count);
}

/// The turns of a case and its bare calls.
fn limit(
    tree: &Tree,
    case: &Case,
    turn: Summary,
    effort: &Effort,
    section: Section,
    results: &mut Results,
) -> Result<()> {
    let Some(calls) = bare::calls(tree, case.name)? else {
        return Ok(());
    };
    let bare = bare_summary(calls, effort.time / 2).tried(case.name)?;
    let turns = f64::from(case.turns);
    for (metric, turn, bare) in [
        ("median", turn.median, bare.median),
        ("mean", turn.mean, bare.mean),
    ] {
        let key = Key {
            section,
            case: case.name,
            metric,
            unit: "µs",
        };
        results.add_limit(key, turns * turn + bare);
    }
    results.count(case.name, "limit", bare.count);
    Ok(())
}

fn bare_summary(mut calls: Calls, time: Duration) -> Result<Summary> {
    sample(WARM_UP / 2, &mut calls)?;
    let times = sample(time, calls)?;
    Ok(times.summary(None).ok_or("no call")?)
}
