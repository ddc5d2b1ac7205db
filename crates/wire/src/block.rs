//! Structures that several messages share (`lisafs.md`, section 8).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Decode, Encode, Errno, FdId, Malformed, Reader, Writer};

/// A time of a file.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StatxTime {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
    /// Zero when sent, ignored when received.
    pub padding: u32,
}

/// Attributes of a file, 144 bytes: `struct statx` up to the device numbers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Statx {
    /// Which fields hold something (`STATX_*`).
    pub mask: u32,
    /// Preferred size of an access, in bytes.
    pub blksize: u32,
    /// Flags of the file (`STATX_ATTR_*`).
    pub attributes: u64,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permissions.
    pub mode: u16,
    /// Zero when sent, ignored when received.
    pub padding: u16,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Which bits of `attributes` the file system supports.
    pub attributes_mask: u64,
    /// Last access.
    pub atime: StatxTime,
    /// Birth.
    pub btime: StatxTime,
    /// Last change of the attributes.
    pub ctime: StatxTime,
    /// Last change of the content.
    pub mtime: StatxTime,
    /// Major number, if the file is a device.
    pub rdev_major: u32,
    /// Minor number, if the file is a device.
    pub rdev_minor: u32,
    /// Major number of the device the file lies on.
    pub dev_major: u32,
    /// Minor number of the device the file lies on.
    pub dev_minor: u32,
}

/// A new control id and the attributes of the file it stands for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Inode {
    /// The new id.
    pub control: FdId,
    /// The file's attributes.
    pub stat: Statx,
}

const _: () = assert!(size_of::<Statx>() == crate::limits::STATX_BYTES);
const _: () = assert!(size_of::<Inode>() == crate::limits::INODE_BYTES);

impl<'a> Decode<'a> for Statx {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.fixed()
    }
}
impl Encode for Statx {
    fn encode(&self, w: &mut Writer<'_>) {
        w.fixed(self);
    }
}
impl<'a> Decode<'a> for Inode {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        r.fixed()
    }
}
impl Encode for Inode {
    fn encode(&self, w: &mut Writer<'_>) {
        w.fixed(self);
    }
}

/// Who shall own a file. `u32::MAX` leaves that id as the host chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// Leaves both ids alone.
    pub const KEEP: Self = Self {
        uid: u32::MAX,
        gid: u32::MAX,
    };
}

/// First part of every request that makes a file with a mode, 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Control id of the directory.
    pub dir: FdId,
    /// Owner of the new file.
    pub owner: Owner,
    /// Permissions, set-id and sticky bits; type bits may be present.
    pub mode: u16,
}

impl NewNode {
    /// The mode without type bits.
    #[must_use]
    pub const fn permissions(self) -> u16 {
        self.mode & 0o7777
    }
}

impl<'a> Decode<'a> for NewNode {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let dir = r.id()?;
        let owner = Owner {
            uid: r.u32()?,
            gid: r.u32()?,
        };
        let mode = r.u16()?;
        r.padding(6)?;
        Ok(Self { dir, owner, mode })
    }
}

impl Encode for NewNode {
    fn encode(&self, w: &mut Writer<'_>) {
        w.id(self.dir);
        w.u32(self.owner.uid);
        w.u32(self.owner.gid);
        w.u16(self.mode);
        w.padding(6);
    }
}

/// A moment as `SetStat` carries it: the nanoseconds may also be `UTIME_NOW` or `UTIME_OMIT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timespec {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds, unchecked: the host refuses what is out of range.
    pub nanoseconds: i64,
}

impl<'a> Decode<'a> for Timespec {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            seconds: r.i64()?,
            nanoseconds: r.i64()?,
        })
    }
}

impl Encode for Timespec {
    fn encode(&self, w: &mut Writer<'_>) {
        w.i64(self.seconds);
        w.i64(self.nanoseconds);
    }
}

/// How a client may open a file: the access mode and `O_TRUNC`. Every other flag is dropped, as the
/// protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags(u32);

impl OpenFlags {
    const ACCESS_MODE: u32 = 0o3;
    const TRUNCATE: u32 = 0o1000;

    /// Keeps the flags that mean something.
    #[must_use]
    pub const fn from_wire(flags: u32) -> Self {
        Self(flags & (Self::ACCESS_MODE | Self::TRUNCATE))
    }

    /// The flags as they travel, Linux's numbers.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether the open id may be read from. Access mode 3 does neither.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self.0 & Self::ACCESS_MODE, 0 | 2)
    }

    /// Whether the open id may be written to.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self.0 & Self::ACCESS_MODE, 1 | 2)
    }

    /// Whether opening changes the file, or asks for more than reading.
    #[must_use]
    pub const fn is_more_than_reading(self) -> bool {
        self.0 != 0
    }

    /// # Errors
    /// `ROFS` if a read-only connection asks for more than reading.
    pub const fn check_read_only(self, readonly: bool) -> Result<(), Errno> {
        if readonly && self.is_more_than_reading() {
            Err(Errno::ROFS)
        } else {
            Ok(())
        }
    }
}
