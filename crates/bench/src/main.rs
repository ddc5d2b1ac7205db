//! How fast, how small, how soon: our gofer and the Go ones, driven by the same client in one run.
//!
//! Belongs here: what is measured and how it is reported. Belongs elsewhere: starting a gofer
//! (`rig`), the protocol (`client`, `wire`, `channel`).
//! Must hold: rounds are interleaved, so that drift hits all contenders alike; nothing is reported
//! that was not measured in this run.
#![forbid(unsafe_code)]

mod aims;
mod bare;
mod calls;
mod cases;
mod confinement;
mod contender;
mod echo;
mod end_to_end;
mod ext4;
mod failure;
mod growth;
mod html;
mod load;
mod markdown;
mod plot;
mod proc;
mod process;
mod progress;
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
use progress::Progress;
use requests::Effort;
use results::{Results, Section};
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
    /// Write a page with plots here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Put the tables into this page, between the lines `<!-- bench: begin -->` and
    /// `<!-- bench: end -->`
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// A container's root with git and a C compiler, for end-to-end runs; without it there are none
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Where to make files on a disk
    #[arg(long, value_name = "DIR", default_value = "target/tmp")]
    disk: PathBuf,
    /// Write the figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to make the served tree; a tmpfs, unless told otherwise
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    tree: PathBuf,
    /// Less of everything: some minutes
    #[arg(long)]
    quick: bool,
    /// One of everything, for tests: the figures mean nothing
    #[arg(long, conflicts_with = "quick", hide = true)]
    shortest: bool,
    /// Rounds of requests
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these requests and loads, by the case's name, and nothing else
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Amount {
    rounds: usize,
    /// Of requests, for each case, contender and round.
    ms: u64,
    starts: usize,
    /// Of load and memory.
    repeats: usize,
    spinning: bool,
    growth: usize,
    containers: usize,
    ext4: usize,
    confinement: usize,
}

