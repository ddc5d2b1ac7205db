//! What must be shown, and whether it was: ratios against the best peer, distances to the limit.

use crate::results::{Figure, RATE, Results, Section};

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
    (&["startup1"], &["ms"], 6.0),
    (&["startup20"], &["ms"], 4.0),
    (&["memory_rss"], &["kib"], 10.0),
    (&["memory_anon"], &["kib"], 15.0),
];

/// "PRead, PWrite of 64 KiB and 1 MiB: never below 1": in no round.
const NEVER_BELOW: &[&str] = &["pread64k", "pwrite64k", "pread1m", "pwrite1m"];

/// What "every other case never below 1" is said of: the figure that a case is about.
const MAIN_METRICS: &[&str] = &["median", "ms", "kib", "bytes", "count", RATE];
const MAIN_METRICS_LOAD: &[&str] = &["median", "p99", RATE];
/// Counts that are no cost: how many channels were connected.
const NO_COST: &[&str] = &["channels20", "idle_wakeups"];

/// At most how many times the limit.
const NEAR: &[&str] = &["fstat", "open_close", "pread4k"];
const NEAR_MAX: f64 = 1.3;
/// Landlock is on by default if it costs less of an open.
const LANDLOCK_MAX: f64 = 0.05;

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
    /// What the measured ratio is uncertain by, where the aim is no more than "never slower".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) noise: Option<f64>,
}

impl Verdict {
    /// In a word or some.
    pub(crate) fn outcome(&self) -> String {
        match self.noise {
            _ if self.met => "met".to_owned(),
            Some(noise) if self.measured + noise >= self.wanted => {
                format!("**short**, within ± {noise:.2}")
            }
            _ => "**short**".to_owned(),
        }
    }
}

fn at_least(case: &str, metric: &str, wanted: f64, measured: f64) -> Verdict {
    Verdict {
        case: case.to_owned(),
        metric: metric.to_owned(),
        bound: "at least",
        wanted,
        measured,
        met: measured >= wanted,
        noise: None,
    }
}

fn at_most(case: &str, metric: &str, wanted: f64, measured: f64) -> Verdict {
    Verdict {
        bound: "at most",
        met: measured <= wanted,
        ..at_least(case, metric, wanted, measured)
    }
}

/// Every aim of which both sides were measured.
pub(crate) fn verdicts(results: &Results, ours: &str) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (cases, metrics, wanted) in AIMS {
        for case in *cases {
            for metric in *metrics {
                let figure = results.figure(Section::Rows, case, metric);
                let measured = figure.and_then(|figure| figure.ratio(ours));
                verdicts.extend(measured.map(|is| at_least(case, metric, *wanted, is)));
            }
        }
    }
    for case in NEVER_BELOW {
        let figure = results.figure(Section::Rows, case, "median");
        let worst = figure.and_then(|figure| figure.worst_round(ours));
        verdicts.extend(worst.map(|is| at_least(case, "median, worst round", 1.0, is)));
    }
    let others = results.figures.iter().filter(|figure| is_other(figure));
    verdicts.extend(others.filter_map(|figure| {
        let measured = figure.ratio(ours)?;
        let noise = (figure.section == Section::EndToEnd).then(|| figure.noise(ours));
        Some(Verdict {
            noise: noise.flatten(),
            ..at_least(&figure.case, figure.metric, 1.0, measured)
        })
    }));
    let cpu = results.figures.iter().filter(|figure| {
        matches!(figure.section, Section::Rows | Section::Load) && figure.metric == "cpu"
    });
    verdicts.extend(cpu.filter_map(|figure| {
        let measured = figure.ratio(ours)?;
        Some(at_least(&figure.case, "cpu", 1.0, measured))
    }));
    verdicts.extend(
        NEAR.iter()
            .filter_map(|case| near_the_limit(results, case, ours)),
    );
    verdicts.extend(confinement(results, ours));
    let idle = results.figure(Section::More, "idle_wakeups", "count");
    verdicts.extend(
        idle.and_then(|figure| figure.value(ours))
            .map(|measured| at_most("idle_wakeups", "count", 0.0, measured)),
    );
    verdicts
}

/// Has no aim of its own, and is what its case is about.
fn is_other(figure: &Figure) -> bool {
    let case = figure.case.as_str();
    let metrics = match figure.section {
        Section::Rows | Section::More | Section::EndToEnd => MAIN_METRICS,
        Section::Load => MAIN_METRICS_LOAD,
        _ => return false,
    };
    let has_aim = |(cases, of, _): &(&[&str], &[&str], f64)| {
        figure.section == Section::Rows && cases.contains(&case) && of.contains(&figure.metric)
    };
    metrics.contains(&figure.metric) && !NO_COST.contains(&case) && !AIMS.iter().any(has_aim)
}

/// What Landlock adds to a bare open, as a share of what OpenAt and Close take.
fn confinement(results: &Results, ours: &str) -> Option<Verdict> {
    let call = |case| results.figure(Section::More, case, "calls")?.value(ours);
    let open = results
        .figure(Section::Rows, "open_close", "median")?
        .value(ours)?;
    let share = (call("open_landlock")? - call("open_free")?) / open;
    Some(at_most(
        "open_landlock",
        "share of OpenAt + Close",
        LANDLOCK_MAX,
        share,
    ))
}

fn near_the_limit(results: &Results, case: &str, ours: &str) -> Option<Verdict> {
    let figure = results.figure(Section::Rows, case, "median")?;
    let distance = figure.value(ours)? / figure.limit()?;
    Some(at_most(case, "distance to the limit", NEAR_MAX, distance))
}
