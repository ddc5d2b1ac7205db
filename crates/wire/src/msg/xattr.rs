//! Extended attributes: FGetXattr 25, FSetXattr 26, FListXattr 27, FRemoveXattr 28.

use super::message;
use crate::{FdId, Text, Texts};

message! {
    /// Request 25.
    FGetXattr<'a> {
        /// Control id.
        id: FdId = id,
        /// Room for the value, in bytes; 0 asks for any length.
        buf_size: u32 = u32,
        /// The attribute.
        name: Text<'a> = text,
    }
}

message! {
    /// Reply 25.
    FGetXattrReply<'a> {
        /// The attribute's value.
        value: Text<'a> = text,
    }
}

message! {
    /// Request 26.
    FSetXattr<'a> {
        /// Control id.
        id: FdId = id,
        /// 0, 1 (create) or 2 (replace).
        flags: u32 = u32,
        /// The attribute.
        name: Text<'a> = text,
        /// Its new value.
        value: Text<'a> = text,
    }
}

message! {
    /// Request 27.
    FListXattr {
        /// Control id.
        id: FdId = id,
        /// Room for the list as the host writes it, in bytes; 0 asks for any length.
        size: u64 = u64,
    }
}

message! {
    /// Reply 27.
    FListXattrReply<'a> {
        /// The attributes' names.
        names: Texts<'a> = block,
    }
}

message! {
    /// Request 28.
    FRemoveXattr<'a> {
        /// Control id.
        id: FdId = id,
        /// The attribute.
        name: Text<'a> = text,
    }
}
