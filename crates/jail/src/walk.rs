//! Destinations: from a path in the container to a descriptor inside its root, made if missing.
//!
//! Belongs here: lexical cleaning, the component walk on descriptors, creation of mount points.
//! Belongs elsewhere: what is then mounted there (`mounts`).
//! Must hold: nothing is ever opened but with `O_PATH`, and no call follows a link on its own
//! outside `RESOLVE_IN_ROOT`; whoever swaps names meanwhile can make us fail, never leave the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat, openat2,
    readlinkat,
};
use rustix::io::Errno;

/// Symbolic links one walk may follow in total; the reference limits their nesting to as many.
const LINKS_MAX: u32 = 254;

/// Steps one walk may take, link targets and lost races included: a bound on what a second process
/// that renames things under us can cost.
const STEPS_MAX: u32 = 10_000;

/// `O_PATH`: a handle on the object that cannot block, run, or change anything.
const PIN: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The lexical form of an absolute path: `//`, `.` and a trailing slash go, `x/..` cancels out
/// textually, also across symbolic links, as the reference does it before its walk.
pub(crate) fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => _ = kept.pop(),
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

/// What to make where the walk finds nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making {
    /// Type of the last component; those before it become directories.
    pub(crate) leaf: FileType,
    /// Permissions of all that is made; the inherited umask is taken off by the kernel.
    pub(crate) mode: u32,
}

/// Where a walk arrived.
#[derive(Debug)]
pub(crate) struct Place {
    /// The object, or the root of the topmost mount on it.
    pub(crate) fd: OwnedFd,
    /// The directory it was found in and its name there; `None` for the root itself, and for a
    /// place the kernel found for us in one call.
    pub(crate) named: Option<(OwnedFd, Vec<u8>)>,
}

/// Why a walk failed, and at which name.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) component: String,
    pub(crate) errno: Errno,
}

/// Finds or makes `path` (absolute, any spelling) inside `root`. With `by_kernel`, a single
/// `openat2` is tried first.
pub(crate) fn find_or_make(
    root: BorrowedFd<'_>,
    path: &str,
    making: Making,
    by_kernel: bool,
) -> Result<Place, Lost> {
    let path = clean(path);
    if by_kernel && let Ok(fd) = resolve(root, &path) {
        return Ok(Place { fd, named: None });
    }
    let place = walk(root, &path, Some(making))?;
    // With something to make, a walk ends at a place or in an error.
    place.ok_or(Lost {
        component: path,
        errno: Errno::NOENT,
    })
}

/// Finds `path` inside `root`; `None` if a component is missing.
pub(crate) fn find(root: BorrowedFd<'_>, path: &str) -> Result<Option<Place>, Lost> {
    walk(root, &clean(path), None)
}

/// The kernel's own walk. Fails where links dangle, are too many, or something is renamed just
/// now; the component walk then decides.
fn resolve(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let relative = if path == "/" {
        "."
    } else {
        path.trim_start_matches('/')
    };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, relative, PIN, Mode::empty(), how)
}

/// One walk: the names still ahead (nearest last), the directories behind.
struct Walk<'r> {
    root: BorrowedFd<'r>,
    ahead: Vec<Vec<u8>>,
    behind: Vec<(OwnedFd, Vec<u8>)>,
    links: u32,
}

