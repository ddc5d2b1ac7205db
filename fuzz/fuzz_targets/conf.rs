//! The value of `--gofer-mount-confs`.
#![no_main]

#[allow(dead_code, reason = "the target `spec` uses the rest")]
#[path = "../../crates/jail/tests/corpora/promises.rs"]
mod promises;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| promises::of_conf(input));
