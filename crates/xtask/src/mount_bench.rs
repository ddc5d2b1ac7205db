//! `cargo xtask mount-bench`: a `gofer mount` beside the bare file system and Debian's `bindfs`.
//!
//! Belongs here: what is measured, in which order, and the table. Elsewhere: requests one by one
//! (`bench`).
//! Must hold: all three places lie on one file system and take their turns round by round.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    packages,
    task::{self, Failure, Tried, cargo, workspace},
};

const PACKAGES: [&str; 5] = ["bindfs", "dbench", "fio", "fuse3", "git"];
/// What stands around the table in a page.
const MARKS: [&str; 2] = ["<!-- mount: begin -->\n", "<!-- mount: end -->\n"];
/// Bytes in the file that `fio` works on.
const FILE: &str = "128m";
/// Longer than the kernel believes names and attributes.
const FORGOTTEN: Duration = Duration::from_millis(1500);

/// What `cargo xtask mount-bench` accepts.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; a figure is the median over them
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long fio and dbench run each time
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// The folder to work in
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Put the table into this page, between its marks
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Something measured: what it is called, and in which unit.
type Case = (&'static str, &'static str);
/// Figures of one place, in the order of the cases.
type Figures = Vec<(Case, f64)>;

/// `fio`'s jobs: name, kind, bytes at a time.
const JOBS: [(&str, &str, &str); 4] = [
    ("read, 1 MiB at a time", "read", "1m"),
    ("write, 1 MiB at a time", "write", "1m"),
    ("read anywhere, 4 KiB", "randread", "4k"),
    ("write anywhere, 4 KiB", "randwrite", "4k"),
];

/// The three places, by name; what is mounted is unmounted when dropped.
struct Places {
    folder: PathBuf,
    gofer: PathBuf,
}

const NAMES: [&str; 3] = ["bare", "gofer mount", "bindfs"];

impl Places {
    fn make(folder: PathBuf, gofer: PathBuf) -> Result<Self, Failure> {
        let places = Self { folder, gofer };
        for index in 0..NAMES.len() {
            for kind in ["host", "point"] {
                let path = places.at(kind, index);
                fs::create_dir_all(&path).tried(format_args!("cannot make {}", path.display()))?;
            }
        }
        let mut mount = Command::new(&places.gofer);
        mount
            .arg("mount")
            .args([places.at("host", 1), places.at("point", 1)]);
        task::run(&mut mount)?;
        let mut bindfs = Command::new("bindfs");
        task::run(bindfs.args([places.at("host", 2), places.at("point", 2)]))?;
        Ok(places)
    }

    fn at(&self, kind: &str, index: usize) -> PathBuf {
        self.folder.join(format!("{kind}-{index}"))
    }

