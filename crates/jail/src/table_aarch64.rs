//! Rows that only arm64 needs: none, it has no older forms of any call in the table.

use crate::seccomp::Rule;

pub(super) const RULES: &[Rule] = &[];
