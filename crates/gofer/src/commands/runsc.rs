//! `gofer runsc`: an unmodified runsc, with this gofer where it starts its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;

use hook::Hook;

use super::{Failure, find};

/// What `gofer runsc` accepts.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gofer runsc -- --version
  gofer runsc -- --root=/run/runsc run --bundle /srv/bundle name
  gofer runsc --runsc /opt/gvisor/runsc -- --rootless --network=none do ls /")]
pub(super) struct Args {
    /// The runsc to run [default: $GOFER_RUNSC, then the first in PATH]
    #[arg(long, value_name = "PATH")]
    pub(super) runsc: Option<PathBuf>,
    /// Everything for runsc itself
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<OsString>,
}

/// Runs it to its end; streams, signals, terminal and exit status pass through.
pub(super) fn run(named: Option<PathBuf>, args: Vec<OsString>) -> Result<ExitStatus, Failure> {
    let program = find::runsc(named)?;
    let hook = Hook {
        program,
        args,
        environment: Vec::new(),
        replacement: "/proc/self/exe".into(),
        on_gofer: &mut |_| {},
    };
    Ok(hook::run(hook)?)
}
