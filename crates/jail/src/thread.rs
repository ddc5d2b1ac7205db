//! A serving thread's own, narrower jail.

use std::os::fd::BorrowedFd;

use crate::landlock::{LandlockReport, Tree, restrict};
use crate::{Error, capabilities, seccomp};

/// What serving threads need to know to tighten themselves. Cheap to clone.
#[derive(Debug, Clone, Copy)]
pub struct ThreadJail {
    pub(crate) whiteouts: bool,
    pub(crate) sockets: bool,
}

/// What a thread added to the process's confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadReport {
    /// Its Landlock domain.
    pub landlock: LandlockReport,
}

impl ThreadJail {
    /// Run first on the thread that serves one connection: from here on it, and every thread it
    /// starts, reaches nothing but the tree at `root`, cannot take on other ids, and, if the
    /// connection is read-only, can call nothing that changes a file. Once per thread: what it used
    /// is refused afterwards (`EPERM`), also in the threads it starts, which are as tight.
    ///
    /// # Errors
    /// Landlock or seccomp refused; the thread must then not serve.
    pub fn tighten(&self, root: BorrowedFd<'_>, readonly: bool) -> Result<ThreadReport, Error> {
        capabilities::give_up(capabilities::CREDENTIALS)
            .map_err(|errno| Error::host("giving up SETUID and SETGID", errno))?;
        // Devices: the process's own domain says where they may be used at all.
        let tree = Tree {
            root,
            readonly,
            devices: true,
            whiteouts: self.whiteouts,
            sockets: self.sockets,
        };
        let landlock = restrict(&[tree]).map_err(|error| Error::Seal(error.to_string()))?;
        seccomp::install_here(&seccomp::narrower(readonly)?)?;
        Ok(ThreadReport { landlock })
    }
}
