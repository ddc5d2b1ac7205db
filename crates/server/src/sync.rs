//! Locks and counters of the table of ids, by the names that its model replaces
//! (`tests/table_model.rs`).

pub(crate) use std::sync::atomic::AtomicUsize;
pub(crate) use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
