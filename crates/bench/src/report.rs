//! The table, and the same as JSON. Nothing is shown that was not measured.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::aims;
use crate::contender::Contender;
use crate::markdown;
use crate::results::{Figure, Results, Section};

/// Where and when.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) machine: String,
    pub(crate) kernel: String,
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) tree: String,
    /// Before the run and after it.
    pub(crate) load: String,
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
            kernel: said("uname", &["-r"]).unwrap_or_else(unknown),
            commit: said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(unknown),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).unwrap_or_else(unknown),
            tree,
            load: load(),
        }
    }

    /// The run is over.
    pub(crate) fn end(&mut self) {
        self.load = format!("{} before the run, {} after it", self.load, load());
    }
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

pub(crate) fn shown(value: Option<f64>) -> String {
    value.map_or_else(
        || "–".to_owned(),
        |value| match value.abs() {
            100.0.. => format!("{value:.0}"),
            10.0.. => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        },
    )
}

/// In the order of the report: the section, its name in the JSON, its title.
pub(crate) const SECTIONS: [(Section, &str, &str); 7] = [
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
    (
        Section::EndToEnd,
        "end_to_end",
        "Containers: plain `runsc` and `gofer runsc`",
    ),
    (
        Section::Growth,
        "growth",
        "Growth: slopes and their standard errors",
    ),
    (
        Section::Ext4,
        "ext4",
        "One request at a time, the tree on a disk's file system",
    ),
    (Section::More, "more", "Everything else"),
];

/// The whole report, on standard output.
pub(crate) fn print(setting: &Setting, results: &Results, contenders: &[Contender], ours: &str) {
    println!("{}", markdown::tables(setting, results, contenders, ours));
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
        "load": setting.load,
        "settings": results.settings,
        "curves": results.curves,
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
