//! Which mounts lie below another, so that "read-only" can mean all of it.
//!
//! Belongs here: reading `mountinfo`, opening what it lists. Belongs elsewhere: setting attributes
//! (`mounts`), deciding which (`stage`).
//! Why not the kernel's recursive form: it would also take in volumes that were mounted inside and
//! are meant to be writable.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;

use crate::Error;
use crate::error::Doing;
use crate::walk::{find, mount_id};

/// How often the list is read again if names moved while we followed them.
const TRIES: u32 = 8;

/// One line of `mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    id: u64,
    parent: u64,
    /// Unescaped path of the mount point.
    point: Vec<u8>,
}

/// Handles on all mounts below `top` that can be reached, leaving out the mounts in `except` and
/// all below those.
pub(crate) fn submounts(
    top: BorrowedFd<'_>,
    except: &BTreeSet<u64>,
) -> Result<Vec<OwnedFd>, Error> {
    let top_id = mount_id(top).doing(|| "reading a mount's number")?;
    for _ in 0..TRIES {
        let lines = read_list()?;
        if let Some(found) = open_all(top, top_id, &lines, except) {
            return Ok(found);
        }
    }
    Err(Error::Place(
        "mounts below the image keep moving while they are made read-only; does something rename \
         directories in it?"
            .to_owned(),
    ))
}

/// Device (major, minor) and inode number of every directory below `top` that holds a mount point:
/// what is listed there lies on other devices than the directory itself. `None` if that cannot be
/// told; then any directory may.
pub(crate) fn holders(top: BorrowedFd<'_>) -> Option<Vec<(u32, u32, u64)>> {
    let lines = read_list().ok()?;
    let nothing = BTreeSet::new();
    let holder = |(_, path): (&Line, &[u8])| {
        let path = std::str::from_utf8(path).ok()?;
        let (parent, _name) = path.rsplit_once('/')?;
        let place = find(top, if parent.is_empty() { "/" } else { parent }).ok()??;
        let (flags, wanted) = (AtFlags::EMPTY_PATH, StatxFlags::INO);
        let stat = statx(place.fd, c"", flags, wanted).ok()?;
        Some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
    };
    below(mount_id(top).ok()?, &lines, &nothing)
        .into_iter()
        .map(holder)
        .collect()
}

fn read_list() -> Result<Vec<Line>, Error> {
    let bytes = std::fs::read("/proc/self/mountinfo").map_err(|error| {
        Error::host(
            "reading /proc/self/mountinfo",
            Errno::from_io_error(&error).unwrap_or(Errno::IO),
        )
    })?;
    Ok(bytes
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    Some(Line {
        id,
        parent,
        point: unescape(fields.nth(2)?),
    })
}

/// `\040` and its like back to bytes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

/// The mounts below `top`, each with the path to it from there.
fn below<'l>(top: u64, lines: &'l [Line], except: &BTreeSet<u64>) -> Vec<(&'l Line, &'l [u8])> {
    let Some(base) = lines.iter().find(|line| line.id == top) else {
        return Vec::new();
    };
    let base = base.point.strip_suffix(b"/").unwrap_or(&base.point);
    let mut inside = BTreeSet::from([top]);
    let mut found = Vec::new();
    // A mount is listed after its parent, unless it was moved: go round until nothing is new.
    loop {
        let before = inside.len();
        for line in lines.iter().filter(|line| !except.contains(&line.id)) {
            if inside.contains(&line.parent) && inside.insert(line.id) {
                found.push((line, line.point.strip_prefix(base).unwrap_or(&line.point)));
            }
        }
        if inside.len() == before {
            return found;
        }
    }
}

/// `None`: something that should be reachable was not found under its name.
fn open_all(
    top: BorrowedFd<'_>,
    top_id: u64,
    lines: &[Line],
    except: &BTreeSet<u64>,
) -> Option<Vec<OwnedFd>> {
    let mut opened = Vec::new();
    for (line, path) in below(top_id, lines, except) {
        let path = String::from_utf8(path.to_vec()).ok();
        match path.map(|path| find(top, &path)) {
            Some(Ok(Some(place))) if mount_id(place.fd.as_fd()).ok() == Some(line.id) => {
                opened.push(place.fd);
            }
            // Behind a directory that we may not search: no thread that serves has more rights.
            Some(Err(lost)) if lost.errno == Errno::ACCESS => {}
            _ if is_covered(line, lines) || line.point.ends_with(b"//deleted") => {}
            _ => return None,
        }
    }
    Some(opened)
}

/// Does a later mount hide this one? Then nobody reaches it by walking.
fn is_covered(line: &Line, lines: &[Line]) -> bool {
    lines.iter().any(|other| {
        other.id != line.id && {
            let path = other.point.strip_suffix(b"/").unwrap_or(&other.point);
            let rest = line.point.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
                && !is_ancestor(other.id, line, lines)
        }
    })
}

fn is_ancestor(id: u64, line: &Line, lines: &[Line]) -> bool {
    let mut parent = line.parent;
    for _ in 0..lines.len() {
        if parent == id {
            return true;
        }
        match lines.iter().find(|line| line.id == parent) {
            Some(next) if next.parent != parent => parent = next.parent,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes() {
        let line = parse(br"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 - ext3 /dev/root rw");
        assert_eq!(
            line,
            Some(Line {
                id: 36,
                parent: 35,
                point: br"/a b\c".to_vec()
            })
        );
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn what_lies_below_leaves_out_other_volumes_and_their_own() {
        let line = |id, parent, point: &str| Line {
            id,
            parent,
            point: point.into(),
        };
        let lines = [
            line(1, 0, "/"),
            line(2, 1, "/r"),
            line(3, 2, "/r/sub"),
            line(4, 3, "/r/sub/volume"),
            line(5, 4, "/r/sub/volume/inner"),
            line(6, 1, "/other"),
        ];
        let found = below(2, &lines, &BTreeSet::from([4]));
        assert_eq!(
            found
                .iter()
                .map(|(line, path)| (line.id, *path))
                .collect::<Vec<_>>(),
            [(3, b"/sub".as_slice())]
        );
        let covering = [line(1, 0, "/"), line(2, 1, "/a/b"), line(3, 1, "/a")];
        assert!(is_covered(&covering[1], &covering));
        assert!(!is_covered(&covering[2], &covering));
    }
}