fn walk(root: BorrowedFd<'_>, path: &str, making: Option<Making>) -> Result<Option<Place>, Lost> {
    let mut walk = Walk {
        root,
        ahead: Vec::new(),
        behind: Vec::new(),
        links: 0,
    };
    walk.push_ahead(path.as_bytes());
    for _ in 0..STEPS_MAX {
        let Some(name) = walk.ahead.pop() else {
            return walk.arrive().map(Some);
        };
        let lost = |errno| Lost {
            component: String::from_utf8_lossy(&name).into_owned(),
            errno,
        };
        if name == b".." {
            walk.behind.pop();
            continue;
        }
        match openat(walk.here(), &name, PIN | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => walk.enter(fd, &name).map_err(lost)?,
            Err(Errno::NOENT) => match making {
                None => return Ok(None),
                Some(making) => walk.make(&name, making).map_err(lost)?,
            },
            Err(errno) => return Err(lost(errno)),
        }
    }
    Err(Lost {
        component: path.to_owned(),
        errno: Errno::LOOP,
    })
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.behind.last().map_or(self.root, |(fd, _)| fd.as_fd())
    }

    fn push_ahead(&mut self, path: &[u8]) {
        let names = path
            .split(|byte| *byte == b'/')
            .filter(|name| !matches!(*name, b"" | b"."));
        self.ahead.extend(names.rev().map(<[u8]>::to_vec));
    }

    /// One step on: into what was found, or to where the link points.
    fn enter(&mut self, fd: OwnedFd, name: &[u8]) -> Result<(), Errno> {
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::Symlink {
            self.behind.push((fd, name.to_vec()));
            return Ok(());
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        let target = readlinkat(&fd, "", Vec::new())?.into_bytes();
        if target.starts_with(b"/") {
            self.behind.clear();
        }
        self.push_ahead(&target);
        Ok(())
    }

    /// Nothing is called `name` here. Below it there is nothing to follow either, so the rest of
    /// the way is cleaned lexically; if `name` survives that, it is made, and the walk looks again
    /// (an object that somebody else made meanwhile is as good).
    fn make(&mut self, name: &[u8], making: Making) -> Result<(), Errno> {
        self.ahead.push(name.to_vec());
        self.cancel_ahead();
        if self.ahead.last().is_none_or(|next| next != name) {
            return Ok(());
        }
        let leaf = if self.ahead.len() == 1 {
            making.leaf
        } else {
            FileType::Directory
        };
        let mode = Mode::from_raw_mode(making.mode);
        let made = match leaf {
            FileType::Directory => mkdirat(self.here(), name, mode),
            _ => mknodat(self.here(), name, FileType::RegularFile, mode, 0),
        };
        match made {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Lets `x/..` cancel out among the names ahead; leading `..` stay.
    fn cancel_ahead(&mut self) {
        let mut kept: Vec<Vec<u8>> = Vec::new();
        while let Some(name) = self.ahead.pop() {
            match kept.last() {
                Some(last) if name == b".." && last != b".." => _ = kept.pop(),
                _ => kept.push(name),
            }
        }
        kept.reverse();
        self.ahead = kept;
    }

    fn arrive(mut self) -> Result<Place, Lost> {
        let copy = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|error| Lost {
                component: "/".to_owned(),
                errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
            })
        };
        let Some((fd, name)) = self.behind.pop() else {
            return Ok(Place {
                fd: copy(self.root)?,
                named: None,
            });
        };
        let parent = copy(self.here())?;
        Ok(Place {
            fd,
            named: Some((parent, name)),
        })
    }
}

/// Opens a path of the host, links followed.
pub(crate) fn pin_host(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, PIN, Mode::empty())
}

