//! A private temporary OCI bundle: made for one command, gone after it.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Failure;

/// How many names are tried before the temporary directory counts as unusable.
const NAME_TRIES_MAX: u32 = 64;

/// Every capability: inside the sandbox they bind nothing of the host.
const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// One directory of the host in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) readonly: bool,
}

/// What runs in the sandbox.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) rootfs: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) workdir: String,
    pub(super) terminal: bool,
    /// Whether the network is its own, and so empty.
    pub(super) network: bool,
    pub(super) binds: Vec<Bind>,
}

/// A private temporary directory; dropping it removes it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it: mode 0700, a name nobody had.
    ///
    /// # Errors
    /// The temporary directory cannot be written.
    pub(super) fn new() -> Result<Scratch, Failure> {
        make_private_dir(&std::env::temp_dir()).map(Scratch)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("gofer: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// The directory; dropping it removes it.
#[derive(Debug)]
pub(super) struct Bundle {
    dir: Scratch,
}

impl Bundle {
    /// Makes the directory with its `config.json`.
    ///
    /// # Errors
    /// The temporary directory cannot be written.
    pub(super) fn new(contents: &Contents) -> Result<Bundle, Failure> {
        let bundle = Bundle {
            dir: Scratch::new()?,
        };
        bundle.write("config.json", config(contents).to_string().as_bytes())?;
        Ok(bundle)
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The container's name: the directory's, so that it is as unique.
    pub(super) fn id(&self) -> &OsStr {
        self.path().file_name().unwrap_or_default()
    }

    /// Writes a file only we can read; returns its path.
    pub(super) fn write(&self, name: &str, contents: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.path().join(name);
        let mut options = std::fs::OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(&path);
        match made.and_then(|mut file| file.write_all(contents)) {
            Ok(()) => Ok(path),
            Err(cause) => Err(Failure::File {
                what: "cannot write",
                path,
                cause,
            }),
        }
    }
}

fn make_private_dir(parent: &Path) -> Result<PathBuf, Failure> {
    let mut last = None;
    for attempt in 0..NAME_TRIES_MAX {
        let path = parent.join(format!("gofer-do-{}-{attempt}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = Some((path, error)),
            Err(cause) => {
                return Err(Failure::File {
                    what: "cannot make",
                    path,
                    cause,
                });
            }
        }
    }
    let (path, cause) = last.unwrap_or_else(|| (parent.into(), ErrorKind::AlreadyExists.into()));
    Err(Failure::File {
        what: "cannot make",
        path,
        cause,
    })
}

fn config(contents: &Contents) -> Value {
    let capabilities = json!(CAPABILITIES);
    let network = contents.network.then_some("network");
    let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"]
        .into_iter()
        .chain(network)
        .map(|kind| json!({ "type": kind }))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": contents.terminal,
            "user": { "uid": 0, "gid": 0 },
            "args": contents.args,
            "env": contents.env,
            "cwd": contents.workdir,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "inheritable": capabilities,
                "permitted": capabilities,
            },
            "noNewPrivileges": true,
        },
        "root": { "path": contents.rootfs, "readonly": false },
        "hostname": "gofer",
        "mounts": mounts(&contents.binds),
        "linux": { "namespaces": namespaces },
    })
}

fn mounts(binds: &[Bind]) -> Vec<Value> {
    let bind = |bind: &Bind| {
        let access = if bind.readonly { "ro" } else { "rw" };
        json!({ "destination": bind.destination, "type": "bind", "source": bind.source,
            "options": ["rbind", access] })
    };
    let own = [
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
    ];
    own.into_iter().chain(binds.iter().map(bind)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_bundle_is_private_and_leaves_nothing() {
        let contents = Contents {
            rootfs: "/".into(),
            args: vec!["true".into()],
            env: vec![],
            workdir: "/".into(),
            terminal: false,
            network: true,
            binds: vec![Bind {
                source: "/a".into(),
                destination: "/b".into(),
                readonly: true,
            }],
        };
        let bundle = Bundle::new(&contents).unwrap();
        let dir = bundle.path().to_owned();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        let config = std::fs::read(dir.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["mounts"][3]["options"], json!(["rbind", "ro"]));
        drop(bundle);
        assert!(!dir.exists());
    }
}
