//! `cargo xtask reproduce`: the release build of one commit, twice, in folders of different names.
//!
//! Must hold: what it takes to get the same bytes is an environment that anybody can set, see
//! `docs/threat-model.md`; nothing here changes the sources or the result.

use std::{
    env,
    ffi::OsString,
    fs, iter,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::task::{self, Failure, Tried, cargo, workspace};

/// Where the builds happen, below the target folder: paths of different length and depth.
const FOLDERS: [&str; 2] = ["first", "second/in/a/longer/path"];

/// The wrapper of `.cargo/config.toml`, to be found on the PATH.
const WRAPPER: &str = "rustc-static";

/// Builds what is committed, and fails unless both binaries have the same bytes. Takes minutes.
pub(crate) fn run() -> Result<(), Failure> {
    let built = FOLDERS.map(|name| build(&task::target().join("reproduce").join(name)));
    let [first, second] = built;
    let (first, second) = (read(&first?)?, read(&second?)?);
    if first == second {
        println!(
            "reproducible: both binaries have the same {} bytes",
            first.len()
        );
        return Ok(());
    }
    let differ = first.iter().zip(&second).position(|(a, b)| a != b);
    Err(Failure(format!(
        "two builds of one commit differ: {} and {} bytes, first at {differ:?}",
        first.len(),
        second.len()
    )))
}

/// The usual reason why two builds differ: fails if the binary names the folder it was built in.
pub(crate) fn check_names(binary: &Path) -> Result<(), Failure> {
    use std::os::unix::ffi::OsStrExt;
    let (bytes, folder) = (read(binary)?, workspace());
    let name = folder.as_os_str().as_bytes();
    if bytes.windows(name.len()).any(|part| part == name) {
        return Err(Failure(format!(
            "{} holds the name of the folder it was built in, {}: another folder would give \
             another binary",
            binary.display(),
            folder.display()
        )));
    }
    Ok(())
}

/// Unpacks the commit into an empty folder and builds it there; the binary.
fn build(folder: &Path) -> Result<PathBuf, Failure> {
    if folder.exists() {
        fs::remove_dir_all(folder).tried(format_args!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).tried(format_args!("cannot make {}", folder.display()))?;
    let mut archive = Command::new("git")
        .args(["archive", "HEAD"])
        .current_dir(workspace())
        .stdout(Stdio::piped())
        .spawn()
        .tried("cannot start git")?;
    let packed = archive.stdout.take();
    let packed = packed.ok_or_else(|| Failure("git has no output".into()))?;
    task::run(
        Command::new("tar")
            .arg("x")
            .current_dir(folder)
            .stdin(packed),
    )?;
    let archived = archive.wait().tried("cannot wait for git")?;
    if !archived.success() {
        return Err(Failure(format!("git archive: {archived}")));
    }
    let target = folder.join("target");
    task::run(
        cargo(&["build", "--release", "--locked", "--package", "gofer"])
            .current_dir(folder)
            .env("CARGO_TARGET_DIR", &target)
            // Cargo mixes the wrapper's path, as it is told it, into the names of symbols, and their
            // order follows from those: told a bare name, it mixes in the same everywhere.
            .env("RUSTC_WORKSPACE_WRAPPER", WRAPPER)
            .env("PATH", path_with(&folder.join(".cargo"))?),
    )?;
    Ok(target.join("release/gofer"))
}

fn path_with(first: &Path) -> Result<OsString, Failure> {
    let usual = env::var_os("PATH").unwrap_or_default();
    let all = iter::once(first.to_path_buf()).chain(env::split_paths(&usual));
    env::join_paths(all).tried("a folder's name cannot be on the PATH")
}

fn read(binary: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(binary).tried(format_args!("cannot read {}", binary.display()))
}
