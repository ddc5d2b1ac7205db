//! `gofer completions` and `gofer man`: what shells and `man` know of the command line, made from
//! the same definitions as the command line itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Failure};

/// What `gofer completions` accepts.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gofer completions bash > /etc/bash_completion.d/gofer
  gofer completions zsh > /usr/local/share/zsh/site-functions/_gofer
  gofer completions fish > ~/.config/fish/completions/gofer.fish")]
pub(super) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// What `gofer man` accepts.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gofer man | man -l -                     # read the first page
  gofer man /usr/local/share/man/man1      # install all: man gofer-do")]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory [default: the first page to stdout]
    dir: Option<PathBuf>,
}

/// Prints the script.
pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitStatus, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gofer", &mut script);
    print(&script)
}

/// Prints the first page, or writes all.
pub(super) fn man(args: &ManArgs) -> Result<ExitStatus, Failure> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command().disable_help_subcommand(true))
            .render(&mut page)
            .map_err(|cause| cannot("cannot make", Path::new("gofer.1"), cause))?;
        return print(&page);
    };
    std::fs::create_dir_all(dir).map_err(|cause| cannot("cannot make", dir, cause))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|cause| cannot("cannot write man pages to", dir, cause))?;
    Ok(ExitStatus::default())
}

/// A reader that has enough and leaves is no failure.
fn print(text: &[u8]) -> Result<ExitStatus, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(cannot("cannot write to", Path::new("stdout"), cause))
        }
        _ => Ok(ExitStatus::default()),
    }
}

fn cannot(what: &'static str, path: &Path, cause: std::io::Error) -> Failure {
    Failure::File {
        what,
        path: path.to_owned(),
        cause,
    }
}
