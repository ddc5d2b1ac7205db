//! How a thread waits for the peer's turn: for how long it looks before it goes to sleep, and on
//! which CPU it looks.
//!
//! Belongs here: the policy, the count of threads that spin. Nothing else, so that it is easy to
//! change and to measure. Belongs elsewhere: the sleeping itself (`turns`), moving (`place`).
//!
//! A wake-up through the kernel costs both sides more than most requests take. A peer that is
//! answered before it has gone to sleep is spared it, if its turn is awaited with the CPU held. One
//! that sleeps all the same has to be woken in any case: it is better answered by a thread that
//! sleeps too, often on the same CPU, and burns nothing. Which of the two a peer is depends on what it
//! asks, and shows in whether handing over its turn wakes anybody.
//!
//! So a waiter that sleeps tries now and then to look instead, for some turns. If most of the peer's
//! turns come while it looks, and find the peer awake, it goes on looking; if not, or if somebody else
//! wanted the CPU meanwhile, it sleeps for a while that gets longer with each failure.
//!
//! Two that both sleep are quickest on the same CPU: no other one has to be woken, which on a virtual
//! machine takes ten times as long as a short request. The kernel puts them there or not, as it
//! happens, and that is left to it: a thread that moves to meet its peer takes a CPU from the peer's
//! other threads (docs/performance.md has the figures).

use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::place;

/// Longest look at a peer that has been quick.
const SPIN_MAX: Duration = Duration::from_micros(50);
/// Longest look of a try: about two wake-ups on a virtual machine (measured: 84 µs).
const TRY_MAX: Duration = Duration::from_micros(150);
/// Gaps longer than this, slept through, are pauses of the peer: they say nothing of its pace.
const GAP_SHORT: Duration = Duration::from_micros(300);
/// Looks of a try. Where the answer comes at about the time at which the peer goes to sleep (WalkStat
/// of one name), it sleeps often at first and seldom later, so few would not tell.
const LOOKS: u32 = 48;
/// A sleep this short was ended by a peer on the same CPU. Measured across CPUs: 10 to 60 µs on
/// virtual machines.
const SAME_CPU: Duration = Duration::from_micros(10);
/// Looks in vain that end a try.
const VAIN_MAX: u32 = 2;
/// What a waiter has that begins to look for good, and at most; a look in vain costs [`MISS`], a
/// quick turn brings one.
const TRUST_AT_FIRST: u32 = 8;
const TRUST_MAX: u32 = 64;
const MISS: u32 = 4;
/// Peers found asleep, more than were found awake, after which looking does not help any more.
const ASLEEP_MAX: u32 = 16;
/// Short gaps slept through before a try, at first and at most: a try may part two that were on one CPU.
const REST_MIN: u32 = 8;
const REST_MAX: u32 = 1 << 15;
/// What a failed try multiplies the rest by.
const REST_GROWS: u32 = 8;
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
    /// How long the last short gap took that was slept through.
    last: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Sleeps until so many more short gaps were seen.
    Resting(u32),
    /// Looks, to find out: `looks` so far, of which `vain` saw nothing, and answers before them that
    /// found the peer `asleep`. `home` is the CPU that was left for it.
    Trying {
        looks: u32,
        vain: u32,
        asleep: u32,
        home: Option<usize>,
    },
    /// Looks. `asleep`: how many more peers slept when they were answered than did not.
    Looking { trust: u32, asleep: u32 },
}

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Turned,
    InVain,
    TakenAway,
}

impl State {
    const TRYING: Self = Self::Trying {
        looks: 0,
        vain: 0,
        asleep: 0,
        home: None,
    };
}

impl Pace {
    const UNKNOWN: Self = Self {
        state: State::Resting(REST_MIN),
        rest: REST_MIN,
        quick: 0,
        last: Duration::ZERO,
    };

    /// How long to look now.
    const fn bound(&self) -> Option<Duration> {
        match self.state {
            State::Resting(_) => None,
            State::Trying { .. } => Some(TRY_MAX),
            State::Looking { .. } => Some(SPIN_MAX),
        }
    }

