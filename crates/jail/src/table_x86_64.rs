//! Rows that only amd64 needs: calls that newer architectures never had.

use crate::seccomp::Rule;
use crate::seccomp::When::{Always, Profiling};

pub(super) const RULES: &[Rule] = &[
    call!(SYS_poll, Always, [], "waiting on a socket"),
    call!(
        SYS_epoll_wait,
        Always,
        [],
        "one place that watches all connections"
    ),
    call!(SYS_getitimer, Profiling, [], "sampling by time"),
];
