//! On which CPU a thread waits.
//!
//! Belongs here: moving the calling thread. Belongs elsewhere: when to, and what for (`wait`).
//! Must hold: a thread is never moved to a CPU that it might not have used by itself, and what the
//! operator decides meanwhile stands.
#![allow(
    unsafe_code,
    reason = "rustix asks the kernel which CPU this is; the C library need not"
)]

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the thread that owns this may run, and whether it keeps to one CPU now.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    kept: Option<Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    /// What it may use when it does not keep to one.
    all: Box<CpuSet>,
    cpu: usize,
}

impl Place {
    /// Wherever the kernel puts it.
    pub(crate) const ANYWHERE: Self = Self { kept: None };

    /// Keeps to the next of the CPUs that the thread may use; of two, that is the other one.
    pub(crate) fn keep_to_next(&mut self) {
        let (Some(all), Some(here)) = (self.all(), here()) else {
            return;
        };
        let next = (1..CpuSet::MAX_CPU)
            .map(|step| (here + step) % CpuSet::MAX_CPU)
            .find(|cpu| all.is_set(*cpu));
        if let Some(cpu) = next {
            self.keep(all, cpu);
        }
    }

    /// Keeps to this CPU.
    pub(crate) fn keep_to(&mut self, cpu: usize) {
        if let Some(all) = self.all().filter(|all| all.is_set(cpu)) {
            self.keep(all, cpu);
        }
    }

    /// Leaves the CPU that the thread is on, for any other, and keeps to none. Says which it was.
    pub(crate) fn step_aside(&mut self) -> Option<usize> {
        let (all, here) = (self.all()?, here()?);
        let mut others = all;
        others.unset(here);
        if others.count() == 0 || sched_setaffinity(None, &others).is_err() {
            return None;
        }
        // The kernel has moved the thread already.
        _ = sched_setaffinity(None, &all);
        self.kept = None;
        Some(here)
    }

    /// Lets the kernel choose again.
    pub(crate) fn let_go(&mut self) {
        if self.kept.is_some() {
            if let Some(all) = self.all() {
                // What was allowed before cannot be refused, or then the operator's wish stands.
                _ = sched_setaffinity(None, &all);
            }
            self.kept = None;
        }
    }

    fn keep(&mut self, all: CpuSet, cpu: usize) {
        let one = only(cpu);
        if sched_setaffinity(None, &one).is_ok() {
            let all = Box::new(all);
            self.kept = Some(Kept { all, cpu });
        }
    }

    /// What the thread may use, if it may use more than one: what it might before it kept to one, or,
    /// if somebody has changed that since, what they allow.
    fn all(&self) -> Option<CpuSet> {
        let now = sched_getaffinity(None).ok()?;
        let all = match &self.kept {
            Some(kept) if now == only(kept.cpu) => *kept.all,
            _ => now,
        };
        (all.count() > 1).then_some(all)
    }
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
    fn a_thread_keeps_to_one_cpu_until_it_lets_go() {
        let (all, mut place) = (allowed(), Place::ANYWHERE);
        place.keep_to_next();
        if all.count() == 1 {
            assert_eq!(allowed(), all, "the only one");
            return;
        }
        let first = here().unwrap();
        assert_eq!(allowed(), only(first));
        place.keep_to_next();
        assert_ne!(here().unwrap(), first);
        assert_eq!(allowed().count(), 1);
        place.keep_to(first);
        assert_eq!(allowed(), only(first));
        place.let_go();
        assert_eq!(allowed(), all);
    }

    #[test]
    fn a_thread_that_steps_aside_is_elsewhere_and_may_be_anywhere() {
        let (all, mut place) = (allowed(), Place::ANYWHERE);
        if all.count() > 1 {
            let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
            place.keep_to(first);
            assert_eq!(place.step_aside(), Some(first));
        } else {
            assert_eq!(place.step_aside(), None, "the only one");
        }
        assert_eq!(allowed(), all);
    }

    #[test]
    fn what_an_operator_allows_meanwhile_stands() {
        let (all, mut place) = (allowed(), Place::ANYWHERE);
        place.keep_to_next();
        sched_setaffinity(None, &all).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
        sched_setaffinity(None, &only(first)).unwrap();
        place.kept.iter_mut().for_each(|kept| kept.cpu = first + 1);
        place.let_go();
        assert_eq!(allowed(), only(first));
        sched_setaffinity(None, &all).unwrap();
    }
}
