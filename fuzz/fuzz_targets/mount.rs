//! A kernel mount: the kernel's requests on one side, with names, numbers and data of applications;
//! on the other a server that tells the truth, or one that lies.
//!
//! After each run: every request was answered once, in a form that the kernel takes, with nothing
//! from outside the tree; in front of a truthful server the mount shows the host's tree; nothing
//! outside was touched, and no descriptor and no thread is left.
#![no_main]

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use client::Client;
use fuzz::kernel::{Answer, Entry, Kernel, ROOM_MAX, Words, entries, op};
use fuzz::liar;
use fuzz::world::World;
use libfuzzer_sys::fuzz_target;
use mount::{Options, Owners};
use rig::Setup;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const STEPS_MAX: usize = 60;
const SCRIPT_BYTES_MAX: usize = 400;
const ROOT: u64 = 1;
/// Directories deeper than this are not compared.
const DEPTH_MAX: usize = 6;
const NAMES: [&[u8]; 12] = [
    b"f0", b"d0", b"d1", b"sub", b"l0", b"out", b"p0", b"s0", b"new", b"other", b"..", b"\xff\n",
];
const ATTRIBUTES: [&[u8]; 5] = [
    b"user.a",
    b"user.b",
    b"security.capability",
    b"system.posix_acl_access",
    b"x",
];
const SIZES: [u64; 8] = [0, 1, 10, 4096, 70_000, 1 << 32, i64::MAX as u64, u64::MAX];
const MODES: [u32; 8] = [
    0o644, 0o100_644, 0o104_755, 0o040_777, 0o010_600, 0o020_666, 0o140_755, 0o060_600,
];

fuzz_target!(|input: &[u8]| {
    let world = World::new();
    let mut u = Unstructured::new(input);
    let lies = u.ratio(1, 2).unwrap_or(false);
    let (socket, server) = rig::serve(&world.tree(), Setup::default());
    let (socket, liar) = match lies {
        false => (socket, None),
        true => {
            let length = u.len().min(SCRIPT_BYTES_MAX) / 2;
            let script = u.bytes(length).unwrap_or_default().to_vec();
            let (ours, theirs) = rig::pair();
            (ours, Some(liar::start(theirs, socket, script)))
        }
    };
    mounted(socket, &mut u, (!lies).then(|| world.tree()).as_deref());
    if let Some(liar) = liar {
        liar.join().expect("the liar panicked");
    }
    server.join().expect("the server panicked");
    world.check();
});

/// A mount from its first message to its end. `tree` is what it must show.
fn mounted(socket: OwnedFd, u: &mut Unstructured<'_>, tree: Option<&Path>) {
    let (client, mounted) = Client::connect(socket).expect("Mount, which is always truthful");
    let options = options(u).unwrap_or_default();
    let kind = SocketType::SEQPACKET;
    let (ours, device) =
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("sockets");
    let all_root = options.owners == Owners::AllRoot;
    let serve = std::thread::spawn(move || {
        let mounted = mount::on_device(client, &mounted.root, device, &options);
        mounted.expect("a mount").serve().expect("an orderly end");
    });
    let mut play = Play::new(ours);
    play.kernel.begin();
    let _end_of_input = play.go(u);
    if let Some(tree) = tree {
        play.compare(ROOT, tree, all_root, 0);
    }
    let gone = play.kernel.ask(op::DESTROY, 0, &Words::default());
    assert_eq!(gone.errno, 0);
    serve.join().expect("the mount panicked");
}

fn options(u: &mut Unstructured<'_>) -> Result<Options> {
    let seconds = Duration::from_secs(u64::arbitrary(u)? >> u.int_in_range(0..=63)?);
    Ok(Options {
        attributes_for: seconds,
        page_cache: bool::arbitrary(u)?,
        // A socket cannot do it; that it is tried must do no harm.
        passthrough: bool::arbitrary(u)?,
        owners: *u.choose(&[Owners::AsServed, Owners::AllRoot])?,
        files_max: *u.choose(&[1, 3, 49_152])?,
        ..Options::default()
    })
}

/// What the kernel knows of the mount.
struct Play {
    kernel: Kernel,
    nodes: Vec<u64>,
    files: Vec<u64>,
    directories: Vec<(u64, u64)>,
}

impl Play {
    fn new(end: OwnedFd) -> Self {
        Self {
            kernel: Kernel::new(end),
            nodes: vec![ROOT],
            files: Vec::new(),
            directories: Vec::new(),
        }
    }

    fn go(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..STEPS_MAX {
            if u.is_empty() {
                break;
            }
            self.step(u)?;
        }
        Ok(())
    }

