//! Putting a payload together, front to back.

use zerocopy::{Immutable, IntoBytes};

use crate::{FdId, Text, limits};

/// Something that can be written as a payload or a part of one.
pub trait Encode {
    /// Appends the value.
    fn encode(&self, w: &mut Writer<'_>);

    /// The value as a payload of its own.
    #[must_use]
    fn to_payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        self.encode(&mut Writer::new(&mut payload));
        payload
    }
}

/// Appends to a buffer in private memory. It never reads back what it wrote.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
}

macro_rules! integer {
    ($($name:ident: $type:ty),*) => {$(
        #[doc = concat!("Appends a `", stringify!($type), "`, little endian.")]
        pub fn $name(&mut self, value: $type) {
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    )*};
}

impl<'b> Writer<'b> {
    /// A writer at the end of `out`.
    #[must_use]
    pub const fn new(out: &'b mut Vec<u8>) -> Self {
        Self { out }
    }

    integer! { u8: u8, u16: u16, u32: u32, u64: u64, i32: i32, i64: i64 }

    /// Bytes in the buffer so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Appends zeroes.
    pub fn padding(&mut self, count: usize) {
        self.out.resize(self.out.len() + count, 0);
    }

    /// Appends an id.
    pub fn id(&mut self, id: FdId) {
        self.u64(id.0);
    }

    /// Appends a string. What exceeds [`limits::COUNT_MAX`] bytes is cut: callers refuse longer ones
    /// with a better error before they come here.
    pub fn text(&mut self, text: Text<'_>) {
        let bytes = &text.0[..text.0.len().min(limits::COUNT_MAX)];
        self.u16(bytes.len() as u16);
        self.bytes(bytes);
    }

    /// Appends a fixed structure as it lies in memory.
    pub fn fixed<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.bytes(value.as_bytes());
    }

    /// Overwrites two bytes written earlier: the count of an array whose end was not known.
    pub(crate) fn set_u16(&mut self, at: usize, value: u16) {
        self.out[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Overwrites one byte written earlier.
    pub(crate) fn set_u8(&mut self, at: usize, value: u8) {
        self.out[at] = value;
    }

    /// Forgets everything written from `at` on.
    pub fn truncate(&mut self, at: usize) {
        self.out.truncate(at);
    }
}
