//! `gofer check`: on this kernel, and on one that lacks calls.
//!
//! Needs root for the starts that a root's `runsc` makes.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs;
use std::process::{Command, Output};

use rig::refused::without;
use serde_json::Value;
use tempfile::TempDir;

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");

// Numbers that all architectures share.
const OPEN_TREE: u32 = 428;
const MOUNT_SETATTR: u32 = 442;
const LANDLOCK_CREATE_RULESET: u32 = 444;

/// Runs the check without some calls; nothing may be left of it.
fn check(words: &[&str], missing: &[u32]) -> Output {
    let temporary = TempDir::new().unwrap();
    let mut command = Command::new(GOFER);
    command
        .arg("check")
        .args(words)
        .env("TMPDIR", temporary.path());
    if !missing.is_empty() {
        without(&mut command, missing);
    }
    let output = command.output().unwrap();
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    output
}

fn found(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_start_is_tried_and_has_what_is_promised() {
    let output = check(&["--json"], &[]);
    let found = found(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!(found["complete"], true);
    let starts = found["starts"].as_array().unwrap();
    assert_eq!(starts.len(), 5, "three dialects, two of them with directfs");
    for start in starts {
        let protections = start["protections"].as_object().unwrap();
        assert_eq!(protections.len(), 13, "{start:#}");
        for (name, one) in protections {
            assert!(
                one["active"] == true || one["promised"] == false,
                "{name}: {start:#}"
            );
        }
    }
    for name in ["openat2", "seccomp filters", "mount_setattr", "pidfd"] {
        assert_eq!(found["features"][name]["works"], true, "{name}: {found:#}");
    }
    assert_eq!(found["tracing"]["works"], true, "{found:#}");
}

#[test]
fn the_table_has_a_column_for_each_start() {
    let output = check(&[], &[]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}");
    let row = table
        .lines()
        .find(|line| line.contains("read-only mounts"))
        .unwrap();
    assert_eq!(row.matches("yes").count(), 5, "{table}");
    assert!(table.ends_with("All that docs/jail.md promises is active.\n"));
}

#[test]
fn a_kernel_without_landlock_lacks_something() {
    let output = check(&["--json"], &[LANDLOCK_CREATE_RULESET]);
    let found = found(&output);
    assert_eq!(output.status.code(), Some(1), "{found:#}");
    assert_eq!(found["complete"], false);
    assert_eq!(found["features"]["Landlock"]["works"], false);
    for start in found["starts"].as_array().unwrap() {
        let active = |name: &str| start["protections"][name]["active"] == true;
        assert!(!active("Landlock") && !active("a thread's own Landlock domain"));
        assert!(active("read-only mounts") && active("a forbidden call ends the process"));
    }
    let table = check(&[], &[LANDLOCK_CREATE_RULESET]).stdout;
    assert!(String::from_utf8(table).unwrap().contains("MISSING"));
}

#[test]
fn an_older_kernel_falls_back_to_older_mount_calls() {
    let output = check(&["--json"], &[MOUNT_SETATTR]);
    let found = found(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!(found["features"]["mount_setattr"]["works"], false);
    for start in found["starts"].as_array().unwrap() {
        let one = &start["protections"]["mounts by descriptor"];
        assert_eq!(
            (&one["active"], &one["promised"]),
            (&false.into(), &false.into())
        );
        assert_eq!(start["protections"]["read-only mounts"]["active"], true);
    }
    let output = check(&["--json"], &[OPEN_TREE]);
    let start = &self::found(&output)["starts"][0];
    let detached = &start["protections"]["detached descriptor directory"];
    assert_eq!(detached["active"], false, "{start:#}");
    assert_eq!(output.status.code(), Some(1), "procfs stays reachable");
}
