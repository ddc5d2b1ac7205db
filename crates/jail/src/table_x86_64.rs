//! Rows that only amd64 needs: calls that newer architectures never had.

use crate::seccomp::Rule;
use crate::seccomp::When::Profiling;

pub(super) const RULES: &[Rule] = &[call!(SYS_getitimer, Profiling, [], "sampling by time")];
