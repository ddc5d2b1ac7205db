//! The stages, in the only order the compiler accepts.
//!
//! Belongs here: what happens when, and why then. Belongs elsewhere: how a mount is made
//! (`mounts`), a name is walked (`walk`), a filter is built (`seccomp`).
//! Must hold: one thread until the last stage; after [`Mounted::enter`] nothing of the host but the
//! served trees and the descriptors we hold can be reached.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::broker::Broker;
use crate::build;
use crate::directory::Ground;
pub use crate::enter::Mounted;
use crate::error::Doing;
use crate::landlock::{LandlockReport, Tree};
use crate::mounts::Kernel;
use crate::plan::{Dialect, Options, Plan};
use crate::seccomp::Wants;
use crate::thread::ThreadJail;
use crate::{Error, capabilities, heap, landlock, seccomp, sync, walk};

/// Warnings travel along from stage to stage until the binary takes them.
macro_rules! warnings {
    ($($stage:ident),*) => { $(
        impl $stage {
            /// Lines for the log since the last call.
            pub fn warnings(&mut self) -> Vec<String> {
                std::mem::take(&mut self.warnings)
            }
        }
    )* };
}
warnings!(Starting, Synced, Mounted, Rooted, Confined, Sealed);

/// Nothing has happened yet.
#[derive(Debug)]
pub struct Starting {
    plan: Plan,
    warnings: Vec<String>,
}

impl Starting {
    /// The first stage.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            warnings: Vec::new(),
        }
    }

    /// Waits until the parent has done everything that needs us untouched, then takes on the ids of
    /// the new user namespace, if its maps have only now been written.
    ///
    /// # Errors
    /// A sync socket delivered something; ids refused; the process has threads already.
    pub fn wait(mut self) -> Result<Synced, Error> {
        demand_one_thread()?;
        let descriptors = &mut self.plan.descriptors;
        let userns = descriptors.sync_userns.take();
        let rootless = userns.is_some();
        for (flag, fd) in [
            ("sync-chroot-fd", descriptors.sync_chroot.take()),
            ("sync-nvproxy-fd", descriptors.sync_nvproxy.take()),
            ("sync-userns-fd", userns),
        ] {
            if let Some(fd) = fd {
                sync::wait_for_end(flag, fd)?;
            }
        }
        if rootless {
            take_ids(&self.plan.options)?;
        }
        Ok(Synced {
            plan: self.plan,
            warnings: self.warnings,
            rootless,
        })
    }
}

pub(crate) fn demand_one_thread() -> Result<(), Error> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .map(Iterator::count)
        .unwrap_or(1);
    if tasks == 1 {
        return Ok(());
    }
    Err(Error::Parent(format!(
        "the set-up needs a process with one thread, not {tasks}"
    )))
}

fn take_ids(options: &Options) -> Result<(), Error> {
    use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
    let gid = rustix::process::Gid::from_raw(options.ids.gid);
    let uid = rustix::process::Uid::from_raw(options.ids.uid);
    set_thread_res_gid(gid, gid, gid).doing(|| format!("setgid({})", options.ids.gid))?;
    set_thread_res_uid(uid, uid, uid).doing(|| format!("setuid({})", options.ids.uid))?;
    // Changing ids takes this away; the parent still needs `/proc/<pid>`.
    set_dumpable_behavior(DumpableBehavior::Dumpable).doing(|| "staying dumpable")
}

/// The parent has finished; the mount namespace is ours to change.
#[derive(Debug)]
pub struct Synced {
    plan: Plan,
    warnings: Vec<String>,
    rootless: bool,
}

impl Synced {
    /// Builds the served tree: root, volumes with their attributes, devices, working directory.
    /// The host can still be reached afterwards: createContainer hooks belong between this stage
    /// and the next.
    ///
    /// # Errors
    /// The host refused a step; the message names source, destination and, if known, a way out.
    pub fn mount(mut self) -> Result<Mounted, Error> {
        let kernel = Kernel::probe(self.plan.options.mount_calls);
        let mut built = if self.plan.options.setup_root {
            build::build(&mut self.plan, kernel, &mut self.warnings)?
        } else {
            build::find_built(&mut self.plan)?
        };
        // The service works in the old tree; nobody may hold its socket beyond.
        drop(self.plan.descriptors.rpc.take());
        if self.plan.descriptors.dev_io.is_some() {
            built.devices = walk::find(built.root.as_fd(), "/dev")
                .map_err(|lost| build::lost_on("/dev", lost))?;
        }
        Ok(Mounted {
            plan: self.plan,
            warnings: self.warnings,
            rootless: self.rootless,
            kernel,
            built,
        })
    }
}

/// One connection to serve.
#[derive(Debug)]
pub struct Connection {
    /// The client's socket.
    pub io: OwnedFd,
    /// Root of the served tree, `O_PATH`, held since it was mounted.
    pub root: OwnedFd,
    /// What a directfs client gets.
    pub donated: Option<OwnedFd>,
    /// Where it is in the container.
    pub path: Vec<u8>,
    /// Are writes refused?
    pub readonly: bool,
    /// May device nodes be opened?
    pub character_devices: bool,
}

/// The served root is our root; the host is gone.
#[derive(Debug)]
pub struct Rooted {
    pub(crate) options: Options,
    pub(crate) warnings: Vec<String>,
    pub(crate) rootless: bool,
    pub(crate) root: OwnedFd,
    pub(crate) connections: Vec<Connection>,
    pub(crate) mount_holders: Option<Vec<(u32, u32, u64)>>,
    pub(crate) descriptor_dir: OwnedFd,
    pub(crate) report: Report,
}

