//! `cargo xtask bench`: the Go gofers, release builds of ours and of the benchmark, then a run.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use crate::{
    clients, packages, rootfs,
    task::{self, Failure, Tried, cargo, workspace},
};

/// What `cargo xtask bench` accepts.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the benchmark: `--quick`, `--json FILE`, `--html FILE`, `--markdown FILE`,
    /// `--tree DIR`, `--only CASE,…`, `--peer NAME=PATH:DIALECT` (any number; by default the Go
    /// gofers of the clients)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// Runs the benchmark; its exit status is ours.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    clients::run()?;
    packages::need(&["strace"])?;
    rootfs::run()?;
    let packages = ["--package", "gofer", "--package", "bench"];
    task::run(cargo(&["build", "--release"]).args(packages))?;
    let built = task::target().join("release");
    let mut bench = Command::new(built.join("bench"));
    bench.arg("--ours").arg(built.join("gofer"));
    bench.arg("--rootfs").arg(rootfs::folder().join("debian"));
    bench.arg("--disk").arg(workspace().join("target/tmp"));
    let names_peers = |option: &OsString| option.to_string_lossy().starts_with("--peer");
    if !args.options.iter().any(names_peers) {
        for (name, runsc) in clients::all() {
            bench.arg(format!("--peer={name}={}:{name}", runsc.display()));
        }
    }
    bench.args(&args.options);
    let status = bench
        .status()
        .tried(format_args!("cannot start {bench:?}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(u8::MAX)))
}
