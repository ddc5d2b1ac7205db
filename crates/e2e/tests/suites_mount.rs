//! Suites and programs that other people wrote, on a `gofer mount`, beside the host's own file
//! system. Short here; what is marked `#[ignore]` is the whole (`cargo xtask test --long`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{
    stage::Stage,
    suites::{Twin, Verdict, must},
};

/// What `pjdfstest` cannot pass on a mount: reasons, each followed by names.
const UNPASSABLE: &str = include_str!("pjdfstest.txt");

/// What `pjdfstest` leaves out on a mount: the C library knows the most links that a file may have by
/// the type of its file system, and for FUSE it knows none.
const LEFT_OUT: [&str; 1] = ["link::link_count_max"];

/// Every way that data can go.
const WAYS: [&[&str]; 3] = [&[], &["--no-passthrough"], &["--no-page-cache"]];

/// What `stress-ng` does to files.
const STRESSORS: [&str; 34] = [
    "access",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dup",
    "fallocate",
    "fcntl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "hdd",
    "io",
    "iomix",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "seek",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

fn twin(options: &[&str]) -> Option<(Stage, Twin)> {
    let stage = Stage::with_suites()?;
    let twin = Twin::new(&stage, options)?;
    Some((stage, twin))
}

#[test]
fn every_test_of_pjdfstest_passes_on_a_mount_or_is_listed_with_its_reason() {
    let Some((stage, twin)) = twin(&[]) else {
        return;
    };
    let bare = twin.pjdfstest(&stage, &twin.bare(), false);
    let mut mounted = twin.pjdfstest(&stage, &twin.mounted(), false);
    mounted.replace(twin.pjdfstest(&stage, &twin.mounted(), true));
    println!(
        "pjdfstest: bare {:?}, mounted {:?}",
        bare.counts(),
        mounted.counts()
    );
    let listed: BTreeSet<&str> = UNPASSABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let unexplained: Vec<_> = mounted
        .failed()
        .filter(|(name, _)| !listed.contains(name))
        .filter(|(name, _)| !matches!(bare.of(name), Some(Verdict::Failed(_))))
        .collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let failed: BTreeSet<&str> = mounted.failed().map(|(name, _)| name).collect();
    let outdated: Vec<_> = listed.difference(&failed).collect();
    assert!(outdated.is_empty(), "listed, but they pass: {outdated:#?}");
    for name in bare.passed().filter(|name| !LEFT_OUT.contains(name)) {
        let verdict = mounted.of(name);
        assert_ne!(verdict, Some(&Verdict::Skipped), "{name} was left out");
    }
}

fn fsx(seeds: std::ops::RangeInclusive<u32>, operations: u32) {
    for way in WAYS {
        let Some((stage, twin)) = twin(way) else {
            return;
        };
        for seed in seeds.clone() {
            twin.fsx(&stage, &twin.mounted(), seed, operations);
            let (here, there) = (twin.mounted(), twin.served());
            let read = |dir: &Path| fs::read(dir.join("fsx")).unwrap();
            assert!(read(&here) == read(&there), "{way:?}, seed {seed}");
        }
    }
}

#[test]
fn fsx_finds_every_byte_where_it_was_written() {
    fsx(1..=1, 10_000);
}

#[test]
#[ignore = "minutes"]
fn fsx_finds_every_byte_in_five_times_100_000_operations() {
    fsx(1..=5, 100_000);
}

fn stress(twin: &Twin, stressors: &[&str], seconds: u32) {
    for dir in [twin.bare(), twin.mounted()] {
        let mut stress = Command::new("stress-ng");
        stress
            .args([
                "--verify",
                "--timeout",
                &format!("{seconds}s"),
                "--temp-path",
            ])
            .arg(&dir)
            .current_dir(&dir);
        for stressor in stressors {
            stress.args([&format!("--{stressor}"), "1"]);
        }
        let printed = must(&mut stress);
        assert!(printed.contains("successful run completed"), "{printed}");
        assert!(!printed.contains("fail:"), "{printed}");
        // It leaves something now and then, on any file system; that goes like anything else.
        for left in fs::read_dir(&dir).unwrap() {
            fs::remove_dir_all(left.unwrap().path()).unwrap();
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "{}", dir.display());
    }
    assert_eq!(fs::read_dir(twin.served()).unwrap().count(), 0);
}

#[test]
fn stress_ng_finds_nothing_wrong() {
    let Some((_, twin)) = twin(&[]) else { return };
    stress(&twin, &STRESSORS, 5);
}

#[test]
#[ignore = "minutes"]
fn stress_ng_finds_nothing_wrong_with_any_stressor_by_itself() {
    let Some((_, twin)) = twin(&[]) else { return };
    for stressor in STRESSORS {
        stress(&twin, &[stressor], 3);
    }
}

fn dbench(seconds: u32) {
    let Some((_, twin)) = twin(&[]) else { return };
    for dir in [twin.bare(), twin.mounted()] {
        let mut dbench = Command::new("dbench");
        dbench.args(["-c", "/usr/share/dbench/client.txt", "-D"]);
        dbench.arg(&dir).args(["-t", &seconds.to_string(), "4"]);
        let printed = must(&mut dbench);
        assert!(printed.contains("Throughput"), "{printed}");
        // It takes the id of a machine's first semaphore, which is 0, for a failure, and goes on.
        let failed = printed
            .lines()
            .filter(|line| line.trim() != "failed to create barrier semaphore")
            .any(|line| line.contains("failed"));
        assert!(!failed, "{printed}");
    }
}

#[test]
fn dbench_runs_its_office() {
    dbench(3);
}

#[test]
#[ignore = "two minutes"]
fn dbench_runs_its_office_for_a_minute() {
    dbench(60);
}

#[test]
fn sqlite_answers_as_on_the_host() {
    let Some((_, twin)) = twin(&[]) else { return };
    let work = |dir: PathBuf| {
        let mut answers = Vec::new();
        for journal in ["delete", "truncate", "wal"] {
            let script = format!(
                "pragma journal_mode={journal}; create table t(a integer primary key, b text);
                 begin; with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
                 insert into t select i, printf('%0100d', i * 7919 % 20011) from n; commit;
                 create index by_b on t(b); delete from t where a % 3 = 0; vacuum;
                 begin; update t set b = 'gone'; rollback;
                 pragma integrity_check; select count(*), sum(a), max(b) from t;"
            );
            let mut sqlite = Command::new("sqlite3");
            answers.push(must(sqlite.arg(dir.join(journal)).arg(script)));
        }
        answers
    };
    let bare = work(twin.bare());
    assert!(bare[2].contains("wal\nok\n13334|"), "{bare:?}");
    assert_eq!(work(twin.mounted()), bare);
}

/// A cluster in a directory, used for a while by several clients at once, and killed once while it is.
fn postgres(seconds: u32) {
    let Some((_, twin)) = twin(&[]) else { return };
    let programs = newest(Path::new("/usr/lib/postgresql"));
    must(Command::new("chown").arg("postgres").arg(twin.mounted()));
    let (cluster, sockets) = (twin.mounted().join("cluster"), twin.mounted());
    let as_postgres = |program: &str| {
        let mut command = Command::new("runuser");
        command
            .args(["-u", "postgres", "--"])
            .arg(programs.join(program));
        command.current_dir("/").env("PGHOST", &sockets);
        command
    };
    let control = |arguments: &[&str]| {
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={}",
            sockets.display()
        );
        let mut pg_ctl = as_postgres("pg_ctl");
        pg_ctl
            .args(["-w", "-s", "-D"])
            .arg(&cluster)
            .arg("-l")
            .arg(sockets.join("log"));
        must(pg_ctl.args(["-o", &options]).args(arguments));
    };
    must(
        as_postgres("initdb")
            .args(["-A", "trust", "-D"])
            .arg(&cluster),
    );
    control(&["start"]);
    must(as_postgres("pgbench").args(["-i", "-s", "2", "-q", "postgres"]));
    let mut pgbench = as_postgres("pgbench");
    let length = seconds.to_string();
    pgbench.args(["-c", "4", "-j", "2", "-P", "5", "-T", &length, "postgres"]);
    let printed = must(&mut pgbench);
    println!("{printed}");
    assert!(
        printed.contains("number of failed transactions: 0 "),
        "{printed}"
    );
    // What was committed is there after a crash, and every page and index is whole.
    let count = || {
        let sum = "select count(*) from pgbench_history";
        must(as_postgres("psql").args(["-At", "-c", sum, "postgres"]))
    };
    let before = count();
    control(&["stop", "-m", "immediate"]);
    control(&["start"]);
    assert_eq!(count(), before);
    must(as_postgres("pg_amcheck").args(["--install-missing", "--heapallindexed", "postgres"]));
    control(&["stop", "-m", "fast"]);
}