    /// Where to work.
    fn dir(&self, index: usize) -> PathBuf {
        self.at(if index == 0 { "host" } else { "point" }, index)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // What cannot be unmounted is told by these themselves, and must not be removed.
        let ours = Command::new(&self.gofer)
            .arg("umount")
            .arg(self.at("point", 1))
            .status();
        let theirs = Command::new("umount").arg(self.at("point", 2)).status();
        if ours.is_ok_and(|s| s.success()) && theirs.is_ok_and(|s| s.success()) {
            _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Measures, prints the table, and puts it into the page if there is one.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    packages::need(&PACKAGES)?;
    task::run(&mut cargo(&["build", "--release", "--package", "gofer"]))?;
    let folder = args
        .dir
        .clone()
        .unwrap_or_else(|| workspace().join("target/tmp"));
    let folder = folder.join(format!("mount-bench-{}", std::process::id()));
    let places = Places::make(folder, task::target().join("release/gofer"))?;
    let mut rounds: [Vec<Figures>; NAMES.len()] = Default::default();
    for round in 0..args.rounds.max(1) {
        for (index, figures) in rounds.iter_mut().enumerate() {
            eprintln!("round {}: {}", round + 1, NAMES[index]);
            figures.push(measure(&places.dir(index), args.seconds)?);
        }
    }
    let table = table(&rounds);
    print!("{table}");
    match &args.markdown {
        Some(page) => put(page, &(about()? + &table)),
        None => Ok(()),
    }
}

fn measure(dir: &Path, seconds: u32) -> Result<Figures, Failure> {
    let mut figures = Vec::new();
    for (name, kind, bytes) in JOBS {
        figures.push(((name, "MB/s"), fio(dir, kind, bytes, seconds)?));
    }
    figures.push((("dbench, 4 clients", "MB/s"), dbench(dir, seconds)?));
    let clone = dir.join("clone");
    let mut git = git();
    git.args(["clone", "--quiet", "--no-hardlinks"])
        .arg(workspace());
    figures.push((("git clone", "s"), timed(git.arg(&clone))?));
    figures.push((("git status", "s"), status(&clone)?));
    thread::sleep(FORGOTTEN);
    let again = ("git status, attributes forgotten", "s");
    figures.push((again, status(&clone)?));
    // Names alone, then what takes attributes.
    for (name, condition) in [
        ("find, by name", ["-name", "nothing"]),
        ("find, by size", ["-size", "+1000000k"]),
    ] {
        thread::sleep(FORGOTTEN);
        let mut find = Command::new("find");
        find.arg(&clone).args(condition);
        figures.push(((name, "s"), timed(&mut find)?));
    }
    thread::sleep(FORGOTTEN);
    let mut remove = Command::new("rm");
    figures.push((("rm -r", "s"), timed(remove.arg("-rf").arg(&clone))?));
    Ok(figures)
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*"]);
    git
}

fn status(clone: &Path) -> Result<f64, Failure> {
    let mut git = git();
    timed(git.arg("-C").arg(clone).args(["status", "--porcelain"]))
}

fn timed(command: &mut Command) -> Result<f64, Failure> {
    let start = Instant::now();
    output(command)?;
    Ok(start.elapsed().as_secs_f64())
}

fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command
        .output()
        .tried(format_args!("cannot start {command:?}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(Failure(format!("{command:?}: {}: {told}", output.status)))
}

fn fio(dir: &Path, kind: &str, bytes: &str, seconds: u32) -> Result<f64, Failure> {
    let mut fio = Command::new("fio");
    fio.args([
        "--name=job",
        "--filename=data",
        "--ioengine=psync",
        "--time_based",
        // It would drop what the page cache holds of the bare file, but not of one behind a mount.
        "--invalidate=0",
    ])
    .args([format!("--rw={kind}"), format!("--bs={bytes}")])
    .args([format!("--size={FILE}"), format!("--runtime={seconds}")])
    .arg("--output-format=json")
    .current_dir(dir);
    let printed = output(&mut fio)?;
    let report: Value = serde_json::from_str(&printed).tried("fio's report")?;
    let job = &report["jobs"][0];
    let side = if kind.ends_with("read") {
        "read"
    } else {
        "write"
    };
    let rate = job[side]["bw_bytes"].as_f64();
    rate.map(|rate| rate / 1e6)
        .ok_or_else(|| Failure(format!("no rate in fio's report: {printed}")))
}

fn dbench(dir: &Path, seconds: u32) -> Result<f64, Failure> {
    let mut dbench = Command::new("dbench");
    dbench
        .args(["-c", "/usr/share/dbench/client.txt", "-D"])
        .arg(dir);
    let printed = output(dbench.args(["-t", &seconds.to_string(), "4"]))?;
    let mut words = printed
        .split_whitespace()
        .skip_while(|word| *word != "Throughput");
    words
        .nth(1)
        .and_then(|rate| rate.parse().ok())
        .ok_or_else(|| Failure(format!("no throughput in dbench's report: {printed}")))
}

fn table(rounds: &[Vec<Figures>; NAMES.len()]) -> String {
    let mut table =
        "| | unit | bare | `gofer mount` | `bindfs` |\n|---|---|---|---|---|\n".to_owned();
    for (index, ((name, unit), _)) in rounds[0][0].iter().enumerate() {
        let medians = rounds.each_ref().map(|place| {
            let mut values: Vec<f64> = place.iter().map(|figures| figures[index].1).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        });
        let cells = medians.map(|value| match *unit {
            "s" => format!("{value:.3}"),
            _ => format!("{value:.0}"),
        });
        // A `String` takes everything.
        _ = writeln!(table, "| {name} | {unit} | {} |", cells.join(" | "));
    }
    table
}

/// What the figures were taken on.
fn about() -> Result<String, Failure> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").tried("no kernel release")?;
    let load = fs::read_to_string("/proc/loadavg").tried("no load average")?;
    let load = load.split(' ').next().unwrap_or_default();
    let commit = output(
        git()
            .args(["rev-parse", "--short", "HEAD"])
            .current_dir(workspace()),
    )?;
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let version = output(Command::new("bindfs").arg("--version"))?;
    Ok(format!(
        "Linux {}, {cpus} CPUs, load average {load} at the end, commit `{}`, {}.\n\n",
        kernel.trim(),
        commit.trim(),
        version.lines().next().unwrap_or_default()
    ))
}

fn put(page: &Path, text: &str) -> Result<(), Failure> {
    let shown = page.display();
    let old = fs::read_to_string(page).tried(format_args!("cannot read {shown}"))?;
    let new = between(&old, text)
        .ok_or_else(|| Failure(format!("{shown} has no place for the table: {MARKS:?}")))?;
    fs::write(page, new).tried(format_args!("cannot write {shown}"))
}

/// A page with what stands between its marks replaced.
fn between(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some([before, MARKS[0], text, MARKS[1], after].concat())
}

#[cfg(test)]
mod tests {
    use super::{MARKS, between, table};

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = format!("above\n{}old\n{}below\n", MARKS[0], MARKS[1]);
        let want = page.replace("old\n", "new\n");
        assert_eq!(between(&page, "new\n"), Some(want));
        assert_eq!(between("a page without marks", "new\n"), None);
    }

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        let place = |values: [f64; 3]| values.map(|value| vec![(("case", "s"), value)]).to_vec();
        let rounds = [
            place([3.0, 1.0, 2.0]),
            place([0.5, 0.5, 9.0]),
            place([1.0; 3]),
        ];
        assert!(table(&rounds).ends_with("| case | s | 2.000 | 0.500 | 1.000 |\n"));
    }
}
