//! What can go wrong between the first line of `main` and the sealed process, worded for the one
//! line that somebody will find in the error log.
//!
//! Belongs here: wording and exit statuses. Belongs elsewhere: where the line is written (`gofer`).

use rustix::io::Errno;

/// Why this process does not come to serve. Each message names the thing, the place and, where
/// there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parent handed over something that contradicts itself.
    #[error("{0}")]
    Parent(String),
    /// The bundle's `config.json` cannot be used.
    #[error("config.json: {0}")]
    Spec(String),
    /// The host refused a step of the set-up.
    #[error("{doing}: {errno}{}", .remedy.map(|text| format!(" ({text})")).unwrap_or_default())]
    Host {
        /// What was being done, with the paths it was done to.
        doing: String,
        /// The host's answer.
        errno: Errno,
        /// What the operator can do about it, if that is known.
        remedy: Option<&'static str>,
    },
    /// A volume, a device or the working directory cannot be put where the bundle wants it.
    #[error("{0}")]
    Place(String),
    /// The parent's mount service (`--rpc-fd`) failed or refused.
    #[error("asking the parent to open mount source {source_path:?}: {reason}")]
    Rpc {
        /// The source that could not be opened.
        source_path: String,
        /// The service's own words, or ours about the socket.
        reason: String,
    },
    /// Whoever reads the mounts list left before it was written.
    #[error("the reader of the mounts list is gone: {0}")]
    ReaderGone(Errno),
    /// Landlock or seccomp could not be put in force.
    #[error("sealing the process: {0}")]
    Seal(String),
}

impl Error {
    /// The exit status the reference gives this kind of failure.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::ReaderGone(_) => 2,
            _ => 128,
        }
    }

    pub(crate) fn host(doing: impl Into<String>, errno: Errno) -> Self {
        Self::Host {
            doing: doing.into(),
            errno,
            remedy: None,
        }
    }

    pub(crate) fn with_remedy(self, text: &'static str) -> Self {
        match self {
            Self::Host { doing, errno, .. } => Self::Host {
                doing,
                errno,
                remedy: Some(text),
            },
            other => other,
        }
    }
}

/// `.doing("opening …")?` on a host call: the sentence is only made if the call failed.
pub(crate) trait Doing<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error> {
        self.map_err(|errno| Error::host(what(), errno))
    }
}
