//! Error numbers as they travel: Linux's, of x86-64 and arm64.

use core::fmt;

/// Why a request failed, as the client's application will see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u32);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($value);)*
            const NAMES: &'static [(u32, &'static str)] = &[$(($value, concat!("E", stringify!($name)))),*];
        }
    };
}

errnos! {
    PERM = 1, "Operation not permitted";
    NOENT = 2, "No such file or directory";
    IO = 5, "Input/output error; also the answer to a malformed request";
    NXIO = 6, "No such device or address";
    BADF = 9, "Bad file descriptor: an unknown id";
    AGAIN = 11, "Try again";
    NOMEM = 12, "Out of memory";
    ACCES = 13, "Permission denied";
    EXIST = 17, "File exists";
    NOTDIR = 20, "Not a directory";
    ISDIR = 21, "Is a directory";
    INVAL = 22, "Invalid argument: among others an id of another kind";
    NFILE = 23, "Too many open files in system";
    MFILE = 24, "Too many open files";
    FBIG = 27, "File too large";
    NOSPC = 28, "No space left on device";
    ROFS = 30, "Read-only file system";
    RANGE = 34, "Result does not fit";
    NAMETOOLONG = 36, "File name too long";
    NOSYS = 38, "Function not implemented";
    NOTEMPTY = 39, "Directory not empty";
    LOOP = 40, "Too many levels of symbolic links";
    NODATA = 61, "No such attribute";
    NOTSOCK = 88, "Not a socket";
    PROTOTYPE = 91, "Wrong type of socket";
    OPNOTSUPP = 95, "Operation not supported";
    ADDRINUSE = 98, "Address in use";
    CONNRESET = 104, "Connection reset: it is closing";
    NOBUFS = 105, "No buffer space: the reply would exceed the largest payload";
    CONNREFUSED = 111, "Connection refused";
    REMOTEIO = 121, "Remote I/O error: the server's handler failed unexpectedly";
    TOOBIG = 7, "Argument too large (E2BIG)";
    INTR = 4, "Interrupted";
    XDEV = 18, "Cross-device link";
    MLINK = 31, "Too many links";
    STALE = 116, "Stale file handle";
    DQUOT = 122, "Quota exceeded";
}

impl Errno {
    /// Any number the host or a peer gave.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as it travels.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(value, _)| *value == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}
