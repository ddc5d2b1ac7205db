//! What the machine offers: the gofer under test, the clients, the roots, a place for scratch.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The releases of `runsc` that the tests run, by the specs' names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    /// 20221219: RPC only.
    V2022_12,
    /// 20240729: directfs by default.
    V2024_07,
}

impl Release {
    /// Both, the older first.
    pub const ALL: [Self; 2] = [Self::V2022_12, Self::V2024_07];

    /// The specs' name, which is also the folder's below `target/clients`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V2022_12 => "v2022-12",
            Self::V2024_07 => "v2024-07",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::V2022_12 => "RUNSC_V2022_12",
            Self::V2024_07 => "RUNSC_V2024_07",
        }
    }
}

/// The suites that `cargo xtask test` installs.
const SUITES: [&str; 2] = ["pjdfstest", "fsx"];

/// The surroundings of a test.
#[derive(Debug)]
pub struct Stage {
    /// The gofer under test; none means the client's own, to compare with (`E2E_PEER=go`).
    pub gofer: Option<PathBuf>,
    /// A Debian root with Python, sqlite, git and a C compiler. Never written to.
    pub debian: PathBuf,
    /// A root with busybox alone. Never written to.
    pub busybox: PathBuf,
    target: PathBuf,
}

impl Stage {
    /// Finds the surroundings, or prints why the calling test is skipped.
    ///
    /// # Panics
    /// If something is missing under `CI=true`, where nothing may be skipped.
    #[must_use]
    pub fn set() -> Option<Self> {
        match Self::find() {
            Ok(stage) => Some(stage),
            Err(missing) => skip(&format!("{missing}; `cargo xtask test` makes it")),
        }
    }

    /// As [`set`](Self::set), with the suites that other people wrote.
    ///
    /// # Panics
    /// As that.
    #[must_use]
    pub fn with_suites() -> Option<Self> {
        let stage = Self::set()?;
        let missing = SUITES.map(|suite| existing(stage.suites().join(suite)));
        match missing.into_iter().find_map(Result::err) {
            None => Some(stage),
            Some(missing) => skip(&format!("{missing}; `cargo xtask test` makes it")),
        }
    }

    /// Where the suites' programs are.
    #[must_use]
    pub fn suites(&self) -> PathBuf {
        self.target.join("tools/bin")
    }

    fn find() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("running containers needs root".into());
        }
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let target = existing(target)?;
        let gofer = if env::var_os("E2E_PEER").is_some_and(|peer| peer == "go") {
            None
        } else {
            Some(named("GOFER_BIN", target.join("release/gofer"))?)
        };
        let stage = Self {
            gofer,
            debian: named("ROOTFS_DEBIAN", target.join("rootfs/debian"))?,
            busybox: named("ROOTFS_BUSYBOX", target.join("rootfs/busybox"))?,
            target,
        };
        for release in Release::ALL {
            stage.find_client(release)?;
        }
        Ok(stage)
    }

    fn find_client(&self, release: Release) -> Result<PathBuf, String> {
        let default = self.target.join("clients").join(release.name());
        named(release.variable(), default.join("runsc"))
    }

    /// The unmodified client of a release.
    ///
    /// # Panics
    /// If it has gone since the stage was set.
    #[must_use]
    pub fn client(&self, release: Release) -> PathBuf {
        self.find_client(release)
            .expect("the client was there when the stage was set")
    }

    /// The binary that must be found serving: ours, or the client's own when comparing.
    #[must_use]
    pub fn server(&self, release: Release) -> PathBuf {
        self.gofer.clone().unwrap_or_else(|| self.client(release))
    }

    /// A new empty folder on the workspace's own file system, gone when dropped.
    ///
    /// # Panics
    /// If the file system refuses.
    #[must_use]
    pub fn scratch(&self) -> tempfile::TempDir {
        let folder = self.target.join("scratch");
        std::fs::create_dir_all(&folder).expect("target/ can be written to");
        tempfile::Builder::new()
            .prefix("e2e-")
            .tempdir_in(folder)
            .expect("target/scratch can be written to")
    }
}

/// Says why a test is skipped; nothing, which is what it then has to work with.
///
/// # Panics
/// Under `CI=true`, where nothing may be skipped.
#[must_use]
pub fn skip<T>(why: &str) -> Option<T> {
    assert!(
        env::var_os("CI").is_none_or(|ci| ci != "true"),
        "under CI nothing may be skipped: {why}"
    );
    println!("skipped: {why}");
    None
}

fn named(variable: &str, default: PathBuf) -> Result<PathBuf, String> {
    existing(env::var_os(variable).map_or(default, PathBuf::from))
}

fn existing(path: PathBuf) -> Result<PathBuf, String> {
    path.canonicalize()
        .map_err(|cause| format!("{} is missing ({cause})", path.display()))
}
