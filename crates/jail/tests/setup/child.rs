//! The process that is jailed: first makes its namespaces, then is executed again and runs the
//! stages, then obeys one-line commands, so that a case can see what it still can do.

use std::io::{BufRead, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use jail::{
    Confs, Connection, Descriptors, Dialect, Inherited, MountCalls, Options, Overlay, Plan, Sealed,
    Spec, Starting,
};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::forbidden::{self, Try};

pub(crate) const CONFIG: &str = "JAIL_TEST_CONFIG";

/// What a case decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) dialect: u16,
    pub(crate) bundle: String,
    pub(crate) confs: Option<String>,
    pub(crate) user_namespace: bool,
    pub(crate) classic: bool,
    pub(crate) tells: bool,
    pub(crate) host_open: bool,
    pub(crate) host_create: bool,
    pub(crate) spec: RawFd,
    pub(crate) mounts: RawFd,
    pub(crate) io: Vec<RawFd>,
    pub(crate) dev_io: RawFd,
    pub(crate) sync: RawFd,
    pub(crate) rpc: RawFd,
    /// Namespaces are made already.
    pub(crate) ready: bool,
}

pub(crate) fn main(config: &str) {
    let mut config: Config = serde_json::from_str(config).unwrap();
    if !config.ready {
        make_namespaces(config.user_namespace);
        config.ready = true;
        let error = std::os::unix::process::CommandExt::exec(
            std::process::Command::new("/proc/self/exe")
                .env(CONFIG, serde_json::to_string(&config).unwrap()),
        );
        panic!("{error}");
    }
    match seal(&config) {
        Ok(sealed) => obey(&sealed),
        Err(error) => {
            println!("error {} {error}", error.exit_status());
            std::process::exit(error.exit_status().into());
        }
    }
}

