//! What `turns` synchronises with, under one name: the model in `tests/turns_model.rs` puts its own
//! in its place and tries every order in which the threads can run.

pub(crate) use rustix::thread::futex;
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Release, SeqCst},
};
pub(crate) use std::thread::{park_timeout, yield_now};
