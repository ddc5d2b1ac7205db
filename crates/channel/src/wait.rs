//! How long to look for the peer's turn before going to sleep.
//!
//! Belongs here: the policy, the count of threads that spin. Nothing else, so that it is easy to
//! change and to measure. Belongs elsewhere: the sleeping itself (`turns`).
//!
//! A wake-up through the kernel costs both sides more than most requests take. A client that asks
//! in quick succession is therefore awaited for a moment with the CPU held; any other is not.

use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest spin of the adaptive policy: about one sleep and wake-up on a virtual machine.
const SPIN_MAX: Duration = Duration::from_micros(50);
/// Spin only while the running mean of gaps is below this. Above [`SPIN_MAX`], because the gaps of
/// a peer that is awaited asleep contain the wake-ups that spinning would save (measured: 84 µs).
const GAP_SHORT: Duration = Duration::from_micros(150);
/// A longer gap counts as this much: enough that one pause ends the spinning, so little that some
/// short gaps begin it again.
const GAP_COUNTED_MAX: Duration = Duration::from_millis(1);
/// What a new gap weighs in the mean is one part in this many.
const GAPS_REMEMBERED: u32 = 4;
const _: () = assert!(
    GAP_COUNTED_MAX.as_micros() / GAPS_REMEMBERED as u128 > GAP_SHORT.as_micros(),
    "one pause ends the spinning"
);
/// Looks at the state between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 64;

/// Threads of this process that spin adaptively right now.
static SPINNERS: AtomicU32 = AtomicU32::new(0);

/// What one endpoint does before it sleeps.
#[derive(Debug, Clone)]
pub struct Wait {
    policy: Policy,
}

#[derive(Debug, Clone)]
enum Policy {
    Fixed(Duration),
    Adaptive {
        gap_mean: Duration,
        spinners_max: u32,
    },
}

impl Wait {
    /// Sleeps at once: for clients that share their CPU with the server.
    #[must_use]
    pub const fn asleep() -> Self {
        Self::fixed(0)
    }

    /// Always spins for `us` microseconds first, whatever else runs.
    #[must_use]
    pub const fn fixed(us: u64) -> Self {
        Self {
            policy: Policy::Fixed(Duration::from_micros(us)),
        }
    }

    /// Spins for up to 50 µs while the peer's recent gaps were short and fewer than half of the
    /// CPUs spin; never on a single CPU.
    ///
    /// The first call counts the CPUs this process may use: make it before system calls are
    /// forbidden, and clone the result for each channel.
    #[must_use]
    pub fn adaptive() -> Self {
        let spinners_max = cpus() / 2;
        Self {
            policy: Policy::Adaptive {
                gap_mean: GAP_COUNTED_MAX,
                spinners_max,
            },
        }
    }

    /// Looks until `turned` or the bound is reached; says whether it turned.
    pub(crate) fn spin(&self, turned: impl Fn() -> bool) -> bool {
        match self.policy {
            Policy::Fixed(bound) => !bound.is_zero() && look(bound, turned),
            Policy::Adaptive {
                gap_mean,
                spinners_max,
            } => {
                gap_mean < GAP_SHORT
                    && Spinner::enter(spinners_max).is_some_and(|_spinner| look(SPIN_MAX, turned))
            }
        }
    }

    /// Starts to measure how long the peer takes.
    pub(crate) fn begin(&self) -> Option<Instant> {
        matches!(
            self.policy,
            Policy::Adaptive {
                spinners_max: 1..,
                ..
            }
        )
        .then(Instant::now)
    }

    /// The peer's turn has come: learns from the gap.
    pub(crate) fn end(&mut self, begun: Option<Instant>) {
        if let (Policy::Adaptive { gap_mean, .. }, Some(begun)) = (&mut self.policy, begun) {
            let gap = begun.elapsed().min(GAP_COUNTED_MAX);
            *gap_mean = (*gap_mean * (GAPS_REMEMBERED - 1) + gap) / GAPS_REMEMBERED;
        }
    }
}

fn look(bound: Duration, turned: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if turned() {
                return true;
            }
            spin_loop();
        }
        if begun.elapsed() >= bound {
            return false;
        }
    }
}

/// The right to spin, one of few.
struct Spinner;

impl Spinner {
    fn enter(spinners_max: u32) -> Option<Self> {
        // Made before the test, so that leaving always undoes what entering did.
        let spinner = Self;
        let others = SPINNERS.fetch_add(1, Ordering::Relaxed);
        (others < spinners_max).then_some(spinner)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        SPINNERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// CPUs this process may use, asked once; one if the host does not say.
fn cpus() -> u32 {
    static CPUS: OnceLock<u32> = OnceLock::new();
    *CPUS.get_or_init(|| rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive(spinners_max: u32) -> Wait {
        Wait {
            policy: Policy::Adaptive {
                gap_mean: GAP_COUNTED_MAX,
                spinners_max,
            },
        }
    }

    fn gap_mean(wait: &Wait) -> Duration {
        match wait.policy {
            Policy::Adaptive { gap_mean, .. } => gap_mean,
            Policy::Fixed(_) => Duration::ZERO,
        }
    }

    #[test]
    fn an_adaptive_wait_spins_only_after_some_short_gaps_and_forgets_them_after_a_long_one() {
        let mut wait = adaptive(u32::MAX);
        assert!(!wait.spin(|| true), "nothing is known of the peer yet");
        // Begun in the future: a gap of zero, however busy the machine is.
        let no_gap = Instant::now().checked_add(Duration::from_secs(3600));
        for _ in 0..200 {
            wait.end(no_gap);
        }
        assert!(gap_mean(&wait) < GAP_SHORT && wait.spin(|| true));
        wait.end(Instant::now().checked_sub(Duration::from_secs(1)));
        assert!(!wait.spin(|| true));
    }

    #[test]
    fn a_machine_with_one_cpu_neither_spins_nor_reads_the_clock() {
        let mut wait = adaptive(0);
        wait.end(Some(Instant::now()));
        assert!(!wait.spin(|| true));
        assert_eq!(wait.begin(), None);
    }

    #[test]
    fn a_fixed_wait_of_zero_never_looks() {
        assert!(!Wait::asleep().spin(|| panic!("looked")));
        assert!(Wait::fixed(1).spin(|| true));
        assert!(!Wait::fixed(1).spin(|| false), "the bound ends it");
    }
}
