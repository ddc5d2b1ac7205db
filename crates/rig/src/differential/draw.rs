//! Drawing the next step. It looks at which ids exist, so that most requests mean something.

use super::model::{Kind, Model};
use super::op::{Bytes, New, Op, Ref, Step, Twist};

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn name(&mut self) -> Bytes {
        const COMMON: [&[u8]; 12] = [
            b"a",
            b"b",
            b"c",
            b"d0",
            b"d1",
            b"f0",
            b"f1",
            b"l0",
            b"p0",
            b"sub",
            b"twin",
            b"\xff\x01",
        ];
        const RARE: [&[u8]; 9] = [
            b"", b".", b"..", b"a/b", b"/", b"a\0b", b"b0", b"null", b"stale",
        ];
        Bytes(match self.below(100) {
            0..88 => self.of(&COMMON).to_vec(),
            88..98 => self.of(&RARE).to_vec(),
            98 => vec![b'n'; 255],
            _ => vec![b'n'; self.of(&[256, 5000])],
        })
    }

    fn names(&mut self) -> Vec<Bytes> {
        let mut names: Vec<Bytes> = (0..self.of(&[0, 1, 1, 1, 2, 2, 3, 5]))
            .map(|_| self.name())
            .collect();
        if self.chance(10) {
            names.insert(0, Bytes(Vec::new()));
        }
        names
    }

    fn attribute(&mut self) -> Bytes {
        const NAMES: [&[u8]; 7] = [
            b"user.a",
            b"user.b",
            b"user.c",
            b"",
            b"nonsense",
            b"user.a\0b",
            b"user.",
        ];
        Bytes(self.of(&NAMES).to_vec())
    }

    fn data(&mut self, most: usize) -> Bytes {
        let (length, first) = (self.below(most + 1), self.below(256));
        Bytes((0..length).map(|i| (i + first) as u8).collect())
    }
}

const ANY: u16 = 0;
const DIR: u16 = 0o040_000;
const REG: u16 = 0o100_000;
const LNK: u16 = 0o120_000;
const SOCK: u16 = 0o140_000;
const KEEP: u32 = u32::MAX;

/// Draws steps that suit what exists.
pub(super) struct Draw<'m> {
    pub(super) dice: &'m mut Dice,
    pub(super) model: &'m Model,
}

