//! The served tree as the kernel asks for it: what each operation means in requests.
//!
//! Belongs here: operations that answer with values. Elsewhere: how the kernel's questions come and
//! how answers go back (`kernel`), what words mean (`translate`), file data (`data`).

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use client::{Client, Created, Entry};
use fuser::{BackingId, FileAttr, FileType};
use wire::msg::attr::{FStatFSReply, SetStat};
use wire::{Errno, FdId, Inode, Mid, NewNode, Statx};

use crate::Options;
use crate::chores::Chore;
use crate::data::{OpenFile, usable};
use crate::listing::Listing;
use crate::nodes::{Held, Node, Nodes, ROOT, lock};
use crate::translate::{self, Change};

/// Bits of a mode that a host drops when a file gets its owner.
const SET_ID: u16 = 0o6000;
const TYPE_BITS: u32 = 0o170_000;
const TYPE_REGULAR: u32 = 0o100_000;
const TYPE_FIFO: u32 = 0o010_000;
const TYPE_SOCKET: u32 = 0o140_000;
const TYPE_CHARACTER: u32 = 0o020_000;
/// Type of the socket whose file is made: only the file stays.
const SOCK_STREAM: u32 = 1;
const O_ACCMODE: u32 = 3;
const O_EXCL: u32 = 0o200;
/// How often, and how long, to wait until the kernel has forgotten files when there are too many.
const SHED_TRIES: u32 = 20;
const SHED_WAIT: Duration = Duration::from_millis(10);
/// The attribute that the kernel asks for before every write.
const CAPABILITY: &[u8] = b"security.capability";

type Result<T> = std::result::Result<T, Errno>;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) node: Arc<Node>,
    open: Held,
    pub(crate) listing: Mutex<Listing>,
}

impl OpenDirectory {
    pub(crate) const fn id(&self) -> FdId {
        self.open.id()
    }
}

/// Something open, under a handle that the kernel holds.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            open: RwLock::default(),
        }
    }
}

impl<T> Handles<T> {
    pub(crate) fn add(&self, thing: T) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.write().unwrap_or_else(|e| e.into_inner());
        open.insert(handle, Arc::new(thing));
        handle
    }

    /// # Errors
    /// `BADF` for a handle that is not open.
    pub(crate) fn of(&self, handle: u64) -> Result<Arc<T>> {
        let open = self.open.read().unwrap_or_else(|e| e.into_inner());
        open.get(&handle).cloned().ok_or(Errno::BADF)
    }

    pub(crate) fn remove(&self, handle: u64) -> Option<Arc<T>> {
        let mut open = self.open.write().unwrap_or_else(|e| e.into_inner());
        open.remove(&handle)
    }
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) client: Arc<Client>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) files: Handles<OpenFile>,
    pub(crate) directories: Handles<OpenDirectory>,
    pub(crate) options: Options,
    /// Whether the kernel may use donated files by itself; off for good once it refuses.
    pub(crate) passthrough: AtomicBool,
    chores: Sender<Chore>,
    started: Instant,
}

fn refused(error: client::Error) -> Errno {
    error.errno()
}

impl Tree {
    pub(crate) fn new(
        client: Arc<Client>,
        nodes: Arc<Nodes>,
        options: Options,
        chores: Sender<Chore>,
    ) -> Self {
        Self {
            client,
            nodes,
            files: Handles::default(),
            directories: Handles::default(),
            passthrough: AtomicBool::new(false),
            options,
            chores,
            started: Instant::now(),
        }
    }

    fn held(&self, id: FdId) -> Held {
        Held::new(id, self.chores.clone())
    }

    fn attributes(&self, stat: &Statx, number: u64) -> Result<FileAttr> {
        translate::attributes(stat, number, self.options.owners)
    }

