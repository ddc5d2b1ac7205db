//! Differential testing: the same requests to two servers over two equal trees, and what came back
//! compared.
//!
//! Belongs here: drawing requests, mapping ids and inodes, comparing, taking back, shrinking.
//! Belongs elsewhere: which differences are allowed (a table in the test).
//! Must hold: every difference in a reply or in the trees is either allowed by the table or ends the
//! sequence. What an allowed difference leaves behind is taken back, so that it is not seen twice.

mod draw;
mod model;
mod op;
mod reply;
mod side;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::FileType;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use client::Answer;
use wire::msg::attr::SetStat;
use wire::{FdId, Mid, Statx};

use draw::{Dice, Draw};
use model::{Both, Model, ROOT, Slot};
use side::{Side, Watch};
use tree::HostFile;

pub use model::Kind;
pub use op::{Bytes, New, Op, Ref, Step, Twist};
pub use reply::Reply;

/// After how many steps the trees are compared in between.
const STEPS_BETWEEN_LOOKS: usize = 40;
/// Connections one socket gets; fewer than the shortest queue, or the reference would wait.
const CONNECTS_MAX: u32 = 50;
const S_IFMT: u16 = 0o170_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFLNK: u16 = 0o120_000;
const S_IFSOCK: u16 = 0o140_000;
const S_IFIFO: u16 = 0o010_000;
const O_TRUNC: u32 = 0x200;

/// The two servers.
#[derive(Debug, Clone)]
pub struct Contenders {
    /// Our release binary; without one our server runs in the test's process.
    pub ours: Option<PathBuf>,
    /// The `runsc` whose gofer is the reference.
    pub reference: PathBuf,
}

/// What is known of an id that a request names.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// What the id stands for.
    pub kind: Kind,
    /// `S_IFMT` bits.
    pub file_type: u16,
    /// The reference believes it deleted.
    pub deleted: bool,
    /// The reference may have lost its node (weak spot 5).
    pub detached: bool,
    /// The control id of a BindAt.
    pub bound_child: bool,
    /// Length of its path at the reference.
    pub path_bytes: usize,
}

/// Where two replies differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The errno.
    Errno,
    /// How many ids or attributes there are.
    Count,
    /// A field of attributes.
    Stat(&'static str),
    /// Which file it is.
    Identity,
    /// A plain number.
    Numbers,
    /// A string or data.
    Texts,
    /// A directory's entries.
    Entries,
    /// How many descriptors came along, or which file they are.
    Descriptors,
}

/// One request and its two replies.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The request.
    pub step: &'a Step,
    /// Its ids that stand for something, in wire order.
    pub about: Vec<About>,
    /// Our reply.
    pub ours: Reply,
    /// The reference's.
    pub reference: Reply,
}

/// A row of the table of allowed differences.
#[derive(Debug)]
pub struct Allowed {
    /// Where the specification speaks of it.
    pub row: &'static str,
    /// What ours does instead.
    pub why: &'static str,
    /// Whether this difference is one of its kind.
    pub covers: fn(&Exchange<'_>, Difference) -> bool,
}

/// Where the steps come from.
#[derive(Debug)]
pub enum Plan<'a> {
    /// So many are drawn.
    Draw {
        /// Decides everything.
        seed: u64,
        /// How many.
        steps: usize,
    },
    /// They are there already.
    Replay(&'a [Step]),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In the reply to which message, or in the trees.
    pub place: Option<Mid>,
    /// Where in the reply.
    pub difference: Option<Difference>,
    /// In words.
    pub text: String,
}

impl Found {
    /// Whether both are of one kind, so that one may replace the other while shrinking.
    fn is_like(&self, other: &Self) -> bool {
        (self.place, self.difference) == (other.place, other.difference)
    }
}

/// How a sequence went.
#[derive(Debug, Default)]
pub struct Played {
    /// The steps that were sent.
    pub steps: Vec<Step>,
    /// How often each row of the table was used.
    pub allowed: BTreeMap<&'static str, usize>,
    /// Steps that were drawn and not sent, by why.
    pub held_back: BTreeMap<&'static str, usize>,
    /// Successes and failures of ours, by message.
    pub outcomes: BTreeMap<Mid, (usize, usize)>,
    /// The difference that ended it.
    pub found: Option<Found>,
}

/// Plays a sequence until its end or the first difference that is not allowed.
#[must_use]
pub fn play(contenders: &Contenders, table: &[Allowed], plan: &Plan<'_>) -> Played {
    let mut duel = Duel::start(contenders, table);
    let found = match plan {
        Plan::Draw { seed, steps } => duel.draw(*seed, *steps),
        Plan::Replay(steps) => steps.iter().try_for_each(|step| duel.play(step)),
    };
    let found = found.and_then(|()| duel.look()).err();
    let Duel {
        sides, mut played, ..
    } = duel;
    played.found = found;
    if played.found.is_none() {
        for (who, side) in [("ours", sides.ours), ("reference", sides.reference)] {
            if let Err(text) = side.end() {
                played.found = Some(Found {
                    place: None,
                    difference: None,
                    text: format!("{who}: {text}"),
                });
            }
        }
    }
    played
}

/// Deletes steps while a difference of the same kind remains.
#[must_use]
pub fn shrink(contenders: &Contenders, table: &[Allowed], played: &Played) -> Vec<Step> {
    let mut steps = played.steps.clone();
    let Some(found) = &played.found else {
        return steps;
    };
    let fails = |steps: &[Step]| {
        let again = play(contenders, table, &Plan::Replay(steps));
        again.found.is_some_and(|other| other.is_like(found))
    };
    let mut chunk = steps.len().div_ceil(2);
    while chunk > 0 {
        let mut start = 0;
        while start < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(start..(start + chunk).min(steps.len()));
            if fails(&fewer) {
                steps = fewer;
            } else {
                start += chunk;
            }
        }
        chunk /= 2;
    }
    steps
}

