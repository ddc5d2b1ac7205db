//! Random requests to our gofer and to the Go gofer of v2024-07, over two equal trees: replies and
//! trees must be equal, except for what the table below allows.
//!
//! 10,000 steps, and 200,000 in the test that `cargo xtask test --long` runs too. `GOFER_BIN` names
//! our binary (`cargo xtask test` sets it), without it our server runs in this process.
//! `RUNSC_V2024_07` names the reference. `GOFER_SEED` plays only that sequence. Without root, or
//! without the reference, these tests fail and say so.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use rig::differential::{Allowed, Bytes, Contenders, Difference, Exchange, Op, Plan, play, shrink};
use wire::{Errno, Mid};

const FIRST_SEED: u64 = 20_240_729;
const STEPS_PER_SEQUENCE: usize = 250;

const ALLOWED: &[Allowed] = &[
    Allowed {
        row: "14 row 2",
        why: "no control id keeps a FIFO open: writing without a reader is ENXIO",
        covers: |e, _| {
            matches!(e.step.op, Op::OpenAt(..)) && is_type(e, S_IFIFO) && errnos(e, Errno::NXIO, OK)
        },
    },
    Allowed {
        row: "14 row 6",
        why: "deleted links keep their target",
        covers: |e, d| {
            matches!(e.step.op, Op::ReadLinkAt(_))
                && is_deleted(e)
                && d == Difference::Texts
                && e.reference.texts[0].0.is_empty()
        },
    },
    Allowed {
        row: "14 row 7",
        why: "deleted files are served as far as the host allows; deleted directories list as ENOENT",
        covers: |e, _| {
            let served = matches!(
                e.step.op,
                Op::OpenAt(..) | Op::FGetXattr { .. } | Op::FSetXattr { .. } | Op::Accept(_)
            );
            let listed = matches!(e.step.op, Op::Getdents64(..));
            let linked = matches!(e.step.op, Op::LinkAt { .. });
            e.about.iter().any(|about| about.deleted)
                && refused(e, Errno::INVAL)
                && (served || listed || linked || e.ours.errno != 0)
        },
    },
    Allowed {
        row: "14 row 9 and 33",
        why: "times of sockets can be set",
        covers: |e, d| {
            matches!(e.step.op, Op::SetStat { .. })
                && is_type(e, S_IFSOCK)
                && d == Difference::Numbers
                && failure_without(e.reference.numbers[0], 0x60)
                    == failure_without(e.ours.numbers[0], 0x60)
        },
    },
    Allowed {
        row: "14 row 10",
        why: "the id that BindAt makes is the socket's file, not the socket",
        covers: |e, d| {
            e.about.first().is_some_and(|about| about.bound_child)
                && match e.step.op {
                    Op::FStat(_) | Op::WalkStat(..) => {
                        matches!(d, Difference::Stat(_) | Difference::Identity)
                    }
                    Op::FStatFS(_) => d == Difference::Numbers,
                    Op::SetStat { .. } => d == Difference::Numbers,
                    Op::FGetXattr { .. } => true,
                    _ => false,
                }
        },
    },
    Allowed {
        row: "14 row 11",
        why: "the length of a socket's whole path does not matter",
        covers: |e, _| {
            let name = e.step.op.makes().map_or(0, |(_, name)| 1 + name.0.len());
            matches!(
                e.step.op,
                Op::BindAt { .. } | Op::Connect(..) | Op::ConnectWithCreds(..)
            ) && refused(e, Errno::INVAL)
                && e.about[0].path_bytes + name >= 108
        },
    },
    Allowed {
        row: "14 row 12",
        why: "type 0 tries all types",
        covers: |e, _| {
            matches!(e.step.op, Op::Connect(_, 0) | Op::ConnectWithCreds(_, 0))
                && refused(e, Errno::NXIO)
        },
    },
    Allowed {
        row: "14 row 16",
        why: "entries that were removed since the host read them stay, in the room of others",
        covers: |e, d| {
            let name = |entry: &(u64, (u32, u32), u8, Bytes)| (entry.2, entry.3.clone());
            let reference: Vec<_> = e.reference.entries.iter().map(name).collect();
            let mut ours: Vec<_> = e.ours.entries.iter().map(name).collect();
            ours.retain(|entry| reference.contains(entry));
            matches!(e.step.op, Op::Getdents64(..))
                && d == Difference::Entries
                && ours.len() < e.ours.entries.len()
                && reference.starts_with(&ours)
        },
    },
    Allowed {
        row: "14 row 19",
        why: "size 0 asks for the value",
        covers: |e, d| {
            matches!(e.step.op, Op::FGetXattr { size: 0, .. })
                && d == Difference::Texts
                && e.ours.texts[0].0.len() == e.reference.texts[0].0.len()
        },
    },
    Allowed {
        row: "14 row 20",
        why: "FSetXattr works",
        covers: |e, _| matches!(e.step.op, Op::FSetXattr { .. }) && refused(e, Errno::OPNOTSUPP),
    },
    Allowed {
        row: "14 row 31",
        why: "renaming to the same name asks the host",
        covers: |e, _| match &e.step.op {
            Op::RenameAt { from, to } | Op::RenameAt2 { from, to, .. } => {
                from.1 == to.1 && e.reference.errno == 0
            }
            _ => false,
        },
    },
    Allowed {
        row: "14 row 35",
        why: "of several failures the first is told",
        covers: |e, d| {
            matches!(e.step.op, Op::SetStat { mask, .. } if mask.count_ones() > 1)
                && d == Difference::Numbers
                && e.ours.numbers[0] == e.reference.numbers[0]
                && e.ours.numbers[0].count_ones() > 1
        },
    },
    Allowed {
        row: "7.1 and 13",
        why: "MID 0 is no request",
        covers: |e, _| e.step.op.mid() == Mid::ERROR && errnos(e, Errno::OPNOTSUPP, Errno::INVAL),
    },
    Allowed {
        row: "7.3",
        why: "attributes of a bound id are an error, not a crash",
        covers: |e, _| {
            matches!(e.step.op, Op::FStat(_)) && errnos(e, Errno::INVAL, Errno::REMOTEIO)
        },
    },
    Allowed {
        row: "7.4",
        why: "a NUL in a name is refused with the name, not by the host call",
        covers: |e, _| e.ours.errno == Errno::INVAL.raw() && has_nul(e),
    },
    Allowed {
        row: "9.12",
        why: "lengths do not overflow",
        covers: |e, _| {
            matches!(e.step.op, Op::PRead { count, .. } if count >= 0xffff_fff8)
                && errnos(e, Errno::NOBUFS, Errno::REMOTEIO)
        },
    },
    Allowed {
        row: "13 Flush",
        why: "refused",
        covers: |e, _| {
            matches!(e.step.op.mid(), Mid::FLUSH) && e.ours.errno == Errno::OPNOTSUPP.raw()
        },
    },
    Allowed {
        row: "13 FListXattr and FRemoveXattr, 14 row 6",
        why: "they work, on deleted files too",
        covers: |e, _| match e.step.op {
            Op::FListXattr(..) => refused(e, Errno::OPNOTSUPP) || is_deleted(e),
            Op::FRemoveXattr(..) => refused(e, Errno::OPNOTSUPP),
            _ => false,
        },
    },
    Allowed {
        row: "13 FGetXattr",
        why: "works on symbolic links and sockets",
        covers: |e, _| {
            matches!(e.step.op, Op::FGetXattr { .. })
                && (is_type(e, S_IFLNK) || is_type(e, S_IFSOCK))
                && refused(e, Errno::BADF)
        },
    },
    Allowed {
        row: "13 SetStat MODE on a symbolic link",
        why: "errno 95",
        covers: |e, d| {
            matches!(e.step.op, Op::SetStat { .. })
                && is_type(e, S_IFLNK)
                && d == Difference::Numbers
                && e.ours.numbers[0] == e.reference.numbers[0]
                && (e.ours.numbers[1], e.reference.numbers[1]) == (95, 9)
        },
    },
    Allowed {
        row: "13 MknodAt",
        why: "a character device 0:0 can be made",
        covers: |e, _| {
            matches!(e.step.op, Op::MknodAt { new, device: (0, 0), .. } if new.mode & 0o170_000 == 0o020_000)
                && refused(e, Errno::PERM)
        },
    },
    Allowed {
        row: "13 CHOWN with both ids 0xffffffff",
        why: "is skipped, so set-id bits stay",
        covers: |e, d| match e.step.op {
            Op::OpenCreateAt(new, ..) | Op::MknodAt { new, .. } | Op::BindAt { new, .. } => {
                (new.uid, new.gid) == (u32::MAX, u32::MAX)
                    && d == Difference::Stat("mode")
                    && e.ours.stats[0].mode & !0o6000 == e.reference.stats[0].mode & !0o6000
                    && e.ours.stats[0].mode & 0o7777 == new.mode & 0o7777
            }
            _ => false,
        },
    },
    Allowed {
        row: "13 character devices (late August)",
        why: "are opened only where a policy allows it",
        covers: |e, _| {
            matches!(e.step.op, Op::OpenAt(..)) && is_type(e, S_IFCHR) && errnos(e, Errno::PERM, OK)
        },
    },
    Allowed {
        row: "13 RenameAt2",
        why: "exists",
        covers: |e, _| {
            matches!(e.step.op, Op::RenameAt2 { flags: 1.., .. }) && refused(e, Errno::OPNOTSUPP)
        },
    },
];

