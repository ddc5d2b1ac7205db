//! An OCI bundle: a folder with a `config.json`, written by the test that runs it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// What root of an ordinary container may do (Docker's default set).
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A bundle in the making; [`Bundle::write`] makes it one.
#[derive(Debug)]
pub struct Bundle {
    spec: Value,
}

impl Bundle {
    /// A container with `/proc`, `/dev`, `/sys` and a tmpfs on `/tmp`, writable root, that runs
    /// `script` with the root's `sh`.
    #[must_use]
    pub fn new(root: &Path, script: &str) -> Self {
        let mount = |kind: &str, destination: &str| json!({"destination": destination, "type": kind, "source": kind});
        let spec = json!({
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["sh", "-c", script],
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"],
                "cwd": "/",
                "capabilities": {
                    "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
                },
            },
            "root": {"path": root},
            "hostname": "e2e",
            "mounts": [
                mount("proc", "/proc"), mount("tmpfs", "/dev"),
                mount("sysfs", "/sys"), mount("tmpfs", "/tmp"),
            ],
            "linux": {"namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "network"},
            ]},
        });
        Self { spec }
    }

    /// Makes the root read-only.
    #[must_use]
    pub fn readonly_root(mut self) -> Self {
        self.spec["root"]["readonly"] = true.into();
        self
    }

    /// Adds a bind mount of a host's path, after those already there.
    ///
    /// # Panics
    /// Never: a new bundle has a list of mounts.
    #[must_use]
    pub fn bind(mut self, source: &Path, destination: &str, options: &[&str]) -> Self {
        let options = [&["rbind"], options].concat();
        let mount = json!({
            "destination": destination, "type": "bind", "source": source, "options": options,
        });
        self.spec["mounts"]
            .as_array_mut()
            .expect("a new bundle has a list of mounts")
            .push(mount);
        self
    }

    /// Writes `config.json` into a folder and returns the folder, the bundle's path.
    ///
    /// # Panics
    /// If the file system refuses.
    #[must_use]
    pub fn write(&self, folder: &Path) -> PathBuf {
        fs::create_dir_all(folder).expect("a bundle's folder can be made");
        fs::write(folder.join("config.json"), self.spec.to_string())
            .expect("a bundle's config.json can be written");
        folder.to_path_buf()
    }
}
