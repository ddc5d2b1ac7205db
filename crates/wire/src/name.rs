//! Strings of a client, and the one check that makes a name of one.

use core::fmt;

use crate::{Decode, Encode, Errno, Malformed, Reader, Writer};

/// A string as it travelled: at most 65535 bytes, any of them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Text<'a>(pub &'a [u8]);

/// One path component that cannot leave its directory: not empty, not `.` or `..`, without `/` and
/// NUL. No length limit: the host knows its own (`ENAMETOOLONG`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The bytes as they came.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The string as a name of one directory entry.
    ///
    /// # Errors
    /// `INVAL` if it is not a safe component.
    pub fn name(self) -> Result<Name<'a>, Errno> {
        Name::new(self.0)
    }

    /// The string as something the host takes as a C string (link target, attribute name).
    ///
    /// # Errors
    /// `INVAL` if it contains a NUL byte.
    pub fn without_nul(self) -> Result<&'a [u8], Errno> {
        if self.0.contains(&0) {
            Err(Errno::INVAL)
        } else {
            Ok(self.0)
        }
    }
}

impl<'a> Decode<'a> for Text<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.text()
    }
}

impl Encode for Text<'_> {
    fn encode(&self, w: &mut Writer<'_>) {
        w.text(*self);
    }
}

impl<'a> Name<'a> {
    /// Checks a component.
    ///
    /// # Errors
    /// `INVAL` if it is empty, `.`, `..`, or contains `/` or NUL.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        let unsafe_whole = matches!(bytes, b"" | b"." | b"..");
        if unsafe_whole || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(Errno::INVAL);
        }
        Ok(Self(bytes))
    }

    /// The component's bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text(self.0).fmt(f)
    }
}
