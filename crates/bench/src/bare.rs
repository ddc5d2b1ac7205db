//! The system calls that each case cannot do without, on the same files, and made the way a server
//! that holds `O_PATH` descriptors can: what leads to a file is its own descriptor, never its name.
//! Together with the turns they are the limit.
//!
//! Must hold: the process's working directory is its own descriptor directory, as a server's is.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use channel::Socket;
use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, SeekFrom, StatxFlags, chmodat, chownat, getxattr, mkdirat,
    openat, readlinkat_raw, renameat, seek, statx, symlinkat, unlinkat,
};
use rustix::io::{pread, pwrite};
use rustix::path::DecInt;
use rustix::process::{Gid, Uid};

use crate::failure::{Result, Tried};
use crate::tree::{CHAIN, XATTR};

/// One round of calls.
pub(crate) type Work = Box<dyn FnMut() -> Result<()> + Send>;

/// The calls of a case.
pub(crate) struct Calls {
    pub(crate) work: Work,
    /// What removes what `work` leaves behind: no part of the case.
    pub(crate) after: Option<Work>,
    /// Data that have to cross the window besides: what `work` does, done there.
    pub(crate) data: Option<Data>,
}

/// Data of a request or a reply, which a server moves between the file and the window.
pub(crate) struct Data {
    pub(crate) file: OwnedFd,
    pub(crate) bytes: usize,
    pub(crate) way: Way,
}

/// Which way data go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToClient,
    FromClient,
}

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
    sockets: (Socket, Socket),
}

fn open(dir: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    openat(dir, path, flags | OFlags::CLOEXEC, Mode::empty()).tried(path)
}

impl Place {
    fn new(root: &Path) -> Result<Self> {
        let root =
            rustix::fs::open(root, PIN | OFlags::DIRECTORY, Mode::empty()).tried("the tree")?;
        let descriptors = rustix::fs::open("/proc/self/fd", OFlags::PATH, Mode::empty())
            .tried("/proc/self/fd")?;
        let (ours, theirs) = rig::pair();
        Ok(Self {
            work: open(&root, "work", PIN)?,
            file: open(&root, "file", PIN)?,
            root,
            descriptors,
            sockets: (Socket::new(ours), Socket::new(theirs)),
        })
    }

    /// Passes a descriptor to ourselves and drops what arrives.
    fn pass(&self, fd: &OwnedFd) -> Result<()> {
        let (mut payload, mut fds) = (Vec::new(), Vec::new());
        let (ours, theirs) = &self.sockets;
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

fn only(work: impl FnMut() -> Result<()> + Send + 'static) -> Calls {
    Calls {
        work: Box::new(work),
        after: None,
        data: None,
    }
}

/// The calls of the case of that name on the files below `root`; none if none are known.
pub(crate) fn calls(root: &Path, case: &str) -> Result<Option<Calls>> {
    let place = Place::new(root)?;
    Ok(Some(match case {
        "fstat" | "fstat_socket" => only(move || stat_fd(&place.file)),
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
        "fgetxattr" => xattr(place),
        "setstat" => set_mode(place),
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
    only(move || {
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
}

fn walk_close(place: Place, length: usize) -> Calls {
    let names = names(length);
    let mut held: Vec<OwnedFd> = Vec::with_capacity(length);
    only(move || {
        for name in &names {
            let dir = held.last().unwrap_or(&place.root);
            let fd = openat(dir, name, PIN, Mode::empty())?;
            stat_fd(&fd)?;
            held.push(fd);
        }
        held.clear();
        Ok(())
    })
}

fn open_close(place: Place) -> Calls {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    only(move || {
        let number = DecInt::from_fd(&place.file);
        let fd = openat(&place.descriptors, number.as_c_str(), flags, Mode::empty())?;
        place.pass(&fd)
    })
}

fn read(place: &Place, bytes: usize) -> Result<Calls> {
    let file = open(&place.root, "big", OFlags::RDONLY)?;
    let data = Data {
        file: file.try_clone()?,
        bytes,
        way: Way::ToClient,
    };
    let mut buffer = vec![0_u8; bytes];
    let mut calls = only(move || {
        pread(&file, &mut buffer[..], 0)?;
        Ok(())
    });
    calls.data = Some(data);
    Ok(calls)
}

fn write(place: &Place, bytes: usize) -> Result<Calls> {
    let file = open(&place.root, "big", OFlags::RDWR)?;
    let data = Data {
        file: file.try_clone()?,
        bytes,
        way: Way::FromClient,
    };
    let buffer = vec![7_u8; bytes];
    let mut calls = only(move || {
        pwrite(&file, &buffer, 0)?;
        Ok(())
    });
    calls.data = Some(data);
    Ok(calls)
}

fn getdents(place: &Place, dir: &str) -> Result<Calls> {
    let dir = open(&place.root, dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); GETDENTS_BYTES];
    Ok(only(move || {
        seek(&dir, SeekFrom::Start(0))?;
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            entry?;
        }
        Ok(())
    }))
}

fn create(place: Place) -> Calls {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let path = OFlags::PATH | OFlags::CLOEXEC;
    only(move || {
        let name = c"created-bare";
        let file = openat(&place.work, name, flags, Mode::from_raw_mode(0o644))?;
        chown(&file)?;
        let control = openat(
            &place.descriptors,
            DecInt::from_fd(&file).as_c_str(),
            path,
            Mode::empty(),
        )?;
        stat_fd(&control)?;
        place.pass(&file)?;
        drop((file, control));
        unlinkat(&place.work, name, AtFlags::empty())?;
        Ok(())
    })
}

fn chown(fd: &OwnedFd) -> Result<()> {
    let (uid, gid) = (Some(Uid::ROOT), Some(Gid::ROOT));
    chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    Ok(())
}

fn mkdir(place: Place) -> Calls {
    only(move || {
        let (old, new) = (c"old-bare", c"new-bare");
        mkdirat(&place.work, old, Mode::from_raw_mode(0o755))?;
        let fd = openat(&place.work, old, PIN, Mode::empty())?;
        chown(&fd)?;
        stat_fd(&fd)?;
        renameat(&place.work, old, &place.work, new)?;
        unlinkat(&place.work, new, AtFlags::REMOVEDIR)?;
        Ok(())
    })
}

fn symlink(place: Place) -> Calls {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let name = c"link-bare";
    let work = place.work.try_clone();
    let mut calls = only(move || {
        symlinkat(c"../somewhere/else", &place.work, name)?;
        let fd = openat(&place.work, name, PIN, Mode::empty())?;
        chown(&fd)?;
        stat_fd(&fd)?;
        readlinkat_raw(&fd, c"", &mut buffer[..])?;
        Ok(())
    });
    calls.after = Some(Box::new(move || {
        let work = work.as_ref().map_err(ToString::to_string)?;
        unlinkat(work, name, AtFlags::empty())?;
        Ok(())
    }));
    calls
}

fn xattr(place: Place) -> Calls {
    let mut buffer = vec![0_u8; 4096];
    only(move || {
        let number = DecInt::from_fd(&place.file);
        getxattr(number.as_c_str(), XATTR.0, &mut buffer[..])?;
        Ok(())
    })
}

fn set_mode(place: Place) -> Calls {
    only(move || {
        let (number, mode) = (DecInt::from_fd(&place.file), Mode::from_raw_mode(0o640));
        chmodat(
            &place.descriptors,
            number.as_c_str(),
            mode,
            AtFlags::empty(),
        )?;
        Ok(())
    })
}