const OK: Errno = Errno::new(0);
const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFLNK: u16 = 0o120_000;
const S_IFSOCK: u16 = 0o140_000;

fn errnos(e: &Exchange<'_>, ours: Errno, reference: Errno) -> bool {
    (e.ours.errno, e.reference.errno) == (ours.raw(), reference.raw())
}

/// Only the reference refuses in this way.
fn refused(e: &Exchange<'_>, errno: Errno) -> bool {
    e.reference.errno == errno.raw()
}

fn is_type(e: &Exchange<'_>, file_type: u16) -> bool {
    e.about
        .first()
        .is_some_and(|about| about.file_type == file_type)
}

fn is_deleted(e: &Exchange<'_>) -> bool {
    e.about.first().is_some_and(|about| about.deleted)
}

fn has_nul(e: &Exchange<'_>) -> bool {
    e.step.op.names().iter().any(|name| name.0.contains(&0))
}

const fn failure_without(mask: u64, bits: u64) -> u64 {
    mask & !bits
}

fn contenders() -> Contenders {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let default = || workspace.join("target/clients/v2024-07/runsc");
    let reference = std::env::var_os("RUNSC_V2024_07").map_or_else(default, PathBuf::from);
    let canonical = |path: PathBuf| {
        let found = path.canonicalize();
        found.unwrap_or_else(|cause| panic!("run `cargo xtask test`: {path:?}: {cause}"))
    };
    Contenders {
        ours: std::env::var_os("GOFER_BIN").map(|path| canonical(path.into())),
        reference: canonical(reference),
    }
}

