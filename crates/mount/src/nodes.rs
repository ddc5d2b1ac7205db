//! Which files the kernel knows, under which numbers, and the ids we hold for them.
//!
//! Must hold: one number for one file (device and inode number), however many names lead to it. As
//! long as the kernel may use a number we hold an id, the id pins the file, and so the host cannot
//! give its inode number to another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::Entry;
use fuser::BackingId;
use wire::{Errno, FdId, Inode, Statx};

use crate::chores::Chore;

/// The kernel's number of the mount's root.
pub(crate) const ROOT: u64 = 1;
/// From here on numbers are ours: for files whose host's number is taken by another.
const SYNTHETIC: u64 = 1 << 63;
/// Bits of a number that are the host's; above them stands which device it is.
const INO_BITS: u32 = 48;

/// A panic of another thread leaves these tables as they were.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An id that is closed when nobody needs it any more, by another thread.
#[derive(Debug)]
pub(crate) struct Held {
    id: FdId,
    chores: Sender<Chore>,
}

impl Held {
    pub(crate) const fn new(id: FdId, chores: Sender<Chore>) -> Self {
        Self { id, chores }
    }

    pub(crate) const fn id(&self) -> FdId {
        self.id
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody listens only when the mount has ended, and with it every id.
        _ = self.chores.send(Chore::Close(self.id));
    }
}

/// What makes a file this file: device (major, minor) and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity(u32, u32, u64);

impl Identity {
    const fn of(stat: &Statx) -> Self {
        Self(stat.dev_major, stat.dev_minor, stat.ino)
    }

    const fn of_entry(entry: &Entry) -> Self {
        Self(entry.dev_major, entry.dev_minor, entry.ino)
    }
}

/// How a file's data reaches those who have it open now. The kernel wants one way for all of them.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    pub(crate) count: usize,
    /// The host's file, which the kernel uses by itself.
    pub(crate) backing: Option<Arc<BackingId>>,
}

/// A file that the kernel knows.
#[derive(Debug)]
pub(crate) struct Node {
    /// The kernel's number for it.
    pub(crate) number: u64,
    control: Held,
    identity: Identity,
    mode: AtomicU16,
    pub(crate) opens: Mutex<Opens>,
    /// Until when (milliseconds since the mount) `security.capability` is known to be missing.
    pub(crate) no_capability_until: AtomicU64,
    /// A name it was found under: directory's number and name.
    place: Mutex<(u64, Vec<u8>)>,
}

impl Node {
    pub(crate) const fn id(&self) -> FdId {
        self.control.id()
    }

    /// Type and permissions as last seen.
    pub(crate) fn mode(&self) -> u16 {
        self.mode.load(Ordering::Relaxed)
    }

    pub(crate) fn saw(&self, stat: &Statx) {
        self.mode.store(stat.mode, Ordering::Relaxed);
    }

    /// The host's inode number.
    pub(crate) const fn ino(&self) -> u64 {
        self.identity.2
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.mode() & 0o170_000 == 0o040_000
    }
}

#[derive(Debug)]
struct Known {
    node: Arc<Node>,
    /// How often the kernel was told the number, less how often it has forgotten it.
    lookups: u64,
    /// When it was last looked up, in lookups.
    age: u64,
}

