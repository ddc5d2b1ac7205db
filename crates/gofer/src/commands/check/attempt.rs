//! One try, in a process of its own that ends by it.
//!
//! Must hold: one thread until the process is sealed; the last thing it does is a forbidden call.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use hook::Hook;
use jail::probe::{self, FEATURES};
use jail::{Confs, Descriptors, Dialect, Options, Plan, Sealed, Spec, Starting};
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use serde_json::{Value, json};

/// The try that follows a process as `gofer runsc` does.
pub(super) const TRACING: &str = "ptrace";

/// Capabilities that a serving process may hold: act on files of any owner, keep set-id bits.
const FILE_CAPABILITIES: u64 = 0x1f;

/// One way in which a gofer is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    dialect: Dialect,
    pub(super) directfs: bool,
}

impl Start {
    /// Every dialect and mode there is.
    pub(super) fn all() -> impl Iterator<Item = Start> {
        [
            (Dialect::V2022, false),
            (Dialect::V2024, true),
            (Dialect::V2024, false),
            (Dialect::V2026, true),
            (Dialect::V2026, false),
        ]
        .into_iter()
        .map(|(dialect, directfs)| Start { dialect, directfs })
    }

    pub(super) fn dialect_name(self) -> &'static str {
        match self.dialect {
            Dialect::V2022 => "v2022-12",
            Dialect::V2024 => "v2024-03/v2024-07",
            Dialect::V2026 => "v2026-08",
        }
    }

    /// The year's release, for a narrow column.
    pub(super) fn release(self) -> &'static str {
        self.dialect_name().get(..8).unwrap_or_default()
    }

    /// Its name on a command line.
    pub(super) fn word(self) -> String {
        format!("start {} {}", self.dialect_name(), self.directfs)
    }
}

/// Tries it and says what came of it: `ok …` or `error …`.
pub(super) fn run(what: &str, place: &Path) -> ExitStatus {
    let outcome = if what == TRACING {
        trace()
    } else if let Some(feature) = FEATURES.iter().find(|feature| feature.name == what) {
        feature.attempt(place).map_err(|error| error.to_string())
    } else if let Some(start) = Start::all().find(|start| start.word() == what) {
        begin(start, place)
    } else {
        Err(format!("nothing is called {what}"))
    };
    let said = match outcome {
        Ok(detail) => format!("ok {detail}"),
        Err(why) => format!("error {}", why.replace('\n', " ")),
    };
    // Whoever asked sees that nothing came.
    _ = rustix::io::write(rustix::stdio::stdout(), said.as_bytes());
    // Where a filter holds, this is the end; else it fails, as there is no such place.
    _ = rustix::mount::unmount("", rustix::mount::UnmountFlags::empty());
    ExitStatus::from_raw(0)
}

fn trace() -> Result<String, String> {
    let status = hook::run(Hook {
        program: "/proc/self/exe".into(),
        args: vec!["--version".into()],
        environment: Vec::new(),
        replacement: "/proc/self/exe".into(),
        on_gofer: &mut |_| {},
    });
    match status {
        Ok(status) if status.success() => Ok(String::new()),
        Ok(status) => Err(format!("a process that was followed ended ({status})")),
        Err(error) => Err(error.to_string()),
    }
}

/// A whole start over two small trees, and what holds in the end.
fn begin(start: Start, place: &Path) -> Result<String, String> {
    let own_status = File::open("/proc/self/status").map_err(|error| error.to_string())?;
    probe::own_namespaces().map_err(|error| error.to_string())?;
    let (plan, _clients) = plan(start, place)?;
    let sealed = seal(plan).map_err(|error| error.to_string())?;
    let mut status = vec![0; 8192];
    let length = own_status.read_at(&mut status, 0).unwrap_or(0);
    let status = String::from_utf8_lossy(status.get(..length).unwrap_or_default()).into_owned();
    Ok(Value::from(protections(&sealed, &status)).to_string())
}

fn seal(plan: Plan) -> Result<Sealed, jail::Error> {
    Starting::new(plan)
        .wait()?
        .mount()?
        .enter()?
        .confine()?
        .seal()
}