    /// Something the kernel was told, almost always.
    fn node(&self, u: &mut Unstructured<'_>) -> Result<u64> {
        match u.ratio(1, 50)? {
            true => u64::arbitrary(u),
            false => Ok(*u.choose(&self.nodes)?),
        }
    }

    fn file(&self, u: &mut Unstructured<'_>) -> Result<u64> {
        match self.files.is_empty() || u.ratio(1, 50)? {
            true => u64::arbitrary(u),
            false => Ok(*u.choose(&self.files)?),
        }
    }

    fn learn(&mut self, answer: &Answer) {
        if answer.errno == 0 {
            self.nodes.push(answer.large(0));
        }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let node = self.node(u)?;
        let words = Words::default();
        let name = |u: &mut Unstructured<'_>| u.choose(&NAMES).copied();
        let size = |u: &mut Unstructured<'_>| u.choose(&SIZES).copied();
        let mode = |u: &mut Unstructured<'_>| u.choose(&MODES).copied();
        match u.int_in_range(0..=35_u8)? {
            0..=4 => {
                let answer = self.kernel.ask(op::LOOKUP, node, &words.name(name(u)?));
                self.learn(&answer);
            }
            5 => self.forget(u)?,
            6 => {
                let words = words.small(0).small(0).large(0);
                self.kernel.ask(op::GETATTR, node, &words);
            }
            7 | 8 => self.set_attributes(u, node)?,
            9 => {
                self.kernel.ask(op::READLINK, node, &words);
            }
            10 => {
                let target = <[u8; 6]>::arbitrary(u)?.map(|byte| byte.max(1));
                let words = words.name(name(u)?).name(&target);
                let answer = self.kernel.ask(op::SYMLINK, node, &words);
                self.learn(&answer);
            }
            11 | 12 => {
                let device = *u.choose(&[0, 0x103, u32::MAX])?;
                let words = words.small(mode(u)?).small(device).small(0o22).small(0);
                let answer = self.kernel.ask(op::MKNOD, node, &words.name(name(u)?));
                self.learn(&answer);
            }
            13 => {
                let words = words.small(mode(u)?).small(0o22).name(name(u)?);
                let answer = self.kernel.ask(op::MKDIR, node, &words);
                self.learn(&answer);
            }
            14 => {
                self.kernel.ask(op::UNLINK, node, &words.name(name(u)?));
            }
            15 => {
                self.kernel.ask(op::RMDIR, node, &words.name(name(u)?));
            }
            16 => {
                let words = words.large(self.node(u)?).name(name(u)?).name(name(u)?);
                self.kernel.ask(op::RENAME, node, &words);
            }
            17 => {
                let flags = u.int_in_range(0..=7)?;
                let words = words.large(self.node(u)?).small(flags).small(0);
                let words = words.name(name(u)?).name(name(u)?);
                self.kernel.ask(op::RENAME2, node, &words);
            }
            18 => {
                let words = words.large(self.node(u)?).name(name(u)?);
                let answer = self.kernel.ask(op::LINK, node, &words);
                self.learn(&answer);
            }
            19 | 20 => {
                let flags = *u.choose(&[0, 1, 2, 0o2001, 0o1002, u32::MAX])?;
                let answer = self
                    .kernel
                    .ask(op::OPEN, node, &words.small(flags).small(0));
                if answer.errno == 0 {
                    self.files.push(answer.large(0));
                }
            }
            21 => {
                let flags = *u.choose(&[0o101, 0o102, 0o301, 0o2101])?;
                let words = words.small(flags).small(mode(u)?).small(0o22).small(0);
                let answer = self.kernel.ask(op::CREATE, node, &words.name(name(u)?));
                self.learn(&answer);
                if answer.errno == 0 {
                    self.files.push(answer.large(128));
                }
            }
            22 | 23 => {
                let words = words.large(self.file(u)?).large(size(u)?);
                let room = u.int_in_range(0..=ROOM_MAX)?;
                let words = words.small(room).small(0).large(0).small(0).small(0);
                self.kernel.ask(op::READ, node, &words);
            }
            24 | 25 => self.write(u, node)?,
            26 => {
                self.kernel.ask(op::STATFS, node, &words);
            }
            27 => self.xattr(u, node)?,
            28 | 29 => self.directory(u, node)?,
            30 => {
                let words = words.large(self.file(u)?).large(size(u)?).large(size(u)?);
                let words = words.small(u.int_in_range(0..=0x7f)?).small(0);
                self.kernel.ask(op::FALLOCATE, node, &words);
            }
            31 => {
                let words = words.large(self.file(u)?).large(size(u)?);
                let words = words.small(u.int_in_range(0..=6)?).small(0);
                self.kernel.ask(op::LSEEK, node, &words);
            }
            32 => {
                let words = words.large(self.file(u)?).large(size(u)?).large(node);
                let words = words.large(self.file(u)?).large(size(u)?).large(size(u)?);
                self.kernel.ask(op::COPY_FILE_RANGE, node, &words.large(0));
            }
            33 => {
                let words = words.large(self.file(u)?).small(u.int_in_range(0..=1)?);
                self.kernel.ask(op::FSYNC, node, &words.small(0));
            }
            _ => self.close(u, node)?,
        }
        Ok(())
    }

