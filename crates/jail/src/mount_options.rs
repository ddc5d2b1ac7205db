//! OCI mount options: the flag word they make, the propagation they ask for.

/// `MS_RDONLY` and its like, as `mount(2)` numbers them; also the wire form of `--rpc-fd`.
pub mod bits {
    /// Read-only.
    pub const RDONLY: u32 = 1;
    /// Set-id bits have no effect.
    pub const NOSUID: u32 = 2;
    /// Device nodes have no effect.
    pub const NODEV: u32 = 4;
    /// No execution.
    pub const NOEXEC: u32 = 8;
    /// Access times stand still.
    pub const NOATIME: u32 = 1 << 10;
    /// Access times of directories stand still.
    pub const NODIRATIME: u32 = 1 << 11;
    /// A bind mount.
    pub const BIND: u32 = 1 << 12;
    /// With everything mounted below.
    pub const REC: u32 = 1 << 14;
    /// No propagation, and not to be bound.
    pub const UNBINDABLE: u32 = 1 << 17;
    /// No propagation.
    pub const PRIVATE: u32 = 1 << 18;
    /// Propagation inwards only.
    pub const SLAVE: u32 = 1 << 19;
    /// Access times are written when they matter.
    pub const RELATIME: u32 = 1 << 21;
    /// Access times are always written.
    pub const STRICTATIME: u32 = 1 << 24;
}
use bits::*;

/// (option, bits it sets, bits it clears)
const TABLE: &[(&str, u32, u32)] = &[
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("sync", 16, 0),
    ("async", 0, 16),
    ("remount", 32, 0),
    ("mand", 64, 0),
    ("nomand", 0, 64),
    ("dirsync", 128, 0),
    ("noatime", NOATIME, 0),
    ("atime", 0, NOATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("bind", BIND, 0),
    ("rbind", BIND | REC, 0),
    ("defaults", 0, 0),
    ("silent", 1 << 15, 0),
    ("loud", 0, 1 << 15),
    ("acl", 1 << 16, 0),
    ("noacl", 0, 1 << 16),
    ("relatime", RELATIME, 0),
    ("norelatime", 0, RELATIME),
    ("iversion", 1 << 23, 0),
    ("noiversion", 0, 1 << 23),
    ("strictatime", STRICTATIME, 0),
    ("nostrictatime", 0, STRICTATIME),
];

const PROPAGATION: &[(&str, u32)] = &[
    ("private", PRIVATE),
    ("rprivate", PRIVATE | REC),
    ("slave", SLAVE),
    ("rslave", SLAVE | REC),
    ("unbindable", UNBINDABLE),
    ("runbindable", UNBINDABLE | REC),
];

/// The flag word, evaluated left to right. Unlike the reference before v2026-08, `rw` clears the
/// read-only bit even if nothing had set it: here attributes are really applied.
pub fn flags(options: &[String]) -> u32 {
    options
        .iter()
        .filter_map(|option| TABLE.iter().find(|(name, ..)| name == option))
        .fold(0, |flags, (_, sets, clears)| (flags | sets) & !clears)
}

/// The propagation word: all propagation options together, 0 if there is none.
pub fn propagation(options: &[String]) -> u32 {
    options
        .iter()
        .filter_map(|option| PROPAGATION.iter().find(|(name, _)| name == option))
        .fold(0, |word, (_, bits)| word | bits)
}

/// The word for `linux.rootfsPropagation`; empty means recursive slave. `None`: not allowed.
pub fn root_propagation(text: &str) -> Option<u32> {
    match text {
        "" | "rslave" => Some(SLAVE | REC),
        "slave" => Some(SLAVE),
        "private" => Some(PRIVATE),
        "rprivate" => Some(PRIVATE | REC),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(options: &[&str]) -> Vec<String> {
        options.iter().map(|option| (*option).to_owned()).collect()
    }

    #[test]
    fn the_last_word_on_an_attribute_wins_and_rw_alone_sets_nothing() {
        assert_eq!(flags(&owned(&["rbind", "rw"])), BIND | REC);
        assert_eq!(flags(&owned(&["ro", "rw"])), 0);
        assert_eq!(
            flags(&owned(&["rw", "ro", "noexec", "whatever"])),
            RDONLY | NOEXEC
        );
    }

    #[test]
    fn propagation_is_collected_apart_from_the_flags() {
        let options = owned(&["bind", "rprivate"]);
        assert_eq!(flags(&options), BIND);
        assert_eq!(propagation(&options), PRIVATE | REC);
        assert_eq!(root_propagation("shared"), None);
    }
}
