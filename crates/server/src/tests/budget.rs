//! Who may hold how many descriptors.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
use wire::Errno;

use crate::budget::{Budget, PROMISED_MIN, Shares};
use crate::options::Policy;

fn shares(descriptors_max: usize, connections: usize) -> Shares {
    let policy = Policy {
        descriptors_max,
        ..Policy::default()
    };
    Shares::new(&policy, connections)
}

fn fill(budget: &mut Budget) -> usize {
    let mut taken = 0;
    while budget.take().is_ok() {
        taken += 1;
    }
    taken
}

#[test]
fn a_greedy_connection_leaves_the_others_their_part() {
    let shares = shares(20_000, 4);
    let (mut greedy, mut modest) = (shares.budget(), shares.budget());
    let most = fill(&mut greedy);
    assert!(
        most > 10_000,
        "more than half for one that needs it: {most}"
    );
    let part = fill(&mut modest);
    assert!(part >= 2_400, "the promised part stays: {part}");
    assert!(most + 3 * part < 20_000, "the sum stays below the limit");
}

#[test]
fn what_is_given_back_can_be_taken_by_another() {
    let shares = shares(1_000, 2);
    let (mut one, mut two) = (shares.budget(), shares.budget());
    let most = fill(&mut one);
    let part = fill(&mut two);
    one.give_back();
    two.take().unwrap();
    assert_eq!(two.take(), Err(Errno::MFILE));
    drop(one);
    assert_eq!(
        fill(&mut two) + part + 1,
        most,
        "all of the common half is free again"
    );
}

#[test]
fn a_limit_too_low_for_anything_still_promises_enough_to_start() {
    for limit in [0, 1, 100] {
        assert_eq!(
            fill(&mut shares(limit, 3).budget()),
            PROMISED_MIN,
            "{limit}"
        );
    }
}

#[test]
fn no_number_of_an_operator_overflows() {
    let policy = Policy {
        channels_max: usize::MAX,
        ids_max: 3,
        ..Policy::default()
    };
    assert_eq!(fill(&mut Shares::new(&policy, usize::MAX).budget()), 3);
    let mut all = shares(usize::MAX, 1).budget();
    for _ in 0..100_000 {
        all.take().unwrap();
    }
}