impl Draw<'_> {
    pub(super) fn step(&mut self, number: u32) -> Step {
        let op = self.op();
        let twist = match self.dice.below(100) {
            0..3 => Twist::Cut(self.dice.below(1000) as u16),
            3..5 => Twist::Longer(1 + self.dice.below(200) as u8),
            _ => Twist::None,
        };
        Step {
            number,
            channel: self.dice.chance(50),
            op,
            twist,
        }
    }

    /// An id, mostly of the kind and file type asked for.
    fn id(&mut self, kind: Kind, file_type: u16) -> Ref {
        let fits = |wanted: bool| {
            let fit = self.model.slots.iter().filter(|(_, slot)| {
                let type_fits = file_type == ANY || slot.file_type == file_type;
                !wanted || (slot.live && slot.kind == kind && type_fits)
            });
            fit.map(|(&id, _)| id).collect::<Vec<_>>()
        };
        let (suiting, all) = (fits(true), fits(false));
        match self.dice.below(100) {
            0..88 if !suiting.is_empty() => self.dice.of(&suiting),
            0..98 => self.dice.of(&all),
            _ => Ref::Raw(self.dice.of(&[0, 1_000_000, u64::MAX])),
        }
    }

    fn control(&mut self) -> Ref {
        self.id(Kind::Control, ANY)
    }

    fn dir(&mut self) -> Ref {
        if self.dice.chance(25) {
            return Ref::Root;
        }
        self.id(Kind::Control, DIR)
    }

    fn open(&mut self) -> Ref {
        self.id(Kind::Open, REG)
    }

    fn new_node(&mut self, type_bits: &[u16]) -> New {
        const OWNERS: [(u32, u32); 5] = [(KEEP, KEEP), (0, 0), (1000, 1000), (KEEP, 7), (5, KEEP)];
        const MODES: [u16; 8] = [0o644, 0o755, 0, 0o777, 0o4755, 0o2755, 0o1777, 0o6711];
        let (uid, gid) = self.dice.of(&OWNERS);
        let mode = self.dice.of(&MODES) | self.dice.of(type_bits);
        New {
            dir: self.dir(),
            uid,
            gid,
            mode,
        }
    }

    fn op(&mut self) -> Op {
        match self.dice.below(100) {
            0..16 => Op::Walk(self.dir(), self.dice.names()),
            16..19 => Op::WalkStat(self.control(), self.dice.names()),
            19..23 => Op::FStat(match self.dice.below(10) {
                0..6 => self.control(),
                6..9 => self.id(Kind::Open, ANY),
                _ => self.id(Kind::Bound, ANY),
            }),
            23..29 => self.set_stat(),
            29..36 => Op::OpenAt(self.openable(), self.open_flags()),
            36..41 => {
                let flags = self.open_flags();
                Op::OpenCreateAt(self.new_node(&[0, REG, DIR]), flags, self.dice.name())
            }
            41..45 => Op::Close(self.several(Kind::Control)),
            45..47 => Op::FSync(self.several(Kind::Open)),
            47..56 => self.data(),
            56..60 => Op::MkdirAt(self.new_node(&[0, DIR, REG]), self.dice.name()),
            60..62 => Op::MknodAt {
                new: self.new_node(&[REG, REG, REG, 0, 0o010_000, 0o020_000, SOCK, 0o060_000]),
                device: self.dice.of(&[(0, 0), (1, 3)]),
                name: self.dice.name(),
            },
            62..64 => Op::SymlinkAt {
                new: self.new_node(&[0]),
                name: self.dice.name(),
                target: match self.dice.below(12) {
                    0 => Bytes(vec![b't'; 4095]),
                    1 => Bytes(vec![b't'; 4096]),
                    2 => Bytes(b"../d0/f1".to_vec()),
                    _ => self.dice.name(),
                },
            },
            64..67 => Op::LinkAt {
                dir: self.dir(),
                target: self.control(),
                name: self.dice.name(),
            },
            67..69 => self.looking(),
            69..76 => Op::UnlinkAt {
                dir: self.dir(),
                flags: self.dice.of(&[0, 0, 0, 0, 0x200, 0x200, 0x200, 1, 0x1000]),
                name: self.dice.name(),
            },
            76..82 => self.rename(),
            82..86 => {
                const COUNTS: [i32; 12] = [
                    -65536,
                    65536,
                    -65536,
                    65536,
                    100,
                    -100,
                    300,
                    0,
                    24,
                    -50,
                    i32::MIN,
                    1_000_000,
                ];
                Op::Getdents64(self.id(Kind::Open, DIR), self.dice.of(&COUNTS))
            }
            86..92 => self.xattr(),
            92..98 => self.socket(),
            98 => Op::Mount,
            _ => Op::Any(
                self.dice
                    .of(&[0, 34, 100, 255, 256, 65535, 3, 5, 7, 13, 20, 24, 31]),
                self.dice.data(40),
            ),
        }
    }

    fn openable(&mut self) -> Ref {
        let kind = self.dice.of(&[REG, REG, DIR, ANY]);
        self.id(Kind::Control, kind)
    }

    fn open_flags(&mut self) -> u32 {
        self.dice.of(&[
            0,
            0,
            0,
            1,
            2,
            2,
            3,
            0x201,
            0x202,
            0x200,
            0xffff_fc00,
            0x8001,
        ])
    }

    fn several(&mut self, kind: Kind) -> Vec<Ref> {
        (0..self.dice.of(&[1, 1, 2, 3, 0, 8]))
            .map(|_| {
                let other = self.dice.of(&[kind, kind, Kind::Control, Kind::Open]);
                self.id(other, ANY)
            })
            .collect()
    }

    fn set_stat(&mut self) -> Op {
        const MASKS: [u32; 14] = [
            0, 1, 2, 8, 0x10, 0x18, 0x20, 0x40, 0x60, 0x200, 0x27a, 0x202, 0x62, 0x8000,
        ];
        let (uid, gid) = (
            self.dice.of(&[0, 1000, 5, KEEP]),
            self.dice.of(&[0, 1000, 7]),
        );
        Op::SetStat {
            id: self.control(),
            mask: self.dice.of(&MASKS),
            mode: self
                .dice
                .of(&[0o644, 0o755, 0o4755, 0o2711, 0o100_600, 0, 0xffff_f000]),
            uid,
            gid,
            size: self
                .dice
                .of(&[0, 1, 100, 5000, 70_000, 200_000, 1 << 63, u64::MAX]),
            nanoseconds: self.dice.of(&[
                0,
                999_999_999,
                0x3fff_ffff,
                0x3fff_fffe,
                2_000_000_000,
                -1,
            ]),
        }
    }

    fn data(&mut self) -> Op {
        const OFFSETS: [u64; 9] = [0, 0, 1, 10, 4096, 60_000, 1 << 63, u64::MAX, (1 << 63) - 1];
        const COUNTS: [u32; 9] = [
            0,
            1,
            100,
            4096,
            100_000,
            2_093_048,
            2_093_049,
            0xffff_fff7,
            0xffff_fff8,
        ];
        let open = match self.dice.below(10) {
            0 => self.id(Kind::Open, ANY),
            _ => self.open(),
        };
        let offset = self.dice.of(&OFFSETS);
        match self.dice.below(10) {
            0..4 => {
                let most = self.dice.of(&[0, 10, 5000, 300_000]);
                let data = self.dice.data(most);
                Op::PWrite { open, offset, data }
            }
            4..8 => Op::PRead {
                open,
                offset,
                count: self.dice.of(&COUNTS),
            },
            _ => Op::FAllocate {
                open,
                mode: self.dice.of(&[0, 0, 1 << 32]),
                offset,
                length: self.dice.of(&[0, 1, 5000, 100_000, 1 << 63]),
            },
        }
    }

    fn looking(&mut self) -> Op {
        match self.dice.below(3) {
            0 => Op::FStatFS(self.control()),
            _ => Op::ReadLinkAt(self.id(Kind::Control, LNK)),
        }
    }

    fn rename(&mut self) -> Op {
        let from = (self.dir(), self.dice.name());
        let to = (self.dir(), self.dice.name());
        match self.dice.below(12) {
            0 => Op::RenameAt {
                to: from.clone(),
                from,
            },
            1 | 2 => Op::RenameAt2 { from, to, flags: 0 },
            3 => Op::RenameAt2 {
                from,
                to,
                flags: self.dice.of(&[0x80, 3]),
            },
            _ => Op::RenameAt { from, to },
        }
    }

    fn xattr(&mut self) -> Op {
        let id = self.control();
        let name = self.dice.attribute();
        match self.dice.below(10) {
            0..4 => Op::FGetXattr {
                id,
                size: self.dice.of(&[0, 1, 2, 100, 65536, 65537]),
                name,
            },
            4..7 => Op::FSetXattr {
                id,
                flags: self.dice.of(&[0, 0, 1, 2, 3]),
                name,
                value: self.dice.data(50),
            },
            7..9 => Op::FListXattr(id, self.dice.of(&[0, 3, 100, 1 << 40])),
            _ => Op::FRemoveXattr(id, name),
        }
    }

    fn socket(&mut self) -> Op {
        match self.dice.below(10) {
            0..4 => Op::BindAt {
                new: self.new_node(&[0, SOCK]),
                kind: self.dice.of(&[1, 1, 1, 2, 5, 0, 9]),
                name: self.dice.name(),
            },
            4..6 => Op::Listen(self.id(Kind::Bound, ANY), self.dice.of(&[100, 4096, -1])),
            6..8 => {
                let id = self.id(Kind::Control, SOCK);
                let kind = self.dice.of(&[1, 1, 1, 2, 5, 0, 3]);
                if self.dice.chance(20) {
                    return Op::ConnectWithCreds(id, kind);
                }
                Op::Connect(id, kind)
            }
            8 => Op::Accept(self.id(Kind::Bound, ANY)),
            _ => Op::Flush(self.open()),
        }
    }
}
