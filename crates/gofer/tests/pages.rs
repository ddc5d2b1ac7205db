//! `gofer completions` and `gofer man`: what they print is what shells and `man` take.
#![allow(clippy::unwrap_used, reason = "a test may die where it stands")]

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const GOFER: &str = env!("CARGO_BIN_EXE_gofer");
const COMMANDS: [&str; 8] = [
    "runsc",
    "do",
    "mount",
    "umount",
    "serve",
    "check",
    "completions",
    "man",
];

fn gofer(words: &[&str]) -> Output {
    let output = Command::new(GOFER).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    output
}

#[test]
fn every_shells_script_knows_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(gofer(&["completions", shell]).stdout).unwrap();
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(script.contains("allow-uid"), "{shell}: options too");
    }
}

#[test]
fn bash_completes_a_command_and_its_options() {
    let script = gofer(&["completions", "bash"]).stdout;
    let ask =
        "COMP_WORDS=(gofer do --eng); COMP_CWORD=2; _gofer gofer --eng do; echo ${COMPREPLY[*]}
        COMP_WORDS=(gofer umo); COMP_CWORD=1; _gofer gofer umo gofer; echo ${COMPREPLY[*]}";
    let mut bash = Command::new("bash")
        .args(["--norc", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = bash.stdin.take().unwrap();
    stdin.write_all(&script).unwrap();
    stdin.write_all(ask.as_bytes()).unwrap();
    drop(stdin);
    let said = bash.wait_with_output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said, "--engine\numount\n");
}

#[test]
fn each_command_has_a_page_with_its_options_and_examples() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    gofer(&["man", pages.to_str().unwrap()]);
    let names = COMMANDS.map(|command| format!("gofer-{command}"));
    for name in names.iter().map(String::as_str).chain(["gofer"]) {
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(
            page.contains(".TH ") && page.contains("Examples:"),
            "{name}"
        );
    }
    let page = fs::read_to_string(pages.join("gofer-do.1")).unwrap();
    assert!(page.contains("rootfs") && page.contains("fuse"), "{page}");
    let first = String::from_utf8(gofer(&["man"]).stdout).unwrap();
    assert_eq!(first, fs::read_to_string(pages.join("gofer.1")).unwrap());
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let mut child = Command::new(GOFER)
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}
