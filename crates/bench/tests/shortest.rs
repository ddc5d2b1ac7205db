//! The benchmark itself: its shortest run says everything that it is to say.
//!
//! Needs root, the clients and a release build of ours: `cargo xtask test` makes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const REQUESTS: [&str; 21] = [
    "fstat",
    "walkstat1",
    "walkstat8",
    "walk1_close",
    "walk8_close",
    "open_close",
    "pread4k",
    "pwrite4k",
    "pread64k",
    "pwrite64k",
    "pread1m",
    "pwrite1m",
    "getdents100",
    "getdents1000",
    "getdents100000",
    "create_close_unlink",
    "mkdir_rename_rmdir",
    "symlink_readlink",
    "fgetxattr",
    "setstat",
    "fstat_socket",
];
const OTHERS: [(&str, &str, &str); 6] = [
    ("startup1", "ms", "ms"),
    ("startup20", "ms", "ms"),
    ("memory_rss", "kib", "KiB"),
    ("memory_anon", "kib", "KiB"),
    ("memory_per_id", "bytes", "bytes"),
    ("gofers50_pss", "kib", "KiB"),
];

struct Stage {
    gofer: PathBuf,
    clients: Vec<(&'static str, PathBuf)>,
}

/// What a run needs, or which part of it is missing.
fn stage() -> Result<Stage, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("starting gofers needs root".into());
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let existing = |path: PathBuf| {
        path.canonicalize()
            .map_err(|cause| format!("{} is missing ({cause})", path.display()))
    };
    let gofer = env::var_os("GOFER_BIN");
    let client = |name: &'static str| {
        let path = existing(target.join("clients").join(name).join("runsc"))?;
        Ok((name, path))
    };
    let clients: Result<_, String> = ["v2022-12", "v2024-07"].into_iter().map(client).collect();
    Ok(Stage {
        gofer: existing(gofer.map_or_else(|| target.join("release/gofer"), PathBuf::from))?,
        clients: clients?,
    })
}

fn row<'r>(report: &'r Value, case: &str, metric: &str) -> &'r Value {
    let rows = report["rows"].as_array().unwrap();
    let found = rows
        .iter()
        .find(|row| row["case"] == case && row["metric"] == metric);
    found.unwrap_or_else(|| panic!("no {metric} of {case}"))
}

#[test]
fn the_shortest_run_reports_every_case_and_metric_in_every_form() {
    let stage = match stage() {
        Ok(stage) => stage,
        Err(missing) => {
            let ci = env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!ci, "under CI nothing may be skipped: {missing}");
            println!("skipped: {missing}; `cargo xtask test` makes it");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let markers = "before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n";
    std::fs::write(file("page.md"), markers).unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.arg("--shortest").arg("--ours").arg(&stage.gofer);
    for (name, path) in &stage.clients {
        bench.arg(format!("--peer={name}={}:{name}", path.display()));
    }
    bench.arg("--disk").arg(folder.path());
    for (option, name) in [
        ("--json", "json"),
        ("--html", "html"),
        ("--markdown", "page.md"),
    ] {
        bench.arg(option).arg(file(name));
    }
    let output = bench.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");

    let text = std::fs::read(file("json")).unwrap();
    let report: Value = serde_json::from_slice(&text).unwrap();
    assert!(report["machine"].is_string());
    for case in REQUESTS {
        for metric in ["median", "p99", "mean", "cpu"] {
            let row = row(&report, case, metric);
            assert_eq!(row["unit"], "µs");
            assert!(row["ours"].is_f64(), "{row}");
            // The oldest one has no attributes to give.
            let newest = stage.clients.last().unwrap().0;
            assert!(row["peers"][newest].is_f64(), "{row}");
            assert!(metric == "cpu" || row["limit"].is_f64(), "{row}");
        }
    }
    for (case, metric, unit) in OTHERS {
        let row = row(&report, case, metric);
        assert_eq!(row["unit"], unit);
        assert!(row["ours"].is_f64(), "{row}");
        for (name, _) in &stage.clients {
            assert!(row["peers"][name].is_f64(), "{row}");
        }
    }
    for list in ["spinning", "load", "growth", "ext4", "more"] {
        assert_ne!(report[list].as_array().unwrap().len(), 0, "{list}");
    }
    let page = std::fs::read_to_string(file("html")).unwrap();
    assert!(page.matches("<svg").count() >= REQUESTS.len());
    assert!(
        !page.contains("src=") && !page.contains("href="),
        "it needs no network"
    );
    let page = std::fs::read_to_string(file("page.md")).unwrap();
    assert!(page.starts_with("before\n") && page.ends_with("after\n"));
    assert!(page.contains("| getdents1000 | median |") && !page.contains("old\n"));
}
