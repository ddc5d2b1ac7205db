//! Several channels busy at once, each with a client thread of its own.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use wire::Mid;
use wire::msg::attr::FStat;

use crate::cases::asked;
use crate::contender::{Contender, Running};
use crate::failure::{Failure, Result};
use crate::proc;
use crate::requests::sample;
use crate::results::{Key, RATE, Results, Section};
use crate::sample::Times;
use crate::session::{Session, Waiting};
use crate::tree::Tree;

const MOUNTS: usize = 20;

/// How many channels are busy, and on how many connections.
const LOADS: [(&str, usize, Spread); 4] = [
    ("load1", 1, Spread::OneConnectionFirst),
    ("load2", 2, Spread::OneConnectionFirst),
    ("load4", 4, Spread::OneConnectionFirst),
    ("load20_mounts", MOUNTS, Spread::OneEach),
];

#[derive(Clone, Copy, PartialEq)]
enum Spread {
    /// Further connections only when the server gives no more channels to one.
    OneConnectionFirst,
    OneEach,
}

/// Those of the loads that are asked for, each for twice the time of a request.
pub(crate) fn measure(
    tree: &Tree,
    contenders: &[Contender],
    only: &[String],
    (rounds, time): (usize, Duration),
    results: &mut Results,
) -> Result<()> {
    for _ in 0..rounds {
        for (case, channels, spread) in LOADS {
            if !asked(only, case) {
                continue;
            }
            for contender in contenders {
                let measured = contender.start(tree, MOUNTS).and_then(|running| {
                    one(
                        &running,
                        case,
                        channels,
                        spread,
                        time * 2,
                        &contender.name,
                        results,
                    )?;
                    running.end()
                });
                if let Err(why) = measured {
                    results.note(format!("{case} of {}: {why}", contender.name));
                }
            }
        }
    }
    Ok(())
}

fn sessions(running: &Running, channels: usize, spread: Spread) -> Result<Vec<Session<'_>>> {
    let mut sessions = Vec::new();
    for (client, mounted) in &running.clients {
        while sessions.len() < channels {
            match Session::new(client, mounted.root.control, Waiting::Asleep) {
                Ok(session) => sessions.push(session),
                Err(_) => break,
            }
            if spread == Spread::OneEach {
                break;
            }
        }
    }
    if sessions.len() < channels {
        return Err(format!("only {} channels", sessions.len()).into());
    }
    Ok(sessions)
}

fn one(
    running: &Running,
    case: &str,
    channels: usize,
    spread: Spread,
    time: Duration,
    who: &str,
    results: &mut Results,
) -> Result<()> {
    let sessions = sessions(running, channels, spread)?;
    let barrier = Barrier::new(sessions.len() + 1);
    let before = proc::cpu(running.gofer.pid)?;
    let (all, took, cpu) = thread::scope(|scope| {
        let busy = |mut session| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                // Kept open: a channel's thread takes its time on a CPU with it when it ends.
                fstats(&mut session, time).map(|times| (times, session))
            })
        };
        let threads: Vec<_> = sessions.into_iter().map(busy).collect();
        barrier.wait();
        let begun = Instant::now();
        let (mut all, mut sessions) = (Times::default(), Vec::new());
        for thread in threads {
            let done = thread.join().map_err(|_| "a client thread panicked")?;
            let (mut times, session) = done?;
            all.append(&mut times);
            sessions.push(session);
        }
        let took = begun.elapsed();
        let cpu = proc::cpu(running.gofer.pid)?.saturating_sub(before);
        Ok::<_, Failure>((all, took, cpu))
    })?;
    let summary = all.summary(Some(cpu)).ok_or("no operation")?;
    results.add_summary(Section::Load, case, who, &summary);
    let key = |metric, unit| Key {
        section: Section::Load,
        case,
        metric,
        unit,
    };
    let rate = summary.count as f64 / took.as_secs_f64();
    results.add(key(RATE, "1/s"), who, rate);
    let longest = all.longest().ok_or("no operation")?;
    results.add(key("longest", "µs"), who, longest);
    Ok(())
}

fn fstats(session: &mut Session<'_>, time: Duration) -> Result<Times> {
    let id = session.root;
    sample(time, || {
        let begun = Instant::now();
        session.call(Mid::FSTAT, &FStat { id })?;
        Ok(begun.elapsed())
    })
}
