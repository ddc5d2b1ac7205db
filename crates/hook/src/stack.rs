//! Where a program that has not yet run finds its arguments: the stack as the kernel laid it out.
//!
//! From the stack pointer upwards: `argc`, then `argc` pointers, a null, the environment's
//! pointers. The memory is another process's, so it is a function from address to word here; any
//! answer of it is possible.

#![forbid(unsafe_code)]

const WORD_BYTES: u64 = 8;

/// Longest `argv[0]` looked at, in bytes: more than any name we know.
const NAME_BYTES_MAX: usize = 64;

/// What a fresh stack says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Address of the argument vector.
    pub argv: u64,
    /// Address of the environment vector.
    pub envp: u64,
    /// `argv[0]` without its NUL, cut off at 64 bytes.
    pub name: Vec<u8>,
}

/// Reads the arguments above `stack_pointer`; `word` yields the eight bytes at an address.
///
/// `None` if there is no `argv[0]`, the memory cannot be read, or the numbers make no sense.
pub fn arguments(
    stack_pointer: u64,
    mut word: impl FnMut(u64) -> Option<[u8; 8]>,
) -> Option<Arguments> {
    let argc = u64::from_ne_bytes(word(stack_pointer)?);
    if argc == 0 {
        return None;
    }
    let argv = stack_pointer.checked_add(WORD_BYTES)?;
    let envp = argc
        .checked_add(1)?
        .checked_mul(WORD_BYTES)?
        .checked_add(argv)?;
    let name = string(u64::from_ne_bytes(word(argv)?), word)?;
    Some(Arguments { argv, envp, name })
}

/// The string at an address. Whole words are read: behind `argv[0]` the kernel leaves at least the
/// program's path and a null word, so the last one does not reach past the stack.
fn string(mut at: u64, mut word: impl FnMut(u64) -> Option<[u8; 8]>) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(NAME_BYTES_MAX);
    while bytes.len() < NAME_BYTES_MAX {
        let word = word(at)?;
        if let Some(end) = word.iter().position(|&byte| byte == 0) {
            bytes.extend_from_slice(&word[..end]);
            break;
        }
        bytes.extend_from_slice(&word);
        at = at.checked_add(WORD_BYTES)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const BASE: u64 = 0x7ffc_0000_1000;

    /// A memory that starts at `BASE`.
    fn memory(image: &[u8]) -> impl FnMut(u64) -> Option<[u8; 8]> {
        move |address| {
            let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
            image.get(start..start.checked_add(8)?)?.try_into().ok()
        }
    }

    fn image(words: &[u64], strings: &[u8]) -> Vec<u8> {
        let words = words.iter().flat_map(|word| word.to_ne_bytes());
        words.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn the_name_and_both_vectors_are_found() {
        let words = [2, BASE + 48, BASE + 60, 0, BASE + 66, 0];
        let image = image(
            &words,
            b"runsc-gofer\0gofer\0A=B\0/proc/self/exe\0\0\0\0\0\0\0\0",
        );
        let found = arguments(BASE, memory(&image)).unwrap();
        assert_eq!(found.name, b"runsc-gofer");
        assert_eq!((found.argv, found.envp), (BASE + 8, BASE + 32));
    }

    #[test]
    fn a_long_name_is_cut_off() {
        let image = image(&[1, BASE + 24, 0], &[b'x'; 200]);
        assert_eq!(
            arguments(BASE, memory(&image)).unwrap().name,
            [b'x'; NAME_BYTES_MAX]
        );
    }

    #[test]
    fn no_arguments_are_none() {
        assert_eq!(arguments(BASE, memory(&image(&[0, 0, 0], b""))), None);
    }

    #[test]
    fn numbers_that_lead_nowhere_are_none() {
        for argc in [u64::MAX, u64::MAX - 1, u64::MAX / 8, 1 << 60] {
            for pointer in [0, 1, u64::MAX, u64::MAX - 7, BASE + 20] {
                assert_eq!(
                    arguments(BASE, memory(&image(&[argc, pointer], b"abc"))),
                    None
                );
            }
        }
        assert_eq!(arguments(u64::MAX, |_| Some([0xff; 8])), None);
        assert_eq!(
            arguments(u64::MAX - 3, |_| Some([1, 0, 0, 0, 0, 0, 0, 0])),
            None
        );
    }
}