struct Duel<'t> {
    sides: Both<Side>,
    table: &'t [Allowed],
    model: Model,
    /// Our files and the reference's.
    pairs: HashMap<HostFile, HostFile>,
    pairs_back: HashMap<HostFile, HostFile>,
    watch: Watch,
    played: Played,
}

impl<'t> Duel<'t> {
    fn start(contenders: &Contenders, table: &'t [Allowed]) -> Self {
        let sides = Both {
            ours: Side::start(contenders.ours.as_deref()),
            reference: Side::start(Some(&contenders.reference)),
        };
        let pids = [sides.ours.pid(), sides.reference.pid()];
        let watch = Watch::over(pids.into_iter().flatten().collect());
        let mut model = Model::new();
        let root = Slot {
            ids: Both {
                ours: sides.ours.root.control,
                reference: sides.reference.root.control,
            },
            files: Both {
                ours: file_of(&sides.ours.root.stat),
                reference: file_of(&sides.reference.root.stat),
            },
            kind: Kind::Control,
            file_type: S_IFDIR,
            node: ROOT,
            bound_child: false,
            live: true,
        };
        model.slots.insert(Ref::Root, root);
        Self {
            sides,
            table,
            model,
            pairs: HashMap::new(),
            pairs_back: HashMap::new(),
            watch,
            played: Played::default(),
        }
    }

    fn draw(&mut self, seed: u64, steps: usize) -> Result<(), Found> {
        let mut dice = Dice::new(seed);
        let mut number = 0;
        while self.played.steps.len() < steps {
            let step = Draw {
                dice: &mut dice,
                model: &self.model,
            }
            .step(number);
            number += 1;
            self.play(&step)?;
        }
        Ok(())
    }

    fn slot(&self, id: Ref) -> Option<&Slot> {
        self.model.slots.get(&id).filter(|slot| slot.live)
    }