impl Rooted {
    /// Drops capabilities, forbids new ones, closes `/proc/<pid>` to others.
    ///
    /// # Errors
    /// The host refused.
    pub fn confine(mut self) -> Result<Confined, Error> {
        let credentials = self.options.needs_credentials();
        if self.options.apply_caps {
            let mut keep = capabilities::FILE_OWNERSHIP;
            if credentials {
                keep |= capabilities::CREDENTIALS;
            }
            let missing = capabilities::reduce_to(keep)?;
            if !missing.is_empty() {
                self.warnings
                    .push(format!("capabilities not held, done without: {missing:?}"));
            }
        }
        rustix::thread::set_no_new_privs(true).doing(|| "setting no_new_privs")?;
        // An unprivileged parent still writes our oom_score_adj, which takes a dumpable process.
        if !self.rootless && !self.options.keep_dumpable {
            set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "becoming undumpable")?;
            self.report.undumpable = true;
        }
        Ok(Confined {
            rooted: self,
            credentials,
            warnings: Vec::new(),
        })
    }
}

impl Options {
    fn needs_credentials(&self) -> bool {
        self.dialect == Dialect::V2026 && self.host_uds.open
    }
}

/// Unprivileged, but still free to call anything.
#[derive(Debug)]
pub struct Confined {
    rooted: Rooted,
    credentials: bool,
    warnings: Vec<String>,
}

impl Confined {
    /// Landlock, then seccomp, which forbids all of the above. After this, threads may start and
    /// the first byte of a client may be read.
    ///
    /// # Errors
    /// seccomp refused. A kernel without Landlock is no error; the report says so.
    pub fn seal(self) -> Result<Sealed, Error> {
        let Rooted {
            options,
            warnings,
            connections,
            mount_holders,
            descriptor_dir,
            mut report,
            root,
            ..
        } = self.rooted;
        let whiteouts = options.whiteouts;
        let sockets = options.host_uds.open;
        let trees: Vec<Tree<'_>> = connections
            .iter()
            .map(|connection| Tree {
                root: connection.root.as_fd(),
                readonly: connection.readonly,
                devices: connection.character_devices || options.character_devices,
                whiteouts,
                sockets,
            })
            .collect();
        report.landlock = landlock::restrict(&trees).map_err(|e| Error::Seal(e.to_string()))?;
        if report.ground == Ground::Host && !report.landlock.is_enforced() {
            return Err(Error::Seal(
                "this kernel allows neither a mount namespace nor a chroot nor Landlock, so \
                 nothing would keep a client from other files; run as root, or allow user \
                 namespaces"
                    .to_owned(),
            ));
        }
        drop(root);

        let wants = Wants {
            host_open: options.host_uds.open,
            host_create: options.host_uds.create,
            credentials: self.credentials,
            descriptor_directory: descriptor_dir.as_raw_fd().unsigned_abs(),
        };
        let allow_list = seccomp::allow_list(wants)?;
        heap::settle()?;
        seccomp::install_everywhere(&allow_list)?;
        report.calls = seccomp::names(wants).len();
        let threads = ThreadJail { whiteouts, sockets };
        let broker = if self.credentials {
            Some(start_broker()?)
        } else {
            None
        };
        Ok(Sealed {
            connections,
            mount_holders,
            descriptor_dir,
            threads,
            broker,
            report,
            warnings,
        })
    }
}

/// Starts the one thread that keeps `SETUID` and `SETGID`; this thread, and so all that will serve,
/// gives them up.
fn start_broker() -> Result<Broker, Error> {
    let broker = Broker::start().map_err(|error| Error::Seal(format!("broker: {error}")))?;
    capabilities::give_up(capabilities::CREDENTIALS).doing(|| "giving up SETUID and SETGID")?;
    Ok(broker)
}

/// The process as clients meet it.
#[derive(Debug)]
pub struct Sealed {
    /// What to serve: root first, then volumes in spec order, devices last.
    pub connections: Vec<Connection>,
    /// Device (major, minor) and inode number of the directories that hold mount points, if known.
    pub mount_holders: Option<Vec<(u32, u32, u64)>>,
    /// The own descriptor directory, also the working directory.
    pub descriptor_dir: OwnedFd,
    /// For the threads that will serve.
    pub threads: ThreadJail,
    /// Connects to host sockets under the application's ids, if clients may (v2026-08).
    pub broker: Option<Broker>,
    /// What is in force.
    pub report: Report,
    warnings: Vec<String>,
}

/// What is in force; displayed as one line for the log.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub(crate) kernel: Kernel,
    /// What keeps the host's other files away, beside Landlock and seccomp.
    pub ground: Ground,
    /// Is the own descriptor directory a mount of its own?
    pub detached: bool,
    /// Is `/proc/<pid>` closed to others?
    pub undumpable: bool,
    /// How many different system calls are left.
    pub calls: usize,
    /// Landlock.
    pub landlock: LandlockReport,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            kernel: Kernel {
                trees: false,
                attributes: false,
            },
            ground: Ground::Mounts {
                user_namespace: false,
            },
            detached: false,
            undumpable: false,
            calls: 0,
            landlock: LandlockReport {
                abi: 0,
                complete: false,
            },
        }
    }
}

impl Report {
    /// Were mounts made on descriptors (`open_tree`, `move_mount`), with attributes only added?
    pub fn mounts_by_descriptor(&self) -> bool {
        self.kernel.trees && self.kernel.attributes
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |is: bool| if is { "yes" } else { "no" };
        write!(
            f,
            "seccomp: {} calls; Landlock: {}; root: {}; mounts by descriptor: {}, attributes added only: {}; \
             detached descriptor directory: {}; undumpable: {}",
            self.calls,
            self.landlock,
            self.ground,
            yes(self.kernel.trees),
            yes(self.kernel.attributes),
            yes(self.detached),
            yes(self.undumpable)
        )
    }
}
