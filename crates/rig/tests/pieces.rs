//! Data in pieces: what is written and read back is the same, wherever messages begin and end.

use proptest::prelude::*;
use rig::Rig;
use wire::{NewNode, Owner};

const RDWR: u32 = 2;
const MOST: usize = 4 << 20;

/// Lengths and places; those near where one message ends and another begins are frequent.
fn somewhere() -> impl Strategy<Value = usize> {
    let near = (0..=3_usize, -40..=40_isize)
        .prop_map(|(times, off)| (times << 20).saturating_add_signed(off).min(MOST));
    prop_oneof![near, 0..=MOST]
}

/// Bytes that tell where they belong.
fn content(length: usize, salt: u8) -> Vec<u8> {
    let byte = |at: usize| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ salt;
    (0..length).map(byte).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_in_pieces_is_what_is_read_in_pieces(
        over_channel in any::<bool>(),
        at in somewhere(),
        length in somewhere(),
        skipped in somewhere(),
        room in somewhere(),
        salt in any::<u8>(),
    ) {
        let rig = Rig::new();
        let client = rig.client();
        if over_channel {
            prop_assert_eq!(client.open_channels(1), Ok(1));
        }
        let new = NewNode { dir: rig.root(), owner: Owner::KEEP, mode: 0o600 };
        let made = client.open_create_at(new, b"file", RDWR);
        let open = made.expect("a file").opened.id;
        let data = content(length, salt);
        prop_assert_eq!(client.write_at(open, at as u64, &data), Ok(length));
        let mut whole = Vec::new();
        if length > 0 {
            whole.resize(at, 0);
            whole.extend_from_slice(&data);
        }
        let on_host = std::fs::read(rig.path().join("file")).expect("the file");
        prop_assert!(on_host == whole, "on the host");
        let mut back = vec![0; room];
        let wanted = whole.get(skipped..).unwrap_or_default();
        let wanted = wanted.get(..room).unwrap_or(wanted);
        prop_assert_eq!(client.read_at(open, skipped as u64, &mut back), Ok(wanted.len()));
        prop_assert!(back[..wanted.len()] == *wanted, "over the protocol");
    }
}
