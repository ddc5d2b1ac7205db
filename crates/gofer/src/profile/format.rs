//! The format of pprof: one protocol buffer, `perftools.profiles.Profile`, not compressed, which its
//! readers take as well as the compressed one.
//!
//! Must hold: what is written can be read whatever the addresses; as samples are added it only grows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One executable part of the address space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) offset: u64,
    pub(super) name: String,
}

impl Mapping {
    /// Those of `/proc/<pid>/maps` that hold code of a file.
    pub(super) fn all(maps: &str) -> Vec<Mapping> {
        maps.lines().filter_map(Mapping::of_line).collect()
    }

    /// `start-end permissions offset device inode name`
    fn of_line(line: &str) -> Option<Mapping> {
        let mut words = line.splitn(6, ' ');
        let (range, permissions, offset) = (words.next()?, words.next()?, words.next()?);
        let name = words.nth(2)?.trim_start();
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        (permissions.contains('x') && !name.is_empty()).then_some(())?;
        Some(Mapping {
            start: number(start)?,
            end: number(end)?,
            offset: number(offset)?,
            name: name.to_owned(),
        })
    }
}

/// What there is to write.
#[derive(Debug)]
pub(super) struct Profile<'p> {
    pub(super) mappings: &'p [Mapping],
    /// How often each stack was seen; addresses, innermost first.
    pub(super) stacks: &'p BTreeMap<Vec<u64>, u64>,
    pub(super) period_nanoseconds: u64,
    /// Since the epoch.
    pub(super) began: Duration,
    pub(super) lasted: Duration,
    pub(super) comment: String,
}

/// Field numbers of the message and of those within.
mod field {
    pub(super) const SAMPLE_TYPE: u32 = 1;
    pub(super) const SAMPLE: u32 = 2;
    pub(super) const MAPPING: u32 = 3;
    pub(super) const LOCATION: u32 = 4;
    pub(super) const STRING_TABLE: u32 = 6;
    pub(super) const TIME: u32 = 9;
    pub(super) const DURATION: u32 = 10;
    pub(super) const PERIOD_TYPE: u32 = 11;
    pub(super) const PERIOD: u32 = 12;
    pub(super) const COMMENT: u32 = 13;
    pub(super) const DEFAULT_SAMPLE_TYPE: u32 = 14;
}

impl Profile<'_> {
    /// The file's content.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut strings = Strings::default();
        let mut out = Message::default();
        let (samples, count) = (strings.index("samples"), strings.index("count"));
        let (cpu, nanoseconds) = (strings.index("cpu"), strings.index("nanoseconds"));
        out.message(field::SAMPLE_TYPE, &numbers(&[samples, count]));
        out.message(field::SAMPLE_TYPE, &numbers(&[cpu, nanoseconds]));
        let locations = self.locations();
        for (stack, count) in self.stacks {
            let ids = stack.iter().filter_map(|at| locations.get(at).copied());
            let mut sample = Message::default();
            sample.packed(1, ids);
            sample.packed(2, [*count, count.saturating_mul(self.period_nanoseconds)]);
            out.message(field::SAMPLE, &sample);
        }
        for (number, mapping) in (1..).zip(self.mappings) {
            let name = strings.index(&mapping.name);
            let parts = [number, mapping.start, mapping.end, mapping.offset, name];
            out.message(field::MAPPING, &numbers(&parts));
        }
        for (address, id) in &locations {
            let parts = [*id, self.mapping_of(*address), *address];
            out.message(field::LOCATION, &numbers(&parts));
        }
        out.number(field::TIME, nanoseconds_of(self.began));
        out.number(field::DURATION, nanoseconds_of(self.lasted));
        out.message(field::PERIOD_TYPE, &numbers(&[cpu, nanoseconds]));
        out.number(field::PERIOD, self.period_nanoseconds);
        out.packed(field::COMMENT, [strings.index(&self.comment)]);
        out.number(field::DEFAULT_SAMPLE_TYPE, cpu);
        for text in &strings.0 {
            out.bytes(field::STRING_TABLE, text.as_bytes());
        }
        out.0
    }

    /// Each address once, with its id.
    fn locations(&self) -> BTreeMap<u64, u64> {
        let addresses: BTreeSet<u64> = self.stacks.keys().flatten().copied().collect();
        addresses.into_iter().zip(1..).collect()
    }

    /// The number of the mapping that holds the address; zero stands for none.
    fn mapping_of(&self, address: u64) -> u64 {
        let holds = |mapping: &Mapping| (mapping.start..mapping.end).contains(&address);
        let at = self.mappings.iter().position(holds);
        at.map_or(0, |at| at as u64 + 1)
    }
}

