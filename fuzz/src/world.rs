//! Where a hostile client is let loose: a tree to serve, a directory beside it that nobody may
//! touch, and counts of what the process holds.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

/// No file grows beyond this, or a length in a request could fill the machine.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How often to look for ended threads to be gone, and how long to wait in between.
const LOOKS_MAX: u32 = 10_000;
const PAUSE: Duration = Duration::from_millis(1);

/// A tree and the directory beside it.
pub struct World {
    dir: TempDir,
    canaries: Vec<Canary>,
    held: Held,
}

/// What a file outside must look like for ever. Its change time alone says almost everything.
#[derive(Debug, PartialEq, Eq)]
struct Canary {
    path: PathBuf,
    content: Option<Vec<u8>>,
    numbers: [u64; 9],
}

/// Descriptors and threads of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
}

/// What no reply may contain: content of a file outside, unknown to the fuzzer.
pub fn secret() -> &'static [u8] {
    static SECRET: OnceLock<Vec<u8>> = OnceLock::new();
    SECRET.get_or_init(|| {
        let mut bytes = vec![0; 16];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
            .expect("random bytes");
        bytes
    })
}

fn prepare_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = rustix::process::Rlimit {
            current: Some(FILE_BYTES_MAX),
            maximum: Some(FILE_BYTES_MAX),
        };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).expect("a limit");
        // SAFETY: no handler is installed; the jail ignores this signal too.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let _known = secret();
    });
}

impl World {
    /// A fresh one in memory.
    pub fn new() -> Self {
        prepare_process();
        let held = Held::now();
        let dir = tempfile::Builder::new()
            .prefix("gofer-fuzz")
            .tempdir_in("/dev/shm");
        let dir = dir.expect("a directory in memory");
        plant(dir.path());
        let canaries = canaries(&dir.path().join("outside"));
        Self {
            dir,
            canaries,
            held,
        }
    }

    /// What is served.
    pub fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// After client and server have ended: nothing outside changed, nothing is still held.
    pub fn check(self) {
        let now = canaries(&self.dir.path().join("outside"));
        assert_eq!(now, self.canaries, "something outside the tree was touched");
        let top = std::fs::read_dir(self.dir.path())
            .expect("the directory above")
            .count();
        assert_eq!(top, 2, "only the tree and its neighbour");
        let held = self.held;
        drop(self);
        let looked = (0..LOOKS_MAX).any(|_| {
            let gone = Held::now() == held;
            if !gone {
                std::thread::sleep(PAUSE);
            }
            gone
        });
        assert!(
            looked,
            "something leaked: {:?} instead of {held:?}",
            Held::now()
        );
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Held {
    fn now() -> Self {
        let count = |path| std::fs::read_dir(path).expect("/proc").count();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
        }
    }
}

fn plant(dir: &Path) {
    let outside = dir.join("outside");
    let tree = dir.join("tree");
    let make = |path: PathBuf| std::fs::create_dir(path).expect("a directory");
    make(outside.clone());
    make(outside.join("d0"));
    std::fs::write(outside.join("secret"), secret()).expect("the secret");
    std::fs::write(outside.join("f0"), secret()).expect("the secret");
    make(tree.clone());
    make(tree.join("d0"));
    make(tree.join("d0/sub"));
    make(tree.join("d1"));
    std::fs::write(tree.join("f0"), "some content").expect("a file");
    std::fs::write(tree.join("d0/f0"), [7; 9000]).expect("a file");
    std::fs::hard_link(tree.join("f0"), tree.join("d1/f0")).expect("a link");
    symlink("f0", tree.join("l0")).expect("a link");
    symlink("../outside", tree.join("out")).expect("a link");
    symlink(&outside, tree.join("d0/out")).expect("a link");
    let fifo = tree.join("p0");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
}

fn canaries(dir: &Path) -> Vec<Canary> {
    let mut all = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = std::fs::symlink_metadata(&path).expect("what is outside");
        let numbers = [
            stat.ino(),
            stat.mode().into(),
            stat.uid().into(),
            stat.gid().into(),
            stat.nlink(),
            stat.size(),
            stat.mtime_nsec() as u64,
            stat.ctime() as u64,
            stat.ctime_nsec() as u64,
        ];
        let content = stat
            .is_file()
            .then(|| std::fs::read(&path).expect("the secret"));
        if stat.is_dir() {
            let entries = std::fs::read_dir(&path).expect("what is outside");
            pending.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        all.push(Canary {
            path,
            content,
            numbers,
        });
    }
    all.sort_by(|one, other| {
        one.path
            .as_os_str()
            .as_bytes()
            .cmp(other.path.as_os_str().as_bytes())
    });
    all
}
