//! The kernel's side of a FUSE connection, over a socket that keeps messages apart: asks, and looks
//! at every answer as the kernel does.
//!
//! Must hold: what is asked has the kernel's form (it is trusted); what the form leaves open is the
//! fuzzer's.

use std::io::{IoSlice, Read, Write};
use std::os::fd::OwnedFd;

use crate::world::secret;

const HEADER_BYTES: usize = 16;
/// Longest answer that is asked for.
pub const ROOM_MAX: u32 = 100_000;
/// Longest name of an entry that the kernel takes.
const NAME_BYTES_MAX: usize = 1024;

/// Operations, as the kernel numbers them.
pub mod op {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
}

/// A message's arguments under construction.
#[derive(Debug, Default, Clone)]
pub struct Words(Vec<u8>);

impl Words {
    /// Four bytes.
    #[must_use]
    pub fn small(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Eight bytes.
    #[must_use]
    pub fn large(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// A name, with its end.
    #[must_use]
    pub fn name(mut self, name: &[u8]) -> Self {
        self.0.extend_from_slice(name);
        self.0.push(0);
        self
    }

    /// Bytes as they are.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Zero, or an errno.
    pub errno: i32,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Answer {
    /// The number at a byte of the body.
    #[must_use]
    pub fn large(&self, at: usize) -> u64 {
        let bytes = self.body.get(at..at + 8).expect("a longer answer");
        u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
    }

    /// The number at a byte of the body.
    #[must_use]
    pub fn small(&self, at: usize) -> u32 {
        let bytes = self.body.get(at..at + 4).expect("a longer answer");
        u32::from_ne_bytes(bytes.try_into().expect("four bytes"))
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where to go on.
    pub offset: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// What a lookup of the name would have answered, if it was said; not of `.` and `..`.
    pub looked_up: Option<Answer>,
}

/// The kernel.
#[derive(Debug)]
pub struct Kernel {
    device: std::fs::File,
    unique: u64,
    room: Vec<u8>,
}

impl Kernel {
    /// Speaks over its end of a pair of sockets.
    #[must_use]
    pub fn new(end: OwnedFd) -> Self {
        Self {
            device: end.into(),
            unique: 0,
            room: vec![0; 1 << 20],
        }
    }

    /// A message that is not answered.
    ///
    /// # Panics
    /// If the other side has gone.
    pub fn tell(&mut self, operation: u32, node: u64, arguments: &Words) {
        self.unique += 2;
        let header = Words::default()
            .small((40 + arguments.0.len()) as u32)
            .small(operation)
            .large(self.unique)
            .large(node)
            // User, group, process; then reserved.
            .small(1000)
            .small(1000)
            .small(7)
            .small(0);
        let parts = [IoSlice::new(&header.0), IoSlice::new(&arguments.0)];
        retry(|| self.device.write_vectored(&parts)).expect("somebody who serves the mount");
    }

    /// A message, and its answer, which has the form that the kernel takes.
    ///
    /// # Panics
    /// If it has not, or there is none.
    pub fn ask(&mut self, operation: u32, node: u64, arguments: &Words) -> Answer {
        self.tell(operation, node, arguments);
        loop {
            let length = retry(|| self.device.read(&mut self.room)).expect("an answer");
            assert!(length >= HEADER_BYTES, "an answer to {operation}");
            let number = |at: usize| {
                let bytes = [0, 1, 2, 3].map(|next| self.room[at + next]);
                u32::from_ne_bytes(bytes)
            };
            assert_eq!(number(0) as usize, length, "its length, to {operation}");
            let unique = u64::from(number(8)) | u64::from(number(12)) << 32;
            let errno = number(4).cast_signed();
            if unique == 0 {
                // What nobody asked for: to forget a name.
                assert!(errno > 0, "a notice of no kind");
                continue;
            }
            assert_eq!(unique, self.unique, "which question it answers");
            assert!((-511..=0).contains(&errno), "errno {errno} to {operation}");
            assert_ne!(errno, -38, "ENOSYS ends an operation for ever: {operation}");
            let body = self.room[HEADER_BYTES..length].to_vec();
            assert!(errno == 0 || body.is_empty(), "an error with a body");
            let leaked = body.windows(secret().len()).any(|part| part == secret());
            assert!(!leaked, "an answer has content from outside");
            let answer = Answer {
                errno: -errno,
                body,
            };
            if errno == 0 {
                check_form(operation, arguments, &answer);
            }
            return answer;
        }
    }

    /// The first message; what a kernel of today offers.
    ///
    /// # Panics
    /// If it is refused.
    pub fn begin(&mut self) {
        let arguments = Words::default()
            .small(7)
            .small(40)
            .small(1 << 17)
            .small(u32::MAX)
            .small(u32::MAX)
            .bytes(&[0; 44]);
        let answer = self.ask(op::INIT, 0, &arguments);
        assert_eq!(answer.errno, 0, "a kernel of today is served");
    }
}

/// The fuzzer's own clock interrupts.
fn retry(mut call: impl FnMut() -> std::io::Result<usize>) -> std::io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What `GETXATTR`, `READ` and others leave room for.
fn room(operation: u32, arguments: &Words) -> usize {
    let at = match operation {
        op::READ | op::READDIR | op::READDIRPLUS => 16,
        _ => 0,
    };
    let bytes = arguments.0.get(at..at + 4).expect("its arguments");
    u32::from_ne_bytes(bytes.try_into().expect("four bytes")) as usize
}

/// The sizes and numbers that the kernel insists on.
fn check_form(operation: u32, arguments: &Words, answer: &Answer) {
    let bytes = answer.body.len();
    let exactly = |want: usize| assert_eq!(bytes, want, "the answer to {operation}");
    match operation {
        op::LOOKUP | op::SYMLINK | op::MKNOD | op::MKDIR | op::LINK => {
            exactly(128);
            check_entry(answer);
        }
        op::CREATE => {
            exactly(144);
            check_entry(answer);
        }
        op::GETATTR | op::SETATTR => {
            exactly(104);
            check_attributes(answer, 16);
        }
        op::OPEN | op::OPENDIR => exactly(16),
        op::STATFS => exactly(80),
        op::LSEEK => exactly(8),
        op::WRITE | op::COPY_FILE_RANGE => exactly(8),
        op::READ => assert!(bytes <= room(operation, arguments)),
        op::READDIR | op::READDIRPLUS => {
            assert!(bytes <= room(operation, arguments));
            _ = entries(operation, answer);
        }
        op::GETXATTR | op::LISTXATTR => match room(operation, arguments) {
            0 => exactly(8),
            room => assert!(bytes <= room),
        },
        op::READLINK => assert!(bytes <= 1 << 17),
        op::INIT => assert!(bytes >= 24),
        _ => exactly(0),
    }
}

fn check_entry(answer: &Answer) {
    assert_ne!(answer.large(0), 0, "number zero means that there is none");
    check_attributes(answer, 40);
    assert_eq!(
        answer.large(0),
        answer.large(40),
        "the number in both places"
    );
}

/// `struct fuse_attr` at a byte of the body.
fn check_attributes(answer: &Answer, at: usize) {
    let mode = answer.small(at + 60);
    let kinds = [1, 2, 4, 6, 8, 10, 12];
    assert!(kinds.contains(&(mode >> 12)), "a file of mode {mode:o}");
}

/// The entries of the answer to `READDIR` or `READDIRPLUS`, as the kernel reads them.
///
/// # Panics
/// If it would not.
#[must_use]
pub fn entries(operation: u32, answer: &Answer) -> Vec<Entry> {
    let head = if operation == op::READDIRPLUS { 128 } else { 0 };
    let mut found = Vec::new();
    let mut start = 0;
    while start < answer.body.len() {
        let at = start + head;
        let length = answer.small(at + 16) as usize;
        let name = answer.body.get(at + 24..at + 24 + length);
        let name = name.expect("a whole entry").to_vec();
        let fits = (1..=NAME_BYTES_MAX).contains(&length);
        assert!(
            fits && !name.contains(&b'/'),
            "a name that none is: {name:?}"
        );
        let tells = head > 0 && name != b"." && name != b"..";
        let looked_up = tells.then(|| Answer {
            errno: 0,
            body: answer.body[start..at].to_vec(),
        });
        if let Some(looked_up) = &looked_up {
            check_entry(looked_up);
        }
        found.push(Entry {
            offset: answer.large(at + 8),
            name,
            looked_up,
        });
        start = at + (24 + length).next_multiple_of(8);
    }
    found
}
