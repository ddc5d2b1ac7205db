//! `cargo xtask demo -- CMD…`: the README's first command.

use std::{path::PathBuf, process::Command, process::ExitCode};

use crate::{
    clients,
    task::{self, Failure, Tried, cargo},
};

/// What `cargo xtask demo` accepts.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The command to run in the sandbox
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Builds gofer, finds or fetches a runsc, runs the command; its exit status is ours.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    task::run(&mut cargo(&["build", "--release", "--package", "gofer"]))?;
    let mut demo = Command::new(task::target().join("release/gofer"));
    if let Some(runsc) = runsc()? {
        demo.env("GOFER_RUNSC", runsc);
    }
    demo.args(["do", "--stats", "--"]).args(&args.command);
    let status = demo.status().tried(format_args!("cannot start {demo:?}"))?;
    // Ended by a signal: what a shell reports is close enough for a demo.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(u8::MAX)))
}

/// The runsc to name to gofer: none if gofer finds one by itself.
fn runsc() -> Result<Option<PathBuf>, Failure> {
    if std::env::var_os("GOFER_RUNSC").is_some() || in_path("runsc") {
        return Ok(None);
    }
    clients::run()?;
    Ok(Some(clients::newest()))
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
