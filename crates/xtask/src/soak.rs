//! `cargo xtask soak`: a release build under mixed load, and whether anything in it grows.

use std::process::ExitCode;

use crate::task::{self, Failure, Tried, cargo};

/// What `cargo xtask soak` accepts.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the load lasts
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
}

/// Builds the gofer and the load (`crates/rig/examples/soak.rs`), and runs it: needs root.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    task::run(&mut cargo(&["build", "--release", "--package", "gofer"]))?;
    let gofer = task::target().join("release/gofer");
    let mut soak = cargo(&["run", "--quiet", "--package", "rig", "--example", "soak"]);
    soak.arg("--").arg(gofer).arg(args.minutes.to_string());
    let status = soak.status().tried("cannot start the soak test")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
