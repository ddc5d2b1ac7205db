//! The `gofer` binary: the process that `runsc` starts as `runsc-gofer`, and people's commands.
//!
//! Belongs here: which of its roles the binary plays. Elsewhere: the roles (`process`, `commands`).

#![forbid(unsafe_code)]

#[cfg(feature = "commands")]
mod commands;
#[cfg(feature = "commands")]
mod confined;
mod flags;
mod hooks;
mod log;
mod process;
mod profile;
mod stats;
mod threads;

use std::ffi::{OsStr, OsString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// What `runsc` calls its gofer.
const PROCESS_NAME: &str = "runsc-gofer";
/// Exit status of a crash, as the reference's.
const STATUS_CRASH: u8 = 2;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    if name == PROCESS_NAME {
        // The hook installed by then has logged a panic.
        let ended = catch_unwind(AssertUnwindSafe(|| process::run(&words)));
        return ExitCode::from(ended.unwrap_or(STATUS_CRASH));
    }
    #[cfg(feature = "commands")]
    if name == confined::PROCESS_NAME {
        return ExitCode::from(confined::process::run(&words));
    }
    for_people(&name, words)
}

#[cfg(feature = "commands")]
fn for_people(name: &OsStr, words: Vec<OsString>) -> ExitCode {
    commands::run(name, words)
}

#[cfg(not(feature = "commands"))]
fn for_people(name: &OsStr, _words: Vec<OsString>) -> ExitCode {
    eprintln!(
        "gofer: called as {name:?}, but this build has no commands for people: it is only the \
         process that runsc starts as {PROCESS_NAME}"
    );
    ExitCode::FAILURE
}
