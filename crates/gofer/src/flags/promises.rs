//! What holds for any command line. Shared by the replay of the corpus (`tests`) and by the fuzz
//! target `flags`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::flags::{Globals, GoferFlags};

/// One word a line; what a parent would have to be to send it does not matter.
pub(crate) fn of_words(input: &[u8]) {
    let words: Vec<OsString> = input
        .split(|&byte| byte == b'\n')
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    assert_eq!(
        outcome(&words),
        outcome(&words),
        "the same words, the same meaning"
    );
    if let Some(one_dash) = with_one_dash(&words) {
        assert_eq!(outcome(&words), outcome(&one_dash), "one dash or two");
    }
    let Ok((_, rest)) = Globals::parse(&words) else {
        return;
    };
    assert!(words.ends_with(rest));
    _ = Globals::check_rules(&words);
    let Some((_, of_gofer)) = rest.split_first() else {
        return;
    };
    if let Ok(flags) = GoferFlags::parse(of_gofer) {
        assert!(flags.descriptors().all(|fd| fd >= -1));
    }
}

fn outcome(words: &[OsString]) -> String {
    format!("{:?}", Globals::parse(words))
}

/// The same with the first flag's dashes halved, if it begins with two and has a name. Unknown
/// words are remembered as they came, so only known ones can be compared.
fn with_one_dash(words: &[OsString]) -> Option<Vec<OsString>> {
    let (first, rest) = words.split_first()?;
    let name = first.as_encoded_bytes().strip_prefix(b"--")?;
    if name.is_empty() || name.starts_with(b"-") || name.starts_with(b"=") {
        return None;
    }
    let (globals, _) = Globals::parse(words).ok()?;
    if globals.skipped.contains(first) {
        return None;
    }
    let mut first = b"-".to_vec();
    first.extend_from_slice(name);
    let halved = OsString::from_vec(first);
    Some(
        std::iter::once(halved)
            .chain(rest.iter().cloned())
            .collect(),
    )
}
