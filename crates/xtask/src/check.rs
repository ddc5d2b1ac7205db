//! `cargo xtask check`: everything that can be judged without running the product.

use crate::task::{self, Failure, cargo};

/// Formatting, lints, documentation; the first that fails ends it.
pub(crate) fn run() -> Result<(), Failure> {
    task::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    task::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    task::run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
