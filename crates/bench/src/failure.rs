//! How a measurement fails: one message that says what was tried.

use std::fmt::Display;

/// What went wrong, for people.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Adds to a failed step what was tried.
pub(crate) trait Tried<T> {
    fn tried(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Tried<T> for Result<T, E> {
    fn tried(self, what: impl Display) -> Result<T> {
        self.map_err(|cause| format!("{what}: {cause}").into())
    }
}
