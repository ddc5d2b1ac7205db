//! How long to look for the peer's turn before going to sleep.
//!
//! Belongs here: the policy, the count of threads that spin. Nothing else, so that it is easy to
//! change and to measure. Belongs elsewhere: the sleeping itself (`turns`).
//!
//! A wake-up through the kernel costs both sides more than most requests take. A client that asks
//! in quick succession is therefore awaited for a moment with the CPU held; any other is not.
//!
//! How quick a client would be if it were answered at once cannot be seen while both sides sleep:
//! then each gap contains two wake-ups. So a waiter that sleeps tries now and then, for a few
//! requests, to look longer than those take. If the client turns out to be quick, the waiter goes on
//! looking; if not, or if somebody else wanted the CPU meanwhile, it sleeps for a while that gets
//! longer with each failure.

use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest look at a peer that has been quick.
const SPIN_MAX: Duration = Duration::from_micros(50);
/// Longest look of a try: about two wake-ups on a virtual machine (measured: 84 µs).
const TRY_MAX: Duration = Duration::from_micros(150);
/// Gaps longer than this, slept through, are pauses of the peer: they say nothing of its pace.
const GAP_SHORT: Duration = Duration::from_micros(300);
/// What a waiter has that begins a try, and at most; a look in vain costs [`MISS`], a quick turn
/// brings one.
const TRUST_AT_FIRST: u32 = 8;
const TRUST_MAX: u32 = 64;
const MISS: u32 = 4;
/// Short gaps slept through before a try: at first, at most while the peer is slow, and at most while
/// others want the CPU.
const REST_MIN: u32 = 8;
const REST_MAX: u32 = 1 << 10;
const REST_MAX_BUSY: u32 = 1 << 12;
/// What a failed try multiplies the rest by.
const REST_GROWS: u32 = 4;
/// So many quick turns in a row forget all failures: some milliseconds, longer than a busy machine
/// leaves a thread its CPU, shorter than the pauses between interruptions of a quiet one.
const FORGIVEN_AFTER: u32 = 1 << 12;
/// Two looks at the clock that lie further apart tell that the CPU was taken away between them.
const TAKEN_AWAY: Duration = Duration::from_micros(100);
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
    Adaptive { pace: Pace, spinners_max: u32 },
}

/// What is known of the peer.
#[derive(Debug, Clone)]
struct Pace {
    state: State,
    /// Short gaps to sleep through after the next failure.
    rest: u32,
    /// Quick turns since the last failure.
    quick: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Sleeps until so many more short gaps were seen.
    Resting(u32),
    /// Looks; `trying` until the first quick turn.
    Looking { trust: u32, trying: bool },
}

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Turned,
    InVain,
    TakenAway,
}

impl Pace {
    const UNKNOWN: Self = Self {
        state: State::Resting(REST_MIN),
        rest: REST_MIN,
        quick: 0,
    };

    /// How long to look now.
    const fn bound(&self) -> Option<Duration> {
        match self.state {
            State::Resting(_) => None,
            State::Looking { trying: true, .. } => Some(TRY_MAX),
            State::Looking { trying: false, .. } => Some(SPIN_MAX),
        }
    }

    fn looked(&mut self, look: Look) {
        let State::Looking { trust, trying } = self.state else {
            return;
        };
        match look {
            Look::Turned => {
                self.quick += 1;
                if self.quick >= FORGIVEN_AFTER {
                    (self.quick, self.rest) = (0, REST_MIN);
                }
                self.state = State::Looking {
                    trust: (trust + 1).min(TRUST_MAX),
                    trying: false,
                };
            }
            Look::InVain if trust > MISS => {
                self.state = State::Looking {
                    trust: trust - MISS,
                    trying,
                };
            }
            Look::InVain => self.rest_up_to(REST_MAX),
            Look::TakenAway => self.rest_up_to(REST_MAX_BUSY),
        }
    }

    fn rest_up_to(&mut self, most: u32) {
        self.state = State::Resting(self.rest);
        self.rest = (self.rest * REST_GROWS).min(most);
        self.quick = 0;
    }

