//! Containers of an unmodified `runsc`, once with its own gofer and once through `gofer runsc`.
//!
//! Belongs here: what a container does, and for how long. Belongs elsewhere: whether it does it
//! right (`e2e`).
//! Must hold: both run the same bundle, in turn; the first of a round changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::parent::Dialect;
use serde_json::json;
use tempfile::TempDir;

use crate::contender::Contender;
use crate::failure::{Result, Tried};
use crate::progress::Progress;
use crate::results::{Key, Results, Section};

/// Prints the name and the nanoseconds of each piece of work that succeeds. `ls` ends with 1 when
/// a single file could not be looked at, as happens with every gofer under the newer client.
const WORK: &str = r#"
timed() {
    name=$1
    most=$2
    shift 2
    begun=$(date +%s%N)
    "$@" >/dev/null 2>&1
    status=$?
    ended=$(date +%s%N)
    if [ $status -le $most ]; then echo "$name $((ended - begun))"; else echo "$name failed"; fi
}
git_add_status() { git add . && git status --porcelain; }
timed find 0 find / -xdev
timed tar 0 tar -C / -cf - usr/lib
timed ls 1 ls -lR /usr
cd /mnt
timed compile 0 gcc -O1 -o program program.c
git init -q . 2>/dev/null
timed git 0 git_add_status
"#;

/// What a container's work is called, in the order of the report.
pub(crate) const CASES: [&str; 6] = ["true", "find", "tar", "git", "ls", "compile"];
/// Files that git is to add.
const FILES: usize = 2000;
/// Cold starts in each round, of each.
const STARTS: usize = 2;
/// A container that takes longer hangs.
const SECONDS_MAX: &str = "120";
const FLAGS: [&str; 4] = [
    "--network=none",
    "--ignore-cgroups",
    "--overlay2=none",
    "--platform=ptrace",
];

/// A way to run containers: one client, files by its gofer's requests or by itself.
struct Way<'c> {
    client: &'c Contender,
    directfs: bool,
}

/// Every way that exists: the oldest client knows requests alone.
fn ways(contenders: &[Contender]) -> Vec<Way<'_>> {
    let mut ways = Vec::new();
    for client in &contenders[1..] {
        match client.dialect {
            Dialect::V2022_12 => ways.push(Way {
                client,
                directfs: false,
            }),
            Dialect::V2024 => ways.extend([true, false].map(|directfs| Way { client, directfs })),
            // No release of it can be had here that runs containers with the flags above.
            Dialect::V2026_08 => {}
        }
    }
    ways
}

