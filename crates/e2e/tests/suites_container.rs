//! The same suites inside a container without directfs, so that every file of the volume is served
//! by requests: through our gofer, and through the Go gofer of the same `runsc`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::fs;

use e2e::{
    bundle::Bundle,
    runsc::{HOLD, Runsc, text},
    stage::{Release, Stage},
    suites::{FSX, Verdicts, pjdfstest_configuration},
};

/// `fsx`'s operations that the sandbox's kernel has none of, with any gofer.
const NOT_IN_A_SANDBOX: [&str; 2] = ["punch_hole", "copy_file_range"];

/// Runs a script in the Debian root, a volume at `/mnt`, the suites at `/opt`, their configurations
/// at `/srv`; what it printed.
fn run(stage: &Stage, name: &str, script: &str) -> String {
    let runsc = Runsc::new(stage, Release::V2024_07, &["--directfs=false"]);
    let folder = |name: &str| {
        let path = runsc.folder().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (volume, configurations) = (folder("volume"), folder("configurations"));
    let pjdfstest = pjdfstest_configuration(false);
    fs::write(configurations.join("pjdfstest.toml"), pjdfstest).unwrap();
    let mut operations = String::new();
    for line in FSX
        .lines()
        .filter(|line| !NOT_IN_A_SANDBOX.iter().any(|op| line.starts_with(op)))
    {
        operations += &format!("{line}\n");
    }
    fs::write(configurations.join("fsx.toml"), operations).unwrap();
    let bundle = Bundle::new(&stage.debian, &format!("{HOLD}{script}"))
        .readonly_root()
        .bind(&volume, "/mnt", &["rw"])
        .bind(&stage.suites(), "/opt", &["ro"])
        .bind(&configurations, "/srv", &["ro"])
        .write(&runsc.folder().join("bundle"));
    let output = runsc.run(&bundle, name);
    text(&output.stdout) + &text(&output.stderr)
}

/// With our gofer, and with the client's own.
fn both() -> Option<(Stage, Stage)> {
    let (ours, mut go) = (Stage::with_suites()?, Stage::with_suites()?);
    go.gofer = None;
    Some((ours, go))
}

#[test]
fn what_passes_with_the_go_gofer_passes_with_ours() {
    let Some((ours, go)) = both() else { return };
    let suite =
        "NO_COLOR=1 RUST_BACKTRACE=0 /opt/pjdfstest -c /srv/pjdfstest.toml -p /mnt -s /tmp\n";
    let ours = Verdicts::read(&run(&ours, "pjdfstest", suite));
    let go = Verdicts::read(&run(&go, "pjdfstest-go", suite));
    println!("pjdfstest: ours {:?}, Go {:?}", ours.counts(), go.counts());
    assert!(ours.counts().0 > 200, "{:?}", ours.counts());
    let passes: Vec<_> = ours.passed().collect();
    let lost: Vec<_> = go.passed().filter(|name| !passes.contains(name)).collect();
    assert!(lost.is_empty(), "they pass with the Go gofer: {lost:#?}");
    let theirs: Vec<_> = go.passed().collect();
    let won: Vec<_> = passes
        .iter()
        .filter(|name| !theirs.contains(name))
        .collect();
    println!("with ours alone pass: {won:?}");
}

fn fsx(stage: &Stage, seed: u32, operations: u32) {
    let script = format!("/opt/fsx -f /srv/fsx.toml -S {seed} -N {operations} -P /tmp /mnt/file\n");
    let printed = run(stage, &format!("fsx-{seed}"), &script);
    assert!(printed.contains("A-OK"), "seed {seed}: {printed}");
}

#[test]
fn fsx_finds_every_byte_where_it_was_written() {
    let Some((ours, _)) = both() else { return };
    fsx(&ours, 1, 10_000);
}

#[test]
#[ignore = "minutes"]
fn fsx_finds_every_byte_in_five_times_100_000_operations() {
    let Some((ours, go)) = both() else { return };
    for seed in 1..=5 {
        fsx(&ours, seed, 100_000);
        fsx(&go, seed, 100_000);
    }
}