    /// Tells the kernel about a file, which counts as a lookup.
    fn show(&self, inode: &Inode, directory: u64, name: &[u8]) -> Result<(Arc<Node>, FileAttr)> {
        // What cannot be shown is not counted: the kernel would never forget it.
        let mut attributes = self.attributes(&inode.stat, 0).inspect_err(|_| {
            drop(self.held(inode.control));
        })?;
        let node = self.nodes.adopt(inode, (directory, name));
        attributes.ino = fuser::INodeNo(node.number);
        if self.nodes.len() > self.options.files_max {
            self.shed();
        }
        Ok((node, attributes))
    }

    fn shed(&self) {
        let some = self.options.files_max / 8 + 1;
        // Without anybody who listens the mount is ending.
        _ = self.chores.send(Chore::Shed(some));
    }

    /// Does what makes a new id. When the server has no more of them, files that nobody uses are
    /// forgotten first.
    fn with_room<T>(
        &self,
        mut make: impl FnMut() -> std::result::Result<T, client::Error>,
    ) -> Result<T> {
        for _ in 0..SHED_TRIES {
            match make().map_err(refused) {
                Err(Errno::MFILE | Errno::NFILE) => {
                    self.shed();
                    std::thread::sleep(SHED_WAIT);
                }
                done => return done,
            }
        }
        make().map_err(refused)
    }

    /// What it means that something could not be done in a directory: servers say `INVAL` for one
    /// that was removed, applications expect `NOENT`.
    fn in_directory(&self, directory: &Node, errno: Errno) -> Errno {
        if errno != Errno::INVAL {
            return errno;
        }
        match self.client.fstat(directory.id()) {
            Ok(stat) if stat.nlink == 0 => Errno::NOENT,
            _ => errno,
        }
    }

    pub(crate) fn lookup(&self, directory: u64, name: &[u8]) -> Result<FileAttr> {
        let parent = self.nodes.node(directory)?;
        let inode = self.with_room(|| self.client.walk_one(parent.id(), name))?;
        Ok(self.show(&inode, directory, name)?.1)
    }

    pub(crate) fn attributes_of(&self, number: u64) -> Result<FileAttr> {
        let node = self.nodes.node(number)?;
        let stat = self.client.fstat(node.id()).map_err(refused)?;
        node.saw(&stat);
        self.attributes(&stat, number)
    }

    /// Changes attributes; what they are then.
    pub(crate) fn change(
        &self,
        number: u64,
        mut change: Change,
        handle: Option<u64>,
    ) -> Result<FileAttr> {
        let node = self.nodes.node(number)?;
        // A file that was opened for writing stays so, whatever its mode says by now.
        let open = handle.and_then(|handle| self.files.of(handle).ok());
        if let (Some(size), Some(open)) = (change.size, open)
            && !self.options.readonly
            && let Some(done) = open.truncate(size)
        {
            done?;
            change.size = None;
        }
        if change.mode.is_some() || change.uid.is_some() || change.gid.is_some() {
            node.no_capability_until.store(0, Ordering::Relaxed);
        }
        self.set(&translate::set_stat(node.id(), change, self.options.owners))?;
        self.attributes_of(number)
    }

    fn set(&self, request: &SetStat) -> Result<()> {
        if request.mask == 0 {
            return Ok(());
        }
        let reply = self.client.set_stat(request).map_err(refused)?;
        match reply.failure_mask {
            0 => Ok(()),
            _ => Err(Errno::new(reply.failure_errno)),
        }
    }

    /// Giving a file its owner costs it set-id bits that it was made with.
    fn restore_set_id(&self, inode: &mut Inode, mode: u32) -> Result<()> {
        let wanted = u16::try_from(mode & 0o7777).unwrap_or(0);
        if wanted & SET_ID & !inode.stat.mode == 0 {
            return Ok(());
        }
        let change = Change {
            mode: Some(mode),
            ..Change::default()
        };
        self.set(&translate::set_stat(
            inode.control,
            change,
            self.options.owners,
        ))?;
        inode.stat.mode |= wanted & SET_ID;
        Ok(())
    }

    fn new_node(&self, parent: &Node, mode: u32, caller: Caller) -> NewNode {
        let owner = self
            .options
            .owners
            .of_new(caller.uid, caller.gid, parent.mode());
        NewNode {
            dir: parent.id(),
            owner,
            mode: u16::try_from(mode & 0o177_777).unwrap_or(0),
        }
    }

