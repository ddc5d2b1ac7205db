//! What the table of ids gives out, and takes back.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
use std::sync::Arc;

use host::Kind;
use proptest::prelude::*;
use wire::{Errno, FdId};

use crate::budget::Shares;
use crate::options::Policy;
use crate::table::{Control, Entry, FdTable};

fn table(ids_max: usize) -> FdTable {
    let policy = Policy {
        ids_max,
        ..Policy::default()
    };
    FdTable::new(Shares::new(&policy, 1).budget())
}

fn file() -> Entry {
    let fd = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    Entry::Control(Arc::new(Control::new(fd, Kind::Directory)))
}

/// What a client may do with ids, by number of the id among all that were ever made.
#[derive(Clone, Debug)]
enum Step {
    Make,
    MakeTwo,
    Close(usize),
    LookAt(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Make),
        Just(Step::MakeTwo),
        (0..30_usize).prop_map(Step::Close),
        (0..30_usize).prop_map(Step::LookAt),
    ]
}

proptest! {
    #[test]
    fn any_sequence_of_ids_made_and_closed_leaves_those_that_were_not_closed(
        steps in proptest::collection::vec(step(), 0..120),
        most in 1..8_usize,
    ) {
        let table = table(most);
        // All that were made, and whether they are still open.
        let mut made: Vec<(FdId, bool)> = Vec::new();
        for step in steps {
            let open = made.iter().filter(|(_, open)| *open).count();
            match step {
                Step::Make => match table.insert(file()) {
                    Ok(id) => {
                        prop_assert!(open < most && made.iter().all(|(old, _)| *old != id));
                        made.push((id, true));
                    }
                    Err(errno) => prop_assert!(open == most && errno == Errno::MFILE),
                },
                Step::MakeTwo => match table.insert_two(file(), file()) {
                    Ok((one, two)) => {
                        prop_assert!(open + 2 <= most && one != two);
                        prop_assert!(made.iter().all(|(old, _)| *old != one && *old != two));
                        made.extend([(one, true), (two, true)]);
                    }
                    Err(errno) => prop_assert!(open + 2 > most && errno == Errno::MFILE),
                },
                Step::Close(which) => {
                    if let Some((id, open)) = made.get_mut(which) {
                        table.remove([*id].into_iter());
                        *open = false;
                    }
                }
                Step::LookAt(which) => {
                    if let Some((id, open)) = made.get(which) {
                        prop_assert_eq!(table.control(*id).is_ok(), *open);
                    }
                }
            }
        }
        for (id, open) in made {
            prop_assert_eq!(table.control(id).is_ok(), open);
        }
    }
}

#[test]
fn ids_start_at_one_and_are_not_used_again() {
    let table = table(10);
    let first = table.insert(file()).unwrap();
    assert_eq!(first, FdId(1));
    table.remove([first].into_iter());
    let second = table.insert(file()).unwrap();
    assert_ne!(second, first);
    assert_eq!(table.control(first).unwrap_err(), Errno::BADF);
    assert!(table.control(second).is_ok());
}

#[test]
fn zero_and_foreign_numbers_name_nothing() {
    let table = table(10);
    table.insert(file()).unwrap();
    for id in [0, 2, u64::MAX, 1 << 32, 1 << 32 | 1] {
        assert_eq!(table.control(FdId(id)).unwrap_err(), Errno::BADF, "{id:#x}");
    }
}

#[test]
fn a_full_table_refuses_one_more_and_takes_it_after_a_close() {
    let table = table(2);
    let first = table.insert(file()).unwrap();
    assert_eq!(table.insert_two(file(), file()).unwrap_err(), Errno::MFILE);
    table.insert(file()).unwrap();
    assert_eq!(table.insert(file()).unwrap_err(), Errno::MFILE);
    table.remove([first].into_iter());
    table.insert(file()).unwrap();
}
