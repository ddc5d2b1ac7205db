//! Every short sequence of renames, removals, links, creations and closed ids over three names and
//! two files, compared with a model of what Linux does: rows 5 and 8 of the reference's weak spots
//! (`lisafs.md`, section 14), and everything near them.
//!
//! All sequences of three steps; of four in the test that `cargo xtask test --long` runs too.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use client::{Client, Error};
use rig::Rig;
use wire::{Errno, FdId, NewNode, Owner};

const NAMES: [&[u8]; 3] = [b"a", b"b", b"c"];
const RDWR: u32 = 2;

/// One step; places are indices of [`NAMES`], files those of the start.
#[derive(Debug, Clone, Copy)]
enum Step {
    Rename(usize, usize),
    Unlink(usize),
    Link { file: usize, place: usize },
    Create(usize),
    Close { file: usize },
}

fn steps() -> Vec<Step> {
    let places = 0..NAMES.len();
    let pairs = places
        .clone()
        .flat_map(|from| (0..NAMES.len()).map(move |to| (from, to)));
    let mut all: Vec<Step> = pairs.map(|(from, to)| Step::Rename(from, to)).collect();
    all.extend(places.clone().map(Step::Unlink));
    all.extend(places.clone().map(Step::Create));
    for file in 0..2 {
        all.extend(places.clone().map(|place| Step::Link { file, place }));
        all.push(Step::Close { file });
    }
    all
}

/// A file as the client holds it. Its number is its content.
struct File {
    control: FdId,
    open: FdId,
    ino: u64,
}

/// What must be: which file each name is, if any, and whose control id is held.
#[derive(Debug, Clone, Default)]
struct Model {
    names: [Option<usize>; 3],
    held: Vec<bool>,
}

/// `a` and `b` are links of file 0, `c` is file 1.
const START: [Step; 3] = [
    Step::Create(0),
    Step::Link { file: 0, place: 1 },
    Step::Create(2),
];

impl Model {
    fn links(&self, file: usize) -> usize {
        self.names
            .iter()
            .filter(|name| **name == Some(file))
            .count()
    }

    fn expected(&self, step: Step) -> Result<(), Errno> {
        let there = |place: usize| self.names[place].ok_or(Errno::NOENT).map(|_| ());
        match step {
            Step::Rename(place, _) | Step::Unlink(place) => there(place),
            Step::Create(place) if self.names[place].is_some() => Err(Errno::EXIST),
            Step::Link { file, .. } if !self.held[file] => Err(Errno::BADF),
            Step::Link { place, .. } if self.names[place].is_some() => Err(Errno::EXIST),
            Step::Link { file, .. } if self.links(file) == 0 => Err(Errno::INVAL),
            Step::Create(_) | Step::Link { .. } | Step::Close { .. } => Ok(()),
        }
    }

    fn play(&mut self, step: Step) -> Result<(), Errno> {
        self.expected(step)?;
        match step {
            Step::Rename(from, to) if self.names[from] != self.names[to] => {
                self.names[to] = self.names[from].take();
            }
            // Two links of one file: nothing happens, both stay.
            Step::Rename(..) => {}
            Step::Unlink(place) => self.names[place] = None,
            Step::Link { file, place } => self.names[place] = Some(file),
            Step::Create(place) => {
                self.names[place] = Some(self.held.len());
                self.held.push(true);
            }
            Step::Close { file } => self.held[file] = false,
        }
        Ok(())
    }

    /// Whether a step before the last fails: it changes nothing, so a shorter sequence is the same.
    fn says_nothing_new(sequence: &[Step]) -> bool {
        let mut model = Self::default();
        let mut before_last = START.iter().chain(&sequence[..sequence.len() - 1]);
        before_last.any(|step| model.play(*step).is_err())
    }
}

struct World<'r> {
    client: &'r Client,
    dir: FdId,
    model: Model,
    files: Vec<File>,
}

impl<'r> World<'r> {
    fn new(client: &'r Client, dir: FdId) -> Self {
        let mut world = Self {
            client,
            dir,
            model: Model::default(),
            files: Vec::new(),
        };
        START.into_iter().for_each(|step| world.play(step));
        world
    }

