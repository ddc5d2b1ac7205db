//! `gofer do`: one command in a sandbox whose files this gofer serves.
//!
//! Belongs here: what is asked for, and which engine runs it. Elsewhere: the engines (`runsc`,
//! `fuse`).

mod fuse;
mod inside;
mod runsc;
mod words;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use clap::ValueEnum;

use super::bundle::{Bind, Contents};
use super::{Failure, find};

/// PATH in a sandbox whose root is not the host's, so that the host's says nothing.
const PATH_INSIDE: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What isolates the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// runsc where there is one, else fuse; stderr says which
    Auto,
    /// gVisor: the command never calls the host's kernel
    Runsc,
    /// Namespaces and a kernel mount; needs nothing but Linux, whose kernel the command shares
    Fuse,
}

/// What the command can reach beyond the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Network {
    /// Nothing but itself
    None,
    /// All that the host can, and the host
    Host,
}

/// What `gofer do` accepts.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gofer do ls -l /                                  # sees your files, can change none
  gofer do --bind .:/src --workdir /src make test   # writes reach . and nothing else
  gofer do --rootfs ./image --bind /data:/data:ro sh
  gofer do --engine runsc --stats -- git status     # under gVisor, with what was served

Options end at the command's name. Its exit status is passed on; 125 is a failure of gofer's own.
docs/do.md says what each engine keeps away from the host.")]
pub(super) struct Args {
    /// What isolates the command
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    engine: Engine,
    /// The sandbox's root; it stays unchanged unless --writable
    #[arg(long, value_name = "DIR", default_value = "/")]
    rootfs: PathBuf,
    /// Also show SRC at DST (made if missing); writes reach the host unless :ro
    #[arg(long, value_name = "SRC:DST[:ro]", value_parser = parse_bind)]
    bind: Vec<Bind>,
    /// Where the command starts
    #[arg(long, value_name = "DIR", default_value = "/")]
    workdir: String,
    /// Set a variable for the command
    #[arg(long, value_name = "K=V", value_parser = parse_variable)]
    env: Vec<String>,
    /// Let writes to the root reach DIR; otherwise they stay in the sandbox's memory
    #[arg(long)]
    writable: bool,
    /// What the command can reach over the network
    #[arg(long, value_enum, default_value_t = Network::None)]
    network: Network,
    /// Let the sandbox open files by itself through a directory it is given, as runsc does by
    /// default since 2023: faster, but this gofer then serves little, and runsc's own errors on
    /// symbolic links show. For the engine runsc
    #[arg(long)]
    directfs: bool,
    /// Tell on stderr what was served, how fast, and in how much memory. For the engine runsc
    #[arg(long)]
    stats: bool,
    /// The runsc to run [default: $GOFER_RUNSC, then the first in PATH]
    #[arg(long, value_name = "PATH")]
    runsc: Option<PathBuf>,
    /// The command, and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "CMD"
    )]
    command: Vec<String>,
}

fn parse_bind(text: &str) -> Result<Bind, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, readonly) = match parts[..] {
        [source, destination] | [source, destination, "rw"] => (source, destination, false),
        [source, destination, "ro"] => (source, destination, true),
        _ => return Err("want SRC:DST or SRC:DST:ro".to_owned()),
    };
    if !Path::new(destination).is_absolute() {
        return Err(format!("DST must be absolute, {destination:?} is not"));
    }
    Ok(Bind {
        source: source.to_owned(),
        destination: destination.to_owned(),
        readonly,
    })
}

fn parse_variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("want K=V".to_owned()),
    }
}

/// Runs the command; its status is the result.
pub(super) fn run(args: &Args) -> Result<ExitStatus, Failure> {
    let contents = contents(args)?;
    match engine(args)? {
        Chosen::Runsc(runsc) => {
            if args.engine == Engine::Auto {
                eprintln!("gofer: {}", runsc::promise(&runsc, args.directfs));
            }
            runsc::run(args, &contents, &runsc)
        }
        Chosen::Fuse => {
            if args.engine == Engine::Auto {
                eprintln!("gofer: {}", fuse::promise());
            }
            fuse::run(args, &contents)
        }
    }
}

