//! `cargo xtask check`: everything that can be judged without running the product.

use std::process::{Command, Stdio};

use crate::{
    task::{self, Failure, cargo},
    tidy,
};

/// The project's rules, formatting, lints, documentation, licences; the first that fails ends it.
pub(crate) fn run() -> Result<(), Failure> {
    tidy::run()?;
    task::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    task::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    task::run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    deny()
}

/// Licences and sources of dependencies, where the tool for it is installed: building it takes
/// longer than everything above.
fn deny() -> Result<(), Failure> {
    let there = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        println!("skipped: cargo-deny is not installed");
        return Ok(());
    }
    task::run(&mut cargo(&[
        "deny", "check", "licenses", "bans", "sources",
    ]))
}
