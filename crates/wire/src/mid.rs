//! Message ids: which request or reply a payload is.

use core::fmt;

/// A message id. Every reply carries its request's, an error reply carries [`Mid::ERROR`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mid(pub u16);

macro_rules! mids {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Mid {
            $(#[doc = concat!("Message id of `", $text, "`.")] pub const $name: Self = Self($value);)*
            /// Every message id of the protocol with its name, ascending.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self($value), $text)),*];
        }
    };
}

mids! {
    ERROR = 0, "Error";
    MOUNT = 1, "Mount";
    CHANNEL = 2, "Channel";
    FSTAT = 3, "FStat";
    SET_STAT = 4, "SetStat";
    WALK = 5, "Walk";
    WALK_STAT = 6, "WalkStat";
    OPEN_AT = 7, "OpenAt";
    OPEN_CREATE_AT = 8, "OpenCreateAt";
    CLOSE = 9, "Close";
    FSYNC = 10, "FSync";
    PWRITE = 11, "PWrite";
    PREAD = 12, "PRead";
    MKDIR_AT = 13, "MkdirAt";
    MKNOD_AT = 14, "MknodAt";
    SYMLINK_AT = 15, "SymlinkAt";
    LINK_AT = 16, "LinkAt";
    FSTATFS = 17, "FStatFS";
    FALLOCATE = 18, "FAllocate";
    READ_LINK_AT = 19, "ReadLinkAt";
    FLUSH = 20, "Flush";
    CONNECT = 21, "Connect";
    UNLINK_AT = 22, "UnlinkAt";
    RENAME_AT = 23, "RenameAt";
    GETDENTS64 = 24, "Getdents64";
    FGET_XATTR = 25, "FGetXattr";
    FSET_XATTR = 26, "FSetXattr";
    FLIST_XATTR = 27, "FListXattr";
    FREMOVE_XATTR = 28, "FRemoveXattr";
    BIND_AT = 29, "BindAt";
    LISTEN = 30, "Listen";
    ACCEPT = 31, "Accept";
    CONNECT_WITH_CREDS = 32, "ConnectWithCreds";
    RENAME_AT2 = 33, "RenameAt2";
}

impl Mid {
    /// How many message ids the protocol has.
    pub const COUNT: usize = Self::ALL.len();

    /// The message's name in the protocol, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::ALL.get(usize::from(self.0)).map(|(_, name)| *name)
    }
}

impl fmt::Debug for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "message {}", self.0),
        }
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
