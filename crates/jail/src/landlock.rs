//! Landlock: the kernel refuses this process every file outside the served trees, whatever code
//! runs in it.
//!
//! One domain for the process, a narrower one for each thread that serves a single tree. Best
//! effort: an older kernel enforces what it knows, and the report says what that is.
//! What it does not cover: `chmod`, `chown`, times, extended attributes, `O_PATH`; capabilities,
//! read-only mounts and the threads' filters do.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{FileType, fstat};

/// The newest rights this file was written for. Older kernels enforce the part they know.
const NEWEST: ABI = ABI::V9;

/// What may be done below one descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree<'f> {
    pub(crate) root: BorrowedFd<'f>,
    pub(crate) readonly: bool,
    /// May device nodes be opened and spoken to?
    pub(crate) devices: bool,
    /// May overlay whiteouts be made? They count as character devices; seccomp lets no other be
    /// made.
    pub(crate) whiteouts: bool,
    /// May clients connect to sockets of the host?
    pub(crate) sockets: bool,
}

/// What is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LandlockReport {
    /// Version of the kernel's interface; 0: none.
    pub abi: u32,
    /// Is everything enforced that this program knows to ask for?
    pub complete: bool,
}

impl LandlockReport {
    /// Is anything enforced?
    pub fn is_enforced(&self) -> bool {
        self.abi > 0
    }
}

impl fmt::Display for LandlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.abi, self.complete) {
            (0, _) => write!(f, "none (kernel without it)"),
            (abi, true) => write!(f, "ABI {abi}"),
            (abi, false) => write!(f, "ABI {abi}, in part"),
        }
    }
}

/// Puts the calling thread, and all it will start, into a domain in which only `trees` exist.
pub(crate) fn restrict(trees: &[Tree<'_>]) -> Result<LandlockReport, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for tree in trees {
        rules = rules.add_rule(PathBeneath::new(tree.root, rights(tree)))?;
    }
    let status = rules.restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        _ => 0,
    };
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => LandlockReport {
            abi: 0,
            complete: false,
        },
        RulesetStatus::PartiallyEnforced => LandlockReport {
            abi,
            complete: false,
        },
        RulesetStatus::FullyEnforced => LandlockReport {
            abi,
            complete: true,
        },
    })
}

/// Never: execution, device nodes.
fn rights(tree: &Tree<'_>) -> BitFlags<AccessFs> {
    let mut rights = AccessFs::ReadFile | AccessFs::ReadDir;
    if !tree.readonly {
        rights |= AccessFs::from_write(NEWEST)
            & !(AccessFs::MakeChar
                | AccessFs::MakeBlock
                | AccessFs::IoctlDev
                | AccessFs::ResolveUnix);
    }
    if tree.whiteouts && !tree.readonly {
        rights |= AccessFs::MakeChar;
    }
    if tree.devices {
        // Opening a device for writing does not write to the tree.
        rights |= AccessFs::IoctlDev | AccessFs::WriteFile;
    }
    if tree.sockets {
        rights |= AccessFs::ResolveUnix;
    }
    if is_directory(tree.root) {
        rights
    } else {
        rights & AccessFs::from_file(NEWEST)
    }
}

fn is_directory(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