fn plan(start: Start, place: &Path) -> Result<(Plan, Vec<UnixStream>), String> {
    for tree in ["root", "volume"] {
        fs::create_dir_all(place.join(tree)).map_err(|error| error.to_string())?;
    }
    let config = json!({
        "root": { "path": place.join("root") },
        "mounts": [{ "destination": "/volume", "type": "bind", "source": place.join("volume"), "options": ["rbind", "ro"] }],
    });
    let spec = Spec::parse(config.to_string().as_bytes(), place).map_err(|e| e.to_string())?;
    let confs: Confs = "lisafs:none,lisafs:none"
        .parse()
        .map_err(|e: jail::Error| e.to_string())?;
    let options = Options {
        confs: confs.0,
        directfs: start.directfs,
        ..Options::new(start.dialect, spec)
    };
    let mut clients = Vec::new();
    let mut pair = || -> Result<OwnedFd, String> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        clients.push(theirs);
        Ok(ours.into())
    };
    let null = File::options().write(true).open("/dev/null");
    let descriptors = Descriptors {
        mounts: Some(null.map_err(|error| error.to_string())?.into()),
        io: vec![pair()?, pair()?],
        rpc: Some(pair()?),
        ..Descriptors::default()
    };
    let plan = Plan::new(options, descriptors).map_err(|error| error.to_string())?;
    Ok((plan, clients))
}

/// What each protection is, by trying or by the kernel's word on this process.
fn protections(sealed: &Sealed, status: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut add = |name: &str, promised: bool, active: bool, detail: &str| {
        all.push(json!({ "name": name, "promised": promised, "active": active, "detail": detail }));
    };
    let report = sealed.report;
    let by_descriptor = report.mounts_by_descriptor();
    if let [root, volume] = sealed.connections.as_slice() {
        let private = is_own_parent(root.root.as_fd());
        add("nothing above the served root", true, private, "");
        let refused = create(volume.root.as_fd()) == Err(Errno::ROFS);
        let donated = volume.donated.as_ref();
        let refused = refused && donated.is_none_or(|fd| create(fd.as_fd()) == Err(Errno::ROFS));
        add("read-only mounts", true, refused, "");
        let (tight, ours) = (sealed.threads, copy(&volume.root));
        let narrow =
            std::thread::spawn(move || tight.tighten(ours.as_ref().ok()?.as_fd(), true).ok());
        let narrow = narrow.join().ok().flatten();
        add("a thread's own filter and ids", true, narrow.is_some(), "");
        let domain = narrow.is_some_and(|report| report.landlock.is_enforced());
        add("a thread's own Landlock domain", true, domain, "");
    }
    let landlock = report.landlock;
    add(
        "Landlock",
        true,
        landlock.is_enforced(),
        &landlock.to_string(),
    );
    add(
        "Landlock in full",
        false,
        landlock.complete,
        "an older kernel enforces what it knows",
    );
    add(
        "mounts by descriptor",
        false,
        by_descriptor,
        "else mount(2) on /proc/self/fd/N",
    );
    add("detached descriptor directory", true, report.detached, "");
    let capabilities =
        ["CapEff:", "CapPrm:", "CapBnd:"].map(|set| hexadecimal(status, set) & !FILE_CAPABILITIES);
    let inherited = ["CapInh:", "CapAmb:"].map(|set| hexadecimal(status, set));
    add(
        "capabilities",
        true,
        capabilities == [0; 3] && inherited == [0; 2],
        field(status, "CapBnd:"),
    );
    add(
        "no new privileges",
        true,
        field(status, "NoNewPrivs:") == "1",
        "",
    );
    add(
        "closed to other processes",
        true,
        report.undumpable,
        "not dumpable",
    );
    let calls = format!("{} calls left", report.calls);
    add(
        "system calls by argument",
        true,
        field(status, "Seccomp:") == "2",
        &calls,
    );
    all
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

/// Whether `..` of this directory leads nowhere.
fn is_own_parent(dir: BorrowedFd<'_>) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let identity = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let parent = openat(dir, "..", flags, Mode::empty());
    parent.is_ok_and(|parent| identity(parent.as_fd()) == identity(dir) && identity(dir).is_ok())
}

fn create(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, "new", flags, Mode::RUSR).map(|_| ())
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim()
}

/// What cannot be read counts as everything.
fn hexadecimal(status: &str, name: &str) -> u64 {
    u64::from_str_radix(field(status, name), 16).unwrap_or(u64::MAX)
}
