//! The gofer's own flags: those behind the word `gofer`.

use std::ffi::OsString;
use std::path::PathBuf;

use jail::Conf;

use super::globals::{fd, number, switch, text};
use super::grammar::{Level, Unknown, parse};
use super::value::Value;
use super::{UsageError, table};

/// Which family of releases the parent belongs to, as far as a gofer can and need tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// No mount configurations: flags decide what is read-only.
    V2022_12,
    /// v2024-03 and v2024-07, which cannot be told apart.
    V2024,
    /// With the parent's mount-opening service.
    V2026_08,
}

impl Dialect {
    /// Every dialect's name, as `--version` and the log say it.
    pub(crate) const NAMES: [&str; 4] = ["v2022-12", "v2024-03", "v2024-07", "v2026-08"];

    /// The name for the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dialect::V2022_12 => "v2022-12",
            Dialect::V2024 => "v2024-03/v2024-07",
            Dialect::V2026_08 => "v2026-08",
        }
    }
}

/// What the gofer flags say. A descriptor is a number here; it becomes an owned one in `jail`.
#[derive(Clone, Debug)]
pub(crate) struct GoferFlags {
    pub(crate) dialect: Dialect,
    pub(crate) bundle: PathBuf,
    pub(crate) spec_fd: i32,
    pub(crate) mounts_fd: Option<i32>,
    pub(crate) io_fds: Vec<i32>,
    pub(crate) dev_io_fd: Option<i32>,
    pub(crate) confs: Vec<Conf>,
    /// False: somebody else already did it.
    pub(crate) apply_caps: bool,
    /// False: somebody else already did it.
    pub(crate) setup_root: bool,
    pub(crate) sync_nvproxy_fd: Option<i32>,
    pub(crate) sync_chroot_fd: Option<i32>,
    pub(crate) sync_userns_fd: Option<i32>,
    /// Pipe to the reference's unmount helper.
    pub(crate) proc_mount_sync_fd: Option<i32>,
    pub(crate) rpc_fd: Option<i32>,
    pub(crate) pin_ring_fd: Option<i32>,
    pub(crate) sync_sentry_exit_fd: Option<i32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Flag and number of each profile descriptor.
    pub(crate) profile_fds: Vec<(&'static str, i32)>,
    pub(crate) container_id: Option<OsString>,
}

impl GoferFlags {
    /// Reads the words behind `gofer`.
    ///
    /// # Errors
    /// A flag that is unknown, malformed, missing or names another's descriptor: exit status 128.
    pub(crate) fn parse(words: &[OsString]) -> Result<GoferFlags, UsageError> {
        let level = parse(table::GOFER, Unknown::Refuse, words)?;
        let flags = GoferFlags {
            dialect: dialect(&level),
            bundle: text(&level, "bundle")
                .map(PathBuf::from)
                .ok_or_else(|| rule("--bundle is missing: it names the bundle's directory"))?,
            spec_fd: fd(&level, "spec-fd").ok_or_else(|| {
                rule("--spec-fd is missing: it gives the descriptor of config.json")
            })?,
            mounts_fd: fd(&level, "mounts-fd"),
            io_fds: lists(&level, "io-fds", |value| match value {
                Value::Fds(fds) => fds.as_slice(),
                _ => &[],
            }),
            dev_io_fd: fd(&level, "dev-io-fd"),
            confs: lists(&level, "gofer-mount-confs", |value| match value {
                Value::Confs(confs) => confs.as_slice(),
                _ => &[],
            }),
            apply_caps: switch(&level, "apply-caps", true),
            setup_root: switch(&level, "setup-root", true),
            sync_nvproxy_fd: fd(&level, "sync-nvproxy-fd"),
            sync_chroot_fd: fd(&level, "sync-chroot-fd"),
            sync_userns_fd: fd(&level, "sync-userns-fd"),
            proc_mount_sync_fd: fd(&level, "proc-mount-sync-fd"),
            rpc_fd: fd(&level, "rpc-fd"),
            pin_ring_fd: fd(&level, "pin-ring-fd"),
            sync_sentry_exit_fd: fd(&level, "sync-sentry-exit-fd"),
            uid: id(&level, "uid")?,
            gid: id(&level, "gid")?,
            profile_fds: table::PROFILES
                .iter()
                .filter_map(|name| Some((*name, fd(&level, name)?)))
                .collect(),
            container_id: level.rest.first().cloned(),
        };
        flags.check(level.rest.len())?;
        Ok(flags)
    }

    fn check(&self, words_left: usize) -> Result<(), UsageError> {
        // The reference also refuses a device connection alone; that only hurts EROFS roots.
        if self.io_fds.is_empty() && self.dev_io_fd.is_none() {
            return Err(rule(
                "--io-fds is missing: it gives one socket for each connection",
            ));
        }
        if let Some(bad) = self.io_fds.iter().find(|fd| **fd < 0) {
            return Err(rule(&format!(
                "--io-fds holds {bad}, which is no descriptor"
            )));
        }
        if self.dialect == Dialect::V2026_08 {
            if words_left != 1 {
                return Err(rule(&format!(
                    "want the container's id as the only word, not {words_left} words"
                )));
            }
            if self.rpc_fd.is_none() {
                return Err(rule(
                    "--rpc-fd is missing: it gives the socket to the parent's service",
                ));
            }
        }
        match self.twice_named() {
            Some(fd) => Err(rule(&format!("two flags name descriptor {fd}"))),
            None => Ok(()),
        }
    }

