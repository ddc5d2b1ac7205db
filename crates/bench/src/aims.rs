//! What must be shown, and whether it was: ratios against the best peer, distances to the limit.

use crate::results::{Results, Section};

/// At least how many times better than the best peer.
const AIMS: &[(&[&str], &[&str], f64)] = &[
    (&["fstat", "walkstat1"], &["median"], 3.5),
    (&["fstat", "walkstat1"], &["mean"], 5.0),
    (&["fstat", "walkstat1"], &["p99"], 3.0),
    (&["walk1_close", "pread4k"], &["median"], 3.0),
    (
        &["open_close", "pwrite4k", "fgetxattr", "setstat"],
        &["median"],
        2.0,
    ),
    (&["walkstat8", "walk8_close"], &["median"], 1.7),
    (&["getdents1000", "getdents100000"], &["median"], 4.0),
    (
        &["create_close_unlink", "mkdir_rename_rmdir"],
        &["median"],
        2.0,
    ),
    (
        &["pread64k", "pwrite64k", "pread1m", "pwrite1m"],
        &["median"],
        1.1,
    ),
    (
        &["getdents100", "symlink_readlink", "fstat_socket"],
        &["median"],
        1.0,
    ),
    (&["startup1"], &["ms"], 6.0),
    (&["startup20"], &["ms"], 4.0),
    (&["memory_rss"], &["kib"], 10.0),
    (&["memory_anon"], &["kib"], 15.0),
    (&["memory_per_id"], &["bytes"], 1.0),
    (&["gofers50_pss"], &["kib"], 1.0),
];

/// At most how many times the limit.
const NEAR: &[&str] = &["fstat", "open_close", "pread4k"];
const NEAR_MAX: f64 = 1.3;

/// One aim and what was measured.
#[derive(Debug, PartialEq, serde::Serialize)]
pub(crate) struct Verdict {
    pub(crate) case: String,
    pub(crate) metric: String,
    /// `at least` or `at most`.
    pub(crate) bound: &'static str,
    pub(crate) wanted: f64,
    pub(crate) measured: f64,
    pub(crate) met: bool,
}

fn at_least(case: &str, metric: &str, wanted: f64, measured: f64) -> Verdict {
    Verdict {
        case: case.to_owned(),
        metric: metric.to_owned(),
        bound: "at least",
        wanted,
        measured,
        met: measured >= wanted,
    }
}

/// Every aim of which both sides were measured.
pub(crate) fn verdicts(results: &Results, ours: &str) -> Vec<Verdict> {
    let ratio = |case: &str, metric: &str| {
        let figure = results.figure(Section::Rows, case, metric)?;
        Some(figure.best_peer(ours)? / figure.value(ours)?)
    };
    let mut verdicts = Vec::new();
    for (cases, metrics, wanted) in AIMS {
        for case in *cases {
            for metric in *metrics {
                let measured = ratio(case, metric);
                verdicts.extend(measured.map(|is| at_least(case, metric, *wanted, is)));
            }
        }
    }
    let cpu = results
        .figures
        .iter()
        .filter(|figure| figure.section == Section::Rows && figure.metric == "cpu");
    for figure in cpu {
        let measured = ratio(&figure.case, "cpu");
        verdicts.extend(measured.map(|is| at_least(&figure.case, "cpu", 1.0, is)));
    }
    for case in NEAR {
        let figure = results.figure(Section::Rows, case, "median");
        let distance = figure.and_then(|figure| Some(figure.value(ours)? / figure.limit()?));
        verdicts.extend(distance.map(|measured| Verdict {
            case: (*case).to_owned(),
            metric: "distance to the limit".to_owned(),
            bound: "at most",
            wanted: NEAR_MAX,
            measured,
            met: measured <= NEAR_MAX,
        }));
    }
    let idle = results.figure(Section::More, "idle_wakeups", "count");
    verdicts.extend(
        idle.and_then(|figure| figure.value(ours))
            .map(|measured| Verdict {
                case: "idle_wakeups".to_owned(),
                metric: "count".to_owned(),
                bound: "at most",
                wanted: 0.0,
                measured,
                met: measured <= 0.0,
            }),
    );
    verdicts
}
