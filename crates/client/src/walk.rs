//! Walk, WalkStat, ReadLinkAt.

use wire::msg::walk::{
    ReadLinkAt, ReadLinkAtReply, WALK_COMPONENT_MISSING, WALK_COMPONENT_SYMLINK, WALK_SUCCESS,
    Walk, WalkReply, WalkStatReply,
};
use wire::{Decode, Errno, FdId, Inode, Mid, Statx, TextsBuf};

use crate::line::encode;
use crate::{Client, Error, Violation};

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkStatus {
    /// Every component was walked.
    Complete,
    /// The next component does not exist.
    Missing,
    /// Components remain after a symbolic link.
    Symlink,
}

/// Where a walk got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// How it ended.
    pub status: WalkStatus,
    /// A new control id for each component reached.
    pub inodes: Vec<Inode>,
}

fn path(components: &[&[u8]]) -> Result<TextsBuf, Error> {
    let mut path = TextsBuf::default();
    for component in components {
        if !path.push(component) {
            return Err(Errno::NAMETOOLONG.into());
        }
    }
    Ok(path)
}

impl Client {
    /// Walks one component after the other.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong. Surplus ids are closed again.
    pub fn walk(&self, dir: FdId, components: &[&[u8]]) -> Result<Walked, Error> {
        let path = path(components)?;
        let request = Walk {
            dir,
            path: path.texts(),
        };
        let (status, inodes) = self.ask(
            Mid::WALK,
            |out| encode(&request, out),
            |payload, _| {
                let reply = WalkReply::from_payload(payload)?;
                Ok((reply.status, reply.inodes.iter().collect::<Vec<Inode>>()))
            },
        )?;
        self.check_walk(status, &inodes, components.len())
            .inspect_err(|_| {
                let ids: Vec<FdId> = inodes.iter().map(|inode| inode.control).collect();
                // The walk has failed already; ids that stay open cost the server, not us.
                _ = self.close(&ids);
            })?;
        let status = match status {
            WALK_SUCCESS => WalkStatus::Complete,
            WALK_COMPONENT_MISSING => WalkStatus::Missing,
            _ => WalkStatus::Symlink,
        };
        Ok(Walked { status, inodes })
    }

    fn check_walk(&self, status: u8, inodes: &[Inode], asked: usize) -> Result<(), Violation> {
        if inodes.len() > asked {
            return Err(Violation::TooMany);
        }
        if inodes.iter().any(|inode| inode.control == FdId(0)) {
            return Err(Violation::NoId);
        }
        let complete = inodes.len() == asked;
        match status {
            WALK_SUCCESS if complete => Ok(()),
            WALK_COMPONENT_MISSING if !complete => Ok(()),
            WALK_COMPONENT_SYMLINK if !complete && !inodes.is_empty() => Ok(()),
            _ => Err(Violation::Status),
        }
    }

    /// Walks one component.
    ///
    /// # Errors
    /// As [`Client::walk`]; `NOENT` if it does not exist.
    pub fn walk_one(&self, dir: FdId, name: &[u8]) -> Result<Inode, Error> {
        let walked = self.walk(dir, &[name])?;
        walked
            .inodes
            .first()
            .copied()
            .ok_or(Error::Refused(Errno::NOENT))
    }

    /// The file at a path below `from`, with a new id if the path has any component. Slashes may be
    /// doubled; links are not followed, not even the last; ids of what lies on the way are closed.
    ///
    /// # Errors
    /// As [`Client::walk`]; `NOENT` if it does not exist, `LOOP` if a link is on the way.
    pub fn find(&self, from: Inode, path: &[u8]) -> Result<Inode, Error> {
        let components = path.split(|byte| *byte == b'/');
        let components: Vec<&[u8]> = components.filter(|c| !c.is_empty()).collect();
        if components.is_empty() {
            return Ok(from);
        }
        let mut walked = self.walk(from.control, &components)?;
        let last = match walked.status {
            WalkStatus::Complete => walked.inodes.pop().ok_or(Errno::NOENT),
            WalkStatus::Missing => Err(Errno::NOENT),
            WalkStatus::Symlink => Err(Errno::LOOP),
        };
        let passed: Vec<FdId> = walked.inodes.iter().map(|inode| inode.control).collect();
        if !passed.is_empty() {
            self.close(&passed)?;
        }
        Ok(last?)
    }

    /// Attributes along a path; no ids are made. A first component `""` asks for the start's own.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn walk_stat(&self, dir: FdId, components: &[&[u8]]) -> Result<Vec<Statx>, Error> {
        let path = path(components)?;
        let request = Walk {
            dir,
            path: path.texts(),
        };
        self.ask(
            Mid::WALK_STAT,
            |out| encode(&request, out),
            |payload, _| {
                let reply = WalkStatReply::from_payload(payload)?;
                if reply.stats.len() > components.len() {
                    return Err(Violation::TooMany.into());
                }
                Ok(reply.stats.iter().collect())
            },
        )
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn read_link(&self, id: FdId) -> Result<Vec<u8>, Error> {
        self.ask(
            Mid::READ_LINK_AT,
            |out| encode(&ReadLinkAt { id }, out),
            |payload, _| {
                Ok(ReadLinkAtReply::from_payload(payload)?
                    .target
                    .bytes()
                    .to_vec())
            },
        )
    }
}
