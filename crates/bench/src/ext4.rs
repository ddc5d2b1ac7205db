//! A disk's file system to serve from: ext4 on a loop device where that can be had, else whatever
//! the build's folder lies on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::failure::{Result, Tried};

const BYTES: u64 = 1 << 30;

/// A mounted image, or a folder; gone when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: TempDir,
    mounted: bool,
}

fn run(program: &str, args: &[&Path], flags: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(flags).args(args).stdin(Stdio::null());
    let output = command.output().tried(program)?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", told.trim()).into())
}

impl Disk {
    /// Makes an image in a folder of its own below `parent`, and mounts it there.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        fs::create_dir_all(parent).tried(parent.display())?;
        let folder = tempfile::Builder::new()
            .prefix("gofer-bench-ext4-")
            .tempdir_in(parent)
            .tried(parent.display())?;
        let mut disk = Self {
            folder,
            mounted: false,
        };
        fs::create_dir(disk.path())?;
        disk.mounted = disk.mount().is_ok();
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        let image = self.folder.path().join("image");
        File::create(&image)?.set_len(BYTES)?;
        run("mkfs.ext4", &[&image], &["-q", "-F", "-N", "200000"])?;
        run("mount", &[&image, &self.path()], &["-o", "loop"])
    }

    /// Where to make a tree.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// What it is, for the report.
    pub(crate) fn kind(&self) -> String {
        if self.mounted {
            return "ext4 on a loop device".to_owned();
        }
        let mut command = Command::new("stat");
        command
            .args(["--file-system", "--format=%T"])
            .arg(self.path());
        let output = command.output();
        let kind = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        format!("the disk's own {}", kind.unwrap_or_default())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // What cannot be unmounted is told by the folder that stays.
            _ = run("umount", &[&self.path()], &[]);
        }
    }
}
