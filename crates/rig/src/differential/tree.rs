//! The trees: how they start, and what they must still have in common at the end.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};

use crate::must;

/// A file on the host, by device and inode.
pub(super) type HostFile = (u64, u64);

/// Fills a tree with one file of every type.
pub(super) fn plant(root: &Path) {
    for dir in ["d0", "d1", "d0/sub"] {
        must(std::fs::create_dir(root.join(dir)), dir);
    }
    let long: Vec<u8> = (0..70_000_u32).map(|i| (i % 253) as u8).collect();
    must(std::fs::write(root.join("f0"), "some content"), "f0");
    must(std::fs::write(root.join("d0/f1"), long), "f1");
    must(
        std::fs::hard_link(root.join("f0"), root.join("d0/twin")),
        "twin",
    );
    for (target, link) in [("f0", "l0"), ("nowhere", "d1/l1"), ("d0", "ldir")] {
        must(symlink(target, root.join(link)), link);
    }
    let node = |name: &str, kind, mode: u32, device| {
        let mode = Mode::from_raw_mode(mode);
        must(mknodat(CWD, root.join(name), kind, mode, device), name);
    };
    node("p0", FileType::Fifo, 0o644, 0);
    node("d0/null", FileType::CharacterDevice, 0o666, makedev(1, 3));
    node("b0", FileType::BlockDevice, 0o600, makedev(7, 99));
    node("d1/stale", FileType::Socket, 0o755, 0);
    for (file, name, value) in [("f0", "user.a", "1"), ("d0", "user.b", "22")] {
        let flags = XattrFlags::empty();
        let path = root.join(file);
        must(
            rustix::fs::lsetxattr(path, name, value.as_bytes(), flags),
            name,
        );
    }
}

/// Calls `see` for each file below, root first, in the order of their paths.
pub(super) fn each(root: &Path, see: &mut dyn FnMut(&Path, &std::fs::Metadata)) {
    let stat = must(std::fs::symlink_metadata(root), "a file of the tree");
    see(root, &stat);
    if !stat.is_dir() {
        return;
    }
    let entries = must(std::fs::read_dir(root), "a directory of the tree");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| must(entry, "an entry").path())
        .collect();
    paths.sort();
    for path in paths {
        each(&path, see);
    }
}

/// A path of the file, if it still has one.
pub(super) fn find(root: &Path, file: HostFile) -> Option<PathBuf> {
    let mut found = None;
    each(root, &mut |path, stat| {
        if (stat.dev(), stat.ino()) == file {
            found = Some(path.to_owned());
        }
    });
    found
}

/// Everything that must be equal, as text, by path.
pub(super) fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut first_names: HashMap<HostFile, PathBuf> = HashMap::new();
    each(root, &mut |path, stat| {
        let name = path.strip_prefix(root).unwrap_or(path).to_owned();
        let same_as = first_names
            .entry((stat.dev(), stat.ino()))
            .or_insert_with(|| name.clone())
            .clone();
        let kind = stat.file_type();
        let mut text = format!(
            "mode {:o} owner {}:{} links {} device {:x} same as {}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.nlink(),
            stat.rdev(),
            same_as.display()
        );
        if kind.is_file() {
            let mut hash = DefaultHasher::new();
            must(std::fs::read(path), "a file's content").hash(&mut hash);
            text += &format!(" size {} content {:x}", stat.size(), hash.finish());
        } else if kind.is_symlink() {
            let target = must(std::fs::read_link(path), "a link");
            text += &format!(" to \"{}\"", target.as_os_str().as_bytes().escape_ascii());
        }
        if !kind.is_socket() && !kind.is_fifo() {
            text += &format!(" attributes {:?}", attributes(path));
        }
        all.insert(name, text);
    });
    all
}

/// The extended attributes of a file.
pub(super) fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names.truncate(length);
    names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}

/// The first path at which two trees differ.
pub(super) fn difference(ours: &Path, reference: &Path) -> Option<String> {
    let (ours, reference) = (describe(ours), describe(reference));
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(reference.keys()).collect();
    paths.into_iter().find_map(|path| {
        let (ours, reference) = (ours.get(path), reference.get(path));
        let nothing = "nothing".to_owned();
        (ours != reference).then(|| {
            format!(
                "at {}:\n  ours      {}\n  reference {}",
                path.display(),
                ours.unwrap_or(&nothing),
                reference.unwrap_or(&nothing)
            )
        })
    })
}

/// Gives the reference's file the mode, owner, length and attributes that ours has, after a
/// difference that was allowed.
pub(super) fn level(ours: &Path, reference: &Path) {
    let stat = must(std::fs::symlink_metadata(ours), "our file");
    if !stat.is_symlink() {
        let (have, want) = (attributes(reference), attributes(ours));
        for name in have.keys().filter(|name| !want.contains_key(*name)) {
            must(rustix::fs::lremovexattr(reference, name.as_str()), name);
        }
        for (name, value) in want {
            let flags = XattrFlags::empty();
            must(
                rustix::fs::lsetxattr(reference, name.as_str(), &value, flags),
                &name,
            );
        }
    }
    if stat.is_file() {
        let file = must(
            std::fs::File::options().write(true).open(reference),
            "the reference's file",
        );
        must(file.set_len(stat.size()), "the length");
    }
    must(
        std::os::unix::fs::lchown(reference, Some(stat.uid()), Some(stat.gid())),
        "the owner",
    );
    if !stat.is_symlink() {
        let mode = Mode::from_raw_mode(stat.mode() & 0o7777);
        must(rustix::fs::chmod(reference, mode), "the mode");
    }
}
