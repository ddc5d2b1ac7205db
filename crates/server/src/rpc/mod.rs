//! The handlers, in the eight families of `wire::msg`: find, act, record, answer.

pub(crate) mod attr;
pub(crate) mod data;
pub(crate) mod dir;
pub(crate) mod open;
pub(crate) mod session;
pub(crate) mod socket;
pub(crate) mod walk;
pub(crate) mod xattr;
