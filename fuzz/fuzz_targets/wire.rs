//! Decoding of every message, in both directions: no panic, no byte read beyond the payload, and
//! what was accepted means the same after encoding it again.
#![no_main]

use fuzz::messages::{PARTS, REPLIES, REQUESTS};
use libfuzzer_sys::fuzz_target;
use wire::{Name, Text};

fuzz_target!(|input: &[u8]| {
    let Some((&which, payload)) = input.split_first() else {
        return;
    };
    let all = REQUESTS.iter().chain(REPLIES).map(|(_, check)| check);
    if let Some(check) = all.chain(PARTS).nth(usize::from(which)) {
        check(payload);
    }
    if let Ok(name) = Name::new(payload) {
        let bytes = name.as_bytes();
        let forbidden = bytes.iter().any(|&byte| byte == b'/' || byte == 0);
        assert!(!forbidden && !matches!(bytes, b"" | b"." | b".."));
        assert_eq!(Text(payload).name().map(|same| same.as_bytes()), Ok(bytes));
    }
});
