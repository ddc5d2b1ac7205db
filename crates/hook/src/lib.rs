//! Runs an unmodified `runsc` with another binary where it executes its own gofer.
//!
//! `runsc` always executes `/proc/self/exe` with `argv[0]` = `runsc-gofer`; no flag names another
//! binary. So we trace it with ptrace: fork, clone and exec events only, no system-call stops. A
//! child that becomes `runsc-gofer` is made to execute our binary before its first instruction,
//! with the argument and environment vectors it was given; every other child is let go.
//!
//! Belongs here: [`run`], what it takes and how it fails.
//! Belongs elsewhere: what an event means ([`event`]), where a new program's arguments lie
//! ([`stack`]), the following itself (`trace`), signals (`signals`), the first fork (`spawn`).
//! Must hold: descriptors, namespaces, session and process group stay as `runsc` made them, and
//! what it started outlives us.

mod arch;
pub mod event;
mod ptrace;
pub mod refusal;
mod signals;
mod spawn;
pub mod stack;
mod trace;

use std::{
    ffi::OsString,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use thiserror::Error;

pub use signals::{Forward, Relay, die_like, forward, while_forwarding};

/// The number of a process, as our own PID namespace sees it.
pub type Pid = i32;

/// What to run, and what to put in its gofer's place.
pub struct Hook<'a> {
    /// The unmodified `runsc`, by path; it is also its own `argv[0]`.
    pub program: PathBuf,
    /// The arguments after `argv[0]`.
    pub args: Vec<OsString>,
    /// Variables to set for it, beside our own.
    pub environment: Vec<(OsString, OsString)>,
    /// The binary that runs as `runsc-gofer`.
    pub replacement: PathBuf,
    /// Told of each gofer once our binary runs in it, before its first instruction.
    pub on_gofer: &'a mut (dyn FnMut(Pid) + Send),
}

/// Why `runsc` could not be run, or not be followed.
#[derive(Debug, Error)]
pub enum HookError {
    /// The binary to put in the gofer's place cannot be executed by path.
    #[error("cannot use {path} as the gofer: {cause}")]
    Replacement {
        /// The path as given.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// `runsc` itself did not start.
    #[error("cannot run {path}: {cause}")]
    Program {
        /// The path as given.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The kernel or a policy forbids tracing.
    #[error("cannot trace runsc: {0}")]
    Refused(String),
    /// A system call of ours failed.
    #[error("cannot follow runsc: {call}: {cause}")]
    Host {
        /// The call.
        call: &'static str,
        /// Its errno.
        cause: io::Error,
    },
}

/// Runs the program to its end and returns how it ended; what it left running goes on.
///
/// Signals sent to us reach the program; those the terminal sent it as well are not doubled. Call
/// it before other threads exist: a thread that does not block the signals would take them.
///
/// # Errors
/// See [`HookError`]. A gofer that cannot be replaced is no error here: it is killed, stderr says
/// why, and `runsc` ends as it does when its gofer dies.
pub fn run(hook: Hook<'_>) -> Result<ExitStatus, HookError> {
    let replacement = executable(&hook.replacement).map_err(|cause| HookError::Replacement {
        path: hook.replacement.clone(),
        cause,
    })?;
    signals::while_forwarding(|relay| trace::follow(hook, &replacement, relay))?
}

/// An absolute path, valid in the gofer's working directory too.
fn executable(path: &Path) -> io::Result<PathBuf> {
    let path = path.canonicalize()?;
    let metadata = path.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        return Ok(path);
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "it is not an executable file",
    ))
}
