//! How fast, how small, how soon: our gofer and the Go ones, driven by the same client in one run.
//!
//! Belongs here: what is measured and how it is reported. Belongs elsewhere: starting a gofer
//! (`rig`), the protocol (`client`, `wire`, `channel`).
//! Must hold: rounds are interleaved, so that drift hits all contenders alike; nothing is reported
//! that was not measured in this run.
#![forbid(unsafe_code)]

mod aims;
mod bare;
mod cases;
mod contender;
mod echo;
mod failure;
mod load;
mod proc;
mod process;
mod report;
mod requests;
mod results;
mod sample;
mod session;
mod tree;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rig::parent::Dialect;

use contender::Contender;
use failure::{Result, Tried};
use requests::Effort;
use results::Results;
use session::Waiting;
use tree::Tree;

/// Our own name in the report.
const OURS: &str = "ours";

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Compare gofers: latency, start-up, memory")]
struct Cli {
    /// Our gofer binary
    #[arg(long, default_value = "target/release/gofer")]
    ours: PathBuf,
    /// Another gofer binary: NAME=PATH:DIALECT (v2022-12, v2024-03, v2024-07, v2026-08)
    #[arg(long = "peer", value_name = "NAME=PATH:DIALECT")]
    peers: Vec<Contender>,
    /// Write the figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to make the served tree; a tmpfs, unless told otherwise
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    tree: PathBuf,
    /// Less of everything: below a minute
    #[arg(long)]
    quick: bool,
    /// Rounds of requests
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these requests, by the case's name, and nothing else
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> ExitCode {
    // Started by ourselves, see `echo`.
    let done = if std::env::args().nth(1).as_deref() == Some(echo::COMMAND) {
        echo::serve(std::env::args().nth(2))
    } else {
        run(&Cli::parse())
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let ours = fs::canonicalize(&cli.ours).unwrap_or_else(|_| cli.ours.clone());
    let mut contenders = vec![Contender::new(OURS, &ours, Dialect::V2024)];
    contenders.extend(cli.peers.iter().cloned());
    let asked = |entries: &usize| {
        let listing = format!("getdents{entries}");
        cli.only.is_empty() || cli.only.contains(&listing)
    };
    let directories: Vec<usize> = tree::DIRECTORIES.into_iter().filter(asked).collect();
    let tree = Tree::new(&cli.tree, &directories)?;
    let mut results = Results::default();
    measure(cli, &tree, &contenders, &mut results)?;
    let setting = report::Setting::here(cli.tree.display().to_string());
    report::print(&setting, &results, &contenders, OURS);
    if let Some(file) = &cli.json {
        let json = report::json(&setting, &results, &contenders, OURS);
        fs::write(file, format!("{json:#}\n")).tried(file.display())?;
    }
    Ok(())
}

fn measure(cli: &Cli, tree: &Tree, contenders: &[Contender], results: &mut Results) -> Result<()> {
    let (rounds, ms, starts, repeats) = if cli.quick {
        (3, 50, 8, 1)
    } else {
        (5, 150, 30, 3)
    };
    let effort = Effort {
        rounds: cli.rounds.unwrap_or(rounds),
        time: Duration::from_millis(ms),
        waitings: if cli.quick {
            vec![Waiting::Asleep]
        } else {
            vec![Waiting::Asleep, Waiting::Spinning]
        },
        only: cli.only.clone(),
    };
    if !cli.only.is_empty() {
        return requests::measure(tree, contenders, &effort, results);
    }
    // First, while this process is small: its copy at a fork is part of each start.
    process::start_up(tree, contenders, starts, results)?;
    requests::measure(tree, contenders, &effort, results)?;
    load::measure(tree, contenders, repeats, effort.time * 2, results)?;
    process::memory(tree, contenders, repeats, results)?;
    process::fifty(tree, contenders, results)?;
    process::idle(tree, contenders, results)
}
