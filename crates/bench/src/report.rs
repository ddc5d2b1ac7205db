//! The table, and the same as JSON. Nothing is shown that was not measured.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::aims;
use crate::contender::Contender;
use crate::results::{Figure, Results, Section};

/// Where and when.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) machine: String,
    pub(crate) kernel: String,
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) tree: String,
}

impl Setting {
    pub(crate) fn here(tree: String) -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("unknown CPU", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let said = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (output.status.success() && !text.is_empty()).then_some(text)
        };
        let unknown = || "unknown".to_owned();
        Self {
            machine: format!("{model}, {count} CPUs, {}", std::env::consts::ARCH),
            kernel: said("uname", &["-sr"]).unwrap_or_else(unknown),
            commit: said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(unknown),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).unwrap_or_else(unknown),
            tree,
        }
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| match value.abs() {
            100.0.. => format!("{value:.0}"),
            10.0.. => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        },
    )
}

const SECTIONS: [(Section, &str, &str); 4] = [
    (
        Section::Rows,
        "rows",
        "One request at a time (client asleep while it waits), start-up, memory",
    ),
    (
        Section::Spinning,
        "spinning",
        "One request at a time, client spinning",
    ),
    (Section::Load, "load", "FStat over several channels at once"),
    (Section::More, "more", "Everything else"),
];

pub(crate) fn print(setting: &Setting, results: &Results, contenders: &[Contender], ours: &str) {
    let Setting {
        machine,
        kernel,
        commit,
        date,
        tree,
    } = setting;
    println!("{machine} · Linux {kernel} · commit {commit} · {date} · tree on {tree}");
    println!("Medians over rounds. ratio: best peer / {ours}. limit: bare turns and system calls.");
    for (section, _, title) in SECTIONS {
        let figures: Vec<&Figure> = results
            .figures
            .iter()
            .filter(|figure| figure.section == section)
            .collect();
        if figures.is_empty() {
            continue;
        }
        println!("\n## {title}\n");
        print!("{:22} {:7} {:8}", "case", "metric", "unit");
        for contender in contenders {
            print!(" {:>10}", contender.name);
        }
        println!(" {:>8} {:>10} {:>8}", "ratio", "limit", "×limit");
        for figure in figures {
            print_figure(figure, contenders, ours);
        }
    }
    print_verdicts(results, ours);
    println!("\n## Samples: operations timed, all rounds together\n");
    for (case, by_contender) in &results.samples {
        println!("{case:22} {by_contender:?}");
    }
    for note in &results.notes {
        println!("not measured: {note}");
    }
}

fn print_figure(figure: &Figure, contenders: &[Contender], ours: &str) {
    print!("{:22} {:7} {:8}", figure.case, figure.metric, figure.unit);
    for contender in contenders {
        print!(" {:>10}", shown(figure.value(&contender.name)));
    }
    let own = figure.value(ours);
    let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    println!(
        " {:>8} {:>10} {:>8}",
        shown(figure.ratio(ours)),
        shown(figure.limit()),
        shown(over(own, figure.limit())),
    );
}

fn print_verdicts(results: &Results, ours: &str) {
    let verdicts = aims::verdicts(results, ours);
    if verdicts.is_empty() {
        return;
    }
    println!("\n## Aims\n");
    for verdict in verdicts {
        println!(
            "{:5} {:22} {:22} {} {:.2}, measured {:.2}",
            if verdict.met { "met" } else { "SHORT" },
            verdict.case,
            verdict.metric,
            verdict.bound,
            verdict.wanted,
            verdict.measured
        );
    }
}

fn row(figure: &Figure, contenders: &[Contender], ours: &str) -> Value {
    let peers = contenders.iter().map(|contender| contender.name.as_str());
    let peers: BTreeMap<&str, f64> = peers
        .filter(|name| *name != ours)
        .filter_map(|name| Some((name, figure.value(name)?)))
        .collect();
    json!({
        "case": figure.case,
        "metric": figure.metric,
        "unit": figure.unit,
        "ours": figure.value(ours),
        "peers": peers,
        "limit": figure.limit(),
    })
}

pub(crate) fn json(
    setting: &Setting,
    results: &Results,
    contenders: &[Contender],
    ours: &str,
) -> Value {
    let mut report = json!({
        "machine": setting.machine,
        "kernel": setting.kernel,
        "commit": setting.commit,
        "date": setting.date,
        "tree": setting.tree,
        "samples": results.samples,
        "notes": results.notes,
        "aims": aims::verdicts(results, ours),
    });
    for (section, name, _) in SECTIONS {
        let figures = results
            .figures
            .iter()
            .filter(|figure| figure.section == section);
        report[name] = figures
            .map(|figure| row(figure, contenders, ours))
            .collect();
    }
    report
}