    pub(crate) fn make_node(
        &self,
        directory: u64,
        name: &[u8],
        (mode, device): (u32, u32),
        caller: Caller,
    ) -> Result<FileAttr> {
        let parent = self.nodes.node(directory)?;
        let new = self.new_node(&parent, mode, caller);
        let made = match (mode & TYPE_BITS, device) {
            (TYPE_REGULAR | TYPE_FIFO, _) | (TYPE_CHARACTER, 0) => self.make_by_number(new, name),
            (TYPE_SOCKET, _) => match self.make_by_number(new, name) {
                // A server that makes sockets in its own way, if at all.
                Err(Errno::PERM) => self.make_socket(new, name),
                made => made,
            },
            // LISAFS makes no devices.
            _ => Err(Errno::PERM),
        };
        let mut inode = made.map_err(|errno| self.in_directory(&parent, errno))?;
        self.restore_set_id(&mut inode, mode)?;
        Ok(self.show(&inode, directory, name)?.1)
    }

    fn make_by_number(&self, new: NewNode, name: &[u8]) -> Result<Inode> {
        self.with_room(|| self.client.mknod_at(new, name, 0, 0))
    }

    /// A socket's file. The socket that the server bound to it is closed: the kernel's own sockets
    /// meet at the file.
    fn make_socket(&self, new: NewNode, name: &[u8]) -> Result<Inode> {
        match self.with_room(|| self.client.bind_at(new, name, SOCK_STREAM)) {
            Ok(bound) => {
                drop(self.held(bound.id));
                Ok(bound.child)
            }
            Err(Errno::ADDRINUSE) => Err(Errno::EXIST),
            Err(Errno::OPNOTSUPP) => Err(Errno::PERM),
            Err(errno) => Err(errno),
        }
    }

    pub(crate) fn make_directory(
        &self,
        directory: u64,
        name: &[u8],
        mode: u32,
        caller: Caller,
    ) -> Result<FileAttr> {
        let parent = self.nodes.node(directory)?;
        let new = self.new_node(&parent, mode, caller);
        let inode = self
            .with_room(|| self.client.mkdir_at(new, name))
            .map_err(|errno| self.in_directory(&parent, errno))?;
        Ok(self.show(&inode, directory, name)?.1)
    }

