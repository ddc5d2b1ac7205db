//! On which CPU a thread runs.
//!
//! Belongs here: moving the calling thread. Belongs elsewhere: when to, and what for (`wait`).
//! Must hold: a thread is never moved to a CPU that it might not have used by itself, and is kept
//! nowhere: after a move it may run wherever it might before. (What an operator allows it within the
//! microseconds of a move is lost; what they say before or after stands.)
#![allow(
    unsafe_code,
    reason = "rustix asks the kernel which CPU this is; the C library need not"
)]

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Goes to this CPU, if the thread may use it.
pub(crate) fn go_to(cpu: usize) {
    if let Some(all) = all().filter(|all| all.is_set(cpu)) {
        go(&only(cpu), &all);
    }
}

/// Leaves the CPU that the thread is on, for any other. Says which it was.
pub(crate) fn step_aside() -> Option<usize> {
    let (all, here) = (all()?, here()?);
    let mut others = all;
    others.unset(here);
    (others.count() > 0 && go(&others, &all)).then_some(here)
}

/// Goes to one of `there`, and stays free to run on `all`.
fn go(there: &CpuSet, all: &CpuSet) -> bool {
    let gone = sched_setaffinity(None, there).is_ok();
    // The kernel has moved the thread already. What was allowed before cannot be refused.
    gone && sched_setaffinity(None, all).is_ok()
}

/// What the thread may use, if it may use more than one.
fn all() -> Option<CpuSet> {
    let all = sched_getaffinity(None).ok()?;
    (all.count() > 1).then_some(all)
}

fn only(cpu: usize) -> CpuSet {
    let mut one = CpuSet::new();
    one.set(cpu);
    one
}

/// Where the calling thread runs, by memory that it shares with the kernel: no system call.
fn here() -> Option<usize> {
    // SAFETY: takes nothing and touches no memory of ours.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
    (cpu < CpuSet::MAX_CPU).then_some(cpu)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    fn allowed() -> CpuSet {
        sched_getaffinity(None).unwrap()
    }

    #[test]
    fn a_thread_goes_where_it_is_told_and_may_be_anywhere_after() {
        let all = allowed();
        for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)) {
            go_to(cpu);
            assert_eq!(allowed(), all);
        }
        step_aside();
        assert_eq!(allowed(), all);
    }

    #[test]
    fn a_thread_with_one_cpu_stays_there() {
        let all = allowed();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
        sched_setaffinity(None, &only(first)).unwrap();
        assert_eq!(step_aside(), None);
        assert_eq!((here(), allowed()), (Some(first), only(first)));
        sched_setaffinity(None, &all).unwrap();
    }

    #[test]
    fn no_thread_goes_where_it_may_not_be() {
        let all = allowed();
        let never = (0..CpuSet::MAX_CPU).find(|cpu| !all.is_set(*cpu)).unwrap();
        go_to(never);
        assert!(all.is_set(here().unwrap()));
        assert_eq!(allowed(), all);
    }

    #[test]
    fn who_steps_aside_says_from_where() {
        let all = allowed();
        match step_aside() {
            Some(left) => assert!(all.is_set(left) && all.count() > 1),
            None => assert_eq!(all.count(), 1),
        }
        assert_eq!(allowed(), all);
    }
}
