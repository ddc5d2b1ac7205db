//! Debian packages that a task needs on the machine it runs on.
//!
//! Must hold: a machine that has them all costs no network and needs no root.

use std::process::{Command, Stdio};

use crate::task::{self, Failure};

/// Installs what is missing of `names`, all at once.
pub(crate) fn need(names: &[&str]) -> Result<(), Failure> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    install(&missing).map_err(|failure| {
        Failure(format!(
            "{failure}; as root on Debian 12, `apt-get install {}` is what is missing",
            missing.join(" ")
        ))
    })
}

fn install(names: &[&str]) -> Result<(), Failure> {
    task::run(apt_get().args(["-qq", "update"]))?;
    task::run(
        apt_get()
            .args(["-qq", "-y", "--no-install-recommends", "install"])
            .args(names)
            .stdout(Stdio::null()),
    )
}

fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    apt
}

fn is_installed(name: &str) -> bool {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", name])
        .output();
    output.is_ok_and(|output| output.stdout == b"installed")
}
