//! People's commands with unmodified releases of runsc: `gofer do`, `gofer runsc`, links.
//!
//! Needs root and the releases that `cargo xtask clients` fetches.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
const VERSIONS: [&str; 2] = ["v2022-12", "v2024-07"];

fn runsc(version: &str) -> PathBuf {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients");
    let path = clients.join(version).join("runsc");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo xtask clients`",
        path.display()
    );
    path
}

/// Runs `gofer do` with temporary files in `temporary`, so that leftovers show.
fn run_do(version: &str, temporary: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(GOFER);
    command
        .arg("do")
        .args(words)
        .env("GOFER_RUNSC", runsc(version))
        .env("TMPDIR", temporary);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_commands_status_and_output_are_ours_and_nothing_stays() {
    for version in VERSIONS {
        let temporary = TempDir::new().unwrap();
        let words = [
            "--stats",
            "--",
            "sh",
            "-c",
            "read a < /etc/os-release; echo \"$a\"; exit 7",
        ];
        let output = run_do(version, temporary.path(), &words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{version}: {stderr}");
        let host = fs::read_to_string("/etc/os-release").unwrap();
        assert_eq!(
            text(&output.stdout).trim_end(),
            host.lines().next().unwrap(),
            "{version}"
        );
        assert!(
            stderr.contains("/proc/PID/exe is this gofer") && stderr.contains("engine runsc"),
            "{version}: {stderr}"
        );
        assert!(
            stderr.contains("1  Mount\n") && !stderr.contains("never"),
            "{version}: {stderr}"
        );
        assert_eq!(
            fs::read_dir(temporary.path()).unwrap().count(),
            0,
            "{version}"
        );
    }
}

#[test]
fn writes_reach_only_what_was_opened_for_them() {
    for version in VERSIONS {
        let (temporary, shared, kept) = (
            TempDir::new().unwrap(),
            TempDir::new().unwrap(),
            TempDir::new().unwrap(),
        );
        fs::write(kept.path().join("in"), "kept\n").unwrap();
        let rw = format!("{}:/mnt", shared.path().display());
        let ro = format!("{}:/srv:ro", kept.path().display());
        let script = "cat /srv/in; echo $A; pwd; echo new > out; echo no > /srv/no; echo no > /gofer-no; read a < /gofer-no; echo $a";
        let words = [
            "--bind",
            &rw,
            "--bind",
            &ro,
            "--workdir",
            "/mnt",
            "--env",
            "A=b",
            "--",
            "sh",
            "-c",
            script,
        ];
        let output = run_do(version, temporary.path(), &words);
        assert_eq!(
            text(&output.stdout),
            "kept\nb\n/mnt\nno\n",
            "{version}: {}",
            text(&output.stderr)
        );
        assert_eq!(
            fs::read_to_string(shared.path().join("out")).unwrap(),
            "new\n",
            "{version}"
        );
        assert!(
            !kept.path().join("no").exists() && !Path::new("/gofer-no").exists(),
            "{version}"
        );
    }
}

#[test]
fn a_writable_root_is_written() {
    let (temporary, rootfs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let usr = rootfs.path().join("usr");
    fs::create_dir(&usr).unwrap();
    for link in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), rootfs.path().join(link)).unwrap();
    }
    let root = rootfs.path().display().to_string();
    let words = [
        "--rootfs",
        &root,
        "--writable",
        "--bind",
        "/usr:/usr:ro",
        "--",
        "sh",
        "-c",
        "echo made > /made",
    ];
    let output = run_do("v2024-07", temporary.path(), &words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        fs::read_to_string(rootfs.path().join("made")).unwrap(),
        "made\n"
    );
}

#[test]
fn a_link_called_runsc_passes_everything_on() {
    let dir = TempDir::new().unwrap();
    for name in ["runsc", "runsc-ours"] {
        symlink(GOFER, dir.path().join(name)).unwrap();
        let mut command = Command::new(dir.path().join(name));
        let output = command
            .arg("--version")
            .env("GOFER_RUNSC", runsc("v2024-07"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert!(
            text(&output.stdout).contains("runsc version"),
            "{name}: {}",
            text(&output.stdout)
        );
    }
}

#[test]
fn without_a_runsc_the_message_says_where_it_was_looked_for() {
    let empty = TempDir::new().unwrap();
    for (variable, named) in [
        ("", "install"),
        ("/no/such/runsc", "/no/such/runsc"),
        (GOFER, "this gofer itself"),
    ] {
        let mut command = Command::new(GOFER);
        command
            .args(["do", "--engine", "runsc", "--", "true"])
            .env("PATH", empty.path())
            .env("GOFER_RUNSC", variable);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{variable}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.lines().count() == 1 && stderr.contains(named),
            "{stderr}"
        );
    }
}
