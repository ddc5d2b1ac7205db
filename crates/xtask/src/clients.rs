//! `cargo xtask clients`: the unmodified `runsc` releases of Debian, below `target/clients`.
//!
//! Belongs here: which releases, and how to fetch them without touching what is installed.
//! Must hold: no host is named (the machine's own apt sources say where Debian is); apt's lists,
//! caches and downloads stay in a private folder; a client already there costs no network.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    progress::Progress,
    task::{Failure, Tried, workspace},
};

/// One release of `runsc` as Debian 12 carries it.
struct Client {
    /// The specs' name for it, and the folder's.
    name: &'static str,
    /// The suite of Debian that has it.
    suite: &'static str,
    /// The day in Debian's version number, and in what `runsc --version` prints.
    day: &'static str,
}

const CLIENTS: [Client; 2] = [
    Client {
        name: "v2022-12",
        suite: "bookworm",
        day: "20221219",
    },
    Client {
        name: "v2024-07",
        suite: "bookworm-backports",
        day: "20240729",
    },
];

/// Suites whose presence marks an entry of the machine's sources as Debian 12's main archive.
const ARCHIVE_SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-backports"];

/// Fetches what is missing and prints one line per client.
pub(crate) fn run() -> Result<(), Failure> {
    for client in &CLIENTS {
        let runsc = path(client);
        let version = match version(&runsc, client) {
            Ok(version) => version,
            Err(_) => fetch(client, &runsc)?,
        };
        println!("{}: {} ({version})", client.name, runsc.display());
    }
    Ok(())
}

/// Where the newest client is once [`run`] has succeeded.
pub(crate) fn newest() -> PathBuf {
    path(&CLIENTS[CLIENTS.len() - 1])
}

/// The names of all clients and where they are once [`run`] has succeeded.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, PathBuf)> {
    CLIENTS.iter().map(|client| (client.name, path(client)))
}

/// Tests and people look below the workspace's `target`, wherever cargo builds to.
fn folder() -> PathBuf {
    workspace().join("target/clients")
}

fn path(client: &Client) -> PathBuf {
    folder().join(client.name).join("runsc")
}

/// What `runsc --version` says first, if it is the release wanted.
fn version(runsc: &Path, client: &Client) -> Result<String, Failure> {
    let shown = runsc.display();
    let output = Command::new(runsc)
        .arg("--version")
        .output()
        .tried(format_args!("cannot run {shown}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    if output.status.success() && line.contains(client.day) {
        return Ok(line.to_owned());
    }
    Err(Failure(format!(
        "{shown} --version says {line:?}, expected a version of {}: delete it and run `cargo xtask \
         clients` again; if it comes back, Debian's {} no longer carries that release",
        client.day, client.suite
    )))
}

/// Downloads, unpacks, checks, and only then puts the binary where it belongs, in one rename.
fn fetch(client: &Client, runsc: &Path) -> Result<String, Failure> {
    let private = folder().join(format!(".fetch-{}-{}", client.name, std::process::id()));
    let fetched = fetch_into(&private, client, runsc);
    // The folder is ours alone; a leftover costs some megabytes and nothing else.
    _ = fs::remove_dir_all(&private);
    fetched
}

fn fetch_into(private: &Path, client: &Client, runsc: &Path) -> Result<String, Failure> {
    let apt = Apt::new(private, client.suite)?;
    let progress = Progress::new(client.name, 3);
    progress.step("what Debian has");
    apt.run("update", &[])?;
    progress.step("the package");
    apt.run("download", &["runsc"])?;
    progress.step("unpacking it");
    let package = downloaded(private, client)?;
    let unpacked = private.join("unpacked");
    quietly(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(&unpacked),
    )?;
    let binary = unpacked.join("usr/bin/runsc");
    let version = version(&binary, client)?;
    make_folder(&folder().join(client.name))?;
    fs::rename(&binary, runsc).tried(format_args!("cannot create {}", runsc.display()))?;
    Ok(version)
}

/// The one package file `apt-get download` left.
fn downloaded(private: &Path, client: &Client) -> Result<PathBuf, Failure> {
    fs::read_dir(private)
        .tried(format_args!("cannot list {}", private.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| {
            Failure(format!(
                "apt-get download left no runsc of {}",
                client.suite
            ))
        })
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).tried(format_args!("cannot create {}", folder.display()))
}

/// `apt-get` with sources, lists and caches of its own.
struct Apt<'a> {
    private: &'a Path,
    suite: &'a str,
    options: Vec<OsString>,
}

