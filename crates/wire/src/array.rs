//! Arrays of the protocol: a `u16` count, then the elements back to back. Decoded, they stay bytes
//! of the payload; elements are read when asked for.

use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{Decode, Encode, Malformed, Reader, Text, Writer, limits};

/// An array of fixed structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array<'a, T> {
    bytes: &'a [u8],
    elements: PhantomData<T>,
}

impl<'a, T: FromBytes + IntoBytes + Immutable> Array<'a, T> {
    /// The elements of `items`; those above [`limits::COUNT_MAX`] are left out.
    #[must_use]
    pub fn new(items: &'a [T]) -> Self {
        let items = &items[..items.len().min(limits::COUNT_MAX)];
        Self {
            bytes: items.as_bytes(),
            elements: PhantomData,
        }
    }

    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() / size_of::<T>()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        self.bytes
            .chunks_exact(size_of::<T>())
            .filter_map(|chunk| T::read_from_bytes(chunk).ok())
    }
}

impl<'a, T: FromBytes> Decode<'a> for Array<'a, T> {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = usize::from(r.u16()?);
        let bytes = r.bytes(count * size_of::<T>())?;
        Ok(Self {
            bytes,
            elements: PhantomData,
        })
    }
}

impl<T: FromBytes + IntoBytes + Immutable> Encode for Array<'_, T> {
    fn encode(&self, w: &mut Writer<'_>) {
        w.u16(self.len() as u16);
        w.bytes(self.bytes);
    }
}

/// An array of strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Texts<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    /// Number of strings.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = Text<'a>> + Clone + use<'a> {
        let mut reader = Reader::new(self.bytes);
        core::iter::from_fn(move || reader.text().ok())
    }
}

impl<'a> Decode<'a> for Texts<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = r.u16()?;
        let start = r.rest();
        for _ in 0..count {
            r.text()?;
        }
        Ok(Self {
            count,
            bytes: &start[..start.len() - r.rest().len()],
        })
    }
}

impl Encode for Texts<'_> {
    fn encode(&self, w: &mut Writer<'_>) {
        w.u16(self.count);
        w.bytes(self.bytes);
    }
}

/// Strings on their way into a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextsBuf {
    count: u16,
    bytes: Vec<u8>,
}

impl TextsBuf {
    /// Appends a string. False, and nothing is appended, if it or the array would be too long.
    #[must_use]
    pub fn push(&mut self, text: &[u8]) -> bool {
        if text.len() > limits::COUNT_MAX || usize::from(self.count) == limits::COUNT_MAX {
            return false;
        }
        Writer::new(&mut self.bytes).text(Text(text));
        self.count += 1;
        true
    }

    /// The strings as a request takes them.
    #[must_use]
    pub fn texts(&self) -> Texts<'_> {
        Texts {
            count: self.count,
            bytes: &self.bytes,
        }
    }
}

impl<'s> FromIterator<&'s [u8]> for TextsBuf {
    /// Collects strings; those that do not fit are left out.
    fn from_iter<I: IntoIterator<Item = &'s [u8]>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts {
            let _fits = all.push(text);
        }
        all
    }
}