    /// Every descriptor the flags hand over.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = i32> {
        let single = [
            Some(self.spec_fd),
            self.mounts_fd,
            self.dev_io_fd,
            self.sync_nvproxy_fd,
            self.sync_chroot_fd,
            self.sync_userns_fd,
            self.proc_mount_sync_fd,
            self.rpc_fd,
            self.pin_ring_fd,
            self.sync_sentry_exit_fd,
        ];
        let profiles = self.profile_fds.iter().map(|(_, fd)| *fd);
        single
            .into_iter()
            .flatten()
            .chain(self.io_fds.iter().copied())
            .chain(profiles)
    }

    fn twice_named(&self) -> Option<i32> {
        let mut all: Vec<i32> = self.descriptors().collect();
        all.sort_unstable();
        all.windows(2)
            .find(|pair| pair[0] == pair[1])
            .map(|pair| pair[0])
    }
}

fn rule(text: &str) -> UsageError {
    UsageError::Rule(text.to_owned())
}

fn dialect(level: &Level<'_>) -> Dialect {
    let seen = |name| level.last(name).is_some();
    if seen("rpc-fd") || seen("sync-chroot-fd") || !level.rest.is_empty() {
        Dialect::V2026_08
    } else if seen("gofer-mount-confs") {
        Dialect::V2024
    } else {
        Dialect::V2022_12
    }
}

/// A list flag's items, over all its occurrences.
fn lists<T: Clone>(level: &Level<'_>, name: &str, items: impl Fn(&Value) -> &[T]) -> Vec<T> {
    level
        .all(name)
        .flat_map(|value| items(value).to_vec())
        .collect()
}

fn id(level: &Level<'_>, name: &str) -> Result<u32, UsageError> {
    let number = number(level, name).unwrap_or(0);
    // The last number is the kernel's "leave it as it is".
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(rule(&format!("--{name}={number} is no id"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;
    use crate::flags::SyntaxError;
    use jail::conf::{Lower, Upper};

    fn parse(text: &str) -> Result<GoferFlags, UsageError> {
        let words: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        GoferFlags::parse(&words)
    }

    #[test]
    fn the_dialect_shows_in_the_flags() {
        let base = "--bundle B --spec-fd=3 --mounts-fd=4 --io-fds=5";
        assert_eq!(parse(base).unwrap().dialect, Dialect::V2022_12);
        let confs = format!("{base} --gofer-mount-confs=lisafs:self");
        assert_eq!(parse(&confs).unwrap().dialect, Dialect::V2024);
        let newest = parse(&format!("{confs} --rpc-fd=6 --sync-chroot-fd=7 ID")).unwrap();
        assert_eq!(
            (newest.dialect, newest.container_id),
            (Dialect::V2026_08, Some("ID".into()))
        );
    }

    #[test]
    fn lists_append_over_repeats_and_commas() {
        let flags = parse(
            "--bundle=B --spec-fd=3 --io-fds=5,6 --io-fds 7 --gofer-mount-confs=lisafs:self,none:anon \
             --gofer-mount-confs lisafs:none",
        );
        let flags = flags.unwrap();
        assert_eq!(flags.io_fds, [5, 6, 7]);
        assert_eq!(flags.confs.len(), 3);
        assert_eq!(
            (flags.confs[1].lower, flags.confs[1].upper),
            (Lower::None, Upper::Anonymous)
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (text, named) in [
            ("--spec-fd=3 --io-fds=5", "--bundle"),
            ("--bundle= --spec-fd=3 --io-fds=5", "--bundle"),
            ("--bundle B --io-fds=5", "--spec-fd"),
            ("--bundle B --spec-fd=-1 --io-fds=5", "--spec-fd"),
            ("--bundle B --spec-fd=3", "--io-fds"),
            ("--bundle B --spec-fd=3 --io-fds=-1", "-1"),
            ("--bundle B --spec-fd=3 --io-fds=-2", "-2"),
            (
                "--bundle B --spec-fd=3 --io-fds=5 --sync-chroot-fd=6",
                "container's id",
            ),
            (
                "--bundle B --spec-fd=3 --io-fds=5 --sync-chroot-fd=6 ID",
                "--rpc-fd",
            ),
            (
                "--bundle B --spec-fd=3 --io-fds=5 --rpc-fd=6 A B",
                "2 words",
            ),
            ("--bundle B --spec-fd=3 --io-fds=3", "descriptor 3"),
            ("--bundle B --spec-fd=3 --io-fds=5 --new-fd=6", "new-fd"),
            ("--bundle B --spec-fd=3 --io-fds=5 --debug=true", "debug"),
            ("--bundle B --spec-fd=3 --io-fds=5 --uid=-1", "--uid=-1"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(named), "{text}: {message}");
        }
        assert!(matches!(
            parse("-h").unwrap_err(),
            UsageError::Syntax(SyntaxError::Help)
        ));
    }

    #[test]
    fn a_device_connection_alone_is_enough() {
        let flags =
            parse("--bundle B --spec-fd=3 --gofer-mount-confs=erofs:memory --dev-io-fd=5").unwrap();
        assert_eq!((flags.io_fds.len(), flags.dev_io_fd), (0, Some(5)));
    }
}
