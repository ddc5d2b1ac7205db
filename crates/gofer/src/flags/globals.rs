//! Global flags: those in front of the word `gofer`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::grammar::{Level, SyntaxError, Unknown, parse};
use super::value::Value;
use super::{UsageError, table};

/// `--host-uds`: what the sandbox may do with the host's Unix sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostUds {
    #[default]
    None,
    Open,
    Create,
    All,
}

/// `--character-device-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CharacterDevices {
    #[default]
    EmulatedOnly,
    PreferEmulated,
    Passthrough,
}

/// `--debug-log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
    JsonK8s,
}

/// Which layers v2022-12's `--overlay2` or `--overlay` cover. Later dialects say it by mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OverlayScope {
    pub(crate) root: bool,
    pub(crate) mounts: bool,
}

/// What the global flags say, defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Globals {
    pub(crate) version: bool,
    pub(crate) help: bool,
    /// Debug lines are wanted of this process.
    pub(crate) debug: bool,
    /// Whether `--debug-command` names gofers, or nobody in particular.
    pub(crate) debug_gofers: bool,
    pub(crate) log_fd: Option<i32>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) debug_log_fd: Option<i32>,
    pub(crate) debug_log: Option<PathBuf>,
    pub(crate) panic_log_fd: Option<i32>,
    /// Text of `--debug-log-format`: a bad one is an error only if a log is open.
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) also_to_stderr: bool,
    pub(crate) host_uds: HostUds,
    pub(crate) host_fifo_open: bool,
    pub(crate) directfs: bool,
    pub(crate) fd_limit: Option<u64>,
    pub(crate) overlay: OverlayScope,
    pub(crate) nvproxy: bool,
    pub(crate) nvproxy_docker: bool,
    pub(crate) tpuproxy: bool,
    pub(crate) rdmaproxy: bool,
    pub(crate) character_devices: CharacterDevices,
    /// Unknown flags of the form `--name=value`, skipped.
    pub(crate) skipped: Vec<OsString>,
}

impl Globals {
    /// Reads the flags in front of the subcommand; returns them and the words from there on.
    ///
    /// # Errors
    /// A flag that breaks the grammar or has a value outside its type: exit status 2.
    pub(crate) fn parse(words: &[OsString]) -> Result<(Globals, &[OsString]), SyntaxError> {
        let level = parse(table::GLOBAL, Unknown::SkipAssigned, words)?;
        let debug_gofers = text(&level, "debug-command").is_none_or(|list| names_gofers(&list));
        let globals = Globals {
            version: switch(&level, "version", false),
            help: switch(&level, "help", false) || switch(&level, "h", false),
            debug: switch(&level, "debug", false) && debug_gofers,
            debug_gofers,
            log_fd: fd(&level, "log-fd"),
            log: text(&level, "log").map(PathBuf::from),
            debug_log_fd: fd(&level, "debug-log-fd"),
            debug_log: text(&level, "debug-log").map(PathBuf::from),
            panic_log_fd: fd(&level, "panic-log-fd"),
            log_format: log_format(&level),
            also_to_stderr: switch(&level, "alsologtostderr", false),
            host_uds: host_uds(&level)?,
            host_fifo_open: one_of(&level, "host-fifo", &[("none", false), ("open", true)])?,
            directfs: switch(&level, "directfs", true),
            fd_limit: number(&level, "fdlimit").and_then(|n| u64::try_from(n).ok()),
            overlay: overlay(&level),
            nvproxy: switch(&level, "nvproxy", false),
            nvproxy_docker: switch(&level, "nvproxy-docker", false),
            tpuproxy: switch(&level, "tpuproxy", false),
            rdmaproxy: switch(&level, "rdmaproxy", false),
            character_devices: one_of(
                &level,
                "character-device-policy",
                &[
                    ("emulated-only", CharacterDevices::EmulatedOnly),
                    ("prefer-emulated", CharacterDevices::PreferEmulated),
                    ("passthrough", CharacterDevices::Passthrough),
                ],
            )?,
            skipped: level.skipped.clone(),
        };
        Ok((globals, level.rest))
    }

    /// Rules between flags, which the reference checks before it opens a log.
    ///
    /// # Errors
    /// The rule that is broken: exit status 128.
    pub(crate) fn check_rules(words: &[OsString]) -> Result<(), UsageError> {
        let level = parse(table::GLOBAL, Unknown::SkipAssigned, words)?;
        let given = |name| text(&level, name).is_some_and(|value| value != "none");
        let rule = |text: &str| Err(UsageError::Rule(text.to_owned()));
        if switch(&level, "fsgofer-host-uds", false) && given("host-uds") {
            return rule(
                "--fsgofer-host-uds is the old name of --host-uds=open: give only one of them",
            );
        }
        if switch(&level, "overlay", false) && given("overlay2") {
            return rule(
                "--overlay is the old name of --overlay2=all:memory: give only one of them",
            );
        }
        if switch(&level, "TESTONLY-unsafe-nonroot", false) {
            return rule(
                "--TESTONLY-unsafe-nonroot asks for a gofer without confinement: there is none",
            );
        }
        Ok(())
    }
}

pub(super) fn switch(level: &Level<'_>, name: &str, default: bool) -> bool {
    match level.last(name) {
        Some(Value::Bool(on)) => *on,
        _ => default,
    }
}

