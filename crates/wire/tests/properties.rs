//! What must hold for any bytes: names, strings, arrays, and decoders fed with noise.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use proptest::prelude::*;
use wire::msg::{dir, session, walk, xattr};
use wire::{Array, Decode, Encode, Errno, FdId, Inode, Name, Reader, Text, Texts, TextsBuf};

fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..longest)
}

/// Bytes among which the ones that matter to names are frequent.
fn name_like() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'.'), Just(b'/'), Just(0), Just(b'a'), any::<u8>()];
    proptest::collection::vec(byte, 0..5)
}

proptest! {
    #[test]
    fn a_name_is_accepted_if_and_only_if_it_stays_in_its_directory(candidate in name_like()) {
        let safe = !candidate.is_empty()
            && candidate != b"."
            && candidate != b".."
            && !candidate.contains(&b'/')
            && !candidate.contains(&0);
        match Name::new(&candidate) {
            Ok(name) => prop_assert!(safe && name.as_bytes() == candidate),
            Err(errno) => prop_assert!(!safe && errno == Errno::INVAL),
        }
        prop_assert_eq!(Text(&candidate).without_nul().is_ok(), !candidate.contains(&0));
    }

    #[test]
    fn a_string_comes_back_as_it_was_and_leaves_what_follows(text in bytes(700), tail in bytes(9)) {
        let mut payload = Vec::new();
        let mut writer = wire::Writer::new(&mut payload);
        writer.text(Text(&text));
        writer.bytes(&tail);
        let mut reader = Reader::new(&payload);
        prop_assert_eq!(reader.text(), Ok(Text(&text)));
        prop_assert_eq!(reader.rest(), &tail[..]);
    }

    #[test]
    fn strings_come_back_in_order(texts in proptest::collection::vec(bytes(40), 0..20)) {
        let all: TextsBuf = texts.iter().map(Vec::as_slice).collect();
        let payload = all.texts().to_payload();
        let decoded = Texts::from_payload(&payload).unwrap();
        prop_assert_eq!(decoded.len(), texts.len());
        prop_assert!(decoded.iter().map(Text::bytes).eq(texts.iter().map(Vec::as_slice)));
    }

    #[test]
    fn ids_come_back_in_order(ids in proptest::collection::vec(any::<u64>().prop_map(FdId), 0..300)) {
        let payload = session::Close { ids: Array::new(&ids) }.to_payload();
        prop_assert_eq!(payload.len(), 2 + 8 * ids.len());
        let decoded = session::Close::from_payload(&payload).unwrap();
        prop_assert_eq!(decoded.ids.iter().collect::<Vec<_>>(), ids);
    }

    #[test]
    fn a_cut_payload_is_refused_wherever_it_is_cut(
        texts in proptest::collection::vec(bytes(20), 1..6), cut in any::<prop::sample::Index>(),
    ) {
        let all: TextsBuf = texts.iter().map(Vec::as_slice).collect();
        let payload = walk::Walk { dir: FdId(1), path: all.texts() }.to_payload();
        let cut = cut.index(payload.len());
        prop_assert!(walk::Walk::from_payload(&payload[..cut]).is_err());
    }

    #[test]
    fn noise_never_decodes_to_more_than_it_holds(noise in bytes(600)) {
        if let Ok(reply) = walk::WalkReply::from_payload(&noise) {
            prop_assert_eq!(reply.inodes.iter().count(), reply.inodes.len());
            prop_assert!(3 + reply.inodes.len() * size_of::<Inode>() <= noise.len());
        }
        if let Ok(reply) = dir::Getdents64Reply::from_payload(&noise) {
            prop_assert_eq!(reply.iter().count(), reply.len());
        }
        if let Ok(request) = xattr::FSetXattr::from_payload(&noise) {
            prop_assert!(request.name.0.len() + request.value.0.len() + 16 <= noise.len());
        }
        if let Ok(mount) = session::MountReply::from_payload(&noise) {
            prop_assert_eq!(mount.supported.iter().count(), mount.supported.len());
        }
    }
}

#[test]
fn strings_longer_than_a_u16_can_say_are_refused_by_the_collector() {
    let mut all = TextsBuf::default();
    assert!(!all.push(&[b'x'; 65536]));
    assert!(all.push(&[b'x'; 65535]));
    assert_eq!(
        all.texts().iter().map(|t| t.0.len()).collect::<Vec<_>>(),
        [65535]
    );
}
