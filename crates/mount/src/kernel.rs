//! The kernel's questions and answers: one method for each, a few lines long.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use client::Entry;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use wire::Errno;

use crate::nodes::lock;
use crate::translate::{self, Change, errno};
use crate::tree::{Caller, OpenDirectory, Tree};

/// Most bytes the kernel writes at a time.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Most requests under way that nobody waits for, reading ahead among them.
const BACKGROUND_MAX: u16 = 64;
/// What we can use of what a kernel has to offer.
const WANTED: [InitFlags; 7] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_ASYNC_DIO,
    // A link's target never changes.
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_MAX_PAGES,
];
/// Listings that say what a lookup of each name would, where the kernel expects to be asked for that.
const LISTINGS_WITH_ATTRIBUTES: [InitFlags; 2] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
];
/// File systems on top of each other that a passed-through file may still have above it: with one,
/// an overlay over this mount is possible.
const STACK_DEPTH: u32 = 1;
const GENERATION: Generation = Generation(0);
const O_APPEND: i32 = 0o2000;

thread_local! {
    /// Room for what is read, kept between requests.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What the kernel talks to.
#[derive(Debug)]
pub(crate) struct Kernel(pub(crate) Arc<Tree>);

impl Kernel {
    fn entry(&self, found: Result<FileAttr, Errno>, reply: ReplyEntry) {
        let options = &self.0.options;
        match found {
            Ok(attributes) => reply.entry_with_ttls(
                &options.attributes_for,
                &options.names_for,
                &attributes,
                GENERATION,
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn attributes(&self, found: Result<FileAttr, Errno>, reply: ReplyAttr) {
        match found {
            Ok(attributes) => reply.attr(&self.0.options.attributes_for, &attributes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open_flags(&self) -> FopenFlags {
        match self.0.options.page_cache {
            // Thrown away by the kernel when time or length have changed, not at every opening.
            true => FopenFlags::FOPEN_KEEP_CACHE,
            false => FopenFlags::FOPEN_DIRECT_IO,
        }
    }
}

fn empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn bytes(done: Result<usize, Errno>, reply: ReplyWrite) {
    match done.map(u32::try_from) {
        Ok(Ok(count)) => reply.written(count),
        Ok(Err(_)) => reply.error(fuser::Errno::EIO),
        Err(error) => reply.error(errno(error)),
    }
}

fn value(found: Result<Vec<u8>, Errno>, room: u32, reply: ReplyXattr) {
    match found.map(|value| (u32::try_from(value.len()).unwrap_or(u32::MAX), value)) {
        Ok((length, _)) if room == 0 => reply.size(length),
        Ok((length, _)) if length > room => reply.error(fuser::Errno::ERANGE),
        Ok((_, value)) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

/// A signed number of the kernel's interface that holds bits.
const fn unsigned(bits: i32) -> u32 {
    bits.cast_unsigned()
}

#[allow(
    clippy::too_many_arguments,
    reason = "the trait's methods carry a request's fields one by one"
)]
impl Filesystem for Kernel {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in WANTED {
            // What a kernel does not know is done without.
            _ = config.add_capabilities(wanted);
        }
        // What is not believed when it is needed need not be told.
        if !self.0.options.entries_for().is_zero() {
            for wanted in LISTINGS_WITH_ATTRIBUTES {
                _ = config.add_capabilities(wanted);
            }
        }
        _ = config.set_max_write(WRITE_BYTES_MAX);
        _ = config.set_max_background(BACKGROUND_MAX);
        if self.0.options.passthrough && self.0.options.page_cache {
            let can = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
                && config.set_max_stack_depth(STACK_DEPTH).is_ok();
            self.0.passthrough.store(can, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.0.lookup(parent.0, name.as_bytes()), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.0.nodes.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.attributes(self.0.attributes_of(ino.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
        };
        let changed = self.0.change(ino.0, change, handle.map(|handle| handle.0));
        self.attributes(changed, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.0.link_target(ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let kind = (mode, device);
        let made = self
            .0
            .make_node(parent.0, name.as_bytes(), kind, caller(request));
        self.entry(made, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self
            .0
            .make_directory(parent.0, name.as_bytes(), mode, caller(request));
        self.entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.remove(parent.0, name.as_bytes(), false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.remove(parent.0, name.as_bytes(), true), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        let made = self
            .0
            .make_symlink(parent.0, name.as_bytes(), target, caller(request));
        self.entry(made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = (parent.0, name.as_bytes());
        let to = (new_parent.0, new_name.as_bytes());
        empty(self.0.rename(from, to, flags.bits()), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.0.link(ino.0, parent.0, name.as_bytes()), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self
            .0
            .open(ino.0, unsigned(flags.0), |fd| reply.open_backing(fd));
        match opened {
            Ok((handle, Some(backing))) => {
                reply.opened_passthrough(FileHandle(handle), FopenFlags::empty(), &backing);
            }
            Ok((handle, None)) => reply.opened(FileHandle(handle), self.open_flags()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let how = (mode, unsigned(flags));
        let back = |fd: &_| reply.open_backing(fd);
        let made = self
            .0
            .create(parent.0, name.as_bytes(), how, caller(request), back);
        let ttl = &self.0.options.entries_for();
        match made {
            Ok((attributes, handle, Some(backing))) => reply.created_passthrough(
                ttl,
                &attributes,
                GENERATION,
                FileHandle(handle),
                FopenFlags::empty(),
                &backing,
            ),
            Ok((attributes, handle, None)) => reply.created(
                ttl,
                &attributes,
                GENERATION,
                FileHandle(handle),
                self.open_flags(),
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.0.files.of(handle.0) {
            Ok(file) => file,
            Err(error) => return reply.error(errno(error)),
        };
        READ_BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match file.read(&self.0.client, offset, &mut buffer[..size]) {
                Ok(count) => reply.data(&buffer[..count]),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // What the kernel writes back of a mapping has its place.
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let append = flags.0 & O_APPEND != 0 && !from_cache;
        let file = self.0.files.of(handle.0);
        let written = file.and_then(|file| file.write(&self.0.client, offset, data, append));
        bytes(written, reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        match self.0.flush(handle.0) {
            Some(done) => empty(done, reply),
            // The kernel does not ask again.
            None => reply.error(fuser::Errno::ENOSYS),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.close(handle.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let file = self.0.files.of(handle.0);
        let done = file.and_then(|file| file.sync(&self.0.client, data_only));
        empty(done, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.open_directory(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = list(&self.0, handle.0, offset, |directory, next, listed| {
            let (ino, kind) = match listed {
                Listed::Dots(_) => (directory.node.ino(), FileType::Directory),
                Listed::Entry(entry) => (entry.ino, self.0.kind_of(&directory.node, entry)),
            };
            reply.add(INodeNo(ino), next, kind, listed.name())
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let believed_for = self.0.options.entries_for();
        let listed = list(&self.0, handle.0, offset, |directory, next, listed| {
            let (attributes, ttl) = match listed {
                // The kernel takes no attributes of these.
                Listed::Dots(_) => {
                    let own = directory.node.ino();
                    (translate::unknown(own, FileType::Directory), Duration::ZERO)
                }
                Listed::Entry(entry) => match self.0.look_at(&directory.node, entry) {
                    Ok(attributes) => (attributes, believed_for),
                    // To be asked for when somebody wants it, and refused then.
                    Err(_) => (self.0.unseen(&directory.node, entry), Duration::ZERO),
                },
            };
            let ino = attributes.ino;
            let full = reply.add(ino, next, listed.name(), &ttl, &attributes, GENERATION);
            if full && matches!(listed, Listed::Entry(_)) {
                // The kernel was not told.
                self.0.nodes.forget(ino.0, 1);
            }
            full
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.0.directories.remove(handle.0));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let directory = self.0.directories.of(handle.0);
        let done = directory.and_then(|directory| {
            let synced = self.0.client.fsync(&[directory.id()]);
            synced.map_err(|error| error.errno())
        });
        empty(done, reply);
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.0.file_system(ino.0) {
            Ok(fs) => {
                let block = u32::try_from(fs.block_size).unwrap_or(4096);
                reply.statfs(
                    fs.blocks,
                    fs.blocks_free,
                    fs.blocks_available,
                    fs.files,
                    fs.files_free,
                    block,
                    u32::try_from(fs.name_length).unwrap_or(255),
                    block,
                );
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let flags = unsigned(flags);
        empty(
            self.0.set_xattr(ino.0, name.as_bytes(), value, flags),
            reply,
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        value(self.0.xattr(ino.0, name.as_bytes(), room), room, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, room: u32, reply: ReplyXattr) {
        value(self.0.xattr_names(ino.0), room, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.remove_xattr(ino.0, name.as_bytes()), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let file = self.0.files.of(handle.0);
        let mode = unsigned(mode);
        let done = file.and_then(|file| file.allocate(&self.0.client, mode, offset, length));
        empty(done, reply);
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = u64::try_from(offset)
            .map_err(|_| Errno::INVAL)
            .and_then(|offset| {
                let file = self.0.files.of(handle.0)?;
                let found = file.seek(&self.0.client, offset, whence)?;
                i64::try_from(found).map_err(|_| Errno::IO)
            });
        match found {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let files = self.0.files.of(from.0).and_then(|source| {
            let target = self.0.files.of(to.0)?;
            source.copy(from_offset, (&target, to_offset), length)
        });
        bytes(files, reply);
    }
}

/// What stands at a position of a listing.
enum Listed<'l> {
    /// `.` or `..`.
    Dots(&'static str),
    Entry(&'l Entry),
}

impl Listed<'_> {
    fn name(&self) -> &OsStr {
        match self {
            Self::Dots(name) => OsStr::new(name),
            Self::Entry(entry) => OsStr::from_bytes(&entry.name),
        }
    }
}

/// Puts what stands at `offset` and behind it into the answer, until that is full. `put` gets the
/// position behind each, and says whether the answer had no room for it. Positions 0 and 1 are `.`
/// and `..`, which servers do not report.
fn list(
    tree: &Tree,
    handle: u64,
    offset: u64,
    mut put: impl FnMut(&OpenDirectory, u64, &Listed<'_>) -> bool,
) -> Result<(), Errno> {
    let directory = tree.directories.of(handle)?;
    let mut listing = lock(&directory.listing);
    if offset == 0 {
        listing.rewind();
    }
    for (position, name) in [".", ".."].into_iter().enumerate().skip(saturated(offset)) {
        if put(&directory, position as u64 + 1, &Listed::Dots(name)) {
            return Ok(());
        }
    }
    let mut position = saturated(offset).saturating_sub(2);
    while let Some(entry) = listing.at(position, &tree.client, directory.id())? {
        if put(&directory, position as u64 + 3, &Listed::Entry(entry)) {
            break;
        }
        position += 1;
    }
    Ok(())
}

fn saturated(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
