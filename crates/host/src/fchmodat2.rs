//! `fchmodat2(2)`, which neither `rustix` nor `libc` wraps on every architecture: the mode of the file
//! behind an `O_PATH` descriptor without a look-up in procfs, in half the time. Since Linux 6.6.
#![allow(unsafe_code, reason = "a system call that no library offers")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use rustix::io::Errno;

/// The same on every architecture, as all calls since Linux 5.1.
const SYS_FCHMODAT2: libc::c_long = 452;

/// What the kernel said once, it says always.
static MISSING: AtomicBool = AtomicBool::new(false);

/// Changes the mode, or tells that it has to be done by other means: on an older kernel, or where
/// a filter around us refuses calls that it does not know (with `EPERM`, which may be the file's too), or
/// after an interruption.
pub(crate) fn fchmodat2(fd: BorrowedFd<'_>, mode: Mode) -> Option<rustix::io::Result<()>> {
    if MISSING.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the path is a string that ends and lives for ever, the other arguments are numbers; the call
    // writes no memory of ours.
    let result = unsafe {
        libc::syscall(
            SYS_FCHMODAT2,
            fd.as_raw_fd(),
            c"".as_ptr(),
            mode.bits(),
            libc::AT_EMPTY_PATH,
        )
    };
    if result == 0 {
        return Some(Ok(()));
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOSYS) => {
            MISSING.store(true, Ordering::Relaxed);
            None
        }
        Some(libc::EPERM | libc::EINTR) | None => None,
        Some(errno) => Some(Err(Errno::from_raw_os_error(errno))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::fchmodat2;

    #[test]
    fn the_mode_of_a_pinned_file_changes_where_the_kernel_has_the_call() {
        let file = std::env::temp_dir().join(format!("fchmodat2-{}", std::process::id()));
        std::fs::write(&file, b"").expect("a file");
        let pinned = openat(CWD, &file, OFlags::PATH, Mode::empty()).expect("pinned");
        let changed = fchmodat2(pinned.as_fd(), Mode::from_raw_mode(0o4751));
        let mode = file.metadata().expect("it is there").permissions().mode() & 0o7777;
        std::fs::remove_file(&file).expect("removed");
        match changed {
            Some(result) => assert_eq!((result, mode), (Ok(()), 0o4751)),
            None => assert_ne!(mode, 0o4751, "nothing was done"),
        }
    }
}
