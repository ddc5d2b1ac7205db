//! Whole start-ups on the real kernel, as root, in fresh namespaces.
//!
//! The set-up needs a process with one thread, so this is a program of its own, not a libtest one:
//! it runs the cases, and executes itself as the process that is to be jailed (`child`). Host-side
//! mounts of a case live in a mount namespace of this program.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic, and has to make namespaces"
)]

mod cases;
mod child;
mod forbidden;
mod parent;

fn main() {
    if let Ok(config) = std::env::var(child::CONFIG) {
        return child::main(&config);
    }
    if !rustix::process::geteuid().is_root() {
        println!("set-up tests need root; skipped");
        return;
    }
    parent::own_mount_namespace();
    let wanted = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with('-'));
    let mut failed = Vec::new();
    for (name, case) in cases::ALL {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !name.contains(wanted.as_str()))
        {
            continue;
        }
        let passed = std::panic::catch_unwind(case).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        println!("failed: {failed:#?}");
        std::process::exit(1);
    }
}