    /// Why a step must not be sent: it would stop or derail the reference.
    fn held_back(&self, op: &Op) -> Option<&'static str> {
        let first = op.refs().first().and_then(|&id| self.slot(id));
        if let Op::Close(ids) = op {
            let bound = |id: &Ref| self.slot(*id).is_some_and(|slot| slot.kind == Kind::Bound);
            return ids.iter().any(bound).then_some(
                "14 row 15: closing a bound id closes a descriptor twice at the reference",
            );
        }
        if let Op::BindAt { name, .. } = op
            && (90..255).contains(&name.0.len())
        {
            return Some("14 row 11: where too long begins");
        }
        if let Op::BindAt { name, .. } = op
            && name.0.contains(&0)
        {
            return Some("7.4: the reference binds what stands in front of a NUL");
        }
        let slot = first?;
        let (deleted, lost) = (
            self.model.is_deleted(slot.node),
            self.model.is_detached(slot.node),
        );
        match op {
            Op::OpenAt(_, flags) if slot.file_type == S_IFIFO && matches!(flags & 3, 0 | 3) => {
                Some("14 row 1: the reference would wait for a writer")
            }
            Op::OpenAt(_, flags) if deleted && flags & O_TRUNC != 0 => {
                Some("14 row 7: only ours would truncate")
            }
            Op::SetStat { mask, uid, gid, .. } => {
                let by_path = match slot.file_type {
                    S_IFSOCK => SetStat::MODE,
                    S_IFLNK => SetStat::ATIME | SetStat::MTIME,
                    _ => 0,
                };
                let keeps = |bit, id| mask & bit == 0 || id == u32::MAX;
                let owner = mask & (SetStat::UID | SetStat::GID) != 0;
                if mask & by_path != 0 && (deleted || lost) {
                    Some("14 row 9: the reference would reach another file")
                } else if owner && keeps(SetStat::UID, *uid) && keeps(SetStat::GID, *gid) {
                    Some("13: a change of owner that changes none is skipped")
                } else {
                    None
                }
            }
            Op::Connect(_, kind) | Op::ConnectWithCreds(_, kind) => {
                let file = slot.files.ours;
                let listening = self.model.listening.contains(&file);
                let crowded = self.model.connects.get(&file).copied() > Some(CONNECTS_MAX);
                if listening && (*kind == 0 || crowded) {
                    Some("14 rows 12 and 14: the queues would differ, or be full")
                } else if lost || (deleted && self.host_paths(slot).is_some()) {
                    Some("14 row 5: the reference has lost the node")
                } else {
                    None
                }
            }
            Op::RenameAt { from, .. } | Op::RenameAt2 { from, .. }
                if self.is_device(slot, &from.1) =>
            {
                Some("Landlock: devices, which nobody may make, keep their name")
            }
            Op::Listen(..) if deleted => Some("14 row 7: only ours would listen"),
            Op::BindAt { .. } if lost => Some("14 row 5: the reference has lost the node"),
            Op::LinkAt { target, .. }
                if self
                    .slot(*target)
                    .is_some_and(|slot| self.model.is_detached(slot.node)) =>
            {
                Some("14 row 5: the reference has lost the node")
            }
            _ => None,
        }
    }

    fn play(&mut self, step: &Step) -> Result<(), Found> {
        if let Some(why) = self.held_back(&step.op) {
            *self.played.held_back.entry(why).or_default() += 1;
            return Ok(());
        }
        self.played.steps.push(step.clone());
        self.watch.beat();
        let mid = step.op.mid();
        let found = |difference, text| Found {
            place: Some(mid),
            difference,
            text,
        };
        let about = self.about(&step.op);
        let reference_op = step.op.for_v2024();
        let asked = self.ask(step, &reference_op);
        let (ours, reference) = asked.map_err(|text| found(None, text))?;
        let replies = Reply::of(mid, &ours).and_then(|ours| {
            let reference = Reply::of(reference_op.mid(), &reference)?;
            Ok((ours, reference))
        });
        let replies = replies.map_err(|text| found(None, text))?;
        let exchange = Exchange {
            step,
            about,
            ours: replies.0,
            reference: replies.1,
        };
        let outcome = self.played.outcomes.entry(mid).or_default();
        match exchange.ours.errno {
            0 => outcome.0 += 1,
            _ => outcome.1 += 1,
        }
        if matches!(step.op, Op::BindAt { .. }) {
            // As every client does; the reference's Accept would wait otherwise.
            for fd in ours.fds.iter().chain(&reference.fds) {
                let _best_effort = rustix::io::ioctl_fionbio(fd, true);
            }
        }
        let mut differences = self.compare(&exchange);
        if !self.are_same_files(&ours.fds, &reference.fds, mid) {
            differences.push(Difference::Descriptors);
        }
        for &difference in &differences {
            let row = self
                .table
                .iter()
                .find(|row| (row.covers)(&exchange, difference));
            let Some(row) = row else {
                let text = format!(
                    "{difference:?} differs\n  ours      {:?}\n  reference {:?}\n  about {:?}",
                    exchange.ours, exchange.reference, exchange.about
                );
                return Err(found(Some(difference), text));
            };
            *self.played.allowed.entry(row.row).or_default() += 1;
        }
        self.settle(&exchange, !differences.is_empty());
        if self.played.steps.len().is_multiple_of(STEPS_BETWEEN_LOOKS) {
            self.look()?;
        }
        Ok(())
    }

    fn ask(&self, step: &Step, reference_op: &Op) -> Result<(Answer, Answer), String> {
        let slots = &self.model.slots;
        let ours = |id| number(id, slots.get(&id).map(|slot| slot.ids.ours));
        let reference = |id| number(id, slots.get(&id).map(|slot| slot.ids.reference));
        let ours = self.sides.ours.ask(step, &step.op, &ours);
        let ours = ours.map_err(|error| format!("ours: {error:?}"))?;
        let reference = self.sides.reference.ask(step, reference_op, &reference);
        let reference = reference.map_err(|error| format!("the reference: {error:?}"))?;
        Ok((ours, reference))
    }

    fn about(&self, op: &Op) -> Vec<About> {
        let refs = op.refs();
        let slots = refs.iter().filter_map(|&id| self.slot(id));
        slots
            .map(|slot| About {
                kind: slot.kind,
                file_type: slot.file_type,
                deleted: self.model.is_deleted(slot.node),
                detached: self.model.is_detached(slot.node),
                bound_child: slot.bound_child,
                path_bytes: self.model.path_bytes(slot.node),
            })
            .collect()
    }

    /// Compares the trees.
    fn look(&mut self) -> Result<(), Found> {
        match tree::difference(&self.sides.ours.tree, &self.sides.reference.tree) {
            None => Ok(()),
            Some(text) => Err(Found {
                place: None,
                difference: None,
                text: format!("the trees differ {text}"),
            }),
        }
    }
}

