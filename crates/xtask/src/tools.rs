//! Test suites that other people wrote, published as crates, installed below `target/tools`.
//!
//! Must hold: a tool already there costs no network; what is installed is the version named here,
//! with the dependencies of its own lock file.

use std::path::PathBuf;

use crate::task::{self, Failure, cargo, workspace};

/// Name and version of each: its binary has the same name.
const TOOLS: [(&str, &str); 2] = [("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];

/// Where their binaries are. Tests look there, wherever cargo builds to.
pub(crate) fn folder() -> PathBuf {
    workspace().join("target/tools")
}

/// Installs what is missing and prints one line per tool.
pub(crate) fn run() -> Result<(), Failure> {
    for (name, version) in TOOLS {
        let root = folder();
        let stamp = root.join(format!("{name}-{version}.installed"));
        let binary = root.join("bin").join(name);
        if !(stamp.exists() && binary.exists()) {
            println!("{name}: building {version}");
            let install = ["install", "--quiet", "--locked", "--force", "--root"];
            task::run(
                cargo(&install)
                    .arg(&root)
                    .arg(format!("{name}@{version}"))
                    // Where it is built is no place for the workspace's settings to reach.
                    .env("CARGO_TARGET_DIR", root.join("build"))
                    .current_dir("/"),
            )?;
            std::fs::write(&stamp, "")
                .map_err(|cause| Failure(format!("cannot write {}: {cause}", stamp.display())))?;
        }
        println!("{name}: {}", binary.display());
    }
    Ok(())
}
