//! The grammar of `--gofer-mount-confs`: what lies under and over each served mount.

use std::str::FromStr;

use crate::Error;

/// What a mount's files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lower {
    /// Nothing: a fresh tmpfs of the sandbox.
    None,
    /// A connection to this process.
    Lisafs,
    /// An image file that the sandbox reads itself.
    Erofs,
}

/// What takes the writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// The lower layer itself.
    None,
    /// Memory of the sandbox.
    Memory,
    /// A file inside the source directory.
    SelfFile,
    /// An unlinked file elsewhere.
    Anonymous,
}

/// One element: the root's, or one mount's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// What lies under.
    pub lower: Lower,
    /// What lies over it.
    pub upper: Upper,
    /// Size of the upper layer, opaque to us (v2026-08).
    pub size: Option<String>,
}

impl Conf {
    /// Does this process serve it?
    pub fn is_lisafs(&self) -> bool {
        self.lower == Lower::Lisafs
    }

    /// Do writes go elsewhere? Then the lower layer is served read-only.
    pub fn is_overlaid(&self) -> bool {
        self.upper != Upper::None
    }

    pub(crate) fn lisafs(upper: Upper) -> Self {
        Self {
            lower: Lower::Lisafs,
            upper,
            size: None,
        }
    }
}

/// A whole flag value: `lisafs:self,lisafs:none,none:memory:size=1g`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confs(pub Vec<Conf>);

impl FromStr for Confs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Conf {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Parent(format!("--gofer-mount-confs: {text:?} is not LOWER:UPPER"));
        let mut parts = text.splitn(3, ':');
        let lower = match parts.next() {
            Some("none") => Lower::None,
            Some("lisafs") => Lower::Lisafs,
            Some("erofs") => Lower::Erofs,
            _ => return Err(bad()),
        };
        let upper = match parts.next() {
            Some("none") => Upper::None,
            Some("memory") => Upper::Memory,
            Some("self") => Upper::SelfFile,
            Some("anon") => Upper::Anonymous,
            _ => return Err(bad()),
        };
        let size = match parts.next() {
            None => None,
            Some(part) => Some(part.strip_prefix("size=").ok_or_else(bad)?.to_owned()),
        };
        if lower == Lower::None && upper == Upper::None {
            return Err(bad());
        }
        Ok(Self { lower, upper, size })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    #[test]
    fn a_list_of_all_kinds_is_read_in_order() {
        let confs: Confs = "lisafs:self,none:memory:size=1g,erofs:anon,lisafs:none"
            .parse()
            .unwrap();
        assert_eq!(confs.0.len(), 4);
        assert_eq!(confs.0[0], Conf::lisafs(Upper::SelfFile));
        assert_eq!(confs.0[1].size.as_deref(), Some("1g"));
        assert!(!confs.0[2].is_lisafs());
        assert!(!confs.0[3].is_overlaid());
    }

    #[test]
    fn nothing_over_nothing_and_unknown_words_are_refused() {
        for text in [
            "none:none",
            "",
            "lisafs",
            "lisafs:",
            "lisafs:self:1g",
            "LISAFS:none",
            "a,b",
        ] {
            assert!(text.parse::<Confs>().is_err(), "{text}");
        }
    }
}
