//! The process itself: flags, logs, the jail's stages, then serving until every client has left.
//!
//! Belongs here: the order, and the exit statuses. Belongs elsewhere: each step.
//! Must hold: one thread until the process is sealed; nothing a client sends is read before.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use channel::{Counters, Wait};
use host::DescriptorDir;
use jail::{Descriptors, DeviceKinds, Ids, Inherited, Overlay, Plan, Sealed, Spec, Starting};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::{Resource, getrlimit};
use rustix::time::Timespec;
use server::{ConnectAs, Mount, MountPoints, Policy, Server};

use crate::flags::{CPU_PROFILE, Dialect, Globals, GoferFlags, HostUds, SyntaxError, UsageError};
use crate::hooks;
use crate::log::{Level, Log, LogDescriptors};
use crate::profile;
use crate::stats;
use crate::threads;

/// A global flag that cannot be understood.
const STATUS_GLOBAL_USAGE: u8 = 2;
/// Anything else that keeps the process from serving.
const STATUS_FATAL: u8 = 128;
/// How long the sandbox may take to say who it is, and then to end (v2026-08).
const SANDBOX_EXIT_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// Why the process ends before it has served.
#[derive(Debug)]
pub(crate) struct Fatal {
    status: u8,
    message: String,
}

impl From<jail::Error> for Fatal {
    fn from(error: jail::Error) -> Fatal {
        Fatal {
            status: error.exit_status(),
            message: error.to_string(),
        }
    }
}

pub(crate) fn fatal(message: impl Display) -> Fatal {
    Fatal {
        status: STATUS_FATAL,
        message: message.to_string(),
    }
}

/// Runs the process on the words after `argv[0]`; returns its exit status.
pub(crate) fn run(words: &[OsString]) -> u8 {
    let (globals, rest) = match Globals::parse(words) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("gofer: {error}\n{}", usage());
            return STATUS_GLOBAL_USAGE;
        }
    };
    if globals.version {
        println!("{}", version());
        return 0;
    }
    if globals.help {
        println!("{}", usage());
        return 0;
    }
    let Some(gofer_words) = behind_subcommand(rest) else {
        let found = rest
            .first()
            .map_or("nothing".into(), |word| word.to_string_lossy().into_owned());
        eprintln!("gofer: {}\n{}", UsageError::Subcommand(found), usage());
        return STATUS_GLOBAL_USAGE;
    };
    let flags = Globals::check_rules(words).and_then(|()| GoferFlags::parse(gofer_words));
    start(words, &globals, flags)
}

fn behind_subcommand(words: &[OsString]) -> Option<&[OsString]> {
    words
        .split_first()
        .filter(|(word, _)| *word == "gofer")
        .map(|(_, rest)| rest)
}

/// From understood words to the exit status.
fn start(words: &[OsString], globals: &Globals, flags: Result<GoferFlags, UsageError>) -> u8 {
    let (mut inherited, closed) = match claim(globals, flags.as_ref().ok()) {
        Ok(claimed) => claimed,
        Err(error) => {
            eprintln!("gofer: {error}");
            return error.exit_status();
        }
    };
    let log = match Log::open(globals, log_descriptors(globals, &mut inherited)) {
        Ok(log) => Arc::new(log),
        Err((log, message)) => {
            log.fatal(message);
            return STATUS_FATAL;
        }
    };
    Log::watch_panics(&log);
    header(&log, words, globals, flags.as_ref().ok());
    let ended = match (closed, flags) {
        (Some(message), _) => Err(fatal(message)),
        (None, Err(UsageError::Syntax(SyntaxError::Help))) => Err(fatal(
            "the flags of the subcommand gofer are those that runsc passes",
        )),
        (None, Err(error)) => Err(fatal(error)),
        (None, Ok(flags)) => serve(&log, globals, &flags, &mut inherited),
    };
    match ended {
        Ok(()) => 0,
        Err(Fatal { status, message }) => {
            log.fatal(message);
            status
        }
    }
}

