//! `cargo xtask test`: the clients, the release binary, then every test.

use crate::{
    clients,
    task::{self, Failure, cargo},
};

/// What `cargo xtask test` accepts.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo test`, for instance `-p wire`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

/// The end-to-end tests use the real clients and the release binary, so both come first.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    clients::run()?;
    task::run(&mut cargo(&["build", "--release", "--package", "gofer"]))?;
    let mut test = cargo(&["test"]);
    if args.filter.is_empty() {
        test.arg("--workspace");
    }
    task::run(test.args(&args.filter))
}
