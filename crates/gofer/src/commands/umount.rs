//! `gofer umount`: the end of a mount.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::Failure;

/// The type of our mounts, as the kernel lists it.
const KIND: &[u8] = b"fuse.gofer";
/// Waits on standard input for the end of whoever serves the mount of the device number that
/// follows, then unmounts it if it is still there.
pub(super) const ABANDONED: &str = "--when-abandoned";

/// What `gofer umount` accepts.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gofer umount /mnt
  gofer umount --lazy /mnt   # also when files in it are open; it goes with the last of them")]
pub(super) struct Args {
    /// Take it out of sight now, even if it is in use
    #[arg(long)]
    lazy: bool,
    #[arg(long, hide = true, value_name = "DEVICE")]
    when_abandoned: Option<u64>,
    /// Where it is mounted
    #[arg(value_name = "MOUNTPOINT")]
    point: PathBuf,
}

/// Unmounts.
pub(super) fn run(args: &Args) -> Result<ExitStatus, Failure> {
    if let Some(device) = args.when_abandoned {
        wait_for_the_end();
        if listed(&args.point)?.map(|(_, dev)| dev) == Some(device) {
            _ = leave(&args.point, true);
        }
        return Ok(ExitStatus::default());
    }
    let point = absolute(&args.point)?;
    match listed(&point)? {
        None => Err(Failure::Argument(format!(
            "nothing is mounted on {}",
            point.display()
        ))),
        Some((kind, _)) if kind != KIND => Err(Failure::Argument(format!(
            "{} is not a mount of gofer's but of type {}",
            point.display(),
            String::from_utf8_lossy(&kind)
        ))),
        Some(_) => leave(&point, args.lazy),
    }
}

fn wait_for_the_end() {
    let mut byte = [0];
    // Nothing is ever written; errors are an end too.
    while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
}

/// The path without symbolic links, without looking at what is mounted there: it may be dead.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let cannot = |cause| Failure::File {
        what: "cannot find",
        path: path.to_owned(),
        cause,
    };
    let whole = std::path::absolute(path).map_err(cannot)?;
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize().map_err(cannot)?.join(name)),
        _ => Ok(whole),
    }
}

/// Type and device number of what is mounted on top at a path.
pub(super) fn listed(point: &Path) -> Result<Option<(Vec<u8>, u64)>, Failure> {
    let list = std::fs::read("/proc/self/mountinfo").map_err(|cause| Failure::File {
        what: "cannot read",
        path: "/proc/self/mountinfo".into(),
        cause,
    })?;
    let mounts = list.split(|&byte| byte == b'\n').filter_map(parse);
    let mut here = mounts.filter(|(path, _, _)| path == point);
    Ok(here.next_back().map(|(_, kind, device)| (kind, device)))
}

/// One line of `mountinfo`: mount point, type, device number.
fn parse(line: &[u8]) -> Option<(PathBuf, Vec<u8>, u64)> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let separator = fields.iter().position(|field| *field == b"-")?;
    let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    let kind = fields.get(separator + 1)?.to_vec();
    Some((unescape(fields.get(4)?).into(), kind, device))
}

/// Blanks and backslashes are listed in octal.
fn unescape(text: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(first));
        rest = match octal {
            Some(_) => &after[3..],
            None => after,
        };
    }
    OsString::from_vec(plain)
}

fn leave(point: &Path, lazy: bool) -> Result<ExitStatus, Failure> {
    let flags = match lazy {
        true => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        false => UnmountFlags::NOFOLLOW,
    };
    match unmount(point, flags) {
        Ok(()) => Ok(ExitStatus::default()),
        Err(Errno::PERM) => by_helper(point, lazy),
        Err(Errno::BUSY) => Err(Failure::Argument(format!(
            "{} is in use (`fuser -vm` tells by whom); --lazy unmounts it all the same",
            point.display()
        ))),
        Err(errno) => Err(Failure::File {
            what: "cannot unmount",
            path: point.to_owned(),
            cause: errno.into(),
        }),
    }
}

/// `fusermount3`, which may what we may not.
fn by_helper(point: &Path, lazy: bool) -> Result<ExitStatus, Failure> {
    let mut helper = Command::new("fusermount3");
    helper.arg("-u").args(lazy.then_some("-z"));
    let path = match point.as_os_str().as_bytes().first() {
        Some(b'-') => Path::new(".").join(point),
        _ => point.to_owned(),
    };
    helper.arg(path).status().map_err(|cause| Failure::Started {
        what: "fusermount3, from the package fuse3, which unmounts for those who are not root",
        cause,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn lines_of_mounts_are_understood() {
        let line = br"40 30 0:35 / /a\040b\134 rw,nosuid shared:1 - fuse.gofer /src rw,user_id=0";
        let (path, kind, device) = parse(line).unwrap();
        assert_eq!(path, Path::new("/a b\\"));
        assert_eq!(
            (kind.as_slice(), device),
            (KIND, rustix::fs::makedev(0, 35))
        );
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 2 x / / rw"), None);
        assert_eq!(unescape(br"\9a\04"), OsStr::new(r"\9a\04"));
    }
}
