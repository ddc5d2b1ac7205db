//! A user without any privilege, and without `newuidmap`: one id is all there is to map.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![forbid(unsafe_code)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
};

use e2e::stage::{Release, Stage};

/// Nobody in particular, here and on any host.
const SOMEBODY: u32 = 65_533;

/// A program where anybody may execute it.
fn open_to_all(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_user_without_privileges_and_newuidmap_runs_a_command_under_our_gofer() {
    let Some(stage) = Stage::set() else { return };
    for release in Release::ALL {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (runsc, gofer) = (folder.path().join("runsc"), folder.path().join("gofer"));
        open_to_all(&stage.client(release), &runsc);
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        chown(&home, Some(SOMEBODY), Some(SOMEBODY)).unwrap();

        let mut command = Command::new("/usr/bin/setpriv");
        let id = SOMEBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        if let Some(ours) = &stage.gofer {
            open_to_all(ours, &gofer);
            command.arg(&gofer).args(["runsc", "--runsc"]);
            command.arg(&runsc).arg("--");
        } else {
            command.arg(&runsc);
        }
        let output = command
            .args([
                "--rootless",
                "--network=none",
                "--ignore-cgroups",
                "--debug",
            ])
            .arg(format!("--root={}", home.join("state").display()))
            .arg(format!("--debug-log={}/", home.join("logs").display()))
            .args([
                "do",
                "/bin/sh",
                "-c",
                "/usr/bin/id -u; /bin/cat /etc/hostname",
            ])
            .env_clear()
            // Where no `newuidmap` is.
            .env("PATH", "/nowhere")
            .env("TMPDIR", &home)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{release:?}: {output:?}");
        assert!(said.starts_with("0\n"), "{release:?}: {said}");
        if stage.gofer.is_some() {
            assert!(logs(&home).contains("in place of gVisor's"), "{release:?}");
        }
    }
}

/// What all processes of the client have logged.
fn logs(home: &Path) -> String {
    let files = fs::read_dir(home.join("logs")).unwrap();
    let text = |file: fs::DirEntry| fs::read(file.path()).unwrap();
    files
        .map(|file| String::from_utf8_lossy(&text(file.unwrap())).into_owned())
        .collect()
}
