//! `cargo xtask rootfs`: roots for containers, below `target/rootfs`.
//!
//! Belongs here: what the end-to-end tests find in a container's root.
//! Must hold: a root already there costs no network; one half made is never taken for a whole.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    clients, packages,
    task::{self, Failure, Tried, workspace},
};

/// The Debian release the clients come from.
const SUITE: &str = "bookworm";

/// What the tests use in the Debian root, beyond the minimal base.
const DEBIAN_PACKAGES: &str = "python3,sqlite3,git,gcc,libc6-dev,make";

/// Folders a runtime mounts on; made here so that no test ever writes to a cached root.
const MOUNT_POINTS: [&str; 7] = ["dev", "etc", "mnt", "proc", "root", "sys", "tmp"];

/// Where the roots are.
pub(crate) fn folder() -> PathBuf {
    workspace().join("target/rootfs")
}

/// Makes what is missing and prints one line per root.
pub(crate) fn run() -> Result<(), Failure> {
    fs::create_dir_all(folder()).tried("cannot create target/rootfs")?;
    root("busybox", "busybox-static", make_busybox)?;
    root("debian", DEBIAN_PACKAGES, make_debian)
}

/// Makes one root aside and renames it into place; the stamp says what it was made of.
fn root(name: &str, made_of: &str, make: fn(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let path = folder().join(name);
    let stamp = folder().join(format!("{name}.stamp"));
    let is_made = path.is_dir() && fs::read_to_string(&stamp).is_ok_and(|text| text == made_of);
    if !is_made {
        println!("{name}: making {}", path.display());
        let aside = folder().join(format!("{name}.partial"));
        for old in [&path, &aside] {
            remove(old)?;
        }
        make(&aside)?;
        for mount_point in MOUNT_POINTS {
            let path = aside.join(mount_point);
            fs::create_dir_all(&path).tried(format_args!("cannot create {}", path.display()))?;
        }
        fs::rename(&aside, &path).tried(format_args!("cannot create {}", path.display()))?;
        fs::write(&stamp, made_of).tried(format_args!("cannot write {}", stamp.display()))?;
    }
    println!("{name}: {}", path.display());
    Ok(())
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(cause).tried(format_args!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn make_debian(root: &Path) -> Result<(), Failure> {
    packages::need(&["debootstrap"])?;
    task::run(
        Command::new("debootstrap")
            .arg("--variant=minbase")
            .arg(format!("--include={DEBIAN_PACKAGES}"))
            .arg(SUITE)
            .arg(root)
            .arg(mirror()?)
            .stdout(
                fs::File::create(folder().join("debootstrap.log")).tried("cannot write a log")?,
            ),
    )?;
    // A runtime mounts its own over these; what debootstrap put there would only be counted.
    for hidden in ["dev", "proc"] {
        remove(&root.join(hidden))?;
    }
    Ok(())
}

/// The archive the machine itself uses.
fn mirror() -> Result<String, Failure> {
    let (_, sources) = clients::machine_sources(Path::new("/etc/apt"), SUITE)?;
    mirror_of(&sources)
        .map(str::to_owned)
        .ok_or_else(|| Failure(format!("no address of an archive in: {sources}")))
}

fn mirror_of(sources: &str) -> Option<&str> {
    let active = sources.lines().filter(|line| !line.starts_with('#'));
    active
        .flat_map(str::split_whitespace)
        .find(|word| word.contains(":/") && !word.starts_with('['))
}

fn make_busybox(root: &Path) -> Result<(), Failure> {
    let downloads = folder().join("download");
    remove(&downloads)?;
    fs::create_dir_all(&downloads).tried("cannot create a folder for a download")?;
    task::run(
        Command::new("apt-get")
            .args([
                "-qq",
                "-o",
                "APT::Sandbox::User=root",
                "download",
                "busybox-static",
            ])
            .current_dir(&downloads),
    )?;
    let package = fs::read_dir(&downloads)
        .tried("cannot list a download")?
        .flatten()
        .next()
        .ok_or_else(|| Failure("apt-get download left no busybox-static".into()))?;
    task::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(package.path())
            .arg(root),
    )?;
    remove(&downloads)?;
    remove(&root.join("usr"))?;
    link_applets(&root.join("bin"))
}

fn link_applets(bin: &Path) -> Result<(), Failure> {
    let busybox = bin.join("busybox");
    let output = Command::new(&busybox)
        .arg("--list")
        .output()
        .tried(format_args!("cannot run {}", busybox.display()))?;
    let applets = String::from_utf8_lossy(&output.stdout);
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        let link = bin.join(applet);
        symlink("busybox", &link).tried(format_args!("cannot create {}", link.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::mirror_of;

    #[test]
    fn the_mirror_is_the_address_in_either_form_of_sources() {
        let stanza = "Types: deb\n# was u:/old\nURIs: u:/main\nSuites: bookworm\n";
        assert_eq!(mirror_of(stanza), Some("u:/main"));
        let line = "deb [signed-by=/usr/share/key] u:/main bookworm main\n";
        assert_eq!(mirror_of(line), Some("u:/main"));
        assert_eq!(mirror_of("Types: deb\n"), None);
    }
}