/// Is this a directory?
pub(crate) fn is_directory(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// Which mount a descriptor is on, by the number that `mountinfo` shows.
pub(crate) fn mount_id(fd: impl AsFd) -> Result<u64, Errno> {
    use rustix::fs::{StatxFlags, statx};
    let fd = fd.as_fd();
    match statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 => return Ok(stat.stx_mnt_id),
        // Linux before 5.8; another user's FUSE mount, whose attributes are not ours to see.
        Ok(_) | Err(Errno::ACCESS) => {}
        Err(errno) => return Err(errno),
    }
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = std::fs::read_to_string(path)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let line = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    line.and_then(|id| id.trim().parse().ok())
        .ok_or(Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    const DIRECTORY: Making = Making {
        leaf: FileType::Directory,
        mode: 0o777,
    };

    fn root_of(dir: &Path) -> OwnedFd {
        pin_host(dir.to_str().unwrap()).unwrap()
    }

    /// Where `path` leads, as a path below `dir`; by the kernel and by the component walk.
    fn leads(dir: &Path, path: &str) -> String {
        let root = root_of(dir);
        let place = find_or_make(root.as_fd(), path, DIRECTORY, false).unwrap();
        let inode = fstat(&place.fd).unwrap().st_ino;
        let again = find_or_make(root.as_fd(), path, DIRECTORY, true).unwrap();
        assert_eq!(
            fstat(&again.fd).unwrap().st_ino,
            inode,
            "both ways end at one object"
        );
        let found = walkdir(dir)
            .into_iter()
            .find(|path| fs::metadata(path).unwrap().ino() == inode);
        found
            .unwrap()
            .strip_prefix(dir)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn walkdir(dir: &Path) -> Vec<std::path::PathBuf> {
        let mut all = vec![dir.to_owned()];
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                all.extend(walkdir(&entry.path()));
            } else if !kind.is_symlink() {
                all.push(entry.path());
            }
        }
        all
    }

    #[test]
    fn cleaning_is_lexical() {
        for (from, to) in [
            ("/a//b/./c/", "/a/b/c"),
            ("/link/ov/../ovl", "/link/ovl"),
            ("/../..", "/"),
            ("relative", "/relative"),
        ] {
            assert_eq!(clean(from), to);
        }
    }

    #[test]
    fn links_are_followed_inside_the_root_and_missing_ends_are_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("var/real")).unwrap();
        for (target, link) in [
            ("/var/real", "absolute"),
            ("var/real", "relative"),
            ("../../../../var/real", "climbing"),
            ("/nowhere/yet", "dangling"),
            ("missing/../var", "textual"),
            ("/dangling/deeper", "var/twice"),
        ] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        assert_eq!(leads(dir.path(), "/absolute/new"), "var/real/new");
        assert_eq!(leads(dir.path(), "/relative/new2"), "var/real/new2");
        assert_eq!(leads(dir.path(), "/climbing"), "var/real");
        assert_eq!(leads(dir.path(), "/dangling/x"), "nowhere/yet/x");
        assert_eq!(leads(dir.path(), "/var/twice"), "nowhere/yet/deeper");
        assert_eq!(leads(dir.path(), "/"), "");
        let root = root_of(dir.path());
        let place = find_or_make(root.as_fd(), "/textual/real", DIRECTORY, false).unwrap();
        let real = fs::metadata(dir.path().join("var/real")).unwrap().ino();
        assert_eq!(fstat(&place.fd).unwrap().st_ino, real);
        assert!(
            !dir.path().join("missing").exists(),
            "what cancels out textually is not made"
        );
    }

    #[test]
    fn a_loop_and_a_file_in_the_middle_fail_cleanly() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/b", dir.path().join("a")).unwrap();
        symlink("/a", dir.path().join("b")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let root = root_of(dir.path());
        let fails = |path| {
            find_or_make(root.as_fd(), path, DIRECTORY, true)
                .unwrap_err()
                .errno
        };
        assert_eq!(fails("/a/x"), Errno::LOOP);
        assert_eq!(fails("/file/x"), Errno::NOTDIR);
    }

    #[test]
    fn a_file_mount_point_is_made_and_a_fifo_in_its_place_is_good_enough() {
        let dir = tempfile::tempdir().unwrap();
        let root = root_of(dir.path());
        let file = Making {
            leaf: FileType::RegularFile,
            mode: 0o777,
        };
        find_or_make(root.as_fd(), "/etc/new/file", file, true).unwrap();
        assert!(
            fs::metadata(dir.path().join("etc/new/file"))
                .unwrap()
                .is_file()
        );
        mknodat(&root, "fifo", FileType::Fifo, Mode::RWXU, 0).unwrap();
        let place = find_or_make(root.as_fd(), "/fifo", file, false).unwrap();
        assert_eq!(
            FileType::from_raw_mode(fstat(&place.fd).unwrap().st_mode),
            FileType::Fifo
        );
    }
}
