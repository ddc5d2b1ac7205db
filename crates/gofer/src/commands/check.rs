//! `gofer check`: what this kernel offers and which protections a gofer has here, found out by doing
//! it in processes that end afterwards.
//!
//! Belongs here: which starts are tried, what counts as missing, the table. Belongs elsewhere: each
//! try of a feature (`jail::probe`), the protections themselves (`jail`).

mod attempt;
mod table;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use jail::probe::{FEATURES, Feature};
use serde_json::{Value, json};

use super::{Failure, bundle};
use attempt::Start;

/// Exit status if a protection is missing.
const STATUS_MISSING: i32 = 1;
/// How a process ends that has made a forbidden call.
const SIGSYS: i32 = 31;

/// What `gofer check` accepts.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gofer check
  gofer check --json | jq .complete")]
pub(super) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// What a process started by this command tries, and where
    #[arg(long = "try", hide = true, num_args = 2, value_names = ["WHAT", "WHERE"])]
    attempt: Option<Vec<String>>,
}

/// Tries everything and prints what came of it.
///
/// # Errors
/// No temporary directory, no process to be had.
pub(super) fn run(args: Args) -> Result<ExitStatus, Failure> {
    if let Some([what, place]) = args.attempt.as_deref() {
        return Ok(attempt::run(what, Path::new(place)));
    }
    let checked = Checked::new()?;
    if args.json {
        println!("{:#}", checked.json());
    } else {
        print!("{checked}");
    }
    let status = if checked.is_complete() {
        0
    } else {
        STATUS_MISSING
    };
    Ok(ExitStatus::from_raw(status << 8))
}

/// What was found.
struct Checked {
    features: Vec<(&'static Feature, Result<String, String>)>,
    starts: Vec<(Start, Result<Vec<Protection>, String>)>,
    /// `gofer runsc` and `gofer do` follow runsc.
    tracing: Result<String, String>,
}

/// One protection of one start.
struct Protection {
    name: String,
    active: bool,
    /// The documents promise it on every kernel that can start a gofer; others fall back.
    promised: bool,
    detail: String,
}

impl Checked {
    fn new() -> Result<Checked, Failure> {
        let scratch = bundle::Scratch::new()?;
        let features = FEATURES.iter().map(|feature| {
            let tried = ask(feature.name, scratch.path(), feature.seals);
            (feature, tried.map(|said| said.trim().to_owned()))
        });
        let features = features.collect();
        let starts = Start::all().map(|start| {
            let said = ask(&start.word(), scratch.path(), true);
            (start, said.and_then(|said| protections(&said)))
        });
        let starts = starts.collect();
        let tracing = ask(attempt::TRACING, scratch.path(), false).map(|_| String::new());
        Ok(Checked {
            features,
            starts,
            tracing,
        })
    }

    /// Every start works and has all that is promised.
    fn is_complete(&self) -> bool {
        self.starts.iter().all(|(_, outcome)| {
            outcome
                .as_ref()
                .is_ok_and(|all| all.iter().all(|one| one.active || !one.promised))
        })
    }

    fn json(&self) -> Value {
        let result = |outcome: &Result<String, String>| match outcome {
            Ok(detail) => json!({ "works": true, "detail": detail }),
            Err(why) => json!({ "works": false, "detail": why }),
        };
        let features = self.features.iter().map(|(feature, outcome)| {
            let mut entry = result(outcome);
            entry["without"] = json!(feature.without);
            (feature.name.to_owned(), entry)
        });
        let starts = self.starts.iter().map(|(start, outcome)| {
            let mut entry = json!({ "dialect": start.dialect_name(), "directfs": start.directfs });
            match outcome {
                Ok(all) => {
                    let all = all.iter().map(|one| {
                        let state = json!({ "active": one.active, "promised": one.promised, "detail": one.detail });
                        (one.name.clone(), state)
                    });
                    entry["protections"] = all.collect::<serde_json::Map<_, _>>().into();
                }
                Err(why) => entry["failed"] = json!(why),
            }
            entry
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "complete": self.is_complete(),
            "features": features.collect::<serde_json::Map<_, _>>(),
            "tracing": result(&self.tracing),
            "starts": starts.collect::<Vec<_>>(),
        })
    }
}

/// Has another process try it. `killed`: it is to end by the forbidden call it makes last.
fn ask(what: &str, scratch: &Path, killed: bool) -> Result<String, String> {
    let spawned = Command::new("/proc/self/exe")
        .args(["check", "--try", what])
        .arg(scratch)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = spawned.map_err(|error| format!("cannot start a process: {error}"))?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        // What is not text is not what we print.
        _ = output.read_to_string(&mut said);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    // What it followed may have said something before.
    match said.lines().last().unwrap_or_default().split_once(' ') {
        Some(("ok", rest)) if killed == (status.signal() == Some(SIGSYS)) => Ok(rest.to_owned()),
        Some(("ok", _)) if killed => Err(format!("a forbidden call did not end it ({status})")),
        Some(("error", why)) => Err(why.trim().to_owned()),
        _ => Err(format!("the process that tried it ended ({status})")),
    }
}

/// What a start said of itself, and what its end shows.
fn protections(said: &str) -> Result<Vec<Protection>, String> {
    let told: Value = serde_json::from_str(said).map_err(|error| error.to_string())?;
    let mut all: Vec<Protection> = told
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| Protection {
            name: one["name"].as_str().unwrap_or_default().to_owned(),
            active: one["active"] == true,
            promised: one["promised"] == true,
            detail: one["detail"].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    all.push(Protection {
        name: "a forbidden call ends the process".to_owned(),
        active: true,
        promised: true,
        detail: "tried".to_owned(),
    });
    Ok(all)
}
