//! Every system call made on a client's behalf: descriptors in, descriptors out.
//!
//! Belongs here: which calls serve a request, how a half-done one is undone, what an errno becomes.
//! Belongs elsewhere: who may ask (`server`), bulk data (`channel`, it owns the window).
//! Must hold: no call gets a path of several components, and none follows a symbolic link. A file
//! is named by a descriptor, by one checked [`Name`] below a directory descriptor, or by its number
//! in the [`DescriptorDir`].
#![deny(unsafe_code)]

pub mod attr;
pub mod data;
pub mod dir;
mod fchmodat2;
mod fd;
pub mod open;
pub mod socket;
mod undo;
pub mod walk;
pub mod xattr;

pub use fd::{DescriptorDir, Kind, Pinned, errno, retry};
pub use wire::{Errno, Name};