impl Way<'_> {
    /// The case's name in the report.
    fn case(&self, work: &str) -> String {
        let files = if self.directfs {
            "directfs"
        } else {
            "requests"
        };
        format!("{work}_{files}_{}", self.client.name)
    }

    /// `runsc FLAGS… run`, through ours or not.
    fn command(&self, ours: Option<&Path>, scene: &Scene, bundle: &Path, id: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", SECONDS_MAX]);
        if let Some(gofer) = ours {
            command.arg(gofer).args(["runsc", "--runsc"]);
            command.arg(&self.client.program).arg("--");
        } else {
            command.arg(&self.client.program);
        }
        command.arg(format!(
            "--root={}",
            scene.folder.path().join("state").display()
        ));
        command.args(FLAGS);
        if self.client.dialect != Dialect::V2022_12 {
            command.arg(format!("--directfs={}", self.directfs));
        }
        command.args(["run", "--bundle"]).arg(bundle).arg(id);
        command.env("TMPDIR", scene.folder.path());
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Bundles and the volume they share.
struct Scene {
    folder: TempDir,
    number: usize,
}

impl Scene {
    fn new(parent: &Path, rootfs: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("gofer-bench-runsc-")
            .tempdir_in(parent)
            .tried(parent.display())?;
        let scene = Self { folder, number: 0 };
        fs::create_dir(scene.folder.path().join("state"))?;
        fs::create_dir(scene.volume())?;
        for (name, script) in [("true", "true"), ("work", WORK)] {
            let bundle = scene.folder.path().join(name);
            fs::create_dir(&bundle)?;
            let spec = spec(rootfs, &scene.volume(), script);
            fs::write(bundle.join("config.json"), spec.to_string())?;
        }
        Ok(scene)
    }

    fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    /// What git and the compiler find, as if nobody had been there.
    fn clean(&self) -> Result<()> {
        fs::remove_dir_all(self.volume())?;
        fs::create_dir(self.volume())?;
        let program = "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 0; }\n";
        fs::write(self.volume().join("program.c"), program)?;
        for file in 0..FILES {
            let dir = self.volume().join(format!("dir{}", file % 20));
            if file < 20 {
                fs::create_dir(&dir)?;
            }
            fs::write(
                dir.join(format!("file{file}")),
                format!("content of file {file}\n"),
            )?;
        }
        Ok(())
    }

    /// Runs one of the bundles; how long it took, and what it printed.
    fn run(
        &mut self,
        way: &Way<'_>,
        ours: Option<&Path>,
        name: &str,
    ) -> Result<(Duration, String)> {
        self.number += 1;
        let bundle = self.folder.path().join(name);
        let id = format!("bench-{}-{}", std::process::id(), self.number);
        let mut command = way.command(ours, self, &bundle, &id);
        let begun = Instant::now();
        let output = command.output().tried("timeout")?;
        let took = begun.elapsed();
        if !output.status.success() {
            return Err(format!("{name}: {}", output.status).into());
        }
        Ok((took, String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}

fn spec(rootfs: &Path, volume: &Path, script: &str) -> serde_json::Value {
    let mount = |kind: &str, destination: &str| json!({"destination": destination, "type": kind, "source": kind});
    let capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID"];
    let own = [("pid"), ("mount"), ("ipc"), ("uts"), ("network")].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": {"path": rootfs, "readonly": true},
        "hostname": "bench",
        "mounts": [
            mount("proc", "/proc"), mount("tmpfs", "/dev"), mount("tmpfs", "/tmp"),
            {"destination": "/mnt", "type": "bind", "source": volume, "options": ["rbind", "rw"]},
        ],
        "linux": {"namespaces": own},
    })
}

/// How many steps of progress so many rounds take.
pub(crate) fn steps(contenders: &[Contender], rounds: usize) -> usize {
    rounds * ways(contenders).len()
}

/// The first contender is ours; the others are clients too.
pub(crate) fn measure(
    parent: &Path,
    rootfs: &Path,
    contenders: &[Contender],
    rounds: usize,
    progress: &Progress,
    results: &mut Results,
) -> Result<()> {
    let mut scene = Scene::new(parent, rootfs)?;
    results.settings.push(format!("runsc {}", FLAGS.join(" ")));
    let ours = contenders[0].program.as_path();
    for round in 0..rounds {
        for way in ways(contenders) {
            let mut turns = [Some(ours), None];
            turns.rotate_left(round % 2);
            for through in turns {
                let who = if through.is_some() {
                    &contenders[0]
                } else {
                    way.client
                };
                if let Err(why) = one(&mut scene, &way, through, &who.name, results) {
                    results.note(format!("{} of {}: {why}", way.case("containers"), who.name));
                }
            }
            progress.step("containers");
        }
    }
    Ok(())
}

fn one(
    scene: &mut Scene,
    way: &Way<'_>,
    ours: Option<&Path>,
    who: &str,
    results: &mut Results,
) -> Result<()> {
    let mut add = |work: &str, time: Duration| {
        let case = way.case(work);
        let key = Key {
            section: Section::EndToEnd,
            case: &case,
            metric: "ms",
            unit: "ms",
        };
        results.add(key, who, time.as_secs_f64() * 1e3);
        results.count(&case, who, 1);
    };
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(scene.run(way, ours, "true")?.0);
    }
    // One value for each round, so that rounds can be compared.
    let sum: Duration = starts.iter().sum();
    add("true", sum / STARTS as u32);
    scene.clean()?;
    let (_, printed) = scene.run(way, ours, "work")?;
    let mut failed = Vec::new();
    for work in &CASES[1..] {
        let line = printed.lines().find_map(|line| line.strip_prefix(work));
        match line.and_then(|rest| rest.trim().parse().ok()) {
            Some(ns) => add(work, Duration::from_nanos(ns)),
            None => failed.push(way.case(work)),
        }
    }
    for case in failed {
        results.note(format!("{case} of {who}: the work failed in the container"));
    }
    Ok(())
}
