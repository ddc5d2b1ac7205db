//! The system calls that each case cannot do without, made by this process itself on the same
//! files: together with the turns they are the limit.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, SeekFrom, StatxFlags, chmodat, chownat, fgetxattr, mkdirat,
    openat, readlinkat_raw, renameat, seek, statx, symlinkat, unlinkat,
};
use rustix::io::{pread, pwrite};
use rustix::process::{Gid, Uid};

use crate::failure::{Result, Tried};
use crate::tree::{CHAIN, Tree, XATTR};

/// One round of calls; returns the time of its timed part.
pub(crate) type Calls = Box<dyn FnMut() -> Result<Duration>>;

const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const GETDENTS_BYTES: usize = 65536;

/// What is opened once, for all cases.
struct Place {
    root: OwnedFd,
    work: OwnedFd,
    /// `O_PATH`, as a control id would hold it.
    file: OwnedFd,
    descriptors: OwnedFd,
    /// To send and to receive one descriptor.
    socket: (OwnedFd, OwnedFd),
}

fn open(dir: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    openat(dir, path, flags | OFlags::CLOEXEC, Mode::empty()).tried(path)
}

impl Place {
    fn new(tree: &Tree) -> Result<Self> {
        let root = rustix::fs::open(tree.root(), PIN | OFlags::DIRECTORY, Mode::empty())
            .tried("the tree")?;
        let descriptors = rustix::fs::open("/proc/self/fd", OFlags::PATH, Mode::empty())
            .tried("/proc/self/fd")?;
        Ok(Self {
            work: open(&root, "work", PIN)?,
            file: open(&root, "file", PIN)?,
            root,
            descriptors,
            socket: rig::pair(),
        })
    }

    /// Passes a descriptor to ourselves and drops what arrives.
    fn pass(&self, fd: &OwnedFd) -> Result<()> {
        use std::os::fd::AsFd;
        let (mut payload, mut fds) = (Vec::new(), Vec::new());
        let (ours, theirs) = &self.socket;
        let sockets = [ours, theirs].map(|end| end.try_clone().map(channel::Socket::new));
        let [Ok(ours), Ok(theirs)] = sockets else {
            return Err("no sockets".into());
        };
        ours.send(0, &[], &[fd.as_fd()]).tried("send")?;
        theirs
            .receive(&mut payload, 0, Some(&mut fds))
            .tried("receive")?;
        Ok(())
    }
}

