//! Whole command lines: those really issued by the four releases, and arbitrary ones.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::{Dialect, Globals, GoferFlags, HostUds, promises};

/// The command lines of the specification's section 13, `argv[0]` included.
const CAPTURED: &str = include_str!("captured.txt");

fn parse(line: &str) -> (Globals, GoferFlags) {
    let words: Vec<OsString> = line.split(' ').skip(1).map(OsString::from).collect();
    let (globals, rest) = Globals::parse(&words).unwrap();
    assert_eq!(rest[0], "gofer");
    Globals::check_rules(&words).unwrap();
    (globals, GoferFlags::parse(&rest[1..]).unwrap())
}

#[test]
fn every_captured_command_line_is_understood_whole() {
    let mut dialects = Vec::new();
    for line in CAPTURED.lines() {
        let (globals, flags) = parse(line);
        assert!(globals.skipped.is_empty(), "{line}");
        assert_eq!(
            globals.debug_log_fd.is_some(),
            line.contains("--debug-log-fd"),
            "{line}"
        );
        assert!(flags.mounts_fd.is_some(), "{line}");
        let wanted = match (
            line.contains("--rpc-fd"),
            line.contains("--gofer-mount-confs"),
        ) {
            (true, _) => Dialect::V2026_08,
            (false, true) => Dialect::V2024,
            (false, false) => Dialect::V2022_12,
        };
        assert_eq!(flags.dialect, wanted, "{line}");
        assert_eq!(
            flags.container_id.is_some(),
            wanted == Dialect::V2026_08,
            "{line}"
        );
        let served = flags.confs.iter().filter(|conf| conf.is_lisafs()).count();
        assert!(
            wanted == Dialect::V2022_12 || served == flags.io_fds.len(),
            "{line}"
        );
        dialects.push(flags.dialect);
    }
    let of = |dialect| dialects.iter().filter(|d| **d == dialect).count();
    assert_eq!(
        (
            of(Dialect::V2022_12),
            of(Dialect::V2024),
            of(Dialect::V2026_08)
        ),
        (6, 9, 5),
        "the captured lines by dialect"
    );
}

#[test]
fn a_reexecuted_vector_says_what_is_already_done() {
    let line = CAPTURED
        .lines()
        .find(|line| line.contains("--proc-mount-sync-fd=16"))
        .unwrap();
    let (_, flags) = parse(line);
    assert!(!flags.apply_caps && !flags.setup_root);
    assert_eq!((flags.sync_userns_fd, flags.sync_nvproxy_fd), (None, None));
    assert_eq!(
        (flags.proc_mount_sync_fd, flags.io_fds.as_slice()),
        (Some(16), &[6, 7, 8, 9][..])
    );
}

#[test]
fn profiles_limits_and_host_sockets_are_read() {
    let line = CAPTURED
        .lines()
        .find(|line| line.contains("--fdlimit=4096"))
        .unwrap();
    let (globals, flags) = parse(line);
    assert_eq!(
        (globals.fd_limit, globals.host_uds),
        (Some(4096), HostUds::All)
    );
    assert_eq!(
        (globals.log_fd, globals.host_fifo_open, globals.debug),
        (Some(3), true, true)
    );
    let profiles = [
        ("profile-cpu-fd", 6),
        ("profile-heap-fd", 7),
        ("trace-fd", 8),
    ];
    assert_eq!(flags.profile_fds, profiles);
}

/// Global flags as a parent emits them: any order, each with its value.
fn shuffled() -> impl Strategy<Value = Vec<String>> {
    let words = [
        "--debug=true",
        "--host-uds=open",
        "--directfs=false",
        "--root=/run/x=y",
        "--fdlimit=0x10",
        "--gvisor-gro=20000ns",
        "--brand-new=1",
        "--log-fd=3",
    ];
    Just(words.map(String::from).to_vec()).prop_shuffle()
}

proptest! {
    #[test]
    fn the_order_of_global_flags_does_not_matter(words in shuffled()) {
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let (globals, rest) = Globals::parse(&words).unwrap();
        prop_assert!(rest.is_empty() && globals.debug && !globals.directfs);
        prop_assert_eq!((globals.host_uds, globals.fd_limit, globals.log_fd), (HostUds::Open, Some(16), Some(3)));
        prop_assert_eq!(globals.skipped, vec![OsString::from("--brand-new=1")]);
    }

    #[test]
    fn no_words_bring_the_parser_down(
        words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..8),
        prefix in prop::sample::select(vec!["", "-", "--", "--debug=", "--io-fds=", "--fdlimit="]),
    ) {
        let words: Vec<OsString> = words
            .into_iter()
            .map(|word| OsString::from_vec([prefix.as_bytes(), &word].concat()))
            .collect();
        let left = Globals::parse(&words).map(|(_, rest)| rest.len());
        prop_assert!(left.is_err() || left.unwrap() <= words.len());
        prop_assert!(GoferFlags::parse(&words).is_err(), "a bundle cannot be named by accident");
    }

    #[test]
    fn numbers_survive_being_written_and_read(number in any::<i32>(), radix in 0_usize..4) {
        let size = i64::from(number).unsigned_abs();
        let sign = if number < 0 { "-" } else { "" };
        let text = match radix {
            0 => format!("{sign}{size}"),
            1 => format!("{sign}0x{size:x}"),
            2 => format!("{sign}0o{size:o}"),
            _ => format!("{sign}0b{size:b}"),
        };
        let words = [OsString::from(format!("--fdlimit={text}"))];
        let (globals, _) = Globals::parse(&words).unwrap();
        prop_assert_eq!(globals.fd_limit, u64::try_from(number).ok());
    }
}

/// What fuzzing has found worth keeping, without a fuzzer.
#[test]
fn command_lines_of_the_corpus_keep_their_promises() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/flags");
    let mut count = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
        promises::of_words(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} files are no corpus");
}