/// Comparing.
impl Duel<'_> {
    fn compare(&mut self, exchange: &Exchange<'_>) -> Vec<Difference> {
        let (ours, reference) = (&exchange.ours, &exchange.reference);
        if ours.errno != reference.errno {
            return vec![Difference::Errno];
        }
        let mut all = Vec::new();
        if (ours.ids.len(), ours.stats.len()) != (reference.ids.len(), reference.stats.len()) {
            all.push(Difference::Count);
        }
        for (ours, reference) in ours.stats.iter().zip(&reference.stats) {
            all.extend(stat_differences(ours, reference));
            if !self.are_same(file_of(ours), file_of(reference)) {
                all.push(Difference::Identity);
            }
        }
        if ours.numbers != reference.numbers {
            all.push(Difference::Numbers);
        }
        if ours.texts != reference.texts {
            all.push(Difference::Texts);
        }
        if !self.are_same_entries(ours, reference) {
            all.push(Difference::Entries);
        }
        all
    }

    fn are_same_entries(&mut self, ours: &Reply, reference: &Reply) -> bool {
        let file = |ino, (major, minor)| (rustix::fs::makedev(major, minor), ino);
        ours.entries.len() == reference.entries.len()
            && ours
                .entries
                .iter()
                .zip(&reference.entries)
                .all(|(ours, reference)| {
                    (ours.2, &ours.3) == (reference.2, &reference.3)
                        && self.are_same(file(ours.0, ours.1), file(reference.0, reference.1))
                })
    }

    fn are_same_files(&mut self, ours: &[OwnedFd], reference: &[OwnedFd], mid: Mid) -> bool {
        if ours.len() != reference.len() {
            return false;
        }
        let is_file = matches!(mid, Mid::OPEN_AT | Mid::OPEN_CREATE_AT);
        let file = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        ours.iter()
            .zip(reference)
            .filter(|_| is_file)
            .all(|(ours, reference)| match (file(ours), file(reference)) {
                (Ok(ours), Ok(reference)) => self.are_same(ours, reference),
                _ => false,
            })
    }

    /// Whether two files are each other's counterpart. What was never seen is believed; numbers may
    /// be used again by the host, so a contradiction counts only if it holds now.
    fn are_same(&mut self, ours: HostFile, reference: HostFile) -> bool {
        if self.pair(ours, reference) {
            return true;
        }
        self.learn();
        self.pair(ours, reference)
    }

    fn pair(&mut self, ours: HostFile, reference: HostFile) -> bool {
        let there = *self.pairs.entry(ours).or_insert(reference);
        let back = *self.pairs_back.entry(reference).or_insert(ours);
        (there, back) == (reference, ours)
    }

    /// Which files belong together now: those of the same path, and those of the same id.
    fn learn(&mut self) {
        self.pairs.clear();
        self.pairs_back.clear();
        let numbers = |side: &Side| {
            let mut files = BTreeMap::new();
            tree::each(&side.tree, &mut |path, stat| {
                use std::os::unix::fs::MetadataExt;
                let name = path.strip_prefix(&side.tree).unwrap_or(path);
                files.insert(name.to_owned(), (stat.dev(), stat.ino()));
            });
            files
        };
        let (ours, reference) = (numbers(&self.sides.ours), numbers(&self.sides.reference));
        for (path, file) in ours {
            if let Some(other) = reference.get(&path) {
                self.pair(file, *other);
            }
        }
        let held = self
            .model
            .slots
            .values()
            .filter(|slot| slot.live && slot.kind != Kind::Bound && !slot.bound_child);
        let held: Vec<Both<FdId>> = held.map(|slot| slot.ids).collect();
        for ids in held {
            let ours = self.sides.ours.stat(ids.ours);
            let reference = self.sides.reference.stat(ids.reference);
            if let (Some(ours), Some(reference)) = (ours, reference) {
                self.pair(file_of(&ours), file_of(&reference));
            }
        }
    }
}