fn make_namespaces(user: bool) {
    let mut flags =
        libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
    if user {
        flags |= libc::CLONE_NEWUSER;
    }
    // SAFETY: one thread; only namespaces change.
    let result = unsafe { libc::unshare(flags) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    println!("unshared");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    if user {
        // SAFETY: plain calls.
        let set = unsafe { (libc::setgid(0), libc::setuid(0)) };
        assert_eq!(set, (0, 0));
    }
}

fn seal(config: &Config) -> Result<Sealed, jail::Error> {
    let mut numbers = config.io.clone();
    numbers.extend([
        config.spec,
        config.mounts,
        config.dev_io,
        config.sync,
        config.rpc,
    ]);
    let mut inherited = Inherited::claim(&numbers)?;
    let mut optional = |flag, number: RawFd| {
        (number >= 0)
            .then(|| inherited.take(flag, number))
            .transpose()
    };
    let spec = optional("spec-fd", config.spec)?.unwrap();
    let mut descriptors = Descriptors {
        mounts: optional("mounts-fd", config.mounts)?,
        dev_io: optional("dev-io-fd", config.dev_io)?,
        sync_nvproxy: optional("sync-nvproxy-fd", config.sync)?,
        rpc: optional("rpc-fd", config.rpc)?,
        ..Descriptors::default()
    };
    for number in &config.io {
        descriptors.io.push(inherited.take("io-fds", *number)?);
    }
    let spec = Spec::read(spec, config.bundle.as_ref())?;
    let dialect = match config.dialect {
        2022 => Dialect::V2022,
        2024 => Dialect::V2024,
        _ => Dialect::V2026,
    };
    let mut options = Options::new(dialect, spec);
    options.overlay = Overlay::None;
    options.directfs = true;
    options.host_uds.open = config.host_open;
    options.host_uds.create = config.host_create;
    if config.classic {
        options.mount_calls = MountCalls::Classic;
    }
    if let Some(confs) = &config.confs {
        options.confs = confs.parse::<Confs>()?.0;
    }
    let mut mounted = Starting::new(Plan::new(options, descriptors)?)
        .wait()?
        .mount()?;
    for warning in mounted.warnings() {
        println!("warning {warning}");
    }
    if config.tells {
        jail::violation::tell(tell).unwrap();
    }
    mounted.enter()?.confine()?.seal()
}

/// In a signal handler: nothing here allocates.
fn tell(violation: &jail::violation::Violation) {
    let name = violation.name.unwrap_or("unknown");
    for part in ["told ", name, "\n"] {
        _ = rustix::io::write(rustix::stdio::stdout(), part.as_bytes());
    }
}

/// Commands: `open C NAME`, `readable C`, `donated C`, `tighten C`, `chmod C`, `create C NAME`,
/// `reopen C NAME`, `thread`, `try CALL`, `report`, `list`, and others.
fn obey(sealed: &Sealed) {
    println!("sealed");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let of_connection = words[0] != "try-tight";
        let connection = words.get(1).and_then(|word| word.parse::<usize>().ok());
        let connection = connection.filter(|_| of_connection);
        let connection = connection.and_then(|index| sealed.connections.get(index));
        let answer = match connection {
            Some(connection) => probe(sealed, connection, &words),
            None => act(sealed, &words),
        };
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}

fn probe(sealed: &Sealed, connection: &Connection, words: &[&str]) -> String {
    let name = words.get(2).copied().unwrap_or(".");
    let root = connection.root.as_fd();
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let told = |result: Result<OwnedFd, rustix::io::Errno>| match result {
        Ok(_) => "ok".to_owned(),
        Err(errno) => name_of(errno),
    };
    match words[0] {
        "open" => told(rustix::fs::openat(root, name, nofollow, Mode::empty())),
        "read" => {
            let fd = rustix::fs::openat(root, name, nofollow, Mode::empty()).unwrap();
            let mut bytes = [0; 64];
            let read = rustix::io::read(&fd, &mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..read]).into_owned()
        }
        "create" => {
            let flags = nofollow | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            told(rustix::fs::openat(root, name, flags, Mode::RWXU))
        }
        "write" => {
            let flags = nofollow | OFlags::WRONLY | OFlags::TRUNC;
            told(rustix::fs::openat(root, name, flags, Mode::empty()))
        }
        "pin-create" => {
            // Through a pinned subdirectory.
            let (dir, name) = name.rsplit_once('/').unwrap();
            let mut at = connection.root.try_clone().unwrap();
            for part in dir.split('/') {
                at = rustix::fs::openat(&at, part, nofollow | OFlags::PATH, Mode::empty()).unwrap();
            }
            let flags = nofollow | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            told(rustix::fs::openat(&at, name, flags, Mode::RWXU))
        }
        "reopen" => {
            let fd = rustix::fs::openat(root, name, nofollow | OFlags::PATH, Mode::empty());
            let fd = fd.unwrap();
            let number = fd.as_raw_fd().to_string();
            told(rustix::fs::openat(
                &sealed.descriptor_dir,
                number,
                OFlags::RDONLY,
                Mode::empty(),
            ))
        }
        // Whether it is only a place: what is open for more can at least refuse to be read.
        "donated" => {
            let donated = connection.donated.as_ref().unwrap();
            let read = rustix::io::pread(donated, &mut [0], 0);
            (read == Err(rustix::io::Errno::BADF)).to_string()
        }
        "chmod" => {
            let fd = root.as_raw_fd().to_string();
            match rustix::fs::chmodat(
                &sealed.descriptor_dir,
                fd,
                Mode::RWXU,
                rustix::fs::AtFlags::empty(),
            ) {
                Ok(()) => "ok".to_owned(),
                Err(errno) => name_of(errno),
            }
        }
        "rename" => match rustix::fs::renameat(root, name, root, words[3]) {
            Ok(()) => "ok".to_owned(),
            Err(errno) => name_of(errno),
        },
        "link" => {
            let fd = rustix::fs::openat(root, name, nofollow | OFlags::PATH, Mode::empty());
            let fd = fd.unwrap();
            let number = fd.as_raw_fd().to_string();
            let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
            match rustix::fs::linkat(&sealed.descriptor_dir, number, root, words[3], follow) {
                Ok(()) => "ok".to_owned(),
                Err(errno) => name_of(errno),
            }
        }
        "tighten" => tighten(sealed, connection, connection.readonly),
        "tighten-readonly" => tighten(sealed, connection, true),
        other => panic!("unknown command {other}"),
    }
}

