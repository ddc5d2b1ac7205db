//! Requests, one at a time: rounds in which each contender answers the same case in turn.

use std::time::{Duration, Instant};

use crate::cases::{CASES, Case, FSTAT_SOCKET, asked};
use crate::contender::{Contender, Running};
use crate::echo::{Echo, Turns};
use crate::failure::{Result, Tried};
use crate::proc;
use crate::progress::Progress;
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
    /// Where the figures of a sleeping client belong.
    pub(crate) section: Section,
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
    progress: &Progress,
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
        progress.step("requests");
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
        Waiting::Asleep => effort.section,
        Waiting::Spinning => Section::Spinning,
    };
    let mut limit = Limit::start(tree, waiting, section, effort.time)?;
    if section != Section::Ext4 {
        limit.turns(results)?;
    }
    for case in CASES {
        if !asked(&effort.only, case.name) {
            continue;
        }
        if case.name == "fgetxattr" && !tree.xattrs {
            results.note("fgetxattr: the tree's file system takes no user attributes".to_owned());
            continue;
        }
        limit.case(case, results)?;
        for seat in &mut seats {
            match seat.measure(case, effort.time) {
                Ok((summary, times)) => {
                    let who = &seat.contender.name;
                    results.add_summary(section, case.name, who, &summary);
                    if section == Section::Rows {
                        results.spread(case.name, who, &times);
                    }
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
    fn measure(&mut self, case: &Case, time: Duration) -> Result<(Summary, Times)> {
        let mut operation = (case.prepare)(&self.session)?;
        sample(WARM_UP, || operation(&mut self.session))?;
        let pid = self.running.gofer.pid;
        let before = proc::cpu(pid)?;
        let times = sample(time, || operation(&mut self.session))?;
        let cpu = proc::cpu(pid)?.saturating_sub(before);
        let summary = times.summary(Some(cpu)).ok_or("no operation")?;
        Ok((summary, times))
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

/// The process of the limits, and a channel to it.
struct Limit {
    echo: Echo,
    turns: Turns,
    section: Section,
    time: Duration,
}

impl Limit {
    fn start(tree: &Tree, waiting: Waiting, section: Section, time: Duration) -> Result<Self> {
        let echo = Echo::start(&tree.root())?;
        Ok(Self {
            turns: echo.channel(waiting)?,
            echo,
            section,
            time,
        })
    }

    /// The turns alone.
    fn turns(&mut self, results: &mut Results) -> Result<()> {
        let suffix = match self.section {
            Section::Spinning => "_spinning",
            _ => "",
        };
        let channel = warmed(self.time, || self.turns.turn())?;
        let socket = warmed(self.time, || self.echo.socket_turn(false))?;
        for (case, summary) in [("turn", channel), ("turn_socket", socket)] {
            results.add_limits(Section::More, &format!("{case}{suffix}"), &summary);
        }
        Ok(())
    }

    /// The turns of a case, in the first of which its bare calls are made.
    fn case(&mut self, case: &Case, results: &mut Results) -> Result<()> {
        let Some(request_bytes) = self.echo.prepare(case.name)? else {
            return Ok(());
        };
        self.turns.request.resize(request_bytes, 7);
        let summary = if case.name == FSTAT_SOCKET {
            warmed(self.time, || self.echo.socket_turn(true))
        } else {
            warmed(self.time, || self.turns.case(case.turns))
        };
        results.add_limits(self.section, case.name, &summary.tried(case.name)?);
        if self.section == Section::Rows {
            let key = Key {
                section: Section::More,
                case: case.name,
                metric: "calls",
                unit: "µs",
            };
            results.add_limit(key, self.echo.bare()?);
        }
        Ok(())
    }
}

fn warmed(time: Duration, mut operation: impl FnMut() -> Result<Duration>) -> Result<Summary> {
    sample(WARM_UP, &mut operation)?;
    let times = sample(time, operation)?;
    Ok(times.summary(None).ok_or("no operation")?)
}
