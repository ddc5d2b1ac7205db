//! What CI runs and what anyone can run: `cargo xtask clients | rootfs | check | test | demo | fuzz | bench |
//! mount-bench | soak | sbom | reproduce`.
//!
//! Belongs here: the list of subcommands. Each has a module with a `run` of its own.
//! Belongs elsewhere: anything the shipped binary needs.

#![forbid(unsafe_code)]

mod bench;
mod check;
mod clients;
mod demo;
mod fuzz;
mod mount_bench;
mod packages;
mod progress;
mod reproduce;
mod rootfs;
mod sbom;
mod soak;
mod task;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own chores")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch the unmodified runsc releases to test with into target/clients
    Clients,
    /// Make the roots to test with below target/rootfs: a Debian and a busybox
    Rootfs,
    /// Formatting, lints, documentation, licences, and the project's own rules
    Check,
    /// Fetch the clients, then run every test
    Test(test::Args),
    /// Build gofer and run a command in a sandbox it serves
    Demo(demo::Args),
    /// Fuzz everything that reads what others wrote, with libFuzzer
    Fuzz(fuzz::Args),
    /// Compare gofer with the Go gofers of the clients: latency, start-up, memory
    #[command(disable_help_flag = true)]
    Bench(bench::Args),
    /// Compare a `gofer mount` with the bare file system and with bindfs
    MountBench(mount_bench::Args),
    /// Serve mixed load for a while and see that nothing grows
    Soak(soak::Args),
    /// Write what the binary is made of into target/gofer.cdx.json (CycloneDX)
    Sbom,
    /// Build the commit twice in two folders and compare the binaries
    Reproduce,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Clients => clients::run().map(|()| ExitCode::SUCCESS),
        Task::Rootfs => rootfs::run().map(|()| ExitCode::SUCCESS),
        Task::Check => check::run().map(|()| ExitCode::SUCCESS),
        Task::Test(args) => test::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Demo(args) => demo::run(&args),
        Task::Fuzz(args) => fuzz::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Bench(args) => bench::run(&args),
        Task::MountBench(args) => mount_bench::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Soak(args) => soak::run(&args),
        Task::Sbom => sbom::run().map(|()| ExitCode::SUCCESS),
        Task::Reproduce => reproduce::run().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|failure| {
        eprintln!("xtask: {failure}");
        ExitCode::FAILURE
    })
}