    /// Others have the right to look: a try comes later, and sleeps count until then.
    fn put_off(&mut self) {
        if let State::Trying { .. } = self.state {
            self.rest();
        }
    }

    /// If the peer runs on this CPU, it does not while we look: looks at it from another.
    fn step_aside(&mut self) {
        let State::Trying {
            looks, vain, home, ..
        } = &mut self.state
        else {
            return;
        };
        let first = *looks == 0 && self.last < SAME_CPU;
        let only_in_vain = *looks > 0 && looks == vain;
        if first || only_in_vain {
            *home = home.or(place::step_aside());
        }
    }

    fn looked(&mut self, look: Look) {
        match (&mut self.state, look) {
            (State::Resting(_), _) => {}
            (_, Look::TakenAway) => self.rest_again(),
            (
                State::Trying {
                    looks,
                    vain,
                    asleep,
                    ..
                },
                _,
            ) => {
                *looks += 1;
                *vain += u32::from(look == Look::InVain);
                if *vain >= VAIN_MAX || *asleep > LOOKS / 2 {
                    self.rest_again();
                } else if *looks >= LOOKS {
                    self.state = State::Looking {
                        trust: TRUST_AT_FIRST,
                        asleep: 0,
                    };
                }
            }
            (State::Looking { trust, .. }, Look::Turned) => {
                *trust = (*trust + 1).min(TRUST_MAX);
                self.quick += 1;
                if self.quick >= FORGIVEN_AFTER {
                    (self.quick, self.rest) = (0, REST_MIN);
                }
            }
            (State::Looking { trust, .. }, Look::InVain) if *trust > MISS => *trust -= MISS,
            (State::Looking { .. }, Look::InVain) => self.rest_again(),
        }
    }

    /// Looks no more, and goes back where it left for that.
    fn rest(&mut self) {
        if let State::Trying { home, .. } = self.state {
            home.into_iter().for_each(place::go_to);
        }
        self.state = State::Resting(self.rest);
    }

    /// Looking did not help.
    fn rest_again(&mut self) {
        self.rest();
        self.rest = (self.rest * REST_GROWS).min(REST_MAX);
        self.quick = 0;
    }

