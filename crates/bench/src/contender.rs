//! Who is compared: gofer binaries, all started in the same way.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use client::{Client, Mounted};
use rig::parent::{Dialect, Gofer, Parent};

use crate::echo::SPIN_VARIABLE;
use crate::failure::{Failure, Result, Tried};
use crate::tree::Tree;

/// A gofer binary.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) dialect: Dialect,
}

/// A gofer that runs, and what its start took.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) gofer: Gofer,
    /// One per mount; the root's is first.
    pub(crate) clients: Vec<(Client, Mounted)>,
    pub(crate) until_list: Duration,
    pub(crate) until_mount: Duration,
}

/// `NAME=PATH:DIALECT`
impl FromStr for Contender {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let form = || format!("{text:?} is not NAME=PATH:DIALECT");
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        let (path, dialect) = rest.rsplit_once(':').ok_or_else(form)?;
        Ok(Self {
            name: name.to_owned(),
            program: path.into(),
            dialect: dialect_named(dialect)?,
        })
    }
}

fn dialect_named(name: &str) -> Result<Dialect> {
    match name {
        "v2022-12" => Ok(Dialect::V2022_12),
        "v2024-03" | "v2024-07" => Ok(Dialect::V2024),
        "v2026-08" => Ok(Dialect::V2026_08),
        _ => Err(
            format!("no dialect {name:?}; there are v2022-12, v2024-03, v2024-07, v2026-08").into(),
        ),
    }
}

impl Contender {
    pub(crate) fn new(name: &str, program: &Path, dialect: Dialect) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            dialect,
        }
    }

    /// What starts it without directfs.
    pub(crate) fn parent(&self, tree: &Tree, mounts: usize) -> Result<Parent> {
        let bundle = tree.bundle(mounts)?;
        let confs = vec!["lisafs:none"; mounts];
        let mut parent = Parent::new(&self.program, self.dialect, &bundle, &confs)
            .flag("--network=none")
            .flag("--ignore-cgroups=true");
        if self.dialect != Dialect::V2022_12 {
            parent = parent.flag("--directfs=false");
        }
        if let Ok(us) = std::env::var(SPIN_VARIABLE) {
            parent = parent.variable(&format!("{SPIN_VARIABLE}={us}"));
        }
        Ok(parent)
    }

    /// Starts it, waits for its list of mounts, and mounts all.
    pub(crate) fn start(&self, tree: &Tree, mounts: usize) -> Result<Running> {
        let parent = self.parent(tree, mounts)?;
        let started = Instant::now();
        let mut gofer = parent
            .start()
            .tried(format_args!("starting {}", self.name))?;
        gofer.release();
        let list = gofer.mounts()?;
        let until_list = started.elapsed();
        if list.is_empty() {
            return Err(format!("{} ended before it wrote its mounts", self.name).into());
        }
        let mut until_mount = None;
        let mut clients = Vec::new();
        for socket in std::mem::take(&mut gofer.sockets) {
            clients.push(Client::connect(socket).tried("Mount")?);
            until_mount.get_or_insert_with(|| started.elapsed());
        }
        Ok(Running {
            gofer,
            clients,
            until_list,
            until_mount: until_mount.ok_or("no connection")?,
        })
    }
}

impl Running {
    /// Disconnects; how long the gofer then took to exit.
    pub(crate) fn end(mut self) -> Result<Duration> {
        self.clients.clear();
        let left = Instant::now();
        self.gofer.wait().tried("waiting for the gofer's end")?;
        Ok(left.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_a_path_and_a_dialect() {
        let peer: Contender = "old=/opt/a:b/runsc:v2022-12".parse().expect("a peer");
        assert_eq!(
            (peer.name.as_str(), peer.program.as_path(), peer.dialect),
            ("old", Path::new("/opt/a:b/runsc"), Dialect::V2022_12)
        );
        for wrong in ["", "x", "x=/y", "x=/y:v1"] {
            assert!(wrong.parse::<Contender>().is_err(), "{wrong:?}");
        }
    }
}