fn tighten(sealed: &Sealed, connection: &Connection, readonly: bool) -> String {
    match sealed.threads.tighten(connection.root.as_fd(), readonly) {
        Ok(report) => format!("ok {:?}", report.landlock.is_enforced()),
        Err(error) => error.to_string(),
    }
}

fn act(sealed: &Sealed, words: &[&str]) -> String {
    match words[0] {
        "report" => sealed.report.to_string(),
        "list" => {
            let shown = sealed.connections.iter().map(|connection| {
                let path = String::from_utf8_lossy(&connection.path).into_owned();
                format!("{path}:{}", if connection.readonly { "ro" } else { "rw" })
            });
            shown.collect::<Vec<_>>().join(" ")
        }
        "connect" => {
            // As nobody, whose access to the socket the modes decide.
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let root = &sealed.connections[0].root;
            let target = rustix::fs::openat(root, words[1], flags, Mode::empty()).unwrap();
            let broker = sealed.broker.as_ref().unwrap();
            match broker.connect(target.as_fd(), 1, 65534, 65534) {
                Ok(_) => "ok".to_owned(),
                Err(errno) => name_of(errno),
            }
        }
        "thread" => std::thread::spawn(|| "ok".to_owned()).join().unwrap(),
        "heap" => std::thread::spawn(|| format!("ok {}", use_heap()))
            .join()
            .unwrap(),
        "abort" => std::process::abort(),
        "block" => {
            forbidden::block_the_signal();
            "blocked".to_owned()
        }
        "doze" => {
            println!("dozing");
            std::thread::park_timeout(std::time::Duration::from_millis(300));
            "awake".to_owned()
        }
        "threads-tighten" => {
            let (jail, root) = (
                sealed.threads,
                sealed.connections[0].root.try_clone().unwrap(),
            );
            let readonly = sealed.connections[0].readonly;
            let tight = move || jail.tighten(root.as_fd(), readonly).map(|_| ());
            format!("{:?}", std::thread::spawn(tight).join().unwrap().is_ok())
        }
        "try" => Try::named(&words[1..].join(" ")).run(),
        "try-tight" => try_on_tight_thread(sealed, words[1], words[2..].join(" ")),
        #[cfg(target_arch = "x86_64")]
        "old-table" => forbidden::old_table(),
        other => panic!("unknown command {other}"),
    }
}

/// Makes a thread's heap grow, then gives all of it back at once.
fn use_heap() -> usize {
    let blocks: Vec<Vec<u8>> = (0..200).map(|fill| vec![fill; 100 << 10]).collect();
    let sum = blocks.iter().map(|block| usize::from(block[7])).sum();
    for block in blocks.into_iter().rev() {
        drop(block);
    }
    sum
}

/// A try on a thread that has tightened itself around connection `index`.
fn try_on_tight_thread(sealed: &Sealed, index: &str, name: String) -> String {
    let connection = &sealed.connections[index.parse::<usize>().unwrap()];
    let root = connection.root.try_clone().unwrap();
    let (jail, readonly) = (sealed.threads, connection.readonly);
    let tight = move || {
        jail.tighten(root.as_fd(), readonly).unwrap();
        Try::named(&name).run()
    };
    std::thread::spawn(tight).join().unwrap()
}

fn name_of(errno: rustix::io::Errno) -> String {
    use rustix::io::Errno;
    match errno {
        Errno::ROFS => "ROFS".to_owned(),
        Errno::ACCESS => "ACCESS".to_owned(),
        Errno::NOENT => "NOENT".to_owned(),
        other => format!("{other}"),
    }
}