    pub(crate) fn make_symlink(
        &self,
        directory: u64,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<FileAttr> {
        let parent = self.nodes.node(directory)?;
        let owner = self.new_node(&parent, 0, caller).owner;
        let inode = self
            .with_room(|| self.client.symlink_at(parent.id(), owner, name, target))
            .map_err(|errno| self.in_directory(&parent, errno))?;
        Ok(self.show(&inode, directory, name)?.1)
    }

    pub(crate) fn link(&self, number: u64, directory: u64, name: &[u8]) -> Result<FileAttr> {
        let (file, parent) = (self.nodes.node(number)?, self.nodes.node(directory)?);
        let inode = self
            .with_room(|| self.client.link_at(parent.id(), file.id(), name))
            // Of a file without a name left, too.
            .map_err(|errno| self.in_directory(&file, self.in_directory(&parent, errno)))?;
        Ok(self.show(&inode, directory, name)?.1)
    }

    pub(crate) fn link_target(&self, number: u64) -> Result<Vec<u8>> {
        let node = self.nodes.node(number)?;
        self.client.read_link(node.id()).map_err(refused)
    }

    pub(crate) fn remove(&self, directory: u64, name: &[u8], is_directory: bool) -> Result<()> {
        let parent = self.nodes.node(directory)?;
        let removed = match is_directory {
            true => self.client.rmdir_at(parent.id(), name),
            false => self.client.unlink_at(parent.id(), name, 0),
        };
        removed.map_err(|error| self.in_directory(&parent, error.errno()))
    }

    pub(crate) fn rename(
        &self,
        (old_directory, old_name): (u64, &[u8]),
        (new_directory, new_name): (u64, &[u8]),
        flags: u32,
    ) -> Result<()> {
        let (old, new) = (
            self.nodes.node(old_directory)?,
            self.nodes.node(new_directory)?,
        );
        let (from, to) = ((old.id(), old_name), (new.id(), new_name));
        let lists = |mid| self.client.negotiated().is_some_and(|n| n.lists(mid));
        match flags {
            0 => self.client.rename_at(from, to).map_err(refused),
            // The kernel's word for a file system without flags.
            _ if !lists(Mid::RENAME_AT2) => Err(Errno::INVAL),
            _ => self.client.rename_at2(from, to, flags).map_err(refused),
        }
    }

    /// Opens a file. `back` makes a donated file one that the kernel uses by itself.
    pub(crate) fn open(
        &self,
        number: u64,
        flags: u32,
        back: impl FnOnce(&OwnedFd) -> std::io::Result<BackingId>,
    ) -> Result<(u64, Option<Arc<BackingId>>)> {
        let node = self.nodes.node(number)?;
        let opened = self.with_room(|| self.client.open_at(node.id(), flags & O_ACCMODE))?;
        Ok(self.opened(node, opened, back))
    }

    fn opened(
        &self,
        node: Arc<Node>,
        opened: client::Opened,
        back: impl FnOnce(&OwnedFd) -> std::io::Result<BackingId>,
    ) -> (u64, Option<Arc<BackingId>>) {
        let donated = usable(opened.donated);
        let backing = self.choose_way(&node, donated.as_ref(), back);
        let file = OpenFile::new(node, self.held(opened.id), donated);
        (self.files.add(file), backing)
    }

    /// The first to open a file decides for all who open it until it is closed by everyone.
    fn choose_way(
        &self,
        node: &Node,
        donated: Option<&OwnedFd>,
        back: impl FnOnce(&OwnedFd) -> std::io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let mut opens = lock(&node.opens);
        let may = opens.count == 0 && self.passthrough.load(Ordering::Relaxed);
        if let (true, Some(fd)) = (may, donated) {
            match back(fd) {
                Ok(backing) => opens.backing = Some(Arc::new(backing)),
                // Not allowed to us, or the host's file is itself stacked too high.
                Err(_) => self.passthrough.store(false, Ordering::Relaxed),
            }
        }
        opens.count += 1;
        opens.backing.clone()
    }

    pub(crate) fn create(
        &self,
        directory: u64,
        name: &[u8],
        (mode, flags): (u32, u32),
        caller: Caller,
        back: impl FnOnce(&OwnedFd) -> std::io::Result<BackingId>,
    ) -> Result<(FileAttr, u64, Option<Arc<BackingId>>)> {
        let parent = self.nodes.node(directory)?;
        let new = self.new_node(&parent, mode, caller);
        let made = self.with_room(|| self.client.open_create_at(new, name, flags & O_ACCMODE));
        let made = made.map_err(|errno| match errno {
            // Somebody was faster: the kernel looks again and opens what is there.
            Errno::EXIST if flags & O_EXCL == 0 => Errno::STALE,
            errno => self.in_directory(&parent, errno),
        });
        let Created { mut child, opened } = made?;
        self.restore_set_id(&mut child, mode)?;
        let (node, attributes) = self.show(&child, directory, name)?;
        let (handle, backing) = self.opened(node, opened, back);
        Ok((attributes, handle, backing))
    }

    pub(crate) fn close(&self, handle: u64) {
        if let Some(file) = self.files.remove(handle) {
            let mut opens = lock(&file.node.opens);
            opens.count = opens.count.saturating_sub(1);
            if opens.count == 0 {
                opens.backing = None;
            }
        }
    }

    /// Tells servers that want to know that a file is about to be closed; `None` if this one does
    /// not, ever.
    pub(crate) fn flush(&self, handle: u64) -> Option<Result<()>> {
        let lists = self.client.negotiated()?.lists(Mid::FLUSH);
        lists.then(|| {
            let file = self.files.of(handle)?;
            self.client.flush(file.id()).map_err(refused)
        })
    }

    pub(crate) fn open_directory(&self, number: u64) -> Result<u64> {
        let node = self.nodes.node(number)?;
        let opened = self.with_room(|| self.client.open_at(node.id(), 0))?;
        Ok(self.directories.add(OpenDirectory {
            node,
            open: self.held(opened.id),
            listing: Mutex::default(),
        }))
    }

    /// The kind of a directory's entry; asked for if the host's file system does not tell it in
    /// listings.
    pub(crate) fn kind_of(&self, directory: &Node, entry: &Entry) -> FileType {
        let asked = || {
            let stats = self.client.walk_stat(directory.id(), &[&entry.name]).ok()?;
            translate::kind(stats.first()?.mode).ok()
        };
        translate::entry_kind(entry.kind)
            .or_else(asked)
            // Gone meanwhile: whoever asks for it is told.
            .unwrap_or(FileType::RegularFile)
    }

    /// A lookup that nobody asked for yet. Waits for no room: who asks later can.
    pub(crate) fn look_at(&self, directory: &Node, entry: &Entry) -> Result<FileAttr> {
        let (id, name) = (directory.id(), &entry.name[..]);
        // Of a file that the kernel knows we need no second id.
        if self.nodes.has(entry)
            && let [stat] = self.client.walk_stat(id, &[name]).map_err(refused)?[..]
        {
            let attributes = self.attributes(&stat, 0)?;
            if let Some(node) = self.nodes.again(&stat, (directory.number, name)) {
                let ino = fuser::INodeNo(node.number);
                return Ok(FileAttr { ino, ..attributes });
            }
        }
        let inode = self.client.walk_one(id, name).map_err(refused)?;
        Ok(self.show(&inode, directory.number, name)?.1)
    }

    /// What to say of an entry that could not be looked at: its kind, and a number of its own that leads
    /// nowhere.
    pub(crate) fn unseen(&self, directory: &Node, entry: &Entry) -> FileAttr {
        translate::unknown(self.nodes.unused(), self.kind_of(directory, entry))
    }

    pub(crate) fn file_system(&self, number: u64) -> Result<FStatFSReply> {
        let node = self.nodes.node(number).or_else(|_| self.nodes.node(ROOT))?;
        self.client.fstatfs(node.id()).map_err(refused)
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// An attribute's value of at most `room` bytes; any length if that is 0.
    pub(crate) fn xattr(&self, number: u64, name: &[u8], room: u32) -> Result<Vec<u8>> {
        let node = self.nodes.node(number)?;
        let is_capability = name == CAPABILITY;
        let known = || node.no_capability_until.load(Ordering::Relaxed) > self.milliseconds();
        if is_capability && known() {
            return Err(Errno::NODATA);
        }
        let value = self
            .client
            .fget_xattr(node.id(), name, room)
            .map_err(refused);
        if is_capability && value == Err(Errno::NODATA) {
            let life = u64::try_from(self.options.attributes_for.as_millis()).unwrap_or(0);
            let until = self.milliseconds().saturating_add(life);
            node.no_capability_until.store(until, Ordering::Relaxed);
        }
        value
    }

    pub(crate) fn set_xattr(
        &self,
        number: u64,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        let node = self.nodes.node(number)?;
        node.no_capability_until.store(0, Ordering::Relaxed);
        self.client
            .fset_xattr(node.id(), name, value, flags)
            .map_err(refused)
    }

    /// The names of all attributes, each with a NUL behind it.
    pub(crate) fn xattr_names(&self, number: u64) -> Result<Vec<u8>> {
        let node = self.nodes.node(number)?;
        let names = self.client.flist_xattr(node.id(), 0).map_err(refused)?;
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(list)
    }

    pub(crate) fn remove_xattr(&self, number: u64, name: &[u8]) -> Result<()> {
        let node = self.nodes.node(number)?;
        self.client.fremove_xattr(node.id(), name).map_err(refused)
    }
}
