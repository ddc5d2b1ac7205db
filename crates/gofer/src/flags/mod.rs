//! The command line `runsc` gives its gofer: global flags, the word `gofer`, the gofer's own flags.
//!
//! Belongs here: what the flags say, in types. Elsewhere: Go's grammar (`grammar`, `value`), the
//! names (`table`), what is done about them (`crate::process`).
//! Must hold: a new `runsc` may add global flags, so unknown ones are skipped when that is safe; an
//! unknown gofer flag is an error, because it may announce a descriptor that somebody waits on.

mod globals;
mod gofer;
mod grammar;
#[cfg(test)]
mod promises;
mod table;
#[cfg(test)]
mod tests;
mod value;

use thiserror::Error;

pub(crate) use globals::{CharacterDevices, Globals, HostUds, LogFormat};
pub(crate) use gofer::{Dialect, GoferFlags};
pub(crate) use grammar::SyntaxError;
pub(crate) use table::CPU_PROFILE;

/// Why there is nothing to start.
#[derive(Debug, Error)]
pub(crate) enum UsageError {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error("want the subcommand gofer, not {0}")]
    Subcommand(String),
    #[error("{0}")]
    Rule(String),
}