impl<'a> Apt<'a> {
    fn new(private: &'a Path, suite: &'a str) -> Result<Self, Failure> {
        make_folder(&private.join("lists/partial"))?;
        make_folder(&private.join("cache/archives/partial"))?;
        let (name, text) = machine_sources(Path::new("/etc/apt"), suite)?;
        let sources = private.join(name);
        fs::write(&sources, text).tried(format_args!("cannot write {}", sources.display()))?;
        let option = |key: &str, value: &Path| {
            let mut option = OsString::from(format!("{key}="));
            option.push(value);
            option
        };
        let options = vec![
            option("Dir::Etc::sourcelist", &sources),
            option("Dir::Etc::sourceparts", Path::new("/nonexistent")),
            option("Dir::State::lists", &private.join("lists")),
            option("Dir::Cache", &private.join("cache")),
            // The folder may be out of reach for apt's own user; without this it warns.
            option("APT::Sandbox::User", Path::new("root")),
        ];
        Ok(Self {
            private,
            suite,
            options,
        })
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Result<(), Failure> {
        let mut apt = Command::new("apt-get");
        apt.current_dir(self.private).arg("-q");
        for option in &self.options {
            apt.arg("-o").arg(option);
        }
        quietly(apt.arg(verb).args(arguments)).map_err(|failure| {
            Failure(format!(
                "apt-get {verb} of {} failed: {failure}; check the machine's network and apt \
                 sources, or copy a runsc of that release to target/clients by hand",
                self.suite
            ))
        })
    }
}

/// Runs a command whose output matters only if it fails.
fn quietly(command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().tried(format_args!(
        "cannot start {program} (a Debian machine has it)"
    ))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(Failure(format!(
        "{program}: {}: {}",
        output.status,
        told.trim()
    )))
}

/// Derives, from the machine's own sources, a source file that holds only `suite`.
pub(crate) fn machine_sources(
    etc_apt: &Path,
    suite: &str,
) -> Result<(&'static str, String), Failure> {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let stanzas = read(etc_apt.join("sources.list.d/debian.sources"));
    if let Some(text) = deb822_of_suite(&stanzas, suite) {
        return Ok(("one.sources", text));
    }
    let lines = read(etc_apt.join("sources.list"));
    if let Some(text) = list_of_suite(&lines, suite) {
        return Ok(("one.list", text));
    }
    Err(Failure(format!(
        "neither sources.list.d/debian.sources nor sources.list in {} names Debian 12 (bookworm): \
         the clients are Debian's packages; copy them to target/clients/NAME/runsc by hand",
        etc_apt.display()
    )))
}

/// The first stanza of Debian 12's archive, with its suites replaced.
fn deb822_of_suite(text: &str, suite: &str) -> Option<String> {
    let is_suites = |line: &&str| line.to_ascii_lowercase().starts_with("suites:");
    let names_archive = |stanza: &&str| {
        stanza
            .lines()
            .filter(is_suites)
            .any(|line| line.split_whitespace().any(is_archive_suite))
    };
    let stanza = text.split("\n\n").find(names_archive)?;
    let replaced = stanza.lines().map(|line| {
        if is_suites(&line) {
            format!("Suites: {suite}\n")
        } else {
            format!("{line}\n")
        }
    });
    Some(replaced.collect())
}

/// The first one-line entry of Debian 12's archive, with its suite replaced.
fn list_of_suite(text: &str, suite: &str) -> Option<String> {
    text.lines().map(str::split_whitespace).find_map(|words| {
        let words: Vec<&str> = words.collect();
        let names_archive =
            words.first() == Some(&"deb") && words.iter().any(|w| is_archive_suite(w));
        names_archive.then(|| {
            let replaced: Vec<&str> = words
                .iter()
                .map(|w| if is_archive_suite(w) { suite } else { w })
                .collect();
            replaced.join(" ") + "\n"
        })
    })
}

fn is_archive_suite(word: &str) -> bool {
    ARCHIVE_SUITES.contains(&word)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_stanza_keeps_everything_but_its_suites() {
        let text = "Types: deb\nURIs: u:/security\nSuites: bookworm-security\n\n\
                    Types: deb\nURIs: u:/main\nSuites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(
            deb822_of_suite(text, "bookworm-backports").unwrap(),
            "Types: deb\nURIs: u:/main\nSuites: bookworm-backports\nComponents: main\n"
        );
    }

    #[test]
    fn a_line_keeps_everything_but_its_suite() {
        let text = "# deb u:/x bookworm main\ndeb-src u:/main bookworm main\n\
                    deb [trusted=yes] u:/main bookworm main contrib\n";
        assert_eq!(
            list_of_suite(text, "bookworm-backports").unwrap(),
            "deb [trusted=yes] u:/main bookworm-backports main contrib\n"
        );
    }

    #[test]
    fn sources_of_another_debian_are_refused_with_the_way_out() {
        let empty = std::env::temp_dir().join("xtask-no-such-apt");
        let refusal = machine_sources(&empty, "bookworm").unwrap_err().to_string();
        assert!(refusal.contains("target/clients/NAME/runsc"), "{refusal}");
    }
}
