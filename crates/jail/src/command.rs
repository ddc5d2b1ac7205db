//! The jail of a command that people run: not a server that we wrote, but any program at all.
//!
//! Belongs here: what is taken from a process before it executes such a program, in namespaces of
//! its own. Belongs elsewhere: the namespaces (`apart`), what is mounted in them (`gofer`).
//! Must hold: nothing here can be undone by the program.

use rustix::thread::CapabilitySet;

use crate::Error;
use crate::capabilities;
use crate::error::Doing;
use crate::seccomp::{Arg, Rule, When, install_here, refuse_rows};

/// What a root user inside can still do: with ids and files of its own user namespace, nothing
/// beyond. No mounts, no network devices, no tracing of others, no devices.
const INSIDE: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT);

const fn row(number: i64, name: &'static str, reason: &'static str) -> Rule {
    Rule {
        number,
        name,
        when: When::Always,
        arguments: &[],
        reason,
    }
}

/// `ioctl(TIOCSTI)`, `ioctl(TIOCLINUX)`.
const TYPE_ON_TERMINAL: [&[Arg]; 2] = [&[Arg::Is(1, 0x5412)], &[Arg::Is(1, 0x541c)]];

const fn ioctl(arguments: &'static [Arg]) -> Rule {
    Rule {
        arguments,
        ..row(
            libc::SYS_ioctl,
            "ioctl",
            "would type into the terminal that the caller's shell reads from",
        )
    }
}

/// Calls that are answered with `EPERM`: what no namespace divides, and what is new enough in the
/// kernel to have had more than its share of holes.
pub const REFUSED: &[Rule] = &[
    ioctl(TYPE_ON_TERMINAL[0]),
    ioctl(TYPE_ON_TERMINAL[1]),
    row(libc::SYS_add_key, "add_key", "keyrings are the host user's"),
    row(
        libc::SYS_request_key,
        "request_key",
        "keyrings are the host user's",
    ),
    row(libc::SYS_keyctl, "keyctl", "keyrings are the host user's"),
    row(libc::SYS_bpf, "bpf", "programs for the kernel"),
    row(
        libc::SYS_perf_event_open,
        "perf_event_open",
        "sees the whole machine",
    ),
    row(
        libc::SYS_userfaultfd,
        "userfaultfd",
        "holds the kernel up for as long as it likes",
    ),
    row(
        libc::SYS_io_uring_setup,
        "io_uring_setup",
        "calls out of seccomp's sight",
    ),
    row(
        libc::SYS_io_uring_enter,
        "io_uring_enter",
        "calls out of seccomp's sight",
    ),
    row(
        libc::SYS_io_uring_register,
        "io_uring_register",
        "calls out of seccomp's sight",
    ),
    row(libc::SYS_syslog, "syslog", "the kernel's log is the host's"),
    row(
        libc::SYS_open_by_handle_at,
        "open_by_handle_at",
        "opens files without a path to them",
    ),
    row(libc::SYS_kexec_load, "kexec_load", "another kernel"),
    row(
        libc::SYS_kexec_file_load,
        "kexec_file_load",
        "another kernel",
    ),
    row(libc::SYS_init_module, "init_module", "code in the kernel"),
    row(libc::SYS_finit_module, "finit_module", "code in the kernel"),
    row(
        libc::SYS_delete_module,
        "delete_module",
        "code in the kernel",
    ),
];

/// Reduces this thread, and what it will start, to what a command may have: the capabilities above
/// at most, `no_new_privs`, and none of the calls in [`REFUSED`]. Programs for other architectures
/// of the same processor, whose calls have other numbers, are killed.
///
/// # Errors
/// The host refused a step.
pub fn restrict_command() -> Result<(), Error> {
    rustix::thread::set_no_new_privs(true).doing(|| "setting no_new_privs")?;
    capabilities::reduce_to(INSIDE)?;
    install_here(&refuse_rows(REFUSED)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    #![allow(unsafe_code, reason = "refused calls have no safe form")]
    use super::*;

    #[test]
    fn a_restricted_thread_is_refused_what_the_table_names_and_nothing_else() {
        // A filter is for ever, so a thread of its own. Without privileges there is nothing to drop.
        let thread = std::thread::spawn(|| {
            restrict_command().unwrap();
            // SAFETY: refused before any argument is looked at.
            let result = unsafe { libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0) };
            let refused = std::io::Error::last_os_error();
            assert_eq!((result, refused.raw_os_error()), (-1, Some(libc::EPERM)));
            let (reads, _writes) = rustix::pipe::pipe().unwrap();
            let byte = 0_u8;
            // SAFETY: as above; `TIOCSTI` reads one byte, which lives.
            let typed = unsafe {
                use std::os::fd::AsRawFd;
                libc::ioctl(reads.as_raw_fd(), libc::TIOCSTI, &raw const byte)
            };
            let refused = std::io::Error::last_os_error();
            assert_eq!((typed, refused.raw_os_error()), (-1, Some(libc::EPERM)));
            // Another one of the same call: no terminal, says the kernel, not the filter.
            // SAFETY: as above; nothing is written, since a pipe has no window.
            let size = unsafe {
                use std::os::fd::AsRawFd;
                libc::ioctl(
                    reads.as_raw_fd(),
                    libc::TIOCGWINSZ,
                    std::ptr::null_mut::<u8>(),
                )
            };
            let error = std::io::Error::last_os_error();
            assert_eq!((size, error.raw_os_error()), (-1, Some(libc::ENOTTY)));
            let held = rustix::thread::capabilities(None).unwrap();
            assert!(INSIDE.contains(held.permitted));
        });
        thread.join().unwrap();
    }
}
