//! FStat, SetStat, FStatFS.

use wire::msg::attr::{FStat, FStatFS, FStatFSReply, SetStat, SetStatReply};
use wire::{FdId, Mid, Statx};

use crate::{Client, Error};

impl Client {
    /// Attributes of a control or open id.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn fstat(&self, id: FdId) -> Result<Statx, Error> {
        self.fetch(Mid::FSTAT, &FStat { id })
    }

    /// Sets the attributes of the mask. What could not be set stands in the answer.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn set_stat(&self, request: &SetStat) -> Result<SetStatReply, Error> {
        self.fetch(Mid::SET_STAT, request)
    }

    /// The file system a file lies on.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn fstatfs(&self, id: FdId) -> Result<FStatFSReply, Error> {
        self.fetch(Mid::FSTATFS, &FStatFS { id })
    }
}
