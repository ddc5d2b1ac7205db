//! What `/proc` says of a process: memory, threads, time on a CPU, sleeps.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

use crate::failure::{Result, Tried};

/// Memory of one process, in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) proportional: f64,
    pub(crate) anonymous: f64,
    pub(crate) threads: f64,
}

fn read(pid: Pid, name: &str) -> Result<String> {
    let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
    fs::read_to_string(&path).tried(path)
}

/// The number behind a label at a line's start.
fn number(text: &str, label: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.ok_or_else(|| format!("no {label}").into())
        .and_then(|word| word.parse::<f64>().tried(word))
}

pub(crate) fn memory(pid: Pid) -> Result<Memory> {
    let smaps = read(pid, "smaps_rollup")?;
    Ok(Memory {
        resident: number(&smaps, "Rss:")?,
        proportional: number(&smaps, "Pss:")?,
        anonymous: number(&smaps, "Anonymous:")?,
        threads: number(&read(pid, "status")?, "Threads:")?,
    })
}

/// Reads one file of each thread and adds up what `number` makes of it.
fn sum_over_threads(pid: Pid, file: &str, number: impl Fn(&str) -> Result<f64>) -> Result<f64> {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let mut sum = 0.0;
    for task in fs::read_dir(&tasks).tried(&tasks)? {
        let path = task?.path().join(file);
        // A thread may end between the listing and the look.
        if let Ok(text) = fs::read_to_string(&path) {
            sum += number(&text)?;
        }
    }
    Ok(sum)
}

/// Time on a CPU of all threads that live, to the nanosecond.
pub(crate) fn cpu(pid: Pid) -> Result<Duration> {
    let first = |text: &str| {
        let word = text.split_whitespace().next().unwrap_or_default();
        word.parse::<f64>().tried("schedstat")
    };
    let ns = sum_over_threads(pid, "schedstat", first)?;
    Ok(Duration::from_nanos(ns as u64))
}

/// How often its threads went to sleep.
pub(crate) fn sleeps(pid: Pid) -> Result<f64> {
    sum_over_threads(pid, "status", |text| {
        number(text, "voluntary_ctxt_switches:")
    })
}