/// Takes every descriptor the flags name, and closes all others. If one of them is not open, only
/// the logs are taken, so that they can say so.
fn claim(
    globals: &Globals,
    flags: Option<&GoferFlags>,
) -> Result<(Inherited, Option<String>), jail::Error> {
    let mut logs: Vec<i32> = [globals.log_fd, globals.debug_log_fd, globals.panic_log_fd]
        .into_iter()
        .flatten()
        .collect();
    logs.sort_unstable();
    logs.dedup();
    if let Some(closed) = logs.iter().find(|fd| !is_open(**fd)) {
        let open: Vec<i32> = logs.iter().copied().filter(|fd| is_open(*fd)).collect();
        return Ok((
            Inherited::claim(&open)?,
            Some(format!("log descriptor {closed} is not open")),
        ));
    }
    let donated = || flags.into_iter().flat_map(GoferFlags::descriptors);
    if let Some(closed) = donated().find(|fd| !is_open(*fd)) {
        let message = format!("descriptor {closed}, which a flag names, is not open");
        return Ok((Inherited::claim(&logs)?, Some(message)));
    }
    if let Some(log) = donated().find(|fd| logs.contains(fd)) {
        let message = format!("descriptor {log} is named as a log and for another use");
        return Ok((Inherited::claim(&logs)?, Some(message)));
    }
    let all: Vec<i32> = logs.iter().copied().chain(donated()).collect();
    Ok((Inherited::claim(&all)?, None))
}

fn is_open(fd: i32) -> bool {
    fd > 2
        && Path::new("/proc/self/fd")
            .join(fd.to_string())
            .symlink_metadata()
            .is_ok()
}

fn log_descriptors(globals: &Globals, inherited: &mut Inherited) -> LogDescriptors {
    let mut take = |flag, number: Option<i32>| inherited.take(flag, number?).ok();
    LogDescriptors {
        error: take("log-fd", globals.log_fd),
        debug: take("debug-log-fd", globals.debug_log_fd),
        panic: take("panic-log-fd", globals.panic_log_fd),
    }
}

/// Our version and the dialects we speak, for people and for bug reports.
pub(crate) fn version() -> String {
    format!(
        "gofer {}\nspeaks to runsc of {}",
        env!("CARGO_PKG_VERSION"),
        Dialect::NAMES.join(", ")
    )
}

fn usage() -> &'static str {
    "Usage: runsc-gofer <global flags> gofer <gofer flags>\n\n\
     Subcommands:\n\tgofer\tserve a container's files; started by runsc, not by people"
}