fn stat_fd(fd: &OwnedFd) -> Result<()> {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

/// The calls of the case of that name; none if none are known.
pub(crate) fn calls(tree: &Tree, case: &str) -> Result<Option<Calls>> {
    let place = Place::new(tree)?;
    Ok(Some(match case {
        "fstat" | "fstat_socket" => Box::new(move || timed(|| stat_fd(&place.file))),
        "walkstat1" => walk_stat(place, 1),
        "walkstat8" => walk_stat(place, 8),
        "walk1_close" => walk_close(place, 1),
        "walk8_close" => walk_close(place, 8),
        "open_close" => open_close(place),
        "pread4k" => read(&place, 4 << 10)?,
        "pread64k" => read(&place, 64 << 10)?,
        "pread1m" => read(&place, 1 << 20)?,
        "pwrite4k" => write(&place, 4 << 10)?,
        "pwrite64k" => write(&place, 64 << 10)?,
        "pwrite1m" => write(&place, 1 << 20)?,
        "getdents100" => getdents(&place, "d100")?,
        "getdents1000" => getdents(&place, "d1000")?,
        "getdents100000" => getdents(&place, "d100000")?,
        "create_close_unlink" => create(place),
        "mkdir_rename_rmdir" => mkdir(place),
        "symlink_readlink" => symlink(place),
        "fgetxattr" => xattr(&place)?,
        "setstat" => set_mode(&place),
        _ => return Ok(None),
    }))
}

fn names(length: usize) -> Vec<CString> {
    let name = |name: &&str| CString::new(*name).ok();
    CHAIN[..length].iter().filter_map(name).collect()
}

/// All but the last component are opened, the last is only looked at.
fn walk_stat(place: Place, length: usize) -> Calls {
    let names = names(length);
    Box::new(move || {
        timed(|| {
            let mut held: Option<OwnedFd> = None;
            for (at, name) in names.iter().enumerate() {
                let dir = held.as_ref().unwrap_or(&place.root);
                statx(
                    dir,
                    name,
                    AtFlags::SYMLINK_NOFOLLOW,
                    StatxFlags::BASIC_STATS,
                )?;
                if at + 1 < names.len() {
                    held = Some(openat(dir, name, PIN, Mode::empty())?);
                }
            }
            Ok(())
        })
    })
}

fn walk_close(place: Place, length: usize) -> Calls {
    let names = names(length);
    let mut held: Vec<OwnedFd> = Vec::with_capacity(length);
    Box::new(move || {
        timed(|| {
            for name in &names {
                let dir = held.last().unwrap_or(&place.root);
                let fd = openat(dir, name, PIN, Mode::empty())?;
                stat_fd(&fd)?;
                held.push(fd);
            }
            held.clear();
            Ok(())
        })
    })
}

fn open_close(place: Place) -> Calls {
    let number = place.file.as_raw_fd().to_string();
    let number = CString::new(number).unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Box::new(move || {
        timed(|| {
            let fd = openat(&place.descriptors, &number, flags, Mode::empty())?;
            place.pass(&fd)
        })
    })
}

fn read(place: &Place, bytes: usize) -> Result<Calls> {
    let file = open(&place.root, "big", OFlags::RDONLY)?;
    let mut buffer = vec![0_u8; bytes];
    Ok(Box::new(move || {
        timed(|| {
            pread(&file, &mut buffer[..], 0)?;
            Ok(())
        })
    }))
}

fn write(place: &Place, bytes: usize) -> Result<Calls> {
    let file = open(&place.root, "big", OFlags::RDWR)?;
    let buffer = vec![7_u8; bytes];
    Ok(Box::new(move || {
        timed(|| {
            pwrite(&file, &buffer, 0)?;
            Ok(())
        })
    }))
}

fn getdents(place: &Place, dir: &str) -> Result<Calls> {
    let dir = open(&place.root, dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); GETDENTS_BYTES];
    Ok(Box::new(move || {
        timed(|| {
            seek(&dir, SeekFrom::Start(0))?;
            let mut entries = RawDir::new(&dir, &mut buffer);
            while let Some(entry) = entries.next() {
                entry?;
            }
            Ok(())
        })
    }))
}

fn create(place: Place) -> Calls {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Box::new(move || {
        timed(|| {
            let name = c"created-bare";
            let fd = openat(&place.work, name, flags, Mode::from_raw_mode(0o644))?;
            chown(&fd)?;
            stat_fd(&fd)?;
            place.pass(&fd)?;
            drop(fd);
            unlinkat(&place.work, name, AtFlags::empty())?;
            Ok(())
        })
    })
}

fn chown(fd: &OwnedFd) -> Result<()> {
    let (uid, gid) = (Some(Uid::ROOT), Some(Gid::ROOT));
    chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    Ok(())
}

fn mkdir(place: Place) -> Calls {
    Box::new(move || {
        timed(|| {
            let (old, new) = (c"old-bare", c"new-bare");
            mkdirat(&place.work, old, Mode::from_raw_mode(0o755))?;
            let fd = openat(&place.work, old, PIN, Mode::empty())?;
            chown(&fd)?;
            stat_fd(&fd)?;
            renameat(&place.work, old, &place.work, new)?;
            unlinkat(&place.work, new, AtFlags::REMOVEDIR)?;
            Ok(())
        })
    })
}

fn symlink(place: Place) -> Calls {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    Box::new(move || {
        let name = c"link-bare";
        let took = timed(|| {
            symlinkat(c"../somewhere/else", &place.work, name)?;
            let fd = openat(&place.work, name, PIN, Mode::empty())?;
            chown(&fd)?;
            stat_fd(&fd)?;
            readlinkat_raw(&fd, c"", &mut buffer[..])?;
            Ok(())
        })?;
        unlinkat(&place.work, name, AtFlags::empty())?;
        Ok(took)
    })
}

fn xattr(place: &Place) -> Result<Calls> {
    let file = open(&place.root, "file", OFlags::RDONLY)?;
    let mut buffer = vec![0_u8; 4096];
    Ok(Box::new(move || {
        timed(|| {
            fgetxattr(&file, XATTR.0, &mut buffer[..])?;
            Ok(())
        })
    }))
}

fn set_mode(place: &Place) -> Calls {
    let root = place.root.try_clone();
    Box::new(move || {
        let root = root.as_ref().map_err(ToString::to_string)?;
        timed(|| {
            let mode = Mode::from_raw_mode(0o640);
            chmodat(root, c"file", mode, AtFlags::empty())?;
            Ok(())
        })
    })
}
