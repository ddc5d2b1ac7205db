//! The engine `runsc`: an unmodified runsc, with this gofer where it starts its own.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use hook::Hook;

use super::{Args, Network};
use crate::commands::Failure;
use crate::commands::bundle::{Bundle, Contents};
use crate::commands::report::{Report, Sampler};
use crate::stats;

/// Every file operation becomes a request to the gofer.
const NO_DIRECTFS: &str = "--directfs=false";

/// What this engine does and does not isolate, in one line.
pub(super) fn promise(runsc: &Path, directfs: bool) -> String {
    let files = match directfs {
        true => "it opens files by itself, below the directories a jailed gofer has given it",
        false => "files come from a jailed gofer",
    };
    format!(
        "engine runsc ({}): gVisor's kernel stands between the command and the host's; {files}; not \
         isolated are time and the machine's load",
        runsc.display()
    )
}

/// Runs the command; its status is the result.
pub(super) fn run(args: &Args, contents: &Contents, runsc: &Path) -> Result<ExitStatus, Failure> {
    let bundle = Bundle::new(contents)?;
    let report = match args.stats {
        true => Some(Report::new(bundle.write("stats", &[])?)?),
        false => None,
    };
    let state = bundle.path().join("state");
    let environment = report
        .iter()
        .map(|r| (stats::VARIABLE.into(), r.path().into()))
        .collect();
    let mut sampler = report.as_ref().map(|_| Sampler::default());
    let ended = hook::run(Hook {
        program: runsc.to_owned(),
        args: runsc_args(args, runsc, &state, &bundle),
        environment,
        replacement: "/proc/self/exe".into(),
        on_gofer: &mut |pid| {
            if let Some(sampler) = &mut sampler {
                sampler.watch(pid);
            }
        },
    });
    remove_container(runsc, &state, &bundle);
    if let (Some(report), Some(sampler)) = (&report, sampler) {
        report.print(sampler.stop());
    }
    Ok(ended?)
}

fn runsc_args(args: &Args, runsc: &Path, state: &Path, bundle: &Bundle) -> Vec<OsString> {
    let mut root = OsString::from("--root=");
    root.push(state);
    let overlay = if args.writable { "none" } else { "root:memory" };
    let network = match args.network {
        Network::None => "none",
        Network::Host => "host",
    };
    let mut words: Vec<OsString> = vec![
        root,
        format!("--network={network}").into(),
        "--ignore-cgroups".into(),
        format!("--overlay2={overlay}").into(),
    ];
    if !args.directfs && knows(runsc, NO_DIRECTFS) {
        words.push(NO_DIRECTFS.into());
    }
    if !rustix::process::geteuid().is_root() {
        words.push("--rootless".into());
    }
    words.extend([
        "run".into(),
        "--bundle".into(),
        bundle.path().into(),
        bundle.id().into(),
    ]);
    words
}

/// Whether this runsc has the flag: the oldest releases refuse what they do not know.
fn knows(runsc: &Path, flag: &str) -> bool {
    let mut ask = Command::new(runsc);
    ask.args([flag, "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    ask.status().is_ok_and(|status| status.success())
}

/// A runsc that was killed leaves its container behind; one that ended has removed it.
fn remove_container(runsc: &Path, state: &Path, bundle: &Bundle) {
    let left = std::fs::read_dir(state).is_ok_and(|mut entries| entries.next().is_some());
    if !left {
        return;
    }
    let mut root = OsString::from("--root=");
    root.push(state);
    let mut delete = Command::new(runsc);
    delete
        .arg(root)
        .args(["delete", "--force"])
        .arg(bundle.id());
    // Whatever it says, removing the bundle comes next and speaks for itself.
    _ = delete
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