#[test]
fn both_gofers_answer_ten_thousand_random_requests_alike() {
    play_all(0..40);
}

#[test]
#[ignore = "minutes: `cargo xtask test --long`"]
fn both_gofers_answer_two_hundred_thousand_random_requests_alike() {
    play_all(40..840);
}

fn play_all(sequences: Range<u64>) {
    let contenders = contenders();
    let one = std::env::var("GOFER_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let seeds: Vec<u64> = match one {
        Some(seed) => vec![seed],
        None => sequences.map(|n| FIRST_SEED + n).collect(),
    };
    println!(
        "seeds {}..={}, {STEPS_PER_SEQUENCE} steps each",
        seeds[0],
        seeds[seeds.len() - 1]
    );
    let mut steps = 0;
    let (mut allowed, mut held_back) = (BTreeMap::new(), BTreeMap::new());
    let mut outcomes: BTreeMap<Mid, (usize, usize)> = BTreeMap::new();
    for seed in seeds {
        let plan = Plan::Draw {
            seed,
            steps: STEPS_PER_SEQUENCE,
        };
        let played = play(&contenders, ALLOWED, &plan);
        if let Some(found) = &played.found {
            println!("seed {seed}: {:?}: {}", found.place, found.text);
            println!("shrinking {} steps", played.steps.len());
            for step in shrink(&contenders, ALLOWED, &played) {
                println!("  {step:?}");
            }
            panic!("a difference that the table does not allow (seed {seed})");
        }
        steps += played.steps.len();
        played
            .allowed
            .into_iter()
            .for_each(|(row, times)| *allowed.entry(row).or_insert(0) += times);
        played
            .held_back
            .into_iter()
            .for_each(|(why, times)| *held_back.entry(why).or_insert(0) += times);
        for (mid, (good, bad)) in played.outcomes {
            let sum = outcomes.entry(mid).or_default();
            *sum = (sum.0 + good, sum.1 + bad);
        }
    }
    println!("{steps} steps");
    println!("differences allowed: {allowed:#?}");
    println!("not sent: {held_back:#?}");
    println!("succeeded and failed: {outcomes:?}");
}
