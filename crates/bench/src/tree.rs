//! The files that are served: made once, the same for all contenders.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, setxattr};
use tempfile::TempDir;

use crate::failure::{Result, Tried};

/// Sizes of the directories that are listed, and their names' tails.
pub(crate) const DIRECTORIES: [usize; 3] = [100, 1000, 100_000];
/// Names below each other.
pub(crate) const CHAIN: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// Attribute of `file`, and its value.
pub(crate) const XATTR: (&str, &[u8]) = ("user.bench", b"a value of no great length");
/// Bytes of `big`.
pub(crate) const BIG_BYTES: usize = 1 << 20;
/// Directories to mount beside the root.
pub(crate) const VOLUMES: usize = 99;

/// A folder with `root`, `volumes/N` and room for bundles.
#[derive(Debug)]
pub(crate) struct Tree {
    folder: TempDir,
    /// Whether the file system takes user attributes.
    pub(crate) xattrs: bool,
}

impl Tree {
    /// Makes the files below `parent`, with the given directories to list.
    pub(crate) fn new(parent: &Path, directories: &[usize]) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("gofer-bench-")
            .tempdir_in(parent)
            .tried(parent.display())?;
        let mut tree = Self {
            folder,
            xattrs: false,
        };
        let root = tree.root();
        fs::create_dir_all(root.join(CHAIN.join("/")))?;
        fs::create_dir(root.join("work"))?;
        for entries in directories {
            let dir = root.join(format!("d{entries}"));
            fs::create_dir(&dir)?;
            for entry in 0..*entries {
                File::create(dir.join(format!("f{entry:06}")))?;
            }
        }
        fs::write(root.join("file"), [7; 4096])?;
        fs::write(root.join("big"), vec![7; BIG_BYTES])?;
        let (name, value) = XATTR;
        tree.xattrs = setxattr(root.join("file"), name, value, XattrFlags::empty()).is_ok();
        for volume in 0..VOLUMES {
            // The place to mount at too: a gofer then has nothing to make.
            fs::create_dir_all(root.join(format!("v{volume}")))?;
            fs::create_dir_all(tree.volume(volume))?;
            fs::write(tree.volume(volume).join("file"), [7; 4096])?;
        }
        Ok(tree)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A folder for others to make theirs in, on the same file system.
    pub(crate) fn parent(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn volume(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("volumes/{number}"))
    }

    /// The bundle for so many mounts, the root among them.
    pub(crate) fn bundle(&self, mounts: usize) -> Result<PathBuf> {
        let bundle = self.folder.path().join(format!("bundle{mounts}"));
        if !bundle.exists() {
            fs::create_dir(&bundle)?;
            let volumes: Vec<_> = (0..mounts.saturating_sub(1))
                .map(|number| {
                    serde_json::json!({
                        "destination": format!("/v{number}"),
                        "type": "bind",
                        "source": self.volume(number),
                        "options": ["rbind", "rw"],
                    })
                })
                .collect();
            rig::parent::write_bundle(&bundle, &self.root(), false, &volumes.into())?;
        }
        Ok(bundle)
    }
}
