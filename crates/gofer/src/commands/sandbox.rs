//! `gofer do`: one command in a sandbox whose files this gofer serves.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use hook::Hook;

use super::bundle::{Bind, Bundle, Contents};
use super::report::{Report, Sampler};
use super::{Failure, find};
use crate::stats;

/// PATH in a sandbox whose root is not the host's, so that the host's says nothing.
const PATH_INSIDE: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Every file operation becomes a request to the gofer.
const NO_DIRECTFS: &str = "--directfs=false";

/// What `gofer do` accepts.
#[derive(clap::Args)]
pub(super) struct Args {
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
    /// Let the sandbox open files by itself through a directory it is given, as runsc does by
    /// default since 2023: faster, but this gofer then serves little, and runsc's own errors on
    /// symbolic links show
    #[arg(long)]
    directfs: bool,
    /// Tell on stderr what was served, how fast, and in how much memory
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
pub(super) fn run(args: Args) -> Result<ExitStatus, Failure> {
    let runsc = find::runsc(args.runsc.clone())?;
    let bundle = Bundle::new(&contents(&args)?)?;
    let report = match args.stats {
        true => Some(Report::new(bundle.write("stats", &[])?)?),
        false => None,
    };
    let state = bundle.path().join("state");
    let environment = report
        .iter()
        .map(|r| (stats::VARIABLE.into(), r.path().into()))
        .collect();
    let mut sampler = report.as_ref().map(|_| Sampler::default());
    let ended = hook::run(Hook {
        program: runsc.clone(),
        args: runsc_args(&args, &runsc, &state, &bundle),
        environment,
        replacement: "/proc/self/exe".into(),
        on_gofer: &mut |pid| {
            if let Some(sampler) = &mut sampler {
                sampler.watch(pid);
            }
        },
    });
    remove_container(&runsc, &state, &bundle);
    if let (Some(report), Some(sampler)) = (&report, sampler) {
        report.print(sampler.stop());
    }
    Ok(ended?)
}

fn runsc_args(args: &Args, runsc: &Path, state: &Path, bundle: &Bundle) -> Vec<OsString> {
    let mut root = OsString::from("--root=");
    root.push(state);
    let overlay = if args.writable { "none" } else { "root:memory" };
    let mut words: Vec<OsString> = vec![
        root,
        "--network=none".into(),
        "--ignore-cgroups".into(),
        format!("--overlay2={overlay}").into(),
    ];
    if !args.directfs && knows(runsc, NO_DIRECTFS) {
        words.push(NO_DIRECTFS.into());
    }
    if !rustix::process::geteuid().is_root() {
        words.push("--rootless".into());
    }
    words.extend([
        "run".into(),
        "--bundle".into(),
        bundle.path().into(),
        bundle.id().into(),
    ]);
    words
}

/// Whether this runsc has the flag: the oldest releases refuse what they do not know.
fn knows(runsc: &Path, flag: &str) -> bool {
    let mut ask = Command::new(runsc);
    ask.args([flag, "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    ask.status().is_ok_and(|status| status.success())
}

/// A runsc that was killed leaves its container behind; one that ended has removed it.
fn remove_container(runsc: &Path, state: &Path, bundle: &Bundle) {
    let left = std::fs::read_dir(state).is_ok_and(|mut entries| entries.next().is_some());
    if !left {
        return;
    }
    let mut root = OsString::from("--root=");
    root.push(state);
    let mut delete = Command::new(runsc);
    delete
        .arg(root)
        .args(["delete", "--force"])
        .arg(bundle.id());
    // Whatever it says, removing the bundle comes next and speaks for itself.
    _ = delete
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
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