pub(super) fn number(level: &Level<'_>, name: &str) -> Option<i64> {
    match level.last(name) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    }
}

/// A descriptor's number. Negative means "not given"; what no descriptor can be is kept as the
/// largest number, which fails when it is used.
pub(super) fn fd(level: &Level<'_>, name: &str) -> Option<i32> {
    number(level, name)
        .filter(|n| *n >= 0)
        .map(|n| i32::try_from(n).unwrap_or(i32::MAX))
}

/// A text that is not empty.
pub(super) fn text(level: &Level<'_>, name: &str) -> Option<OsString> {
    match level.last(name) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// An enumeration whose first member is the default, and what an empty value means.
fn one_of<T: Copy>(
    level: &Level<'_>,
    name: &'static str,
    members: &[(&'static str, T)],
) -> Result<T, SyntaxError> {
    let value = text(level, name).unwrap_or_else(|| members[0].0.into());
    match members.iter().find(|(member, _)| value == *member) {
        Some((_, meaning)) => Ok(*meaning),
        None => Err(SyntaxError::BadValue {
            name,
            value,
            wanted: "not one of the flag's values",
        }),
    }
}

fn host_uds(level: &Level<'_>) -> Result<HostUds, SyntaxError> {
    let members = [
        ("none", HostUds::None),
        ("open", HostUds::Open),
        ("create", HostUds::Create),
        ("all", HostUds::All),
    ];
    match one_of(level, "host-uds", &members)? {
        HostUds::None if switch(level, "fsgofer-host-uds", false) => Ok(HostUds::Open),
        chosen => Ok(chosen),
    }
}

fn log_format(level: &Level<'_>) -> Option<LogFormat> {
    match text(level, "debug-log-format")
        .as_deref()
        .map(OsStr::as_bytes)
    {
        None | Some(b"text") => Some(LogFormat::Text),
        Some(b"json") => Some(LogFormat::Json),
        Some(b"json-k8s") => Some(LogFormat::JsonK8s),
        Some(_) => None,
    }
}

/// v2022-12: `none`, or `{root|all}:<where>`.
fn overlay(level: &Level<'_>) -> OverlayScope {
    let overlay2 = text(level, "overlay2").unwrap_or_default();
    let all = overlay2.as_bytes().starts_with(b"all:") || switch(level, "overlay", false);
    OverlayScope {
        root: all || overlay2.as_bytes().starts_with(b"root:"),
        mounts: all,
    }
}

/// Whether a `--debug-command` list means the subcommand `gofer`; a leading `!` negates.
fn names_gofers(list: &OsStr) -> bool {
    let bytes = list.as_bytes();
    let (negated, names) = match bytes.strip_prefix(b"!") {
        Some(names) => (true, names),
        None => (false, bytes),
    };
    names
        .split(|byte| *byte == b',')
        .any(|name| name == b"gofer")
        != negated
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;

    fn globals(text: &str) -> Globals {
        let words: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        Globals::parse(&words).unwrap().0
    }

    #[test]
    fn defaults_are_those_of_the_newer_releases() {
        let g = globals("gofer");
        assert!(g.directfs && !g.debug && !g.host_fifo_open && g.debug_gofers);
        assert_eq!(
            (g.host_uds, g.log_format),
            (HostUds::None, Some(LogFormat::Text))
        );
        assert_eq!(
            (g.log_fd, g.fd_limit, g.overlay),
            (None, None, OverlayScope::default())
        );
    }

    #[test]
    fn debugging_can_be_limited_to_other_commands() {
        for (list, on) in [
            ("gofer,boot", true),
            ("boot", false),
            ("!gofer", false),
            ("!boot", true),
            ("", true),
        ] {
            assert_eq!(
                globals(&format!("--debug=true --debug-command={list}")).debug,
                on,
                "{list:?}"
            );
        }
    }

    #[test]
    fn the_old_host_socket_flag_means_open_and_excludes_the_new_one() {
        assert_eq!(globals("--fsgofer-host-uds").host_uds, HostUds::Open);
        let both: Vec<OsString> = ["--fsgofer-host-uds", "--host-uds=all"]
            .map(OsString::from)
            .to_vec();
        assert!(matches!(
            Globals::check_rules(&both),
            Err(UsageError::Rule(_))
        ));
        let words = [OsString::from("--host-uds=some")];
        assert!(matches!(
            Globals::parse(&words),
            Err(SyntaxError::BadValue {
                name: "host-uds",
                ..
            })
        ));
    }

    #[test]
    fn the_overlay_of_the_oldest_dialect_says_what_it_covers() {
        let scope = |root, mounts| OverlayScope { root, mounts };
        assert_eq!(globals("--overlay=true").overlay, scope(true, true));
        assert_eq!(globals("--overlay2=all:/x").overlay, scope(true, true));
        assert_eq!(
            globals("--overlay2=root:memory").overlay,
            scope(true, false)
        );
        assert_eq!(globals("--overlay2=none").overlay, scope(false, false));
    }

    #[test]
    fn values_that_releases_disagree_about_are_accepted() {
        for word in [
            "--gvisor-gro=20000ns",
            "--gvisor-gro=true",
            "--watchdog-action=logWarning",
            "--platform=new",
        ] {
            let words = [OsString::from(word)];
            assert!(Globals::parse(&words).is_ok(), "{word}");
        }
    }
}
