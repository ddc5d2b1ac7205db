//! What [`rig::parent`] gives a gofer: a shell script in the gofer's place writes down what it got.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rig::parent::{Dialect, Ended, Parent, write_bundle};
use serde_json::json;

/// Says its process id and session, its words, and which of the first descriptors are open.
const SCRIPT: &str = "#!/bin/sh
echo pid $$
read -r outer _ _ _ _ session _ < /proc/self/stat
[ $outer = $session ] && echo leads a session
echo words \"$@\"
for fd in 0 1 2 3 4 5 6 7 8 9 10 11; do
    [ -e /proc/self/fd/$fd ] && echo open $fd
done
cat <&\"$1\" > /dev/null
printf '[]' >&\"$2\"
exit 7
";

/// Starts the script and returns what it wrote. Its first two words are the sync and mounts
/// descriptors, smuggled in as global flags.
fn report(dialect: Dialect, sync: u32, mounts: u32, user_namespace: bool) -> String {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("script");
    fs::write(&program, SCRIPT).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    write_bundle(dir.path(), dir.path(), true, &json!([])).unwrap();
    let output = dir.path().join("output");
    let mut parent = Parent::new(&program, dialect, dir.path(), &["lisafs:self", "none:self"])
        .flag(&sync.to_string())
        .flag(&mounts.to_string())
        .sync_userns()
        .output(fs::File::create(&output).unwrap());
    if user_namespace {
        parent = parent.user_namespace();
    }
    let mut gofer = parent.start().unwrap();
    gofer.release();
    assert_eq!(gofer.mounts().unwrap(), b"[]");
    assert_eq!(gofer.wait().unwrap(), Ended::Status(7));
    let bundle = dir.path().display().to_string();
    fs::read_to_string(output)
        .unwrap()
        .replace(&bundle, "BUNDLE")
}

fn words(report: &str) -> &str {
    report
        .lines()
        .find_map(|line| line.strip_prefix("words "))
        .unwrap()
}

fn open_fds(report: &str) -> Vec<u32> {
    let fds = report.lines().filter_map(|line| line.strip_prefix("open "));
    // The shell keeps its script on 10 and above.
    fds.map(|fd| fd.parse().unwrap())
        .filter(|fd| *fd < 10)
        .collect()
}

#[test]
fn a_gofer_of_2022_gets_a_connection_for_each_conf_and_no_session() {
    let report = report(Dialect::V2022_12, 7, 4, false);
    let expected = "7 4 gofer --bundle BUNDLE --spec-fd=3 --mounts-fd=4 --io-fds=5 --io-fds=6 --sync-userns-fd=7";
    assert_eq!(words(&report), expected);
    assert_eq!(open_fds(&report), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(report.contains("pid 1\n"), "{report}");
    assert!(!report.contains("leads a session\n"), "{report}");
}

#[test]
fn a_gofer_of_2024_gets_confs_and_leads_a_session() {
    for user_namespace in [false, true] {
        let report = report(Dialect::V2024, 6, 4, user_namespace);
        let expected = "6 4 gofer --bundle BUNDLE --gofer-mount-confs=lisafs:self,none:self \
                        --spec-fd=3 --mounts-fd=4 --io-fds=5 --sync-userns-fd=6";
        assert_eq!(words(&report), expected);
        assert_eq!(open_fds(&report), [0, 1, 2, 3, 4, 5, 6]);
        assert!(report.contains("pid 1\nleads a session\n"), "{report}");
    }
}

#[test]
fn a_gofer_of_2026_gets_the_service_of_its_parent_and_a_container_id() {
    let report = report(Dialect::V2026_08, 9, 4, true);
    let expected = "9 4 gofer --bundle BUNDLE --gofer-mount-confs=lisafs:self,none:self \
                    --spec-fd=3 --mounts-fd=4 --rpc-fd=5 --pin-ring-fd=6 \
                    --sync-sentry-exit-fd=7 --io-fds=8 --sync-userns-fd=9 --sync-chroot-fd=10 \
                    rig-container";
    assert_eq!(words(&report), expected);
    assert_eq!(open_fds(&report), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(report.contains("pid 1\n"), "{report}");
}
