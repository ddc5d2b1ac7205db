//! FGetXattr, FSetXattr, FListXattr, FRemoveXattr.

use wire::msg::xattr::{
    FGetXattr, FGetXattrReply, FListXattr, FListXattrReply, FRemoveXattr, FSetXattr,
};
use wire::{Decode, FdId, Mid};

use crate::dir::text;
use crate::line::encode;
use crate::{Client, Error, Violation};

impl Client {
    /// An attribute's value, of at most `buf_size` bytes unless that is 0.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn fget_xattr(&self, id: FdId, name: &[u8], buf_size: u32) -> Result<Vec<u8>, Error> {
        let request = FGetXattr {
            id,
            buf_size,
            name: text(name)?,
        };
        self.ask(
            Mid::FGET_XATTR,
            |out| encode(&request, out),
            |payload, _| {
                let value = FGetXattrReply::from_payload(payload)?.value.bytes();
                if buf_size != 0 && value.len() > buf_size as usize {
                    return Err(Violation::TooMany.into());
                }
                Ok(value.to_vec())
            },
        )
    }

    /// Sets an attribute; `flags`: 0, 1 (create), 2 (replace).
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn fset_xattr(&self, id: FdId, name: &[u8], value: &[u8], flags: u32) -> Result<(), Error> {
        let (name, value) = (text(name)?, text(value)?);
        self.tell(
            Mid::FSET_XATTR,
            &FSetXattr {
                id,
                flags,
                name,
                value,
            },
        )
    }

    /// The attributes' names, which the host lists in at most `size` bytes unless that is 0.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn flist_xattr(&self, id: FdId, size: u64) -> Result<Vec<Vec<u8>>, Error> {
        self.ask(
            Mid::FLIST_XATTR,
            |out| encode(&FListXattr { id, size }, out),
            |payload, _| {
                let reply = FListXattrReply::from_payload(payload)?;
                Ok(reply
                    .names
                    .iter()
                    .map(|name| name.bytes().to_vec())
                    .collect())
            },
        )
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// The server's errno, or what it did wrong.
    pub fn fremove_xattr(&self, id: FdId, name: &[u8]) -> Result<(), Error> {
        self.tell(
            Mid::FREMOVE_XATTR,
            &FRemoveXattr {
                id,
                name: text(name)?,
            },
        )
    }
}
