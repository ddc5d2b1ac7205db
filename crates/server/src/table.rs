//! The table of ids: what the numbers that a client sends stand for.
//!
//! An id is a slot and the slot's generation, so that a look-up is an index and a number is not
//! used again before 2^32 others were made in its slot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use host::{Kind, dir::Devices};
use wire::{Errno, FdId, OpenFlags};

use crate::budget::Budget;
use crate::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A file at a place in the tree.
#[derive(Debug)]
pub(crate) struct Control {
    fd: OwnedFd,
    pub(crate) kind: Kind,
    /// Whether it is the mount point.
    pub(crate) is_root: bool,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Open {
    fd: OwnedFd,
    pub(crate) kind: Kind,
    pub(crate) flags: OpenFlags,
    /// Held while a directory is listed: its position is shared by all who hold the id. What is
    /// inside is found out once.
    pub(crate) listing: Mutex<Option<Devices>>,
}

/// A socket bound to a name.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) socket: OwnedFd,
}

impl Control {
    pub(crate) fn new(fd: OwnedFd, kind: Kind) -> Self {
        Self {
            fd,
            kind,
            is_root: false,
        }
    }

    pub(crate) fn root(fd: OwnedFd, kind: Kind) -> Self {
        Self {
            fd,
            kind,
            is_root: true,
        }
    }

    pub(crate) fn host(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// # Errors
    /// `NOTDIR` if the file is something else.
    pub(crate) fn directory(&self) -> Result<BorrowedFd<'_>, Errno> {
        if self.kind == Kind::Directory {
            Ok(self.host())
        } else {
            Err(Errno::NOTDIR)
        }
    }
}

impl Open {
    pub(crate) fn new(fd: OwnedFd, kind: Kind, flags: OpenFlags) -> Self {
        Self {
            fd,
            kind,
            flags,
            listing: Mutex::new(None),
        }
    }

    pub(crate) fn host(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What an id stands for.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Control(Arc<Control>),
    Open(Arc<Open>),
    Bound(Arc<Bound>),
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

#[derive(Debug)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    budget: Budget,
}

/// The ids of one connection.
#[derive(Debug)]
pub(crate) struct FdTable {
    slots: RwLock<Slots>,
}

impl FdTable {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            slots: RwLock::new(Slots {
                slots: Vec::new(),
                free: Vec::new(),
                budget,
            }),
        }
    }

    /// # Errors
    /// `BADF` if the client holds no such id.
    pub(crate) fn entry(&self, id: FdId) -> Result<Entry, Errno> {
        self.read().entry(id).cloned().ok_or(Errno::BADF)
    }

    /// # Errors
    /// `BADF` if the client holds no such id, `INVAL` if it is an id of another kind.
    pub(crate) fn control(&self, id: FdId) -> Result<Arc<Control>, Errno> {
        match self.read().entry(id) {
            Some(Entry::Control(control)) => Ok(Arc::clone(control)),
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::BADF),
        }
    }

    /// # Errors
    /// As [`Self::control`].
    pub(crate) fn open(&self, id: FdId) -> Result<Arc<Open>, Errno> {
        match self.read().entry(id) {
            Some(Entry::Open(open)) => Ok(Arc::clone(open)),
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::BADF),
        }
    }

    /// # Errors
    /// As [`Self::control`].
    pub(crate) fn bound(&self, id: FdId) -> Result<Arc<Bound>, Errno> {
        match self.read().entry(id) {
            Some(Entry::Bound(bound)) => Ok(Arc::clone(bound)),
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::BADF),
        }
    }

    /// Gives the entry an id.
    ///
    /// # Errors
    /// `MFILE` if the client holds as many as it may.
    pub(crate) fn insert(&self, entry: Entry) -> Result<FdId, Errno> {
        self.write().insert(entry)
    }

    /// Gives both entries an id, or none.
    ///
    /// # Errors
    /// `MFILE` if the client holds as many as it may.
    pub(crate) fn insert_two(&self, one: Entry, two: Entry) -> Result<(FdId, FdId), Errno> {
        let mut slots = self.write();
        let first = slots.insert(one)?;
        match slots.insert(two) {
            Ok(second) => Ok((first, second)),
            Err(errno) => {
                slots.remove(first);
                Err(errno)
            }
        }
    }

    /// Forgets ids; unknown ones are ignored. The files close after the lock is released, in the
    /// caller's time.
    pub(crate) fn remove(&self, ids: impl Iterator<Item = FdId>) {
        for id in ids {
            let entry = self.write().remove(id);
            drop(entry);
        }
    }

    // A panic elsewhere cannot leave the table half changed: no code of others runs under the lock.
    fn read(&self) -> RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn entry(&self, id: FdId) -> Option<&Entry> {
        let slot = self.slots.get(index(id)?)?;
        (slot.generation == generation(id))
            .then_some(slot.entry.as_ref())
            .flatten()
    }

    fn insert(&mut self, entry: Entry) -> Result<FdId, Errno> {
        // Slot numbers have 32 bits, and one more than the last of them must not wrap.
        let next = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        if self.free.is_empty() && next == u32::MAX {
            return Err(Errno::MFILE);
        }
        self.budget.take()?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            next
        });
        let slot = &mut self.slots[index as usize];
        slot.entry = Some(entry);
        Ok(FdId(
            u64::from(slot.generation) << 32 | (u64::from(index) + 1),
        ))
    }

    fn remove(&mut self, id: FdId) -> Option<Entry> {
        let index = index(id)?;
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation(id) {
            return None;
        }
        let entry = slot.entry.take()?;
        self.budget.give_back();
        // A slot whose generations are used up stays empty for ever: no number comes twice.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(index as u32);
        }
        Some(entry)
    }
}

fn index(id: FdId) -> Option<usize> {
    usize::try_from(id.0 & u64::from(u32::MAX))
        .ok()?
        .checked_sub(1)
}

const fn generation(id: FdId) -> u32 {
    (id.0 >> 32) as u32
}
