//! Which file is the `runsc` to run: named, or the first in PATH that is not ourselves.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Failure;

/// Environment variable that names the `runsc` to run.
pub(crate) const VARIABLE: &str = "GOFER_RUNSC";

/// The `runsc` that `--runsc`, then `GOFER_RUNSC`, then PATH mean.
///
/// # Errors
/// None is found, or the one named cannot be it.
pub(super) fn runsc(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named = named.or_else(|| {
        std::env::var_os(VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    });
    match named {
        Some(path) => usable(path),
        None => in_path(&std::env::var_os("PATH").unwrap_or_default()).ok_or(Failure::NoRunsc),
    }
}

fn usable(path: PathBuf) -> Result<PathBuf, Failure> {
    let why = match path.metadata() {
        Err(error) => error.to_string(),
        Ok(_) if is_ourselves(&path) => "that is this gofer itself".to_owned(),
        Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => {
            "it is not an executable file".to_owned()
        }
        Ok(_) => return Ok(path),
    };
    Err(Failure::BadRunsc { path, why })
}

fn in_path(path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join("runsc"))
        .find_map(|path| usable(path).ok())
}

/// Links to us may be called `runsc`: file names say nothing, the inode does.
fn is_ourselves(path: &Path) -> bool {
    let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    matches!((identity(path), identity(Path::new("/proc/self/exe"))), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_to_ourselves_is_passed_over_in_path() {
        let (ours, real) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink("/proc/self/exe", ours.path().join("runsc")).unwrap();
        std::fs::write(real.path().join("runsc"), "").unwrap();
        let path = std::env::join_paths([ours.path(), real.path()]).unwrap();
        assert_eq!(in_path(&path), None, "the second cannot be executed");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(real.path().join("runsc"), executable).unwrap();
        assert_eq!(in_path(&path), Some(real.path().join("runsc")));
        assert!(matches!(
            usable(ours.path().join("runsc")),
            Err(Failure::BadRunsc { .. })
        ));
    }
}
