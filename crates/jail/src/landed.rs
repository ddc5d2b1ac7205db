//! The cleaned mounts list: where each volume really landed, for the sandbox to read.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::fstatfs;
use rustix::io::{Errno, write};

use crate::Error;
use crate::error::Doing;
use crate::plan::Dialect;
use crate::spec::Mount;

const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
const NFS_MAGIC: u64 = 0x6969;
const FUSE_MAGIC: u64 = 0x6573_5546;

/// The option the sandbox must know of for files on this file system, if any.
pub(crate) fn appended_option(
    dialect: Dialect,
    mounted: impl AsFd,
) -> Result<Option<&'static str>, Errno> {
    Ok(option_for(
        dialect,
        u64::try_from(fstatfs(mounted)?.f_type).unwrap_or(0),
    ))
}

fn option_for(dialect: Dialect, magic: u64) -> Option<&'static str> {
    match magic {
        // Descriptors may go stale when a file is copied up.
        OVERLAYFS_MAGIC => Some("overlayfs_stale_read"),
        // Remote file systems flush when a descriptor is closed.
        NFS_MAGIC if dialect >= Dialect::V2024 => Some("disable_file_handle_sharing"),
        FUSE_MAGIC if dialect >= Dialect::V2026 => Some("disable_file_handle_sharing"),
        _ => None,
    }
}

/// One JSON array, no newline.
pub(crate) fn encode(mounts: &[Mount]) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(mounts).map_err(|error| Error::Spec(error.to_string()))
}

/// Writes the list and closes the pipe: its end is what the sandbox waits for.
pub(crate) fn send(pipe: OwnedFd, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        match write(&pipe, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::PIPE) => return Err(Error::ReaderGone(Errno::PIPE)),
            Err(errno) => return Err(errno).doing(|| "writing the mounts list"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    #[test]
    fn each_file_system_gets_the_option_its_release_knows() {
        let stale = Some("overlayfs_stale_read");
        let unshared = Some("disable_file_handle_sharing");
        for (magic, expected) in [
            (OVERLAYFS_MAGIC, [stale, stale, stale]),
            (NFS_MAGIC, [None, unshared, unshared]),
            (FUSE_MAGIC, [None, None, unshared]),
            (0xef53, [None, None, None]),
        ] {
            let dialects = [Dialect::V2022, Dialect::V2024, Dialect::V2026];
            assert_eq!(dialects.map(|dialect| option_for(dialect, magic)), expected);
        }
    }

    #[test]
    fn an_empty_list_is_brackets_and_a_gone_reader_has_its_own_status() {
        assert_eq!(encode(&[]).unwrap(), b"[]");
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        assert_eq!(send(writer, b"[]").unwrap_err().exit_status(), 2);
    }
}
