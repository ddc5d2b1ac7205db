//! Watching a gofer's system calls from its first instruction on, without changing them: a seccomp
//! filter of ours, beneath all its own, tells us of each call that those have let through.
#![allow(unsafe_code, reason = "seccomp's notifications have no safe form")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

/// One call that was about to be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The thread's name.
    pub thread: String,
    /// The call's number on this architecture.
    pub number: i64,
    /// All six, used or not.
    pub arguments: [u64; 6],
}

/// What a gofer has called since its last filter for all threads was in force.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<Vec<Call>>>);

/// `BPF_RET | BPF_K`: the filter's one instruction.
const RETURN: u16 = 6;

/// Lets the calling thread's calls, and those of all it will start, be told to a listener.
/// Called between clone and exec: makes one system call and nothing else.
pub(crate) fn tell_of_every_call() -> bool {
    let mut instruction = libc::sock_filter {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_USER_NOTIF,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut instruction,
    };
    // SAFETY: the program is one valid instruction and outlives the call, which copies it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    listener >= 0
}

impl Watch {
    /// Takes the listener of a child that has called [`tell_of_every_call`] and answers from a
    /// thread of ours until the child has ended.
    pub(crate) fn start(pid: i32) -> io::Result<Watch> {
        let listener = take_listener(pid)?;
        let watch = Watch::default();
        let told = watch.clone();
        std::thread::spawn(move || told.answer(&listener));
        Ok(watch)
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn answer(&self, listener: &OwnedFd) {
        while ready(listener) {
            // SAFETY: all-zero bytes are a valid notification; the kernel demands them.
            let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            if !control(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut told) {
                // The thread was killed meanwhile.
                continue;
            }
            self.note(&told);
            let mut answer = libc::seccomp_notif_resp {
                id: told.id,
                val: 0,
                error: 0,
                flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            };
            _ = control(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
        }
    }

    fn note(&self, told: &libc::seccomp_notif) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, arguments) = (i64::from(told.data.nr), told.data.args);
        let everywhere = arguments[1] & libc::SECCOMP_FILTER_FLAG_TSYNC != 0;
        if number == libc::SYS_seccomp && everywhere {
            calls.clear();
            return;
        }
        let thread = fs::read_to_string(format!("/proc/{}/comm", told.pid)).unwrap_or_default();
        calls.push(Call {
            thread: thread.trim_end().to_owned(),
            number,
            arguments,
        });
    }
}

/// Whether a notification waits; `false` once nobody can send any.
fn ready(listener: &OwnedFd) -> bool {
    let mut polled = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        // SAFETY: one valid entry.
        let count = unsafe { libc::poll(&raw mut polled, 1, -1) };
        if count > 0 {
            return polled.revents & libc::POLLIN != 0;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return false;
        }
    }
}

fn control<T>(listener: &OwnedFd, request: libc::Ioctl, with: *mut T) -> bool {
    // SAFETY: each request comes with the structure it reads or writes, valid for that.
    unsafe { libc::ioctl(listener.as_raw_fd(), request, with) == 0 }
}

/// The child stands at its next call and cannot tell the number, so it is looked up.
fn take_listener(pid: i32) -> io::Result<OwnedFd> {
    let number = loop {
        if let Some(number) = listener_of(pid)? {
            break number;
        }
        std::thread::yield_now();
    };
    // SAFETY: plain numbers; the result is a descriptor that nobody else owns.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        let process = owned(process)?;
        owned(libc::syscall(
            libc::SYS_pidfd_getfd,
            process.as_raw_fd(),
            number,
            0,
        ))
    }
}

/// # Safety
/// A result that is no error is a descriptor that nobody owns.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: by the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

fn listener_of(pid: i32) -> io::Result<Option<RawFd>> {
    for fd in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let fd = fd?;
        let link = fs::read_link(fd.path()).unwrap_or_default();
        if link.as_os_str() == "anon_inode:seccomp notify" {
            return Ok(fd.file_name().to_str().and_then(|name| name.parse().ok()));
        }
    }
    Ok(None)
}
