//! What people call: `gofer runsc`, `gofer do`, `gofer mount` and others, and the binary under a
//! runtime's name.
//!
//! Belongs here: command lines and which command runs. Elsewhere: what each does.

mod bundle;
mod check;
mod find;
mod mount;
mod pages;
mod report;
mod runsc;
mod sandbox;
mod serve;
mod umount;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use clap::{Parser, Subcommand};
use thiserror::Error;

/// Exit status when the command could not do its own part, as `env` and shells have it.
const STATUS_OURS: u8 = 125;

/// Serves files to sandboxes from a jail: gVisor's, and others.
#[derive(Parser)]
#[command(
    name = "gofer",
    disable_version_flag = true,
    arg_required_else_help = true,
    after_help = "Examples:
  gofer do ls -l /                          # a command that cannot change your files
  gofer serve --listen /run/g.sock /srv     # a standing, confined file server
  gofer mount --connect /run/g.sock /mnt    # and its files as a mount
  gofer check                               # which protections this machine has

A link to it called runsc, or runsc-anything, is `gofer runsc`: a runtime for container engines."
)]
struct Cli {
    /// Print the version and the releases of runsc it works with
    #[arg(long, short = 'V', exclusive = true)]
    version: bool,
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Run an unmodified runsc with this gofer in place of its own
    Runsc(runsc::Args),
    /// Run one command in a sandbox whose files this gofer serves
    Do(sandbox::Args),
    /// Mount a directory, through a confined server, or what a server serves
    Mount(mount::Args),
    /// Unmount what `gofer mount` has mounted
    Umount(umount::Args),
    /// Serve directories to whoever connects to a socket, each connection confined by itself
    Serve(serve::Args),
    /// Try which protections a gofer has on this machine; status 1 if one is missing
    Check(check::Args),
    /// Print the script with which a shell completes this command line
    Completions(pages::CompletionsArgs),
    /// Print the manual, or write its pages into a directory
    Man(pages::ManArgs),
}

/// Why a command of ours fails, for people.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(
        "found no runsc: neither --runsc nor GOFER_RUNSC names one, and there is none in PATH; install gVisor's runsc or name it (`gofer do --engine fuse` does without)"
    )]
    NoRunsc,
    #[error("cannot use {path} as runsc: {why}")]
    BadRunsc { path: PathBuf, why: String },
    #[error("{what} {path}: {cause}")]
    File {
        what: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{0}")]
    Argument(String),
    #[error("cannot start {what}: {cause}")]
    Started {
        what: &'static str,
        cause: std::io::Error,
    },
    #[error(transparent)]
    Hook(#[from] hook::HookError),
    #[error(transparent)]
    Confined(#[from] crate::confined::StartError),
    #[error(transparent)]
    Mount(#[from] ::mount::MountError),
}

/// Runs what `name` (`argv[0]`) and the words after it ask for.
pub(crate) fn run(name: &OsStr, words: Vec<OsString>) -> ExitCode {
    let done = match is_runtime_name(name) {
        true => runsc::run(None, words),
        false => run_task(name, words),
    };
    match done {
        Ok(status) => hook::die_like(status),
        Err(failure) => {
            eprintln!("gofer: {failure}");
            ExitCode::from(STATUS_OURS)
        }
    }
}

/// Docker, Podman and containerd call a runtime by a path of their choice.
fn is_runtime_name(name: &OsStr) -> bool {
    let base = Path::new(name)
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    base == "runsc" || base.starts_with("runsc-")
}

fn run_task(name: &OsStr, words: Vec<OsString>) -> Result<ExitStatus, Failure> {
    let cli = Cli::parse_from(std::iter::once(name.to_owned()).chain(words));
    match cli.command {
        Some(Task::Runsc(args)) => runsc::run(args.runsc, args.args),
        Some(Task::Do(args)) => sandbox::run(&args),
        Some(Task::Mount(args)) => mount::run(&args),
        Some(Task::Umount(args)) => umount::run(&args),
        Some(Task::Serve(args)) => serve::run(&args),
        Some(Task::Check(args)) => check::run(args),
        Some(Task::Completions(args)) => pages::completions(&args),
        Some(Task::Man(args)) => pages::man(&args),
        None => {
            println!("{}", crate::process::version());
            Ok(ExitStatus::default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_that_it_accepts() {
        let mut cli = Cli::command();
        cli.build();
        for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
            let name = command.get_name();
            if name == "help" {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let (_, examples) = help.split_once("Examples:\n").expect(name);
            let lines = examples.lines().take_while(|line| !line.is_empty());
            let lines: Vec<&str> = lines.map(str::trim).collect();
            assert!(!lines.is_empty(), "{name}");
            for line in lines {
                // What a shell would take away: comments, pipes, other programs in front.
                let line = line.split(" #").next().unwrap_or_default();
                let line = line.split(['|', '>']).next().unwrap_or_default();
                let at = line.find("gofer ").expect(line);
                let words = line[at..].split_whitespace();
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_link_with_a_runtimes_name_is_the_runtime() {
        for (name, is) in [
            ("runsc", true),
            ("/usr/local/bin/runsc-ours", true),
            ("./runsc-gofer", true),
            ("gofer", false),
            ("/opt/runsc/gofer", false),
            ("runscx", false),
        ] {
            assert_eq!(is_runtime_name(OsStr::new(name)), is, "{name}");
        }
    }
}
