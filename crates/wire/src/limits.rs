//! The protocol's numbers, each with its unit and source (`lisafs.md`, appendix A).

/// Bytes of the header in front of every message on the socket.
pub const SOCKET_HEADER_BYTES: usize = 8;
/// Bytes of the header in front of every message in a window.
pub const CHANNEL_HEADER_BYTES: usize = 4;
/// Longest string or array, in bytes resp. elements: their count is a `u16`.
pub const COUNT_MAX: usize = u16::MAX as usize;
/// Bytes of a Statx without padding at its end.
pub const STATX_BYTES: usize = 144;
/// Bytes of an Inode: an id and a Statx.
pub const INODE_BYTES: usize = 152;
/// Bytes of a directory entry without its name.
pub const DIRENT_FIXED_BYTES: usize = 27;
/// Bytes of a `PWrite` request in front of its data.
pub const PWRITE_FIXED_BYTES: usize = 20;
/// Bytes of a `PRead` reply in front of its data.
pub const PREAD_REPLY_FIXED_BYTES: usize = 8;
/// Longest value of an extended attribute, and of a list of their names, in bytes (Linux).
pub const XATTR_BYTES_MAX: usize = 65536;
/// Bytes of a huge page on the machines gVisor runs on: window, headers and payload fill one.
const HUGE_PAGE_BYTES: u32 = 2 << 20;

/// Longest payload of a message, in bytes, headers excluded, for a page size in bytes. What the
/// `Mount` reply announces as `MaxMessageSize`.
#[must_use]
pub const fn payload_bytes_max(page_bytes: u32) -> u32 {
    HUGE_PAGE_BYTES.saturating_sub(page_bytes)
}
