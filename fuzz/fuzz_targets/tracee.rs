//! What `hook` makes of a traced process: any stack, any wait status, any name, any text of the
//! kernel about why tracing is refused.
#![no_main]

use std::cell::Cell;

use arbitrary::{Arbitrary, Unstructured};
use hook::event::{Event, Verdict, Who, verdict};
use hook::{refusal, stack};
use libfuzzer_sys::fuzz_target;

/// More reads than a name of 64 bytes and three words can need mean that a tracee leads us on.
const READS_MAX: u32 = 12;

fuzz_target!(|input: &[u8]| {
    let mut u = Unstructured::new(input);
    let _end_of_input = look(&mut u);
});

fn look(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let status = i32::arbitrary(u)?;
    if let Event::Ended(same) = Event::from_status(status) {
        assert_eq!(same, status);
    }
    // Addresses near both ends of the space, where sums overflow, and anywhere.
    let base = match u.int_in_range(0..=3)? {
        0 => u64::from(u8::arbitrary(u)?),
        1 => u64::MAX - u64::from(u8::arbitrary(u)?),
        2 => 0x7ffc_0000_1000,
        _ => u64::arbitrary(u)?,
    };
    let scope = String::arbitrary(u)?;
    let status_file = String::arbitrary(u)?;
    let errno = std::io::Error::from_raw_os_error(i32::from(u8::arbitrary(u)?));
    assert!(!refusal::diagnose(&errno, &scope, &status_file).is_empty());

    // Half of the images point into themselves, so that a name is found.
    let mut image = u.bytes(u.len())?.to_vec();
    if image.len() >= 24 && image[0] & 1 == 0 {
        let name_at = base.wrapping_add(16 + u64::from(image[1] % 16));
        image[8..16].copy_from_slice(&name_at.to_ne_bytes());
        image[0..8].copy_from_slice(&1_u64.to_ne_bytes());
    }
    let reads = Cell::new(0);
    let word = |address: u64| {
        reads.set(reads.get() + 1);
        let start = usize::try_from(address.checked_sub(base)?).ok()?;
        image.get(start..start.checked_add(8)?)?.try_into().ok()
    };
    let found = stack::arguments(base, word);
    assert!(reads.get() <= READS_MAX, "{} reads", reads.get());
    let Some(found) = found else {
        return Ok(());
    };
    assert!(found.name.len() <= 64 && !found.name.contains(&0));
    assert_eq!(found.argv, base + 8);
    assert!(found.envp >= found.argv + 16);
    let judged = verdict(Who::Child, Some(&found.name), || false);
    assert_eq!(judged == Verdict::Replace, found.name == b"runsc-gofer");
    Ok(())
}