    fn forget(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let at = u.choose_index(self.nodes.len())?;
        let node = self.nodes[at];
        let count = 1 + u64::from(u8::arbitrary(u)? / 128);
        if u.ratio(1, 2)? {
            self.kernel
                .tell(op::FORGET, node, &Words::default().large(count));
        } else {
            let words = Words::default().small(1).small(0).large(node).large(count);
            self.kernel.tell(op::BATCH_FORGET, 0, &words);
        }
        if node != ROOT {
            self.nodes.swap_remove(at);
        }
        Ok(())
    }

    fn set_attributes(&mut self, u: &mut Unstructured<'_>, node: u64) -> Result<()> {
        // Mode, owners, size, times, times of now, and whether a file is open.
        let valid = u.int_in_range(0..=0x1ff_u32)?;
        let words = Words::default().small(valid).small(0).large(self.file(u)?);
        let words = words.large(*u.choose(&SIZES)?).large(0);
        let words = words
            .large(u64::arbitrary(u)?)
            .large(u64::arbitrary(u)?)
            .large(0);
        let words = words.small(u32::arbitrary(u)?).small(7).small(0);
        let words = words.small(*u.choose(&MODES)?).small(0);
        let words = words.small(1000).small(u32::arbitrary(u)?).small(0);
        self.kernel.ask(op::SETATTR, node, &words);
        Ok(())
    }

    fn write(&mut self, u: &mut Unstructured<'_>, node: u64) -> Result<()> {
        let words = Words::default()
            .large(self.file(u)?)
            .large(*u.choose(&SIZES)?);
        let data = vec![u8::arbitrary(u)?; u.int_in_range(0..=20_000)?];
        let (written_back, flags) = (u.int_in_range(0..=1)?, *u.choose(&[1, 2, 0o2001])?);
        let words = words.small(data.len() as u32).small(written_back).large(0);
        let words = words.small(flags).small(0).bytes(&data);
        let answer = self.kernel.ask(op::WRITE, node, &words);
        assert!(answer.errno != 0 || answer.small(0) as usize <= data.len());
        Ok(())
    }

    fn xattr(&mut self, u: &mut Unstructured<'_>, node: u64) -> Result<()> {
        let name = *u.choose(&ATTRIBUTES)?;
        let room = *u.choose(&[0, 1, 10, 65_536])?;
        let words = Words::default();
        match u.int_in_range(0..=3_u8)? {
            0 => {
                let value = vec![u8::arbitrary(u)?; u.int_in_range(0..=200)?];
                let words = words
                    .small(value.len() as u32)
                    .small(u.int_in_range(0..=3)?);
                let words = words.name(name).bytes(&value);
                self.kernel.ask(op::SETXATTR, node, &words);
            }
            1 => {
                let words = words.small(room).small(0).name(name);
                self.kernel.ask(op::GETXATTR, node, &words);
            }
            2 => {
                self.kernel
                    .ask(op::LISTXATTR, node, &words.small(room).small(0));
            }
            _ => {
                self.kernel.ask(op::REMOVEXATTR, node, &words.name(name));
            }
        }
        Ok(())
    }

    /// Opens a directory, or goes on with one that is open.
    fn directory(&mut self, u: &mut Unstructured<'_>, node: u64) -> Result<()> {
        if self.directories.is_empty() || u.ratio(1, 3)? {
            let words = Words::default().small(0).small(0);
            let answer = self.kernel.ask(op::OPENDIR, node, &words);
            if answer.errno == 0 {
                self.directories.push((node, answer.large(0)));
            }
            return Ok(());
        }
        let (node, handle) = *u.choose(&self.directories)?;
        let offset = match u.ratio(7, 8)? {
            true => u.int_in_range(0..=12)?,
            false => u64::arbitrary(u)?,
        };
        let room = *u.choose(&[4096, 24, 100, ROOM_MAX])?;
        let words = Words::default().large(handle).large(offset).small(room);
        let words = words.small(0).large(0).small(0).small(0);
        let operation = *u.choose(&[op::READDIR, op::READDIRPLUS])?;
        let answer = self.kernel.ask(operation, node, &words);
        for entry in entries(operation, &answer) {
            entry.looked_up.iter().for_each(|found| self.learn(found));
        }
        Ok(())
    }