fn nanoseconds_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A message whose fields 1, 2, 3, … are these numbers.
fn numbers(values: &[u64]) -> Message {
    let mut message = Message::default();
    for (number, value) in (1..).zip(values) {
        message.number(number, *value);
    }
    message
}

/// The table of strings; the first is the empty one.
struct Strings(Vec<String>);

impl Default for Strings {
    fn default() -> Self {
        Self(vec![String::new()])
    }
}

impl Strings {
    fn index(&mut self, text: &str) -> u64 {
        let known = self.0.iter().position(|known| known == text);
        let at = known.unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        at as u64
    }
}

/// A protocol buffer under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// How a field's value is laid out: a number, or bytes after their length.
    const NUMBER: u32 = 0;
    const BYTES: u32 = 2;

    fn tag(&mut self, field: u32, layout: u32) {
        self.varint(u64::from(field << 3 | layout));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.tag(field, Self::NUMBER);
        self.varint(value);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, Self::BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, inner: &Message) {
        self.bytes(field, &inner.0);
    }

    fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut inner = Message::default();
        for value in values {
            inner.varint(value);
        }
        self.message(field, &inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
        55d0c0000000-55d0c0010000 r--p 00000000 fe:00 123                        /usr/bin/gofer\n\
        55d0c0010000-55d0c0200000 r-xp 00010000 fe:00 123                        /usr/bin/gofer\n\
        7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\n\
        7ffd00100000-7ffd00102000 r-xp 00000000 00:00 0                          [vdso]\n\
        7ffd00200000-7ffd00202000 r-xp 00000000 00:00 0 \n";

    #[test]
    fn what_holds_code_of_a_file_is_a_mapping() {
        let mappings = Mapping::all(MAPS);
        let gofer = Mapping {
            start: 0x55d0_c001_0000,
            end: 0x55d0_c020_0000,
            offset: 0x1_0000,
            name: "/usr/bin/gofer".to_owned(),
        };
        assert_eq!(mappings.first(), Some(&gofer));
        assert_eq!(mappings.len(), 2);
    }

    #[test]
    fn numbers_take_seven_bits_a_byte_and_fields_carry_their_layout() {
        let mut message = Message::default();
        message.number(1, 300);
        message.packed(2, [1, 128]);
        assert_eq!(message.0, [8, 0xac, 2, 0x12, 3, 1, 0x80, 1]);
    }

    #[test]
    fn a_profile_only_grows() {
        let mappings = Mapping::all(MAPS);
        let mut stacks = BTreeMap::new();
        let mut length = 0;
        for round in 0..200_u64 {
            let stack = vec![0x55d0_c001_0000 + round % 7, round.wrapping_mul(round) % 31];
            *stacks.entry(stack).or_insert(0) += 1;
            let encoded = Profile {
                mappings: &mappings,
                stacks: &stacks,
                period_nanoseconds: 10_000_000,
                began: Duration::from_secs(1_800_000_000),
                lasted: Duration::from_secs(round),
                comment: String::new(),
            }
            .encode();
            assert!(encoded.len() >= length, "{round}");
            length = encoded.len();
        }
    }
}