const FULL: Amount = Amount {
    rounds: 5,
    ms: 150,
    starts: 30,
    repeats: 5,
    spinning: true,
    growth: 5,
    containers: 5,
    ext4: 3,
    confinement: 9,
};
const QUICK: Amount = Amount {
    rounds: 3,
    ms: 50,
    starts: 8,
    repeats: 1,
    spinning: false,
    growth: 1,
    containers: 1,
    ext4: 1,
    confinement: 5,
};
const SHORTEST: Amount = Amount {
    rounds: 1,
    ms: 2,
    starts: 1,
    repeats: 1,
    spinning: true,
    growth: 1,
    containers: 1,
    ext4: 1,
    confinement: 1,
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match args.next().as_deref() {
        // Started by ourselves.
        Some(echo::COMMAND) => echo::serve(args.next()),
        Some(confinement::COMMAND) => confinement::serve(args.next(), args.next()),
        _ => run(&Cli::parse()),
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
    // Read now: a page that cannot take the tables is better known before the run.
    let page = cli.markdown.as_ref().map(|file| {
        let text = fs::read_to_string(file).tried(file.display())?;
        markdown::replaced(&text, "")?;
        Ok::<_, failure::Failure>((file, text))
    });
    let page = page.transpose()?;
    let mut results = Results::default();
    let mut setting = report::Setting::here(cli.tree.display().to_string());
    let tree = Tree::new(&cli.tree, &directories(cli))?;
    measure(cli, &tree, &contenders, &mut results)?;
    setting.end();
    report::print(&setting, &results, &contenders, OURS);
    if let Some(file) = &cli.json {
        let json = report::json(&setting, &results, &contenders, OURS);
        fs::write(file, format!("{json:#}\n")).tried(file.display())?;
    }
    if let Some(file) = &cli.html {
        let page = html::page(&setting, &results, &contenders, OURS)?;
        fs::write(file, page).tried(file.display())?;
    }
    if let Some((file, text)) = page {
        let tables = markdown::tables(&setting, &results, &contenders, OURS);
        fs::write(file, markdown::replaced(&text, &tables)?).tried(file.display())?;
    }
    Ok(())
}

/// Those that the cases asked for list.
fn directories(cli: &Cli) -> Vec<usize> {
    let asked = |entries: &usize| cases::asked(&cli.only, &format!("getdents{entries}"));
    tree::DIRECTORIES.into_iter().filter(asked).collect()
}

fn measure(cli: &Cli, tree: &Tree, contenders: &[Contender], results: &mut Results) -> Result<()> {
    let amount = match (cli.quick, cli.shortest) {
        (true, _) => QUICK,
        (_, true) => SHORTEST,
        _ => FULL,
    };
    let mut waitings = vec![Waiting::Asleep];
    waitings.extend(amount.spinning.then_some(Waiting::Spinning));
    let effort = Effort {
        rounds: cli.rounds.unwrap_or(amount.rounds),
        time: Duration::from_millis(amount.ms),
        waitings,
        section: Section::Rows,
        only: cli.only.clone(),
    };
    if !cli.only.is_empty() {
        let progress = Progress::new(effort.rounds);
        requests::measure(tree, contenders, &effort, &progress, results)?;
        let loads = (effort.rounds, effort.time);
        load::measure(tree, contenders, &effort.only, loads, results)?;
        progress.end();
        return Ok(());
    }
    let containers = end_to_end::steps(contenders, amount.containers);
    let steps = effort.rounds + amount.ext4 + growth::steps(amount.growth) + containers + OTHERS;
    let progress = Progress::new(steps);
    everything(cli, tree, contenders, (&effort, amount), &progress, results)?;
    progress.end();
    Ok(())
}

/// Steps of progress that are none of growth, requests and containers.
const OTHERS: usize = 5;

fn everything(
    cli: &Cli,
    tree: &Tree,
    contenders: &[Contender],
    (effort, amount): (&Effort, Amount),
    progress: &Progress,
    results: &mut Results,
) -> Result<()> {
    // First, while this process is small: its copy at a fork is part of each start.
    process::start_up(tree, contenders, amount.starts, results)?;
    progress.step("start-up");
    requests::measure(tree, contenders, effort, progress, results)?;
    let loads = (amount.repeats, effort.time);
    load::measure(tree, contenders, &effort.only, loads, results)?;
    progress.step("load");
    process::memory(tree, contenders, amount.repeats, results)?;
    process::fifty(tree, contenders, results)?;
    progress.step("memory");
    calls::measure(tree, contenders, results);
    confinement::measure(tree, amount.confinement, OURS, results)?;
    progress.step("confinement");
    growth::measure(
        tree,
        contenders,
        amount.growth,
        effort.time,
        progress,
        results,
    );
    on_disk(cli, contenders, (effort, amount), progress, results)?;
    match &cli.rootfs {
        Some(rootfs) => {
            let parent = tree.parent();
            let rounds = amount.containers;
            end_to_end::measure(parent, rootfs, contenders, rounds, progress, results)?;
        }
        None => results.note("containers: no --rootfs".to_owned()),
    }
    process::idle(tree, contenders, results)?;
    progress.step("idle");
    Ok(())
}

fn on_disk(
    cli: &Cli,
    contenders: &[Contender],
    (effort, amount): (&Effort, Amount),
    progress: &Progress,
    results: &mut Results,
) -> Result<()> {
    let disk = ext4::Disk::new(&cli.disk)?;
    results.settings.push(format!("disk: {}", disk.kind()));
    let tree = Tree::new(&disk.path(), &tree::DIRECTORIES)?;
    let effort = Effort {
        rounds: amount.ext4,
        waitings: vec![Waiting::Asleep],
        section: Section::Ext4,
        ..effort.clone()
    };
    requests::measure(&tree, contenders, &effort, progress, results)
}