impl Known {
    fn looked_up(&mut self, clock: u64, stat: &Statx, place: (u64, &[u8])) -> Arc<Node> {
        self.lookups += 1;
        self.age = clock;
        self.node.saw(stat);
        if self.node.number != ROOT {
            *lock(&self.node.place) = (place.0, place.1.to_vec());
        }
        Arc::clone(&self.node)
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Nodes {
    table: Mutex<Table>,
    chores: Sender<Chore>,
}

#[derive(Debug)]
struct Table {
    by_number: HashMap<u64, Known>,
    by_identity: HashMap<Identity, u64>,
    /// Devices seen, the root's first.
    devices: Vec<(u32, u32)>,
    synthetic: u64,
    clock: u64,
}

impl Nodes {
    pub(crate) fn new(root: &Inode, chores: Sender<Chore>) -> Self {
        let node = Arc::new(Node {
            number: ROOT,
            control: Held::new(root.control, chores.clone()),
            identity: Identity::of(&root.stat),
            mode: AtomicU16::new(root.stat.mode),
            opens: Mutex::default(),
            no_capability_until: AtomicU64::new(0),
            place: Mutex::new((ROOT, Vec::new())),
        });
        let known = Known {
            node,
            lookups: 1,
            age: 0,
        };
        let table = Table {
            by_number: HashMap::from([(ROOT, known)]),
            by_identity: HashMap::from([(Identity::of(&root.stat), ROOT)]),
            devices: vec![(root.stat.dev_major, root.stat.dev_minor)],
            synthetic: SYNTHETIC,
            clock: 0,
        };
        Self {
            table: Mutex::new(table),
            chores,
        }
    }

    /// # Errors
    /// `STALE` for a number that the kernel was never told.
    pub(crate) fn node(&self, number: u64) -> Result<Arc<Node>, Errno> {
        lock(&self.table)
            .by_number
            .get(&number)
            .map(|known| Arc::clone(&known.node))
            .ok_or(Errno::STALE)
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.table).by_number.len()
    }

    /// A number that no file has, or ever gets.
    pub(crate) fn unused(&self) -> u64 {
        lock(&self.table).next_synthetic()
    }

    /// Whether an entry of a directory is a file that we hold an id for, going by what the listing said.
    pub(crate) fn has(&self, entry: &Entry) -> bool {
        let identity = Identity::of_entry(entry);
        lock(&self.table).by_identity.contains_key(&identity)
    }

    /// Counts one lookup of a file, found at `place`, if we hold an id for it.
    pub(crate) fn again(&self, stat: &Statx, place: (u64, &[u8])) -> Option<Arc<Node>> {
        let mut table = lock(&self.table);
        let number = *table.by_identity.get(&Identity::of(stat))?;
        table.clock += 1;
        let clock = table.clock;
        let known = table.by_number.get_mut(&number)?;
        Some(known.looked_up(clock, stat, place))
    }

    /// Counts one lookup of a file, found at `place`. A second id for a known file is closed.
    pub(crate) fn adopt(&self, inode: &Inode, place: (u64, &[u8])) -> Arc<Node> {
        let control = Held::new(inode.control, self.chores.clone());
        let identity = Identity::of(&inode.stat);
        let mut table = lock(&self.table);
        let table = &mut *table;
        table.clock += 1;
        let number = match table.by_identity.get(&identity) {
            Some(&number) => number,
            None => table.number(identity),
        };
        let known = table.by_number.entry(number).or_insert_with(|| {
            table.by_identity.insert(identity, number);
            Known {
                node: Arc::new(Node {
                    number,
                    control,
                    identity,
                    mode: AtomicU16::new(inode.stat.mode),
                    opens: Mutex::default(),
                    no_capability_until: AtomicU64::new(0),
                    place: Mutex::default(),
                }),
                lookups: 0,
                age: 0,
            }
        });
        known.looked_up(table.clock, &inode.stat, place)
    }

    /// The kernel has dropped a number that it was told `count` times.
    pub(crate) fn forget(&self, number: u64, count: u64) {
        let mut table = lock(&self.table);
        let Some(known) = table.by_number.get_mut(&number) else {
            return;
        };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups > 0 || number == ROOT {
            return;
        }
        let identity = known.node.identity;
        table.by_number.remove(&number);
        table.by_identity.remove(&identity);
    }

    /// Names of up to `count` files that were not looked up for longest and are not open, so that
    /// the kernel can be asked to forget them. Directories stay: somebody may work in them.
    pub(crate) fn idle(&self, count: usize) -> Vec<(u64, Vec<u8>)> {
        let table = lock(&self.table);
        let mut idle: Vec<&Known> = table
            .by_number
            .values()
            .filter(|known| !known.node.is_directory() && lock(&known.node.opens).count == 0)
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count, |known| known.age);
            idle.truncate(count);
        }
        idle.iter()
            .map(|known| lock(&known.node.place).clone())
            .collect()
    }
}

impl Table {
    /// A free number for a new file: the host's own where it is free, so that people see the same
    /// inode numbers as on the host.
    fn number(&mut self, Identity(major, minor, ino): Identity) -> u64 {
        let device = (major, minor);
        let known = self.devices.iter().position(|&seen| seen == device);
        let index = known.unwrap_or_else(|| {
            self.devices.push(device);
            self.devices.len() - 1
        });
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let fits = ino > ROOT && ino >> INO_BITS == 0 && index < 1 << (63 - INO_BITS);
        let own = (index << INO_BITS) | ino;
        if fits && !self.by_number.contains_key(&own) {
            return own;
        }
        self.next_synthetic()
    }

    const fn next_synthetic(&mut self) -> u64 {
        self.synthetic += 1;
        self.synthetic
    }
}
