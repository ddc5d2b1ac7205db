//! The ptrace requests we use, typed. A tracee may die at any moment: `ESRCH` is always possible.

#![allow(unsafe_code, reason = "ptrace and waitpid have no safe wrapper")]

use std::{
    ffi::c_void,
    io,
    mem::MaybeUninit,
    ptr::{null_mut, without_provenance_mut},
};

use crate::{Pid, arch::Registers};

/// What a tracee reports: children, threads and programs, but no system calls. No
/// `PTRACE_O_EXITKILL`: what `runsc` leaves behind outlives us.
const OPTIONS: libc::c_int = libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC;

/// The register set of general use, `NT_PRSTATUS` in `elf.h`.
const GENERAL_REGISTERS: usize = 1;

/// Attaches to a child without stopping it; its children and threads follow by themselves.
pub(crate) fn seize(pid: Pid) -> io::Result<()> {
    plain(libc::PTRACE_SEIZE, pid, 0, OPTIONS as usize)
}

/// Lets it run, with a signal delivered unless that is 0.
pub(crate) fn resume(pid: Pid, signal: i32) -> io::Result<()> {
    plain(libc::PTRACE_CONT, pid, 0, signal as usize)
}

/// Leaves it stopped, as its process is, until `SIGCONT`.
pub(crate) fn listen(pid: Pid) -> io::Result<()> {
    plain(libc::PTRACE_LISTEN, pid, 0, 0)
}

/// Lets it run and out of sight.
pub(crate) fn detach(pid: Pid) -> io::Result<()> {
    plain(libc::PTRACE_DETACH, pid, 0, 0)
}

/// Changes eight bytes of its memory, write-protected or not.
pub(crate) fn poke(pid: Pid, address: u64, word: [u8; 8]) -> io::Result<()> {
    plain(
        libc::PTRACE_POKEDATA,
        pid,
        address,
        usize::from_ne_bytes(word),
    )
}

/// Eight bytes of its memory.
pub(crate) fn peek(pid: Pid, address: u64) -> io::Result<[u8; 8]> {
    let mut word = [0; 8];
    // SAFETY: the raw call (unlike the C library's wrapper) stores one word where `data` points.
    unsafe {
        request(
            libc::PTRACE_PEEKDATA,
            pid,
            address,
            word.as_mut_ptr().cast(),
        )
    }?;
    Ok(word)
}

/// Its registers; `ENOEXEC` if it runs another instruction set than we do (a 32-bit program).
pub(crate) fn registers(pid: Pid) -> io::Result<Registers> {
    let mut registers = MaybeUninit::<Registers>::zeroed();
    let mut room = libc::iovec {
        iov_base: registers.as_mut_ptr().cast(),
        iov_len: size_of::<Registers>(),
    };
    register_set(libc::PTRACE_GETREGSET, pid, &mut room)?;
    if room.iov_len != size_of::<Registers>() {
        return Err(io::Error::from_raw_os_error(libc::ENOEXEC));
    }
    // SAFETY: plain integers, zeroed above, then written by the kernel to the full length.
    Ok(unsafe { registers.assume_init() })
}

/// Changes its registers.
pub(crate) fn set_registers(pid: Pid, mut registers: Registers) -> io::Result<()> {
    let base = (&raw mut registers).cast();
    let mut room = libc::iovec {
        iov_base: base,
        iov_len: size_of::<Registers>(),
    };
    register_set(libc::PTRACE_SETREGSET, pid, &mut room)
}

fn register_set(code: libc::c_uint, pid: Pid, room: &mut libc::iovec) -> io::Result<()> {
    // SAFETY: both requests take an iovec, and both callers' describes a whole `Registers`.
    unsafe { request(code, pid, GENERAL_REGISTERS as u64, (&raw mut *room).cast()) }
}

/// A request whose last argument is a number.
fn plain(code: libc::c_uint, pid: Pid, address: u64, data: usize) -> io::Result<()> {
    // SAFETY: the requests above take no pointer of ours; they change another process only.
    unsafe { request(code, pid, address, without_provenance_mut(data)) }
}

/// # Safety
/// `data` is what the request demands of it.
unsafe fn request(code: libc::c_uint, pid: Pid, at: u64, data: *mut c_void) -> io::Result<()> {
    // SAFETY: the caller vouches for `data`; `at` is an address in the tracee, or a number.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, i64::from(code), pid, at, data) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The next report of any child or tracee of this thread, waiting for it if `wait`.
///
/// `None` if there is none now, or no child and no tracee left.
pub(crate) fn report(wait: bool) -> Option<(Pid, i32)> {
    let flags = libc::__WALL | libc::__WNOTHREAD | if wait { 0 } else { libc::WNOHANG };
    loop {
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        let pid = unsafe { libc::waitpid(-1, &mut status, flags) };
        if pid > 0 {
            return Some((pid, status));
        }
        if pid == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Collects a child that is not traced.
pub(crate) fn reap(pid: Pid) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, null_mut(), libc::__WALL) };
}

/// Sends a signal to a process that is our child or tracee, so its number is not anybody else's.
pub(crate) fn kill(pid: Pid, signal: i32) {
    // SAFETY: no memory is involved. It fails only if the process is gone.
    unsafe { libc::kill(pid, signal) };
}