    fn slept(&mut self, gap: Duration) {
        if let State::Resting(left) = &mut self.state {
            if gap >= GAP_SHORT {
                return;
            }
            self.last = gap;
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.state = State::TRYING;
            }
        }
    }

    /// The peer was given its turn, and `woken` by that if it slept.
    fn answered(&mut self, woken: bool) {
        match &mut self.state {
            State::Resting(_) => {}
            // More answers than looks, for a turn that comes before we look needs none.
            State::Trying { asleep, .. } => *asleep = asleep.saturating_add(woken.into()),
            State::Looking { asleep, .. } => {
                *asleep = if woken {
                    *asleep + 1
                } else {
                    asleep.saturating_sub(1)
                };
                if *asleep >= ASLEEP_MAX {
                    self.rest_again();
                }
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

    /// Spins for up to 50 µs (150 µs in a try, see the module) while that spares the peer its sleep and
    /// fewer than half of the CPUs spin; otherwise sleeps. On a single CPU it only sleeps.
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
                    pace.put_off();
                    return false;
                };
                pace.step_aside();
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

    /// The peer was given its turn; `woken` says whether it slept.
    pub(crate) fn answered(&mut self, woken: bool) {
        if let Policy::Adaptive { pace, .. } = &mut self.policy {
            pace.answered(woken);
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

    const SLEPT: Duration = Duration::from_micros(80);

    fn rest(pace: &mut Pace) -> u32 {
        let mut gaps = 0;
        while pace.bound().is_none() {
            pace.slept(SLEPT);
            gaps += 1;
        }
        gaps
    }

    /// Looks that each find the turn, until the try is over; the peers slept or not.
    fn try_looks(pace: &mut Pace, woken: impl Fn(u32) -> bool) {
        for look in 0.. {
            if pace.bound() != Some(TRY_MAX) {
                return;
            }
            pace.answered(woken(look));
            pace.looked(Look::Turned);
        }
    }

    fn looking() -> Pace {
        let mut pace = Pace::UNKNOWN;
        rest(&mut pace);
        try_looks(&mut pace, |_| false);
        assert_eq!(pace.bound(), Some(SPIN_MAX));
        pace
    }

    #[test]
    fn a_peer_is_looked_at_after_some_short_gaps_and_never_for_its_pauses() {
        let mut pace = Pace::UNKNOWN;
        for _ in 0..1000 {
            pace.slept(Duration::from_millis(1));
        }
        assert_eq!(pace.bound(), None);
        assert_eq!(rest(&mut pace), REST_MIN);
        assert_eq!((pace.bound(), pace.state), (Some(TRY_MAX), State::TRYING));
    }

    #[test]
    fn looking_goes_on_only_where_it_spares_most_peers_their_sleep() {
        for (asleep, goes_on) in [
            (0, true),
            (LOOKS / 2, true),
            (LOOKS / 2 + 1, false),
            (LOOKS, false),
        ] {
            let mut pace = Pace::UNKNOWN;
            rest(&mut pace);
            try_looks(&mut pace, |look| look < asleep);
            assert_eq!(pace.bound().is_some(), goes_on, "{asleep} of {LOOKS}");
        }
    }

    #[test]
    fn one_look_in_vain_decides_nothing() {
        let mut pace = Pace::UNKNOWN;
        rest(&mut pace);
        pace.looked(Look::InVain);
        try_looks(&mut pace, |_| false);
        assert_eq!(pace.bound(), Some(SPIN_MAX));
    }

    #[test]
    fn a_peer_that_begins_to_sleep_all_the_same_is_looked_at_no_more() {
        let mut pace = looking();
        for _ in 0..10 * ASLEEP_MAX {
            pace.answered(true);
            pace.answered(false);
        }
        assert_eq!(pace.bound(), Some(SPIN_MAX), "half of them slept");
        for _ in 0..ASLEEP_MAX {
            pace.answered(true);
        }
        assert_eq!(pace.bound(), None);
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
            assert_eq!(looks, VAIN_MAX);
        }
        assert_eq!(rests, [8, 8, 64, 512, 4096, 32768, 32768, 32768]);
    }

    #[test]
    fn a_cpu_that_others_want_is_left_to_them_at_once_and_for_long() {
        let mut pace = Pace::UNKNOWN;
        let mut rests = Vec::new();
        for _ in 0..10 {
            rests.push(rest(&mut pace));
            pace.looked(Look::TakenAway);
            assert_eq!(pace.bound(), None);
        }
        assert_eq!(rests[7..], [32768, 32768, 32768]);
        rest(&mut pace);
        try_looks(&mut pace, |_| false);
        for _ in 0..FORGIVEN_AFTER {
            pace.looked(Look::Turned);
        }
        pace.looked(Look::TakenAway);
        assert_eq!(rest(&mut pace), REST_MIN, "all is forgiven");
    }

    #[test]
    fn a_try_that_others_leave_no_room_for_is_put_off_and_costs_nothing() {
        let mut pace = Pace::UNKNOWN;
        for _ in 0..8 {
            assert_eq!(rest(&mut pace), REST_MIN);
            pace.put_off();
        }
        rest(&mut pace);
        try_looks(&mut pace, |_| false);
        pace.put_off();
        assert_eq!(pace.bound(), Some(SPIN_MAX), "what works is not given up");
    }

    #[test]
    fn a_peer_that_is_never_looked_for_in_a_try_counts_nothing_over() {
        let mut pace = Pace::UNKNOWN;
        rest(&mut pace);
        if let State::Trying { asleep, .. } = &mut pace.state {
            *asleep = u32::MAX;
        }
        pace.answered(true);
        pace.looked(Look::Turned);
        assert_eq!(pace.bound(), None, "most of them slept");
    }

    #[test]
    fn a_quick_peer_may_be_slow_now_and_then() {
        let mut pace = looking();
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
                    state: State::TRYING,
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
