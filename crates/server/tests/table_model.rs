//! The table of ids and the descriptors that connections share, in every order in which threads can
//! run (loom).
//!
//! The product's own `table.rs` and `budget.rs` are compiled here once more, over locks and counters
//! that loom knows.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the crate uses what the model does not"
)]

#[path = "../src/budget.rs"]
mod budget;
#[path = "../src/table.rs"]
mod table;

/// In place of `src/sync.rs`.
mod sync {
    pub(crate) use loom::sync::atomic::AtomicUsize;
    pub(crate) use loom::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
    pub(crate) use std::sync::PoisonError;
}

mod options {
    pub(crate) use server::Policy;
}

use budget::Shares;
use host::Kind;
use sync::Arc;
use table::{Control, Entry, FdTable};
use wire::{Errno, FdId};

/// What connections share who have sixteen descriptors of their own each, and this many in common.
fn shares(connections: usize, common: usize) -> Shares {
    let policy = options::Policy {
        channels_max: 0,
        descriptors_max: 32 + connections * (9 + 16) + common,
        ..options::Policy::default()
    };
    Shares::new(&policy, connections)
}

fn file() -> Entry {
    let fd = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    Entry::Control(Arc::new(Control::new(fd, Kind::Directory)))
}

/// Makes ids until there are no more to be had; how many.
fn fill(table: &FdTable) -> usize {
    (0..100)
        .take_while(|_| table.insert(file()).is_ok())
        .count()
}

#[test]
fn ids_made_closed_and_looked_at_by_several_threads_are_each_what_they_were_made_as() {
    loom::model(|| {
        let table = Arc::new(FdTable::new(shares(1, 0).budget()));
        let first = table.insert(file()).unwrap();
        let closing = {
            let table = Arc::clone(&table);
            loom::thread::spawn(move || {
                table.remove([first].into_iter());
                table.insert(file()).unwrap()
            })
        };
        let making = {
            let table = Arc::clone(&table);
            loom::thread::spawn(move || table.insert_two(file(), file()).unwrap())
        };
        // Closed meanwhile, or not; never another's.
        let looked = table.control(first);
        assert!(looked.is_ok() || looked.is_err_and(|errno| errno == Errno::BADF));
        let (third, (one, two)) = (closing.join().unwrap(), making.join().unwrap());
        assert!(table.control(first).is_err(), "closed for good");
        let mut all = [first, one, two, third].map(|FdId(number)| number);
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
        let open = |id: FdId| table.control(id).is_ok();
        assert!(open(one) && open(two) && open(third));
        assert_eq!(3 + fill(&table), 16, "every id is counted once");
    });
}

#[test]
fn what_is_common_goes_to_one_connection_and_comes_back_whole() {
    loom::model(|| {
        let shares = shares(2, 1);
        let full = || {
            let table = FdTable::new(shares.budget());
            let own: Vec<FdId> = (0..16).map(|_| table.insert(file()).unwrap()).collect();
            (table, own)
        };
        let ((one, own), (other, _own)) = (full(), full());
        let racing = loom::thread::spawn(move || {
            let beyond = one.insert(file()).ok();
            one.remove(beyond.into_iter().chain(own));
            beyond.is_some()
        });
        let beyond = other.insert(file());
        let won = racing.join().unwrap();
        assert!(won || beyond.is_ok(), "one of the two gets it");
        if beyond.is_err() {
            assert!(other.insert(file()).is_ok(), "it is free again");
        }
        assert_eq!(other.insert(file()).unwrap_err(), Errno::MFILE);
    });
}
