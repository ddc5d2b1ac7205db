//! Taking a payload apart, front to back.

use zerocopy::FromBytes;

use crate::{FdId, Text};

/// The payload is shorter than its structure, or than a length inside it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload ends too early")]
pub struct Malformed;

/// Something that can be read from a payload.
pub trait Decode<'a>: Sized {
    /// Reads the value; what follows it in the payload stays unread.
    ///
    /// # Errors
    /// [`Malformed`] if the payload ends too early.
    fn decode(r: &mut Reader<'a>) -> Result<Self, Malformed>;

    /// Reads the value from the front of `payload`; surplus bytes are ignored, as the protocol says.
    ///
    /// # Errors
    /// [`Malformed`] if the payload ends too early.
    fn from_payload(payload: &'a [u8]) -> Result<Self, Malformed> {
        Self::decode(&mut Reader::new(payload))
    }
}

/// A cursor over a payload that lies in private memory.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! integer {
    ($($name:ident: $type:ty),*) => {$(
        #[doc = concat!("The next `", stringify!($type), "`, little endian.")]
        ///
        /// # Errors
        /// [`Malformed`] if the payload ends too early.
        pub fn $name(&mut self) -> Result<$type, Malformed> {
            self.take().map(<$type>::from_le_bytes)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the front of `payload`.
    #[must_use]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    integer! { u8: u8, u16: u16, u32: u32, u64: u64, i32: i32, i64: i64 }

    /// The bytes not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Malformed`] if fewer are left.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// Passes over padding, whatever it holds.
    ///
    /// # Errors
    /// [`Malformed`] if fewer bytes are left.
    pub fn padding(&mut self, count: usize) -> Result<(), Malformed> {
        self.bytes(count).map(|_| ())
    }

    /// The next id.
    ///
    /// # Errors
    /// [`Malformed`] if the payload ends too early.
    pub fn id(&mut self) -> Result<FdId, Malformed> {
        self.u64().map(FdId)
    }

    /// The next string: a `u16` length, then the bytes.
    ///
    /// # Errors
    /// [`Malformed`] if the payload ends too early.
    pub fn text(&mut self) -> Result<Text<'a>, Malformed> {
        let length = self.u16()?;
        self.bytes(usize::from(length)).map(Text)
    }

    /// The next fixed structure, copied out.
    ///
    /// # Errors
    /// [`Malformed`] if the payload ends too early.
    pub fn fixed<T: FromBytes>(&mut self) -> Result<T, Malformed> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| Malformed)?;
        self.rest = rest;
        Ok(value)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }
}
