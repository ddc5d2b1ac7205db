//! Makes a thread of another process call the kernel as if its own program did: what a sealed gofer
//! does about a call that none of its code makes.
#![allow(unsafe_code, reason = "ptrace has no safe form")]

use std::io;
use std::ptr::null_mut;

/// Bytes of the instruction that calls the kernel.
const CALL_BYTES: u64 = 2;

/// The next call of the thread, which waits in the kernel, is `number`, without valid arguments.
///
/// # Errors
/// The host's.
pub(crate) fn call(thread: i32, number: i64) -> io::Result<()> {
    let ask = |request: libc::c_uint, data: *mut libc::c_void| {
        // SAFETY: of the requests made below, only the one that reads registers writes to `data`,
        // which then is a register set; the others pass none, or read one.
        match unsafe { libc::ptrace(request, thread, null_mut::<libc::c_void>(), data) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    ask(libc::PTRACE_SEIZE, null_mut())?;
    ask(libc::PTRACE_INTERRUPT, null_mut())?;
    let mut status = 0;
    // SAFETY: a thread we trace, and a place for its status.
    if unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) } != thread {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a set of registers is numbers only; zeroes are some.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    ask(libc::PTRACE_GETREGS, (&raw mut registers).cast())?;
    registers.rip -= CALL_BYTES;
    registers.rax = number.cast_unsigned();
    // No call that the kernel would take up again by itself.
    registers.orig_rax = u64::MAX;
    (registers.rdi, registers.rsi, registers.rdx) = (0, 0, 0);
    ask(libc::PTRACE_SETREGS, (&raw mut registers).cast())?;
    ask(libc::PTRACE_DETACH, null_mut())
}
