//! From "inherited descriptors and a parsed command line" to "sealed process".
//!
//! Belongs here: everything the process does with privileges it is about to lose: the served root,
//! its volumes and devices, the pivot, the mounts list, capabilities, Landlock, seccomp.
//! Belongs elsewhere: parsing of the command line and logs (`gofer`), every answer to a client
//! (`server`), every system call on a client's behalf (`host`).
//! Must hold: one thread until [`Sealed`] exists; each stage consumes the one before, so the
//! compiler holds the order; no path of the container's file system reaches a system call twice.
//!
//! ```no_run
//! # fn main() -> Result<(), jail::Error> {
//! # use jail::*;
//! let mut inherited = Inherited::claim(&[3, 4, 5])?;
//! let spec = Spec::read(inherited.take("spec-fd", 3)?, "/bundle".as_ref())?;
//! let descriptors = Descriptors {
//!     mounts: Some(inherited.take("mounts-fd", 4)?),
//!     io: vec![inherited.take("io-fds", 5)?],
//!     ..Descriptors::default()
//! };
//! let confs = "lisafs:self".parse::<Confs>()?.0;
//! let plan = Plan::new(Options { confs, ..Options::new(Dialect::V2024, spec) }, descriptors)?;
//! let sealed = Starting::new(plan).wait()?.mount()?.enter()?.confine()?.seal()?;
//! println!("{}", sealed.report);
//! # Ok(()) }
//! ```

pub mod apart;
mod attributes;
mod broker;
mod build;
mod call_names;
mod capabilities;
pub mod clock;
pub mod command;
pub mod conf;
mod devices;
mod directory;
mod enter;
pub mod environment;
mod error;
mod fallback;
mod heap;
mod inherited;
mod landed;
mod landlock;
pub mod mount_options;
mod mounts;
pub mod pages;
mod plan;
pub mod probe;
mod rpc;
pub mod sampler;
pub mod seccomp;
pub mod signals;
pub mod spec;
mod stage;
mod sync;
mod table;
mod thread;
pub mod violation;
mod walk;

pub use broker::Broker;
pub use conf::{Conf, Confs};
pub use directory::{Directory, Ground};
pub use error::Error;
pub use inherited::Inherited;
pub use landlock::LandlockReport;
pub use plan::{
    Descriptors, DeviceKinds, Dialect, HostUds, Ids, MountCalls, Options, Overlay, Plan,
};
pub use spec::Spec;
pub use stage::{Confined, Connection, Mounted, Report, Rooted, Sealed, Starting, Synced};
pub use thread::{ThreadJail, ThreadReport};
