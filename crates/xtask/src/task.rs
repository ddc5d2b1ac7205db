//! What the tasks share: where the workspace is, how a command is run, how a task fails.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// Why a task ended: one message that names the thing and the way out.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds to a failed step what was tried.
pub(crate) trait Tried<T> {
    fn tried(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Tried<T> for Result<T, E> {
    fn tried(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|cause| Failure(format!("{what}: {cause}")))
    }
}

/// The folder of the workspace, two above this crate.
pub(crate) fn workspace() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors()
        .nth(2)
        .map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Where `cargo build` leaves its results.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The cargo that runs us, started in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(workspace());
    command
}

/// Runs a command with our own streams; anything but success is a failure.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command
        .status()
        .tried(format_args!("cannot start {command:?}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure(format!("{command:?} failed: {status}")))
}