    fn slept(&mut self, gap: Duration) {
        if let State::Resting(left) = &mut self.state
            && gap < GAP_SHORT
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.state = State::Looking {
                    trust: TRUST_AT_FIRST,
                    trying: true,
                };
            }
        }
    }
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

    /// Spins for up to 50 µs (150 µs in a try, see the module) while the peer has been quick and
    /// fewer than half of the CPUs spin; never on a single CPU.
    ///
    /// The first call counts the CPUs this process may use: make it before system calls are
    /// forbidden, and clone the result for each channel.
    #[must_use]
    pub fn adaptive() -> Self {
        let spinners_max = cpus() / 2;
        Self {
            policy: Policy::Adaptive {
                pace: Pace::UNKNOWN,
                spinners_max,
            },
        }
    }

    /// Looks until `turned` or the bound is reached; says whether it turned. If not, the caller
    /// sleeps, and reports that with [`Self::slept`].
    pub(crate) fn spin(&mut self, turned: impl Fn() -> bool) -> bool {
        match &mut self.policy {
            Policy::Fixed(bound) => !bound.is_zero() && look(*bound, turned) == Look::Turned,
            Policy::Adaptive { pace, spinners_max } => {
                let Some(bound) = pace.bound() else {
                    return false;
                };
                let Some(_spinner) = Spinner::enter(*spinners_max) else {
                    return false;
                };
                let look = look(bound, turned);
                pace.looked(look);
                look == Look::Turned
            }
        }
    }

    /// When a sleep begins, if its length matters.
    pub(crate) fn begin(&self) -> Option<Instant> {
        match &self.policy {
            Policy::Adaptive {
                pace:
                    Pace {
                        state: State::Resting(_),
                        ..
                    },
                spinners_max: 1..,
            } => Some(Instant::now()),
            _ => None,
        }
    }

    /// The peer's turn has come after a sleep that began then.
    pub(crate) fn slept(&mut self, begun: Option<Instant>) {
        if let (Policy::Adaptive { pace, .. }, Some(begun)) = (&mut self.policy, begun) {
            pace.slept(begun.elapsed());
        }
    }
}

fn look(bound: Duration, turned: impl Fn() -> bool) -> Look {
    // Most turns of a quick peer come before the clock matters.
    for _ in 0..LOOKS_PER_CLOCK {
        if turned() {
            return Look::Turned;
        }
        spin_loop();
    }
    let begun = Instant::now();
    let mut before = begun;
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if turned() {
                return Look::Turned;
            }
            spin_loop();
        }
        let now = Instant::now();
        if now.duration_since(before) >= TAKEN_AWAY {
            return Look::TakenAway;
        }
        if now.duration_since(begun) >= bound {
            return Look::InVain;
        }
        before = now;
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

    const LOOKING: State = State::Looking {
        trust: TRUST_AT_FIRST,
        trying: true,
    };

    fn rest(pace: &mut Pace) -> u32 {
        let mut gaps = 0;
        while pace.bound().is_none() {
            pace.slept(Duration::from_micros(80));
            gaps += 1;
        }
        gaps
    }

    #[test]
    fn a_peer_is_looked_at_after_some_short_gaps_and_never_for_its_pauses() {
        let mut pace = Pace::UNKNOWN;
        for _ in 0..1000 {
            pace.slept(Duration::from_millis(1));
        }
        assert_eq!(pace.bound(), None);
        assert_eq!(rest(&mut pace), REST_MIN);
        assert_eq!((pace.bound(), pace.state), (Some(TRY_MAX), LOOKING));
        pace.looked(Look::Turned);
        assert_eq!(pace.bound(), Some(SPIN_MAX));
    }

    #[test]
    fn tries_in_vain_become_rare_and_cost_little_of_each_request() {
        let mut pace = Pace::UNKNOWN;
        let mut rests = Vec::new();
        for _ in 0..8 {
            rests.push(rest(&mut pace));
            let mut looks = 0;
            while pace.bound().is_some() {
                pace.looked(Look::InVain);
                looks += 1;
            }
            assert_eq!(looks, TRUST_AT_FIRST / MISS);
        }
        assert_eq!(rests, [8, 8, 32, 128, 512, 1024, 1024, 1024]);
    }

    #[test]
    fn a_cpu_that_others_want_is_left_to_them_at_once_and_for_long() {
        let mut pace = Pace::UNKNOWN;
        let mut rests = Vec::new();
        for _ in 0..9 {
            rests.push(rest(&mut pace));
            pace.looked(Look::TakenAway);
            assert_eq!(pace.bound(), None);
        }
        assert_eq!(rests[6..], [4096, 4096, 4096]);
        rest(&mut pace);
        for _ in 0..FORGIVEN_AFTER {
            pace.looked(Look::Turned);
        }
        pace.looked(Look::TakenAway);
        assert_eq!(rest(&mut pace), REST_MIN, "all is forgiven");
    }

    #[test]
    fn a_quick_peer_may_be_slow_now_and_then() {
        let mut pace = Pace::UNKNOWN;
        rest(&mut pace);
        for _ in 0..1000 {
            for _ in 0..MISS {
                pace.looked(Look::Turned);
            }
            pace.looked(Look::InVain);
            assert!(pace.bound().is_some());
        }
    }

    #[test]
    fn a_machine_with_one_cpu_neither_spins_nor_reads_the_clock() {
        let mut wait = Wait {
            policy: Policy::Adaptive {
                pace: Pace {
                    state: LOOKING,
                    ..Pace::UNKNOWN
                },
                spinners_max: 0,
            },
        };
        assert!(!wait.spin(|| panic!("looked")));
        assert_eq!(wait.begin(), None);
    }

    #[test]
    fn a_fixed_wait_of_zero_never_looks() {
        assert!(!Wait::asleep().spin(|| panic!("looked")));
        assert!(Wait::fixed(1).spin(|| true));
        assert!(!Wait::fixed(1).spin(|| false), "the bound ends it");
    }
}