enum Chosen {
    Runsc(PathBuf),
    Fuse,
}

/// With `auto` nobody is refused: a runsc that was named must be there, one that was not need not.
fn engine(args: &Args) -> Result<Chosen, Failure> {
    let for_runsc = [
        (args.directfs, "--directfs"),
        (args.stats, "--stats"),
        (args.runsc.is_some(), "--runsc"),
    ];
    let named = for_runsc.iter().find(|(is, _)| *is).map(|(_, name)| name);
    match (args.engine, named) {
        (Engine::Fuse, Some(name)) => Err(Failure::Argument(format!(
            "{name} is for the engine runsc, not for fuse"
        ))),
        (Engine::Fuse, None) => Ok(Chosen::Fuse),
        (Engine::Runsc, _) | (Engine::Auto, Some(_)) => {
            find::runsc(args.runsc.clone()).map(Chosen::Runsc)
        }
        (Engine::Auto, None) => match find::runsc(None) {
            Err(Failure::NoRunsc) => Ok(Chosen::Fuse),
            found => found.map(Chosen::Runsc),
        },
    }
}

fn contents(args: &Args) -> Result<Contents, Failure> {
    let binds = args.bind.iter().map(|bind| {
        Ok(Bind {
            source: absolute(Path::new(&bind.source), "the source of --bind")?,
            ..bind.clone()
        })
    });
    let rootfs = absolute(&args.rootfs, "--rootfs")?;
    if !Path::new(&rootfs).is_dir() {
        return Err(Failure::Argument(format!(
            "--rootfs {rootfs} is not a directory"
        )));
    }
    if !Path::new(&args.workdir).is_absolute() {
        return Err(Failure::Argument(format!(
            "--workdir {} is not absolute",
            args.workdir
        )));
    }
    Ok(Contents {
        env: environment(&rootfs, &args.env),
        rootfs,
        args: args.command.clone(),
        workdir: args.workdir.clone(),
        terminal: std::io::stdin().is_terminal(),
        network: args.network == Network::None,
        binds: binds.collect::<Result<_, Failure>>()?,
    })
}

/// The path with every symbolic link resolved: the sandbox's parent works elsewhere.
fn absolute(path: &Path, what: &str) -> Result<String, Failure> {
    let found = path
        .canonicalize()
        .map_err(|error| Failure::Argument(format!("{what} {}: {error}", path.display())))?;
    found.into_os_string().into_string().map_err(|path| {
        Failure::Argument(format!(
            "{what} {}: config.json can only hold UTF-8",
            path.display()
        ))
    })
}

/// The host's PATH where the root is the host's, TERM, and what was asked for.
fn environment(rootfs: &str, asked: &[String]) -> Vec<String> {
    let host_path = std::env::var("PATH").ok().filter(|_| rootfs == "/");
    let path = host_path.map_or(PATH_INSIDE.to_owned(), |path| format!("PATH={path}"));
    let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
    let mut variables = vec![path, format!("TERM={term}"), "HOME=/root".to_owned()];
    for variable in asked {
        let name = variable.split_inclusive('=').next().unwrap_or_default();
        variables.retain(|other| !other.starts_with(name));
        variables.push(variable.clone());
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_read_only_when_told() {
        let bind = |readonly| Bind {
            source: "/a".into(),
            destination: "/b".into(),
            readonly,
        };
        assert_eq!(parse_bind("/a:/b"), Ok(bind(false)));
        assert_eq!(parse_bind("/a:/b:ro"), Ok(bind(true)));
        for text in ["/a", "/a:b", "/a:/b:xx", "/a:/b:ro:ro"] {
            assert!(parse_bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn asked_for_variables_replace_the_defaults() {
        let variables = environment("/image", &["TERM=dumb".into(), "A=1".into(), "A=2".into()]);
        assert_eq!(variables, [PATH_INSIDE, "HOME=/root", "TERM=dumb", "A=2"]);
    }
}
