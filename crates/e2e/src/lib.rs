//! Whole containers, run by unmodified clients, their files served by the gofer under test.
//!
//! Belongs here: what every end-to-end test needs: where things are ([`stage`]), a bundle to run
//! ([`bundle`]), a `runsc` to run it ([`runsc`]), what is left of it ([`traces`]), a root to write
//! to ([`copy`]), suites that other people wrote ([`suites`]).
//! Belongs elsewhere: tests of one crate; a parent that is not a real `runsc` (`rig`).
//! Must hold: without its surroundings (root, clients, roots: `cargo xtask test` makes them) a
//! test says so in one line and passes, except under `CI=true`, where it fails.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod copy;
pub mod runsc;
pub mod stage;
pub mod suites;
pub mod traces;
