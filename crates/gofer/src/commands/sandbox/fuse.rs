//! The engine `fuse`: the command in namespaces of its own, on kernel mounts of what jailed gofers
//! serve.
//!
//! Belongs here: this side of it, the host's. Elsewhere: the other side (`inside`), mounts (the
//! crate `mount`), gofers (`confined`).
//! Must hold: one thread until the sandbox's first process is forked; when we end, however we end,
//! nothing stays.

use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread::JoinHandle;

use client::Client;
use hook::Relay;
use jail::apart::{HostIds, World, fork_apart};
use mount::{Options, Owners};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::Args;
use super::inside::{self, Plan, Tree};
use super::words::{Word, hear};
use crate::commands::Failure;
use crate::commands::bundle::Contents;
use crate::confined::{self, Confined, Limits, Serving, Starting};

/// As many as a server gives.
const CHANNELS: usize = 4;

/// What this engine does and does not isolate, in one line.
pub(super) fn promise() -> String {
    let who = match HostIds::best() {
        HostIds::Own { .. } => "under ids that nobody on the host has",
        HostIds::Caller => "with your own rights on the host",
    };
    format!(
        "engine fuse: files come from a jailed gofer, processes are apart and run {who}; not \
         isolated is the host's kernel, which they call (install runsc for the engine that does)"
    )
}

/// A gofer for one tree.
struct Server {
    process: Confined,
    socket: UnixStream,
    /// The file in the served directory that is meant, if not the directory itself.
    file: Option<OsString>,
}

/// One that is confining itself.
struct Beginning {
    process: Starting,
    socket: UnixStream,
    file: Option<OsString>,
}

/// Runs the command; its status is the result.
pub(super) fn run(args: &Args, contents: &Contents) -> Result<ExitStatus, Failure> {
    let ids = HostIds::best();
    let plan = plan(args, contents, ids)?;
    let mut servers = serve(args, contents)?;
    let world = fork_apart(
        ids,
        contents.network,
        || inside::open_devices(&plan),
        |devices, control| inside::run(&plan, devices, control),
    )
    .map_err(|error| Failure::Argument(format!("engine fuse: {error}")))?;
    give_pipes_to(ids);
    let trees = std::iter::once(&plan.root).chain(&plan.binds);
    let ended = hook::while_forwarding(|relay| follow(&world, trees.zip(&servers), relay));
    for server in &mut servers {
        server.process.kill();
        // A process that was killed is gone soon; it fails only if it is gone.
        _ = server.process.wait();
    }
    ended?
}

fn plan<'p>(args: &Args, contents: &'p Contents, ids: HostIds) -> Result<Plan<'p>, Failure> {
    let options = |readonly| Options {
        readonly,
        allow_other: true,
        owners: match ids {
            HostIds::Own { .. } => Owners::AsServed,
            HostIds::Caller => Owners::AllRoot,
        },
        ..Options::default()
    };
    let bind = |bind: &crate::commands::bundle::Bind| {
        Ok(Tree {
            destination: PathBuf::from(&bind.destination),
            directory: kind(&bind.source)?.is_dir(),
            options: options(bind.readonly),
        })
    };
    Ok(Plan {
        root: Tree {
            destination: PathBuf::from("/"),
            directory: true,
            options: options(!args.writable),
        },
        writable: args.writable,
        binds: contents
            .binds
            .iter()
            .map(bind)
            .collect::<Result<_, Failure>>()?,
        args: &contents.args,
        env: &contents.env,
        workdir: &contents.workdir,
        network: contents.network,
    })
}

/// A directory or a file: nothing else can be bound.
fn kind(source: &str) -> Result<FileType, Failure> {
    let kind = std::fs::metadata(source).map(|file| file.file_type());
    match kind {
        Ok(kind) if kind.is_dir() || kind.is_file() => Ok(kind),
        Ok(_) => Err(Failure::Argument(format!(
            "--bind {source}: neither a directory nor a file, and the engine fuse can bind nothing \
             else"
        ))),
        Err(cause) => Err(Failure::File {
            what: "cannot bind",
            path: source.into(),
            cause,
        }),
    }
}

/// Starts a gofer for the root and for each bind, and waits until all are sealed.
fn serve(args: &Args, contents: &Contents) -> Result<Vec<Server>, Failure> {
    let root = (Path::new(&contents.rootfs), !args.writable);
    let binds = contents.binds.iter();
    let binds = binds.map(|bind| (Path::new(&bind.source), bind.readonly));
    let begun: Result<Vec<Beginning>, Failure> = std::iter::once(root)
        .chain(binds)
        .map(|(source, readonly)| begin(source, readonly))
        .collect();
    let finish = |beginning: Beginning| {
        Ok(Server {
            process: beginning.process.finish()?,
            socket: beginning.socket,
            file: beginning.file,
        })
    };
    begun?.into_iter().map(finish).collect()
}

