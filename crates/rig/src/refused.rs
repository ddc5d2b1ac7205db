//! Programs on a kernel that lacks some calls: a seccomp filter answers `ENOSYS` for them, as an
//! older kernel does.
#![allow(unsafe_code, reason = "nothing safe runs between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Instructions of a filter: load a word, jump if equal, return.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// From here on the command runs without the calls of these numbers.
pub fn without<'c>(command: &'c mut Command, calls: &[u32]) -> &'c mut Command {
    let instruction = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut filter = vec![instruction(LOAD, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        // To the last instruction, over the other jumps and one return.
        let over = u8::try_from(calls.len() - index).unwrap_or(u8::MAX);
        filter.push(instruction(JUMP_IF_EQUAL, over, *call));
    }
    filter.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    filter.push(instruction(RETURN, 0, refuse));
    // SAFETY: two system calls, on memory that was made before the fork.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_mut_ptr(),
            };
            let well = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program) == 0;
            if well {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        })
    }
}