    fn close(&mut self, u: &mut Unstructured<'_>, node: u64) -> Result<()> {
        let directory = u.ratio(1, 3)? && !self.directories.is_empty();
        if directory {
            let at = u.choose_index(self.directories.len())?;
            let (node, handle) = self.directories.swap_remove(at);
            let words = Words::default().large(handle).small(0).small(0);
            self.kernel.ask(op::FSYNCDIR, node, &words);
            self.kernel.ask(op::RELEASEDIR, node, &words.large(0));
        } else if !self.files.is_empty() {
            let at = u.choose_index(self.files.len())?;
            let handle = self.files.swap_remove(at);
            let words = Words::default().large(handle).small(0).small(0).large(0);
            self.kernel.ask(op::RELEASE, node, &words);
        }
        Ok(())
    }

    /// A whole directory.
    fn list(&mut self, operation: u32, node: u64, path: &Path) -> Vec<Entry> {
        let open = Words::default().small(0).small(0);
        let opened = self.kernel.ask(op::OPENDIR, node, &open);
        assert_eq!(opened.errno, 0, "{path:?}");
        let handle = opened.large(0);
        let mut listed: Vec<Entry> = Vec::new();
        loop {
            let offset = listed.last().map_or(0, |last| last.offset);
            let words = Words::default().large(handle).large(offset).small(4096);
            let words = words.small(0).large(0).small(0).small(0);
            let some = entries(operation, &self.kernel.ask(operation, node, &words));
            if some.is_empty() {
                break;
            }
            listed.extend(some);
        }
        let words = Words::default().large(handle).small(0).small(0).large(0);
        self.kernel.ask(op::RELEASEDIR, node, &words);
        listed
    }

    /// What the mount shows below a directory, and what the host has there.
    fn compare(&mut self, node: u64, path: &Path, all_root: bool, depth: usize) {
        let mut listed = BTreeSet::new();
        for entry in self.list(op::READDIRPLUS, node, path) {
            // What could not be looked at is believed for no time.
            if let Some(found) = entry.looked_up.filter(|found| found.large(16) > 0) {
                let path = path.join(std::ffi::OsStr::from_bytes(&entry.name));
                let host = std::fs::symlink_metadata(&path).expect("the tree");
                same(&found, &host, &path, all_root);
            }
            listed.insert(entry.name);
        }
        let names = self.list(op::READDIR, node, path).into_iter();
        assert_eq!(
            names.map(|entry| entry.name).collect::<BTreeSet<_>>(),
            listed,
            "listed in two ways: {path:?}"
        );
        let own: [&[u8]; 2] = [b".", b".."];
        let host = std::fs::read_dir(path).expect("the tree").flatten();
        let mut names: BTreeSet<Vec<u8>> = host.map(|entry| entry.file_name().into_vec()).collect();
        names.extend(own.map(<[u8]>::to_vec));
        assert_eq!(listed, names, "what is in {path:?}");
        for name in names.into_iter().filter(|name| !own.contains(&&name[..])) {
            let path = path.join(std::ffi::OsStr::from_bytes(&name));
            let found = self
                .kernel
                .ask(op::LOOKUP, node, &Words::default().name(&name));
            assert_eq!(found.errno, 0, "{path:?}");
            let host = std::fs::symlink_metadata(&path).expect("the tree");
            same(&found, &host, &path, all_root);
            if host.is_dir() && depth < DEPTH_MAX {
                self.compare(found.large(0), &path, all_root, depth + 1);
            }
        }
    }
}

fn same(found: &Answer, host: &Metadata, path: &Path, all_root: bool) {
    let attributes = 40;
    assert_eq!(found.large(attributes + 8), host.size(), "{path:?}");
    assert_eq!(found.small(attributes + 60), host.mode(), "{path:?}");
    let links = u64::from(found.small(attributes + 64));
    assert_eq!(links, host.nlink(), "{path:?}");
    let owner = (found.small(attributes + 68), found.small(attributes + 72));
    let wanted = match all_root {
        true => (0, 0),
        false => (host.uid(), host.gid()),
    };
    assert_eq!(owner, wanted, "{path:?}");
}
