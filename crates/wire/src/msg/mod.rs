//! The messages, in eight families; the same names stand in `host`, `server::rpc` and `client`.
//!
//! A request is named as the protocol names it, its reply ends in `Reply`. Requests without a body
//! and replies without one have no type: any payload is fine.

pub mod attr;
pub mod data;
pub mod dir;
pub mod open;
pub mod session;
pub mod socket;
pub mod walk;
pub mod xattr;

/// Declares a message whose fields follow each other: `kind name`, with `pad N` for padding.
macro_rules! message {
    (@read $r:ident id) => { $r.id()? };
    (@read $r:ident u8) => { $r.u8()? };
    (@read $r:ident u16) => { $r.u16()? };
    (@read $r:ident u32) => { $r.u32()? };
    (@read $r:ident u64) => { $r.u64()? };
    (@read $r:ident i32) => { $r.i32()? };
    (@read $r:ident i64) => { $r.i64()? };
    (@read $r:ident text) => { $r.text()? };
    (@read $r:ident $other:ident) => { $crate::Decode::decode($r)? };
    (@write $w:ident id $value:expr) => { $w.id($value) };
    (@write $w:ident u8 $value:expr) => { $w.u8($value) };
    (@write $w:ident u16 $value:expr) => { $w.u16($value) };
    (@write $w:ident u32 $value:expr) => { $w.u32($value) };
    (@write $w:ident u64 $value:expr) => { $w.u64($value) };
    (@write $w:ident i32 $value:expr) => { $w.i32($value) };
    (@write $w:ident i64 $value:expr) => { $w.i64($value) };
    (@write $w:ident text $value:expr) => { $w.text($value) };
    (@write $w:ident $other:ident $value:expr) => { $crate::Encode::encode(&$value, $w) };

    ($(#[$doc:meta])* $name:ident $(<$lt:lifetime>)? {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $kind:ident $(pad $pad:literal)?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name $(<$lt>)? {
            $($(#[$field_doc])* pub $field: $type,)*
        }
        impl<'de $(, $lt)?> $crate::Decode<'de> for $name $(<$lt>)? $(where 'de: $lt)? {
            fn decode(r: &mut $crate::Reader<'de>) -> Result<Self, $crate::Malformed> {
                $(
                    let $field = message!(@read r $kind);
                    $(r.padding($pad)?;)?
                )*
                Ok(Self { $($field),* })
            }
        }
        impl $(<$lt>)? $crate::Encode for $name $(<$lt>)? {
            fn encode(&self, w: &mut $crate::Writer<'_>) {
                $(
                    message!(@write w $kind self.$field);
                    $(w.padding($pad);)?
                )*
            }
        }
    };
}
use message;