/// Keeping books.
impl Duel<'_> {
    /// Records what both did, and takes back what only one did.
    fn settle(&mut self, exchange: &Exchange<'_>, differed: bool) {
        let (ours, reference) = (&exchange.ours, &exchange.reference);
        let step = exchange.step;
        let first = step
            .op
            .refs()
            .first()
            .and_then(|&id| self.slot(id))
            .cloned();
        if reference.errno == 0 && !matches!(step.twist, Twist::Cut(_)) {
            self.record(step, first.as_ref());
        }
        if ours.ids.len() == reference.ids.len() {
            self.record_ids(exchange, first.as_ref());
        } else {
            self.sides.ours.close(&ours.ids);
            self.sides.reference.close(&reference.ids);
        }
        if ours.errno == 0 && reference.errno != 0 {
            self.take_back(&step.op);
        }
        let made = self.slot(Ref::Made(step.number, 0)).cloned();
        let changed = match step.op {
            Op::SetStat { .. } => first.filter(|slot| slot.bound_child),
            Op::FSetXattr { .. } | Op::FRemoveXattr(..) => first,
            _ if differed => made,
            _ => None,
        };
        if let Some((ours, reference)) = changed.and_then(|slot| self.host_paths(&slot)) {
            tree::level(&ours, &reference);
        }
    }

    fn is_device(&self, dir: &Slot, name: &Bytes) -> bool {
        let dir = tree::find(&self.sides.ours.tree, dir.files.ours);
        let entry = dir.map(|dir| dir.join(OsStr::from_bytes(&name.0)).symlink_metadata());
        let is_device = |kind: FileType| kind.is_block_device() || kind.is_char_device();
        matches!(entry, Some(Ok(file)) if is_device(file.file_type()))
    }

    /// Where a file lies, if it has a name in both trees.
    fn host_paths(&self, slot: &Slot) -> Option<(PathBuf, PathBuf)> {
        let ours = tree::find(&self.sides.ours.tree, slot.files.ours)?;
        let reference = tree::find(&self.sides.reference.tree, slot.files.reference)?;
        Some((ours, reference))
    }

    /// Removes what only ours made.
    fn take_back(&self, op: &Op) {
        let Some((dir, name)) = op.makes() else {
            return;
        };
        let flags = if matches!(op, Op::MkdirAt(..)) {
            0x200
        } else {
            0
        };
        let undo = Op::UnlinkAt {
            dir,
            flags,
            name: name.clone(),
        };
        let slots = &self.model.slots;
        let id_of = |id| number(id, slots.get(&id).map(|slot| slot.ids.ours));
        self.sides.ours.take_back(&undo, &id_of);
    }

    /// What the reference now believes.
    fn record(&mut self, step: &Step, first: Option<&Slot>) {
        match (&step.op, first) {
            (Op::Close(ids), _) => {
                for id in ids {
                    if let Some(slot) = self.model.slots.get_mut(id)
                        && slot.live
                    {
                        slot.live = false;
                        let node = slot.node;
                        self.model.released(node);
                    }
                }
            }
            (Op::UnlinkAt { name, .. }, Some(dir)) => self.model.unlink(dir.node, &name.0),
            (Op::RenameAt { from, to } | Op::RenameAt2 { from, to, .. }, Some(dir)) => {
                if let Some(new_dir) = self.slot(to.0) {
                    let new_dir = new_dir.node;
                    self.model.rename((dir.node, &from.1.0), (new_dir, &to.1.0));
                }
            }
            (Op::Listen(..), Some(bound)) => {
                self.model.listening.insert(bound.files.ours);
            }
            (Op::Connect(..) | Op::ConnectWithCreds(..), Some(socket)) => {
                *self.model.connects.entry(socket.files.ours).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Gives both servers' new ids a common name.
    fn record_ids(&mut self, exchange: &Exchange<'_>, first: Option<&Slot>) {
        let (ours, reference) = (&exchange.ours, &exchange.reference);
        let op = &exchange.step.op;
        let mut node = first.map_or(ROOT, |slot| slot.node);
        for (nth, (&our_id, &their_id)) in ours.ids.iter().zip(&reference.ids).enumerate() {
            match (op, op.makes()) {
                (Op::Walk(_, names), _) => {
                    if let Some(name) = names.get(nth) {
                        node = self.model.child(node, &name.0);
                    }
                }
                (_, Some((_, name))) if nth == 0 => node = self.model.child(node, &name.0),
                _ => {}
            }
            let kind = match (op, nth) {
                (Op::OpenAt(..), _) | (Op::OpenCreateAt(..), 1) => Kind::Open,
                (Op::BindAt { .. }, 1) => Kind::Bound,
                _ => Kind::Control,
            };
            // An open or bound id is the same file as the one before it.
            let stats = (
                ours.stats.get(nth).or(ours.stats.last()),
                reference.stats.get(nth).or(reference.stats.last()),
            );
            let (file_type, files) = match (stats, first) {
                ((Some(ours), Some(reference)), _) => (
                    ours.mode & S_IFMT,
                    Both {
                        ours: file_of(ours),
                        reference: file_of(reference),
                    },
                ),
                (_, Some(slot)) => (slot.file_type, slot.files),
                _ => continue,
            };
            let slot = Slot {
                ids: Both {
                    ours: our_id,
                    reference: their_id,
                },
                files,
                kind,
                file_type,
                node,
                bound_child: matches!(op, Op::BindAt { .. }) && nth == 0,
                live: true,
            };
            let id = Ref::Made(exchange.step.number, nth as u8);
            self.model.slots.insert(id, slot);
        }
    }
}

fn number(id: Ref, known: Option<FdId>) -> FdId {
    match id {
        Ref::Raw(number) => FdId(number),
        // What a deleted step would have made.
        Ref::Root | Ref::Made(..) => known.unwrap_or(FdId(u64::MAX - 1)),
    }
}

fn file_of(stat: &Statx) -> HostFile {
    (
        rustix::fs::makedev(stat.dev_major, stat.dev_minor),
        stat.ino,
    )
}

/// Fields that differ. Left out: times, the space taken (the host allocates when it likes), the
/// length of directories, and what only newer servers fill.
fn stat_differences(ours: &Statx, reference: &Statx) -> Vec<Difference> {
    /// `STATX_BASIC_STATS`.
    const BASIC: u32 = 0x7ff;
    let size = |stat: &Statx| match stat.mode & S_IFMT {
        S_IFDIR => 0,
        _ => stat.size,
    };
    let fields = [
        (
            "mask",
            u64::from(ours.mask & BASIC),
            u64::from(reference.mask & BASIC),
        ),
        ("blksize", ours.blksize.into(), reference.blksize.into()),
        ("nlink", ours.nlink.into(), reference.nlink.into()),
        ("uid", ours.uid.into(), reference.uid.into()),
        ("gid", ours.gid.into(), reference.gid.into()),
        ("mode", ours.mode.into(), reference.mode.into()),
        ("size", size(ours), size(reference)),
        (
            "rdev",
            rustix::fs::makedev(ours.rdev_major, ours.rdev_minor),
            rustix::fs::makedev(reference.rdev_major, reference.rdev_minor),
        ),
    ];
    fields
        .into_iter()
        .filter(|(_, ours, reference)| ours != reference)
        .map(|(name, ..)| Difference::Stat(name))
        .collect()
}
