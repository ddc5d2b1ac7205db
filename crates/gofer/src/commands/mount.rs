//! `gofer mount`: a server's tree as a file system of this machine's kernel.
//!
//! Belongs here: which server, in front or behind, and that no dead mount stays. Elsewhere: the
//! mount itself (the crate `mount`), confined servers (`confined`).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use client::{Client, Mounted};
use mount::Options;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Failure, umount};
use crate::confined::{self, Confined, Limits, Serving};

/// The word that makes a process the one behind a mount; it follows `mount`.
const IN_BACKGROUND: &str = "--in-background";
/// What the process behind a mount says when it is mounted; all else is why it is not.
const MOUNTED: &[u8] = b"+";
/// As many as a server gives.
const CHANNELS: usize = 4;
/// Descriptors that are not those of ids: channels, replies under way, what each process needs.
const SPARE_DESCRIPTORS: u64 = 1024;

/// What `gofer mount` accepts.
#[derive(clap::Args)]
#[command(
    override_usage = "gofer mount [OPTIONS] DIR MOUNTPOINT\n       gofer mount [OPTIONS] --connect SOCK MOUNTPOINT",
    after_help = "Examples:
  gofer mount /srv/data /mnt               # DIR, through a gofer that is confined to it
  gofer mount --connect /run/gofer.sock --readonly /mnt
  gofer umount /mnt"
)]
pub(super) struct Args {
    /// Mount what the server at this socket serves
    #[arg(long, value_name = "SOCK")]
    connect: Option<PathBuf>,
    /// Refuse every change
    #[arg(long)]
    readonly: bool,
    /// Let other users in; what they may do is for the files' modes to say
    #[arg(long)]
    allow_other: bool,
    /// Stay until it is unmounted
    #[arg(long)]
    foreground: bool,
    /// How long the kernel believes attributes before it asks again
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    attr_timeout: Duration,
    /// How long the kernel believes that a name leads to a file
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    entry_timeout: Duration,
    /// Keep no file data in the kernel: every read asks the host
    #[arg(long)]
    no_page_cache: bool,
    /// Let the kernel not use the host's files by itself, even where it could
    #[arg(long)]
    no_passthrough: bool,
    #[arg(long, hide = true)]
    in_background: bool,
    #[arg(value_name = "DIR] [MOUNTPOINT", num_args = 1..=2, required = true)]
    paths: Vec<PathBuf>,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "want a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// What is mounted where.
enum Source<'a> {
    Socket(&'a Path),
    Directory(&'a Path),
}

impl Args {
    fn places(&self) -> Result<(Source<'_>, &Path), Failure> {
        match (&self.connect, &self.paths[..]) {
            (Some(socket), [point]) => Ok((Source::Socket(socket), point)),
            (None, [dir, point]) => Ok((Source::Directory(dir), point)),
            (Some(_), _) => Err(Failure::Argument(
                "with --connect only the mount point is named".to_owned(),
            )),
            (None, _) => Err(Failure::Argument(
                "name DIR and MOUNTPOINT, or --connect SOCK and MOUNTPOINT".to_owned(),
            )),
        }
    }

    fn options(&self, source: String) -> Options {
        Options {
            readonly: self.readonly,
            allow_other: self.allow_other,
            attributes_for: self.attr_timeout,
            names_for: self.entry_timeout,
            page_cache: !self.no_page_cache,
            passthrough: !self.no_passthrough,
            source,
            ..Options::default()
        }
    }
}

/// Mounts; returns when it is mounted, or with `--foreground` when it is unmounted.
pub(super) fn run(args: &Args) -> Result<ExitStatus, Failure> {
    if args.foreground {
        return serve(args, || Ok(()));
    }
    if args.in_background {
        return behind(args);
    }
    args.places()?;
    let mut behind = Command::new("/proc/self/exe");
    let mut words = std::env::args_os().skip(1);
    behind
        .args(words.next())
        .arg(IN_BACKGROUND)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    let failed = |cause| Failure::Started {
        what: "the process behind the mount",
        cause,
    };
    let mut behind = behind.spawn().map_err(failed)?;
    let mut said = String::new();
    if let Some(mut stdout) = behind.stdout.take() {
        let mut first = [0];
        let bytes = stdout.read(&mut first).map_err(failed)?;
        if &first[..bytes] == MOUNTED {
            return Ok(ExitStatus::default());
        }
        said.push_str(&String::from_utf8_lossy(&first[..bytes]));
        stdout.read_to_string(&mut said).map_err(failed)?;
    }
    match said.as_str() {
        "" => Err(Failure::Argument(format!(
            "the process behind the mount ended: {}",
            behind.wait().map_err(failed)?
        ))),
        why => Err(Failure::Argument(why.to_owned())),
    }
}

/// The process behind a mount: tells on standard output how it went, then lets go of everything it
/// was started with.
fn behind(args: &Args) -> Result<ExitStatus, Failure> {
    let failed = |cause| Failure::Started {
        what: "the process behind the mount",
        cause,
    };
    let report = std::io::stdout().as_fd().try_clone_to_owned();
    let mut report = File::from(report.map_err(failed)?);
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(failed)?;
    for replace in [
        rustix::stdio::dup2_stdout(&null),
        rustix::stdio::dup2_stderr(&null),
        rustix::process::setsid().map(|_| ()),
        rustix::process::chdir("/"),
    ] {
        // A session is had already, or not to be had; nothing depends on it.
        _ = replace;
    }
    let mut told = report.try_clone().map_err(failed)?;
    let mut on_mounted = Some(move || told.write_all(MOUNTED));
    let done = serve(args, || {
        let tell = on_mounted.take();
        tell.map_or(Ok(()), |mut tell| tell())
    });
    if let Err(failure) = &done {
        // Nobody listens if it was mounted before.
        _ = write!(report, "{failure}");
    }
    done
}

/// Mounts, tells, and answers the kernel until it is unmounted.
fn serve(
    args: &Args,
    mounted: impl FnOnce() -> std::io::Result<()>,
) -> Result<ExitStatus, Failure> {
    let (source, point) = args.places()?;
    let point = absolute(point)?;
    let mut files_max = Options::default().files_max;
    let (client, root, name, _server) = match source {
        Source::Socket(path) => {
            let socket = UnixStream::connect(path).map_err(|cause| Failure::File {
                what: "cannot connect to",
                path: path.to_owned(),
                cause,
            })?;
            let (client, root) = connect(socket)?;
            (client, root, path.display().to_string(), None)
        }
        Source::Directory(dir) => {
            files_max = files_max.min(room());
            let (socket, server) = start(dir, &point, args.readonly)?;
            let (client, root) = connect(socket)?;
            (client, root, dir.display().to_string(), Some(server))
        }
    };
    let options = Options {
        files_max,
        ..args.options(name)
    };
    let session = mount::mount(client, &root.root, &point, &options)?;
    let cleaner = Cleaner::start(&point)?;
    let failed = |cause| Failure::File {
        what: "serving the mount on",
        path: point.clone(),
        cause,
    };
    // Whoever started us may have stopped listening: the mount is there all the same.
    _ = mounted();
    session.serve().map_err(failed)?;
    drop(cleaner);
    Ok(ExitStatus::default())
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|cause| Failure::File {
        what: "cannot use as a mount point",
        path: path.to_owned(),
        cause,
    })
}

fn connect(socket: UnixStream) -> Result<(Client, Mounted), Failure> {
    let refused = |error: client::Error| Failure::Argument(format!("the server: {error}"));
    let (client, mounted) = Client::connect(socket).map_err(refused)?;
    // Without channels everything goes over the socket: slower, and as good.
    _ = client.open_channels(CHANNELS);
    Ok((client, mounted))
}

/// Raises this process's limit of descriptors, which its server inherits, to what the server's ids
/// may need, as far as that is allowed. How many files may be known at a time then: so few that the
/// server never runs out while the kernel still forgets.
fn room() -> usize {
    let had = getrlimit(Resource::Nofile);
    let ids = u64::try_from(Limits::default().ids_max).unwrap_or(u64::MAX);
    let wanted = ids.saturating_add(SPARE_DESCRIPTORS);
    let raised = Some(had.maximum.map_or(wanted, |hard| hard.max(wanted)));
    for limit in [raised, had.maximum] {
        let limits = Rlimit {
            current: limit,
            maximum: limit,
        };
        // A higher one takes a privilege; the one that was had takes none.
        if setrlimit(Resource::Nofile, limits).is_ok() {
            break;
        }
    }
    let has = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    let files = has.min(wanted).saturating_sub(SPARE_DESCRIPTORS) / 4 * 3;
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// A server confined to the directory.
fn start(dir: &Path, point: &Path, readonly: bool) -> Result<(UnixStream, Confined), Failure> {
    let cannot = |cause| Failure::File {
        what: "cannot serve",
        path: dir.to_owned(),
        cause,
    };
    let path = dir.canonicalize().map_err(cannot)?;
    if point.starts_with(&path) {
        return Err(Failure::Argument(format!(
            "{} lies in {}: the mount would contain itself without end",
            point.display(),
            path.display()
        )));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| cannot(errno.into()))?;
    let (ours, theirs) = UnixStream::pair().map_err(cannot)?;
    let serving = Serving {
        dir: fd.as_fd(),
        path: &path,
        readonly,
        user_namespace: true,
        limits: Limits::default(),
        special_files: true,
        end_with_parent: true,
    };
    let server = confined::start(&serving, &[theirs.as_fd()])?;
    Ok((ours, server))
}

/// A process that unmounts what nobody answers for any more, however we end.
struct Cleaner {
    /// Ends when our end of its standard input is closed.
    process: Child,
}

impl Cleaner {
    fn start(point: &Path) -> Result<Self, Failure> {
        let failed = |cause| Failure::Started {
            what: "the process that cleans up after the mount",
            cause,
        };
        // Not from the mount itself, which nobody answers for yet.
        let device = umount::listed(point)?.map_or(0, |(_, device)| device);
        let process = Command::new("/proc/self/exe")
            .args(["umount", umount::ABANDONED])
            .arg(device.to_string())
            .arg(point)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self { process })
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // Fails only if it was waited for.
        _ = self.process.wait();
    }
}
