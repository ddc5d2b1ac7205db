//! The one fork of ours: a child that waits at a gate until it is traced, then executes `runsc`.

#![allow(
    unsafe_code,
    reason = "between fork and exec only bare calls are allowed"
)]

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr::null,
};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::Pid;

/// A child before its exec.
pub(crate) struct Spawned {
    /// Its number.
    pub(crate) pid: Pid,
    gate: File,
    failure: File,
}

impl Spawned {
    /// Lets it execute its program. Dropped instead, it exits.
    pub(crate) fn open_gate(self) -> Started {
        let mut gate = self.gate;
        // It fails only if the child has died, which waiting for it will tell.
        _ = gate.write_all(&[1]);
        Started {
            failure: self.failure,
        }
    }
}

/// A child on its way through exec.
pub(crate) struct Started {
    failure: File,
}

impl Started {
    /// Why the exec failed. To be asked only after the child's end, or it blocks.
    pub(crate) fn failure(mut self) -> Option<io::Error> {
        let mut errno = [0; 4];
        self.failure.read_exact(&mut errno).ok()?;
        Some(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
    }
}

/// Forks. Descriptors, session, process group and everything else stay as they are; the signal
/// mask becomes `mask`, and `SIGPIPE`, which Rust's start-up ignored, kills again.
pub(crate) fn spawn(
    program: &Path,
    args: &[OsString],
    environment: &[(OsString, OsString)],
    mask: &libc::sigset_t,
) -> io::Result<Spawned> {
    let path = c_string(program.as_os_str())?;
    let argv: Vec<CString> = std::iter::once(Ok(path.clone()))
        .chain(args.iter().map(|arg| c_string(arg)))
        .collect::<io::Result<_>>()?;
    let envp = merged(environment)?;
    let (argv, envp) = (pointers(&argv), pointers(&envp));
    let (gate_out, gate) = pipe()?;
    let (failure, failure_in) = pipe()?;

    // SAFETY: the child makes only async-signal-safe calls, on memory prepared above.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let ends = Ends {
            gate: gate_out.as_raw_fd(),
            other_gate: gate.as_raw_fd(),
            failure: failure_in.as_raw_fd(),
        };
        // SAFETY: this is the child; path and both vectors are null-terminated.
        unsafe { become_program(&path, &argv, &envp, mask, &ends) };
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Spawned {
        pid,
        gate: gate.into(),
        failure: failure.into(),
    })
}

/// The child's ends of both pipes, and the parent's end of the gate, which would keep it open.
struct Ends {
    gate: RawFd,
    other_gate: RawFd,
    failure: RawFd,
}

/// # Safety
/// Called in a fresh child; `argv` and `envp` are null-terminated arrays of C strings.
unsafe fn become_program(
    path: &CString,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
    mask: &libc::sigset_t,
    ends: &Ends,
) -> ! {
    // SAFETY: bare calls on memory that lives.
    unsafe {
        libc::close(ends.other_gate);
        let mut opened = 0_u8;
        if libc::read(ends.gate, (&raw mut opened).cast(), 1) == 1 {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut());
            libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
            let errno = *libc::__errno_location();
            libc::write(ends.failure, (&raw const errno).cast(), size_of_val(&errno));
        }
        libc::_exit(127)
    }
}

/// Our own environment with some variables set.
fn merged(set: &[(OsString, OsString)]) -> io::Result<Vec<CString>> {
    std::env::vars_os()
        .filter(|(name, _)| set.iter().all(|(other, _)| other != name))
        .chain(set.iter().cloned())
        .map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            c_string(&variable)
        })
        .collect()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|text| text.as_ptr())
        .chain([null()])
        .collect()
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// A string for the kernel.
pub(crate) fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}
