//! Confined server processes without a container: one process for one directory, each in a jail as
//! tight as a container's gofer.
//!
//! Belongs here: starting one and learning that it is sealed. Elsewhere: what it does (`process`),
//! its jail (`jail::Directory`).
//! Must hold: the process has no descriptor of ours but those it is to serve, and none of our
//! environment; before it says that it is sealed it has read nothing of a client.

pub(crate) mod process;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use thiserror::Error;

/// `argv[0]` of such a process.
pub(crate) const PROCESS_NAME: &str = "gofer-confined";
/// Sockets that one process can be given.
pub(crate) const SOCKETS_MAX: usize = 16;
/// Longest word that the process says about itself, in bytes.
const REPORT_BYTES_MAX: usize = 4096;
/// First byte of what it says when it is sealed; anything else is why it is not.
const SEALED: u8 = b'+';
/// First byte of why it is not sealed.
const FAILED: u8 = b'-';

/// What one connection may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Ids, and so files held open, at a time.
    pub(crate) ids_max: usize,
    /// Channels ever made, each with a thread and a window of memory.
    pub(crate) channels_max: usize,
}

impl Default for Limits {
    /// More than a sandbox with a few thousand files in use asks for; a descriptor each.
    fn default() -> Self {
        Self {
            ids_max: 65_536,
            channels_max: 4,
        }
    }
}

/// What a process is to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serving<'s> {
    /// The directory. A descriptor, so that renaming it changes nothing.
    pub(crate) dir: BorrowedFd<'s>,
    /// Its name, for messages and the list of processes.
    pub(crate) path: &'s Path,
    pub(crate) readonly: bool,
    /// As in [`jail::Directory`].
    pub(crate) user_namespace: bool,
    pub(crate) limits: Limits,
    /// Whether clients may make FIFOs and the files of sockets.
    pub(crate) special_files: bool,
    /// Whether it ends as soon as the thread that has started it does. Without this it ends when
    /// its clients have left.
    pub(crate) end_with_parent: bool,
}

/// Why there is no confined process.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("cannot start a process to serve {path}: {cause}")]
    Spawn { path: String, cause: io::Error },
    #[error("cannot serve {path}: {why}")]
    Refused { path: String, why: String },
}

/// A process that is confining itself.
#[derive(Debug)]
pub(crate) struct Starting {
    child: Child,
    control: OwnedFd,
    path: String,
}

/// A process that is sealed and serves.
#[derive(Debug)]
pub(crate) struct Confined {
    child: Child,
    report: String,
}

/// Starts a process that serves the directory to the other ends of `sockets`, and does not wait
/// until it is confined.
///
/// # Errors
/// No process, or no descriptors, to be had.
pub(crate) fn begin(
    serving: &Serving<'_>,
    sockets: &[BorrowedFd<'_>],
) -> Result<Starting, StartError> {
    let path = serving.path.display().to_string();
    spawn(serving, sockets)
        .map(|(child, control)| Starting {
            child,
            control,
            path: path.clone(),
        })
        .map_err(|cause| StartError::Spawn { path, cause })
}

/// As [`begin`], and waits until it is confined.
///
/// # Errors
/// No process, or it cannot confine itself.
#[allow(
    dead_code,
    reason = "for commands that have nothing else to do meanwhile"
)]
pub(crate) fn start(
    serving: &Serving<'_>,
    sockets: &[BorrowedFd<'_>],
) -> Result<Confined, StartError> {
    begin(serving, sockets)?.finish()
}

fn spawn(serving: &Serving<'_>, sockets: &[BorrowedFd<'_>]) -> io::Result<(Child, OwnedFd)> {
    let kind = SocketType::SEQPACKET;
    let (control, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(PROCESS_NAME)
        .args(process::Words::of(serving).encode())
        .arg(serving.path)
        .env_clear()
        .stdin(theirs)
        .stdout(Stdio::null())
        // What a terminal's keys send is for its parent, which knows how to end it.
        .process_group(0)
        .spawn()?;
    let sent = send(&control, serving.dir, sockets);
    if sent.is_err() {
        end(&mut child);
    }
    sent?;
    Ok((child, control))
}

/// One byte, and with it the directory and the sockets.
fn send(
    control: &OwnedFd,
    dir: BorrowedFd<'_>,
    sockets: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    if sockets.len() > SOCKETS_MAX {
        return Err(rustix::io::Errno::TOOBIG);
    }
    let fds: Vec<BorrowedFd<'_>> = std::iter::once(dir)
        .chain(sockets.iter().copied())
        .collect();
    const ROOM: usize = rustix::cmsg_space!(ScmRights(1 + SOCKETS_MAX));
    let mut space = [std::mem::MaybeUninit::uninit(); ROOM];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    // There is room for as many as were let through above.
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::NOSIGNAL;
    sendmsg(control, &[IoSlice::new(&[0])], &mut ancillary, flags).map(|_| ())
}

/// It is nobody's any more: killed, and no zombie stays.
fn end(child: &mut Child) {
    // Both fail only if it has ended by itself.
    _ = child.kill();
    _ = child.wait();
}

impl Starting {
    /// Readable as soon as [`finish`](Self::finish) would not wait.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Ends the process.
    pub(crate) fn kill(mut self) {
        end(&mut self.child);
    }

    /// Waits until the process is sealed.
    ///
    /// # Errors
    /// It cannot confine itself; it has ended.
    pub(crate) fn finish(mut self) -> Result<Confined, StartError> {
        let mut said = vec![0; REPORT_BYTES_MAX];
        let bytes = rustix::io::retry_on_intr(|| rustix::io::read(&self.control, &mut said));
        let said = said.get(..bytes.unwrap_or(0)).unwrap_or_default();
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        match said.split_first() {
            Some((&SEALED, report)) => {
                return Ok(Confined {
                    child: self.child,
                    report: text(report),
                });
            }
            Some((_, why)) => {
                end(&mut self.child);
                Err(text(why))
            }
            None => {
                // It has closed its end, so it is ending or has ended; nothing else may hold it up.
                _ = self.child.kill();
                let how = self
                    .child
                    .wait()
                    .map_or_else(|e| e.to_string(), |s| s.to_string());
                Err(format!(
                    "its process ended while it confined itself ({how})"
                ))
            }
        }
        .map_err(|why| StartError::Refused {
            path: self.path,
            why,
        })
    }
}

impl Confined {
    /// What is in force, in one line.
    pub(crate) fn report(&self) -> &str {
        &self.report
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without regard for requests under way.
    pub(crate) fn kill(&mut self) {
        // Fails only if it has ended.
        _ = self.child.kill();
    }

    /// Waits until it has ended, which it does when its last client leaves.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}