/// A gofer serves directories; a file is served from the one it is in.
fn begin(source: &Path, readonly: bool) -> Result<Beginning, Failure> {
    let cannot = |cause| Failure::File {
        what: "cannot serve",
        path: source.to_owned(),
        cause,
    };
    let (dir, file) = match source.parent().zip(source.file_name()) {
        Some((parent, name)) if !source.is_dir() => (parent, Some(name.to_owned())),
        _ => (source, None),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(|errno| cannot(errno.into()))?;
    let (socket, theirs) = UnixStream::pair().map_err(cannot)?;
    let serving = Serving {
        dir: fd.as_fd(),
        path: dir,
        readonly,
        user_namespace: true,
        limits: Limits::default(),
        special_files: true,
        end_with_parent: true,
    };
    let process = confined::begin(&serving, &[theirs.as_fd()])?;
    Ok(Beginning {
        process,
        socket,
        file,
    })
}

/// Pipes that we came with become those of the root user inside, so that it can open them by their
/// names in `/dev`; nobody else has a name for them.
fn give_pipes_to(ids: HostIds) {
    const PIPEFS: u64 = 0x5049_5045;
    let HostIds::Own { first } = ids else {
        return;
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let is_pipe = rustix::fs::fstatfs(fd).is_ok_and(|fs| fs.f_type.cast_unsigned() == PIPEFS);
        if is_pipe {
            let owner = rustix::process::Uid::from_raw(first);
            // Without it everything works that does not open them anew.
            _ = rustix::fs::fchown(fd, Some(owner), None);
        }
    }
}

/// Answers for the mounts until the sandbox is gone; how the command ended.
fn follow<'s>(
    world: &World,
    trees: impl Iterator<Item = (&'s Tree, &'s Server)>,
    relay: &Relay,
) -> Result<ExitStatus, Failure> {
    relay.relay_to(world.pid.as_raw_pid());
    let mut trees = trees;
    let mut mounts = Vec::new();
    let mut ended = None;
    while let Some(word) = hear(&world.control) {
        match word {
            Word::Mounted(device) => match trees.next() {
                Some((tree, server)) => match answer(device, tree, server) {
                    Ok(mount) => mounts.push(mount),
                    Err(failure) => {
                        ended = Some(Err(failure));
                        break;
                    }
                },
                None => break,
            },
            Word::Running => {}
            Word::Stopped(is) => relay.set_stopped(is),
            Word::Ended(status) => ended = Some(Ok(ExitStatus::from_raw(status))),
            Word::Failed(why) => {
                ended = Some(Err(Failure::Argument(format!("engine fuse: {why}"))))
            }
        }
    }
    relay.relay_to(0);
    if matches!(ended, Some(Err(_))) {
        // It may wait for a mount that nobody will answer for.
        _ = rustix::process::kill_process(world.pid, rustix::process::Signal::KILL);
    }
    let first = gone(world.pid)?;
    for mount in mounts {
        // The kernel writes back what it has left and says that it is over; failures are files'.
        _ = mount.join();
    }
    ended.unwrap_or_else(|| before_the_command(first))
}

/// A thread that answers the kernel until the mount is gone, which it is with its namespace.
fn answer(device: OwnedFd, tree: &Tree, server: &Server) -> Result<JoinHandle<()>, Failure> {
    let refused = |error: client::Error| Failure::Argument(format!("engine fuse: gofer: {error}"));
    let socket = server
        .socket
        .try_clone()
        .map_err(|cause| Failure::Started {
            what: "a connection to a gofer",
            cause,
        })?;
    let (client, mounted) = Client::connect(socket).map_err(refused)?;
    // Without channels everything goes over the socket: slower, and as good.
    _ = client.open_channels(CHANNELS);
    let root = match &server.file {
        Some(name) => client
            .walk_one(mounted.root.control, OsStr::as_bytes(name))
            .map_err(refused)?,
        None => mounted.root,
    };
    let mount = mount::adopt(device, client, &root, &tree.options)?;
    std::thread::Builder::new()
        .name("mount".to_owned())
        .spawn(move || _ = mount.serve())
        .map_err(|cause| Failure::Started {
            what: "a thread for a mount",
            cause,
        })
}

fn gone(pid: Pid) -> Result<ExitStatus, Failure> {
    let ended = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
    let status = ended.map_err(|errno| Failure::Started {
        what: "waiting for the sandbox",
        cause: errno.into(),
    })?;
    Ok(ExitStatus::from_raw(
        status.map_or(0, |(_, status)| status.as_raw()),
    ))
}

/// It ended without a word: by a signal that came before there was a command, or by force.
fn before_the_command(first: ExitStatus) -> Result<ExitStatus, Failure> {
    match first.code() {
        Some(code) if code > 1 => Ok(first),
        _ => Err(Failure::Argument(format!(
            "engine fuse: the sandbox's first process ended unasked ({first})"
        ))),
    }
}
