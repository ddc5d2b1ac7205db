//! Follows `runsc` from its first instruction to its end, one report at a time.
//!
//! Must hold: runs on a thread of its own, since ptrace and `__WNOTHREAD` speak of threads, and
//! that thread's end lets go of whatever still lives.

use std::{
    collections::HashSet,
    ffi::CString,
    fs, io,
    ops::ControlFlow,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, process::ExitStatusExt},
    path::Path,
    process::ExitStatus,
};

use crate::{
    Hook, HookError, Pid,
    arch::CODE,
    event::{self, Event, Verdict, Who},
    ptrace, refusal,
    signals::Relay,
    spawn, stack,
};

/// Runs the program under trace until it has ended.
pub(crate) fn follow(
    hook: Hook<'_>,
    replacement: &Path,
    relay: &Relay,
) -> Result<ExitStatus, HookError> {
    let program = |cause| HookError::Program {
        path: hook.program.clone(),
        cause,
    };
    let path = spawn::c_string(replacement.as_os_str()).map_err(program)?;
    let spawned =
        spawn::spawn(&hook.program, &hook.args, &hook.environment, &relay.mask).map_err(program)?;
    let runsc = spawned.pid;
    if let Err(cause) = ptrace::seize(runsc) {
        drop(spawned); // The gate closes and the child exits.
        ptrace::reap(runsc);
        return Err(HookError::Refused(refusal::explain(&cause)));
    }
    let started = spawned.open_gate();
    relay.relay_to(runsc);
    let mut trace = Trace {
        runsc,
        path,
        relay,
        replaced: HashSet::new(),
        executed: false,
        ended: None,
        on_gofer: hook.on_gofer,
    };
    let status = trace.run()?;
    match started.failure() {
        Some(cause) if !trace.executed => Err(HookError::Program {
            path: hook.program,
            cause,
        }),
        _ => Ok(ExitStatus::from_raw(status)),
    }
}

struct Trace<'a> {
    runsc: Pid,
    /// The binary to put in a gofer's place.
    path: CString,
    relay: &'a Relay,
    /// Children made to execute our binary that have not done so yet.
    replaced: HashSet<Pid>,
    /// `runsc` itself has been executed.
    executed: bool,
    /// The raw wait status with which `runsc` ended.
    ended: Option<i32>,
    on_gofer: &'a mut (dyn FnMut(Pid) + Send),
}