    /// Asks for it; what happens is what the model expects.
    fn play(&mut self, step: Step) {
        let before = self.model.clone();
        let happened = self.ask(step);
        assert_eq!(happened, self.model.play(step), "{step:?} with {before:?}");
    }

    fn ask(&mut self, step: Step) -> Result<(), Errno> {
        let (client, dir) = (self.client, self.dir);
        let done = match step {
            Step::Rename(from, to) => client.rename_at((dir, NAMES[from]), (dir, NAMES[to])),
            Step::Unlink(place) => client.unlink_at(dir, NAMES[place], 0),
            Step::Create(place) => self.create(place),
            Step::Link { file, place } => {
                let made = client.link_at(dir, self.files[file].control, NAMES[place]);
                made.and_then(|inode| client.close(&[inode.control]))
            }
            Step::Close { file } => client.close(&[self.files[file].control]),
        };
        done.map_err(|error| match error {
            Error::Refused(errno) => errno,
            other => panic!("{step:?}: {other:?}"),
        })
    }

    fn create(&mut self, place: usize) -> Result<(), Error> {
        let new = NewNode {
            dir: self.dir,
            owner: Owner::KEEP,
            mode: 0o600,
        };
        let made = self.client.open_create_at(new, NAMES[place], RDWR)?;
        let number = u8::try_from(self.files.len()).unwrap();
        assert_eq!(self.client.pwrite(made.opened.id, 0, &[number]), Ok(1));
        self.files.push(File {
            control: made.child.control,
            open: made.opened.id,
            ino: made.child.stat.ino,
        });
        Ok(())
    }

    /// Every id still stands for its file, every name is the file it must be.
    fn check(&self) {
        for (number, file) in self.files.iter().enumerate() {
            let links = self.model.links(number);
            let is = |id| {
                let stat = self.client.fstat(id)?;
                Ok((stat.ino, stat.nlink as usize))
            };
            let control = match self.model.held[number] {
                true => Ok((file.ino, links)),
                false => Err(Error::Refused(Errno::BADF)),
            };
            assert_eq!(is(file.control), control);
            assert_eq!(is(file.open), Ok((file.ino, links)));
            let mut content = [u8::MAX];
            assert_eq!(self.client.pread(file.open, 0, &mut content), Ok(1));
            assert_eq!(usize::from(content[0]), number);
        }
        for (name, expected) in NAMES.iter().zip(self.model.names) {
            let found = self.client.walk_one(self.dir, name);
            let expected = expected.map(|file| self.files[file].ino);
            assert_eq!(found.as_ref().ok().map(|inode| inode.stat.ino), expected);
            if let Ok(inode) = found {
                // The new id is as good as any: in the reference, marks of the dead stick to it.
                assert!(self.client.open_at(inode.control, 0).is_ok_and(|opened| {
                    self.client.close(&[opened.id, inode.control]).is_ok()
                }));
            }
        }
    }

    /// Closes everything and removes the names.
    fn end(self) {
        let held = self.files.iter();
        let ids: Vec<FdId> = held.flat_map(|file| [file.control, file.open]).collect();
        self.client.close(&ids).unwrap();
        for (name, is) in NAMES.iter().zip(self.model.names) {
            if is.is_some() {
                self.client.unlink_at(self.dir, name, 0).unwrap();
            }
        }
    }
}

fn play_every_sequence_of(length: u32) {
    let rig = Rig::new();
    rig.client().open_channels(1).unwrap();
    let steps = steps();
    let mut played = 0;
    for number in 0..steps.len().pow(length) {
        let digit = |place| steps[number / steps.len().pow(place) % steps.len()];
        let sequence: Vec<Step> = (0..length).map(digit).collect();
        if Model::says_nothing_new(&sequence) {
            continue;
        }
        let mut world = World::new(rig.client(), rig.root());
        sequence.into_iter().for_each(|step| world.play(step));
        world.check();
        world.end();
        played += 1;
    }
    assert_eq!(rig.host_names(), [""; 0]);
    println!("{played} sequences of {length} steps");
}

#[test]
fn every_sequence_of_three_renames_links_and_removals_does_what_linux_does() {
    play_every_sequence_of(3);
}

#[test]
#[ignore = "minutes: `cargo xtask test --long`"]
fn every_sequence_of_four_renames_links_and_removals_does_what_linux_does() {
    play_every_sequence_of(4);
}
