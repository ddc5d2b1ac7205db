//! The command line: Go's grammar, our tables, what the words mean together. The binary keeps its
//! parser to itself, so it is compiled here once more.
#![no_main]

#[allow(dead_code, unused_imports, reason = "the process uses the rest")]
#[path = "../../crates/gofer/src/flags/mod.rs"]
mod flags;
#[path = "../../crates/gofer/src/flags/promises.rs"]
mod promises;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| promises::of_words(input));