fn header(log: &Log, words: &[OsString], globals: &Globals, flags: Option<&GoferFlags>) {
    log.info("**************** gofer (in place of gVisor's) ****************");
    log.info(format_args!(
        "Version {}, {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    ));
    log.info(format_args!("Args: {words:?}"));
    if let Some(flags) = flags {
        log.info(format_args!("Dialect: {}", flags.dialect.name()));
    }
    log.info("**************************************************************");
    for word in &globals.skipped {
        log.debug(format_args!("Skipped unknown global flag {word:?}"));
    }
    if !log.shows(Level::Debug) {
        return;
    }
    log.debug(format_args!("Configuration: {globals:?}"));
    log.debug(format_args!("Gofer flags: {flags:?}"));
}

/// What is held from the parent until the process ends.
struct Held {
    _pin_ring: Option<OwnedFd>,
    sandbox_exit: Option<OwnedFd>,
}

fn serve(
    log: &Arc<Log>,
    globals: &Globals,
    flags: &GoferFlags,
    inherited: &mut Inherited,
) -> Result<(), Fatal> {
    jail::signals::exit_on_signals()
        .and_then(|()| Log::watch_violations(log))
        .map_err(|e| fatal(format_args!("installing signal handlers: {e}")))?;
    let counters = counters_from_environment(log)?;
    let spin_microseconds = spin_from_environment();
    jail::environment::wipe();
    stats::mark(counters.as_deref(), stats::Slot::Started);
    let spec = Spec::read(inherited.take("spec-fd", flags.spec_fd)?, &flags.bundle)?;
    log.debug(format_args!("Spec: {}", spec.shown()));
    let hooks = hooks::CreateContainer::new(flags, &spec);
    let profile = profiles(log, flags, inherited)?;
    let held = Held {
        _pin_ring: taken(inherited, "pin-ring-fd", flags.pin_ring_fd)?,
        sandbox_exit: taken(inherited, "sync-sentry-exit-fd", flags.sync_sentry_exit_fd)?,
    };
    // The reference's unmount helper waits at the other end; ours has nothing to tell it.
    drop(taken(
        inherited,
        "proc-mount-sync-fd",
        flags.proc_mount_sync_fd,
    )?);
    let plan = Plan::new(
        options(globals, flags, spec),
        descriptors(flags, inherited)?,
    )?;
    let (mut sealed, descriptors_max, profile) =
        confine(log, plan, &hooks, counters.as_deref(), profile)?;
    warn(log, sealed.warnings());
    log.info(format_args!("{}", sealed.report));
    let recording = profile
        .map(|sampling| sampling.record(log))
        .transpose()
        .map_err(|error| fatal(format_args!("starting the thread of the profile: {error}")))?;
    run_server(
        log,
        globals,
        flags,
        sealed,
        descriptors_max,
        counters,
        spin_microseconds,
    )?;
    log.info("All connections have ended");
    if let Some(recording) = recording {
        recording.finish();
    }
    wait_for_sandbox(log, held.sandbox_exit.as_ref());
    Ok(())
}

/// The jail's stages, in the only order that compiles; how many descriptors we may have open; and
/// the profile, whose timer runs from just before the seal.
fn confine(
    log: &Log,
    plan: Plan,
    hooks: &hooks::CreateContainer,
    counters: Option<&Counters>,
    profile: Option<profile::Prepared>,
) -> Result<(Sealed, usize, Option<profile::Sampling>), Fatal> {
    log.debug("Waiting for the parent's synchronization descriptors");
    let mut synced = Starting::new(plan).wait()?;
    warn(log, synced.warnings());
    let mut mounted = synced.mount()?;
    warn(log, mounted.warnings());
    hooks.run(log)?;
    let mut rooted = mounted.enter()?;
    warn(log, rooted.warnings());
    stats::mark(counters, stats::Slot::MountsListed);
    // Asked for now: a sealed process cannot ask.
    let limit = getrlimit(Resource::Nofile).current;
    let descriptors_max = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let mut confined = rooted.confine()?;
    warn(log, confined.warnings());
    let sampling = profile
        .map(profile::Prepared::sample)
        .transpose()
        .map_err(|errno| fatal(format_args!("starting the timer of the profile: {errno}")))?;
    Ok((confined.seal()?, descriptors_max, sampling))
}

fn warn(log: &Log, warnings: Vec<String>) {
    for warning in warnings {
        log.warning(warning);
    }
}

fn taken(
    inherited: &mut Inherited,
    flag: &'static str,
    number: Option<i32>,
) -> Result<Option<OwnedFd>, jail::Error> {
    number
        .map(|number| inherited.take(flag, number))
        .transpose()
}

/// The CPU profile, if one is wanted; of other profiles one line says that they stay empty.
fn profiles(
    log: &Log,
    flags: &GoferFlags,
    inherited: &mut Inherited,
) -> Result<Option<profile::Prepared>, Fatal> {
    let mut prepared = None;
    for (flag, number) in &flags.profile_fds {
        let file = inherited.take(flag, *number)?;
        if *flag != CPU_PROFILE {
            log.warning(format_args!(
                "--{flag}: this gofer writes no such profile; the file stays empty"
            ));
            continue;
        }
        match profile::Prepared::new(file) {
            Ok(ready) => {
                log.info(format_args!(
                    "--{flag}: writing where processor time goes, each second"
                ));
                prepared = Some(ready);
            }
            Err(error) => log.warning(format_args!("--{flag}: {error}; no profile is written")),
        }
    }
    Ok(prepared)
}

fn options(globals: &Globals, flags: &GoferFlags, spec: Spec) -> jail::Options {
    let dialect = match flags.dialect {
        Dialect::V2022_12 => jail::Dialect::V2022,
        Dialect::V2024 => jail::Dialect::V2024,
        Dialect::V2026_08 => jail::Dialect::V2026,
    };
    let oldest = dialect == jail::Dialect::V2022;
    jail::Options {
        confs: flags.confs.clone(),
        overlay: match (globals.overlay.root, globals.overlay.mounts) {
            (_, true) => Overlay::All,
            (true, false) => Overlay::Root,
            (false, false) => Overlay::None,
        },
        ids: Ids {
            uid: flags.uid,
            gid: flags.gid,
        },
        fd_limit: globals.fd_limit,
        directfs: globals.directfs && !oldest,
        host_uds: jail::HostUds {
            open: opens(globals),
            create: creates(globals),
        },
        devices: DeviceKinds {
            nvidia: globals.nvproxy,
            nvidia_docker: globals.nvproxy_docker,
            tpu: globals.tpuproxy,
            rdma: globals.rdmaproxy,
        },
        character_devices: opens_character_devices(globals, flags),
        setup_root: flags.setup_root,
        apply_caps: flags.apply_caps,
        ..jail::Options::new(dialect, spec)
    }
}

/// Whether every connection may open character devices; that of `/dev` always may. A sandbox that
/// prefers its own still needs the host's for those it cannot emulate. Releases before v2026-08 have
/// no policy and open what the sandbox asks for.
fn opens_character_devices(globals: &Globals, flags: &GoferFlags) -> bool {
    flags.dialect != Dialect::V2026_08
        || globals.character_devices != crate::flags::CharacterDevices::EmulatedOnly
}

fn opens(globals: &Globals) -> bool {
    matches!(globals.host_uds, HostUds::Open | HostUds::All)
}

fn creates(globals: &Globals) -> bool {
    matches!(globals.host_uds, HostUds::Create | HostUds::All)
}

fn descriptors(flags: &GoferFlags, inherited: &mut Inherited) -> Result<Descriptors, jail::Error> {
    let io = flags
        .io_fds
        .iter()
        .map(|fd| inherited.take("io-fds", *fd))
        .collect::<Result<_, _>>()?;
    Ok(Descriptors {
        mounts: taken(inherited, "mounts-fd", flags.mounts_fd)?,
        io,
        dev_io: taken(inherited, "dev-io-fd", flags.dev_io_fd)?,
        sync_chroot: taken(inherited, "sync-chroot-fd", flags.sync_chroot_fd)?,
        sync_nvproxy: taken(inherited, "sync-nvproxy-fd", flags.sync_nvproxy_fd)?,
        sync_userns: taken(inherited, "sync-userns-fd", flags.sync_userns_fd)?,
        rpc: taken(inherited, "rpc-fd", flags.rpc_fd)?,
    })
}

fn run_server(
    log: &Arc<Log>,
    globals: &Globals,
    flags: &GoferFlags,
    sealed: Sealed,
    descriptors_max: usize,
    counters: Option<Arc<Counters>>,
    spin_microseconds: Option<u64>,
) -> Result<(), Fatal> {
    let mut options = server::Options::new(DescriptorDir::new(sealed.descriptor_dir));
    options.policy = Policy {
        host_uds: server::HostUds {
            open: opens(globals),
            create: creates(globals),
        },
        host_fifo: globals.host_fifo_open,
        whiteouts: flags.dialect == Dialect::V2026_08,
        descriptors_max,
        donate_mount: globals.directfs && sealed.connections.iter().any(|c| c.donated.is_some()),
        ..Policy::default()
    };
    if let Some(holders) = sealed.mount_holders {
        options.mount_points = MountPoints::In(holders.into_iter().collect());
    }
    options.on_thread = Some(threads::tighten(sealed.threads));
    let failures = Arc::clone(log);
    options.on_failure = Some(Arc::new(move |message: &str| failures.warning(message)));
    if log.shows(Level::Debug) {
        options.observer = Some(observer(log));
    }
    options.counters = counters;
    if let Some(microseconds) = spin_microseconds {
        options.wait = Wait::fixed(microseconds);
    }
    options.connect_as = sealed.broker.map(|broker| -> ConnectAs {
        Arc::new(move |socket, kind, uid, gid| {
            broker.connect(socket, kind, uid, gid).map_err(host::errno)
        })
    });
    let character_devices = opens_character_devices(globals, flags);
    let connections: Vec<_> = sealed
        .connections
        .into_iter()
        .map(|c| served(log, c, character_devices))
        .collect();
    let run = Server::new(options).run(connections);
    run.map_err(|error| fatal(format_args!("serving: {error}")))
}

fn observer(log: &Arc<Log>) -> server::Observer {
    let log = Arc::clone(log);
    Arc::new(move |mount: &Mount, mid, result| {
        let path = String::from_utf8_lossy(&mount.path);
        match result {
            Ok(()) => log.debug(format_args!("{path:?} {mid:?}: done")),
            Err(errno) => log.debug(format_args!("{path:?} {mid:?}: {errno:?}")),
        }
    })
}

fn served(log: &Log, connection: jail::Connection, character_devices: bool) -> (OwnedFd, Mount) {
    let path = String::from_utf8_lossy(&connection.path);
    log.info(format_args!(
        "Serving {path:?} (read-only: {})",
        connection.readonly
    ));
    let mount = Mount {
        root: connection.root,
        donated: connection.donated,
        path: connection.path,
        readonly: connection.readonly,
        character_devices: connection.character_devices || character_devices,
    };
    (connection.io, mount)
}

/// How long a channel spins before it sleeps, if the operator's environment says.
fn spin_from_environment() -> Option<u64> {
    std::env::var("GOFER_SPIN_US").ok()?.parse().ok()
}

/// The page of counters that `gofer do --stats` reads, if the operator's environment names one.
fn counters_from_environment(log: &Log) -> Result<Option<Arc<Counters>>, Fatal> {
    let Some(path) = std::env::var_os(stats::VARIABLE) else {
        return Ok(None);
    };
    let path = Path::new(&path);
    let cannot = |error: &dyn Display| {
        fatal(format_args!(
            "{} names {}: {error}",
            stats::VARIABLE,
            path.display()
        ))
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| cannot(&e))?;
    let counters = Counters::map(file.as_fd()).map_err(|e| cannot(&e))?;
    log.info(format_args!("Counting requests in {}", path.display()));
    Ok(Some(Arc::new(counters)))
}

/// v2026-08: what the sandbox has pinned is released by whoever ends last; let that be us.
fn wait_for_sandbox(log: &Log, socket: Option<&OwnedFd>) {
    let Some(pidfd) = socket.and_then(received_pidfd) else {
        return;
    };
    if !readable_in_time(&pidfd) {
        log.warning("the sandbox has not ended half a second after its last connection");
    }
}

fn readable_in_time(fd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut polled, Some(&SANDBOX_EXIT_WAIT)).is_ok_and(|ready| ready > 0)
}

fn received_pidfd(socket: &OwnedFd) -> Option<OwnedFd> {
    if !readable_in_time(socket) {
        return None;
    }
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut parts, &mut ancillary, flags).ok()?;
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return None;
    }
    ancillary.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}