/// The folder of programs of the newest release.
fn newest(releases: &Path) -> PathBuf {
    let folders = fs::read_dir(releases).unwrap().flatten();
    folders.map(|entry| entry.path()).max().unwrap().join("bin")
}

#[test]
fn postgres_keeps_what_it_has_committed() {
    postgres(5);
}

#[test]
#[ignore = "more than a minute"]
fn postgres_keeps_what_it_has_committed_in_a_minute() {
    postgres(60);
}

/// This project's repository, cloned onto a mount.
fn clone(twin: &Twin) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let clone = twin.mounted().join("clone");
    let mut git = git();
    git.args(["clone", "--quiet", "--no-hardlinks"]);
    must(git.arg(workspace).arg(&clone));
    clone
}

/// Git, which is not to mind whose the repository is.
fn git() -> Command {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*"]);
    git
}

#[test]
fn git_clones_and_checks_this_repository() {
    let Some((_, twin)) = twin(&[]) else { return };
    let clone = clone(&twin);
    let mut in_clone = git();
    in_clone.arg("-C").arg(&clone);
    must(in_clone.args(["fsck", "--full", "--strict"]));
    let status = |dir: &Path| {
        let mut status = git();
        must(status.arg("-C").arg(dir).args(["status", "--porcelain"]))
    };
    assert_eq!(status(&clone), "");
    fs::write(clone.join("README.md"), "changed").unwrap();
    assert_eq!(status(&clone), " M README.md\n");
    let listed = |dir: &Path| must(git().arg("-C").arg(dir).args(["ls-files", "-s"]));
    assert_eq!(listed(&clone), listed(&twin.served().join("clone")));
}

#[test]
#[ignore = "a build"]
fn a_part_of_this_project_is_built_and_tested_on_a_mount() {
    let Some((_, twin)) = twin(&[]) else { return };
    let clone = clone(&twin);
    let cargo = std::env::var_os("CARGO").unwrap();
    let printed = must(
        Command::new(cargo)
            .args(["test", "--offline", "--package", "wire"])
            .current_dir(&clone)
            .env("CARGO_TARGET_DIR", clone.join("target")),
    );
    assert!(printed.contains("test result: ok"), "{printed}");
    assert!(!printed.contains("FAILED"), "{printed}");
}
