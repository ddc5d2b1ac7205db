//! A bundle's `config.json`, from bytes to a plan of the set-up.
#![no_main]

#[allow(dead_code, reason = "the target `conf` uses the rest")]
#[path = "../../crates/jail/tests/corpora/promises.rs"]
mod promises;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| promises::of_spec(input));
