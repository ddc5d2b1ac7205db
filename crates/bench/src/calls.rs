//! How many system calls a start takes, counted by `strace -c`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use client::Client;

use crate::contender::Contender;
use crate::failure::{Result, Tried};
use crate::results::{Key, Results, Section};
use crate::tree::Tree;

/// Each contender once: the number hardly varies.
pub(crate) fn measure(tree: &Tree, contenders: &[Contender], results: &mut Results) {
    for contender in contenders {
        match count(tree, contender) {
            Ok(calls) => {
                let key = Key {
                    section: Section::More,
                    case: "startup_calls",
                    metric: "count",
                    unit: "calls",
                };
                results.add(key, &contender.name, calls);
                results.count("startup_calls", &contender.name, 1);
            }
            Err(why) => results.note(format!("startup_calls of {}: {why}", contender.name)),
        }
    }
}

/// From exec to exit with one mount, that was mounted once.
fn count(tree: &Tree, contender: &Contender) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let (counts, script) = (folder.path().join("counts"), folder.path().join("traced"));
    // What is executed must be called as runsc calls it.
    symlink(&contender.program, folder.path().join("runsc-gofer"))?;
    let text = format!(
        "#!/bin/sh\nPATH={}:/usr/local/bin:/usr/bin:/bin\nexport PATH\n\
         exec strace -f -c -U calls,name -o {} runsc-gofer \"$@\"\n",
        folder.path().display(),
        counts.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let traced = Contender::new(&contender.name, &script, contender.dialect);
    // The list of mounts is not read: the tracer holds its pipe open too, so it has no end.
    let mut gofer = traced.parent(tree, 1)?.start().tried("strace")?;
    gofer.release();
    drop(Client::connect(gofer.take_socket()?).tried("Mount")?);
    gofer.wait().tried("waiting for the gofer's end")?;
    let text = fs::read_to_string(&counts).tried("strace (is it installed?)")?;
    let total = text.lines().find(|line| line.ends_with("total"));
    let total = total.and_then(|line| line.split_whitespace().next());
    total
        .ok_or("strace counted nothing")?
        .parse()
        .tried("strace")
}
