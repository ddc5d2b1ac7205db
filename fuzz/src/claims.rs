//! What a server claims about its tree, compared with the tree.

use std::collections::BTreeSet;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use client::Client;
use wire::{FdId, Statx};

/// Directories deeper than this are not looked at: a run makes a few at most.
const DEPTH_MAX: usize = 12;

/// Every file of the tree is reached under its name, with its attributes, and listed.
///
/// # Errors
/// What the server says differently.
///
/// # Panics
/// If the server refuses what it must do.
pub fn check(client: &Client, root: FdId, tree: &Path) -> Result<(), String> {
    directory(client, root, tree, 0)
}

fn directory(client: &Client, dir: FdId, path: &Path, depth: usize) -> Result<(), String> {
    let entries = std::fs::read_dir(path).map_err(|error| format!("{path:?}: {error}"))?;
    let names: BTreeSet<Vec<u8>> = entries
        .flatten()
        .map(|entry| entry.file_name().into_vec())
        .collect();
    let asked = |error| format!("{path:?}: {error:?}");
    let opened = client.open_at(dir, 0).map_err(asked)?.id;
    let listed: Result<BTreeSet<Vec<u8>>, _> = client
        .read_dir(opened)
        .map(|entry| Ok(entry?.name))
        .collect();
    client.close(&[opened]).map_err(asked)?;
    let mut listed = listed.map_err(asked)?;
    listed.retain(|name| name != b"." && name != b"..");
    if listed != names {
        return Err(format!(
            "{path:?} is listed as {listed:?}, and has {names:?}"
        ));
    }
    for name in names {
        let path = path.join(std::ffi::OsStr::from_bytes(&name));
        let inode = client.walk_one(dir, &name).map_err(asked)?;
        let host =
            std::fs::symlink_metadata(&path).map_err(|error| format!("{path:?}: {error}"))?;
        let below = if host.is_dir() && depth < DEPTH_MAX {
            directory(client, inode.control, &path, depth + 1)
        } else {
            Ok(())
        };
        let now = client.fstat(inode.control).map_err(asked)?;
        client.close(&[inode.control]).map_err(asked)?;
        below?;
        same(&inode.stat, &host, &path)?;
        same(&now, &host, &path)?;
    }
    Ok(())
}

fn same(claimed: &Statx, host: &std::fs::Metadata, path: &Path) -> Result<(), String> {
    let device = rustix::fs::makedev(claimed.dev_major, claimed.dev_minor);
    let pairs = [
        (device, host.dev()),
        (claimed.ino, host.ino()),
        (claimed.mode.into(), host.mode().into()),
        (claimed.uid.into(), host.uid().into()),
        (claimed.gid.into(), host.gid().into()),
        (claimed.size, host.size()),
        (claimed.nlink.into(), host.nlink()),
    ];
    match pairs.iter().all(|(claimed, host)| claimed == host) {
        true => Ok(()),
        false => Err(format!(
            "{path:?} is claimed to be {claimed:?}, and is {host:?}"
        )),
    }
}