impl Trace<'_> {
    fn run(&mut self) -> Result<i32, HookError> {
        loop {
            let end = event::next(self.ended, self.replaced.len());
            // Reports already there are handled even after the end: one may be a gofer's.
            match (ptrace::report(end.is_continue()), end) {
                (Some((pid, status)), _) => self.handle(pid, Event::from_status(status)),
                (None, ControlFlow::Break(status)) => return Ok(status),
                (None, ControlFlow::Continue(())) => {
                    let cause = io::Error::last_os_error();
                    return self.ended.ok_or(HookError::Host {
                        call: "waitpid",
                        cause,
                    });
                }
            }
        }
    }

    /// Every request may fail because the tracee has died; its end is then reported next.
    fn handle(&mut self, pid: Pid, event: Event) {
        _ = match event {
            Event::Ended(status) => {
                self.lose(pid, status);
                Ok(())
            }
            Event::Executed => self.executed(pid),
            Event::Stopped(_) => {
                let stopped = ptrace::listen(pid);
                self.runsc_is_stopped(pid, true);
                stopped
            }
            Event::Signalled(libc::SIGTRAP) if self.replaced.contains(&pid) => {
                self.give_up(pid, &failed_exec(pid));
                ptrace::resume(pid, libc::SIGKILL)
            }
            Event::Signalled(signal) => ptrace::resume(pid, signal),
            Event::Passing => {
                self.runsc_is_stopped(pid, false);
                ptrace::resume(pid, 0)
            }
        };
    }

    fn lose(&mut self, pid: Pid, status: i32) {
        self.replaced.remove(&pid);
        if pid == self.runsc {
            self.relay.relay_to(0);
            self.ended = Some(status);
        }
    }

    fn runsc_is_stopped(&self, pid: Pid, stopped: bool) {
        if pid == self.runsc {
            self.relay.set_stopped(stopped);
        }
    }

    fn executed(&mut self, pid: Pid) -> io::Result<()> {
        let who = if pid == self.runsc {
            self.executed = true;
            Who::Runsc
        } else if self.replaced.remove(&pid) {
            Who::Replaced
        } else {
            Who::Child
        };
        let name = if who == Who::Child {
            arguments(pid).ok()
        } else {
            None
        };
        let name = name.as_ref().map(|arguments| arguments.name.as_slice());
        match event::verdict(who, name, || same_binary(pid, self.runsc)) {
            Verdict::Keep => ptrace::resume(pid, 0),
            Verdict::LetGo => ptrace::detach(pid),
            Verdict::Done => {
                (self.on_gofer)(pid);
                ptrace::detach(pid)
            }
            Verdict::Replace => self.replace(pid),
        }
    }

    /// Makes a gofer that stands before its first instruction execute our binary.
    fn replace(&mut self, pid: Pid) -> io::Result<()> {
        match inject(pid, &self.path) {
            Ok(()) => {
                self.replaced.insert(pid);
                ptrace::resume(pid, 0)
            }
            Err(cause) => {
                self.give_up(pid, &cause);
                ptrace::kill(pid, libc::SIGKILL);
                ptrace::detach(pid)
            }
        }
    }

    /// A gofer that is not ours must not serve: says why, for the caller to kill it.
    fn give_up(&self, pid: Pid, cause: &io::Error) {
        let path = Path::new(std::ffi::OsStr::from_bytes(self.path.as_bytes())).display();
        eprintln!("gofer: runsc's gofer (process {pid}) cannot execute {path}: {cause}; killed");
    }
}

/// The arguments of a tracee that has just executed a program.
fn arguments(pid: Pid) -> io::Result<stack::Arguments> {
    let stack_pointer = ptrace::registers(pid)?.stack_pointer();
    stack::arguments(stack_pointer, |address| ptrace::peek(pid, address).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no arguments on its stack"))
}

/// Leaves a tracee that has just executed a program about to execute `path` instead, with the same
/// argument and environment vectors. Its memory, so changed, goes with that exec.
fn inject(pid: Pid, path: &CString) -> io::Result<()> {
    let arguments = arguments(pid)?;
    let mut registers = ptrace::registers(pid)?;
    let path_at = write_below(pid, registers.stack_pointer(), path.as_bytes_with_nul())?;
    write(pid, registers.instruction(), CODE.iter().copied())?;
    registers.aim(path_at, arguments.argv, arguments.envp);
    ptrace::set_registers(pid, registers)
}

/// Writes bytes below the stack, where the kernel leaves 128 KiB of room; returns their address.
fn write_below(pid: Pid, stack_pointer: u64, bytes: &[u8]) -> io::Result<u64> {
    const RED_ZONE_BYTES: u64 = 128;
    let length = bytes.len().next_multiple_of(8) as u64 + RED_ZONE_BYTES;
    let address = stack_pointer
        .checked_sub(length)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its stack is too short"))?;
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        word
    });
    write(pid, address, words)?;
    Ok(address)
}

fn write(pid: Pid, address: u64, words: impl Iterator<Item = [u8; 8]>) -> io::Result<()> {
    (address..)
        .step_by(8)
        .zip(words)
        .try_for_each(|(at, word)| ptrace::poke(pid, at, word))
}

/// Why the injected call returned.
fn failed_exec(pid: Pid) -> io::Error {
    match ptrace::registers(pid).map(|registers| registers.errno()) {
        Ok(Some(errno)) => io::Error::from_raw_os_error(errno),
        Ok(None) => io::Error::other("a trap with no errno"),
        Err(cause) => cause,
    }
}

fn same_binary(one: Pid, other: Pid) -> bool {
    let identity = |pid| {
        let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(one).is_some_and(|identity_of_one| identity(other) == Some(identity_of_one))
}
