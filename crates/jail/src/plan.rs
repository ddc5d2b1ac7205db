//! What is to be done, checked as far as it can be before the first mount.
//!
//! Belongs here: the plain structs the binary fills, the counts, which connection serves what.
//! Belongs elsewhere: doing it (`stage`).

use std::os::fd::OwnedFd;

use crate::conf::{Conf, Upper};
use crate::devices;
use crate::mount_options::{self, bits};
use crate::spec::Spec;
use crate::{Error, walk};

/// Which releases' parent started us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// v2022-12: no confs, one socket per gofer mount.
    V2022,
    /// v2024-03 and v2024-07.
    V2024,
    /// v2026-08.
    V2026,
}

/// What `--overlay2` or `--overlay` covers; only v2022-12 asks, later releases have confs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The root.
    Root,
    /// The root and every mount.
    All,
}

/// Ids to take on once the parent has written the id maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ids {
    /// `--uid`.
    pub uid: u32,
    /// `--gid`.
    pub gid: u32,
}

/// Which host sockets a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostUds {
    /// Connect to existing ones.
    pub open: bool,
    /// Make and serve new ones.
    pub create: bool,
}

/// Which device proxies the flags switch on. Annotations and the spec may add to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceKinds {
    /// `--nvproxy`.
    pub nvidia: bool,
    /// `--nvproxy-docker`: the container's wish for NVIDIA devices is in its environment, no hook
    /// has to say so.
    pub nvidia_docker: bool,
    /// `--tpuproxy`.
    pub tpu: bool,
    /// `--rdmaproxy`.
    pub rdma: bool,
}

/// Which mount calls to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountCalls {
    /// The newest the kernel has.
    #[default]
    Detect,
    /// `mount(2)` on `/proc/self/fd/N` only, as on old kernels. For tests.
    Classic,
}

/// Everything from the command line and the bundle that decides the set-up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who talks to us.
    pub dialect: Dialect,
    /// The bundle.
    pub spec: Spec,
    /// `--gofer-mount-confs`; empty for v2022-12.
    pub confs: Vec<Conf>,
    /// v2022-12 only.
    pub overlay: Overlay,
    /// Used only if `sync_userns` is given.
    pub ids: Ids,
    /// `--fdlimit`.
    pub fd_limit: Option<u64>,
    /// Does the client work on donated mount points itself?
    pub directfs: bool,
    /// `--host-uds`.
    pub host_uds: HostUds,
    /// Device proxies.
    pub devices: DeviceKinds,
    /// May device nodes be opened on every connection (`--character-device-policy=passthrough`)?
    pub character_devices: bool,
    /// May an overlay's whiteouts be made? Since v2026-08.
    pub whiteouts: bool,
    /// `--setup-root`; `false`: somebody else has built and entered the private root already, the
    /// served root is at `/root`.
    pub setup_root: bool,
    /// `--apply-caps`; `false`: somebody else has dropped them already.
    pub apply_caps: bool,
    /// `--TESTONLY-unsafe-nonroot`: `chroot` instead of a pivot.
    pub unsafe_nonroot: bool,
    /// For tests: which mount calls to use.
    pub mount_calls: MountCalls,
    /// For tests: stay inspectable.
    pub keep_dumpable: bool,
}

impl Options {
    /// The options of a stock start.
    pub fn new(dialect: Dialect, spec: Spec) -> Self {
        Self {
            dialect,
            spec,
            confs: Vec::new(),
            overlay: Overlay::None,
            ids: Ids::default(),
            fd_limit: None,
            directfs: dialect != Dialect::V2022,
            host_uds: HostUds::default(),
            devices: DeviceKinds::default(),
            character_devices: false,
            whiteouts: dialect == Dialect::V2026,
            setup_root: true,
            apply_caps: true,
            unsafe_nonroot: false,
            mount_calls: MountCalls::Detect,
            keep_dumpable: false,
        }
    }
}

/// The descriptors the set-up consumes or hands on.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// `--mounts-fd`.
    pub mounts: Option<OwnedFd>,
    /// `--io-fds`, in order.
    pub io: Vec<OwnedFd>,
    /// `--dev-io-fd`.
    pub dev_io: Option<OwnedFd>,
    /// `--sync-chroot-fd`.
    pub sync_chroot: Option<OwnedFd>,
    /// `--sync-nvproxy-fd`.
    pub sync_nvproxy: Option<OwnedFd>,
    /// `--sync-userns-fd`.
    pub sync_userns: Option<OwnedFd>,
    /// `--rpc-fd`; required for v2026-08.
    pub rpc: Option<OwnedFd>,
}

/// One mount of the spec that we serve.
#[derive(Debug)]
pub(crate) struct Volume {
    /// Index in `spec.mounts`.
    pub(crate) index: usize,
    /// Its socket.
    pub(crate) io: OwnedFd,
    /// Flag word: options, bind, read-only if overlaid.
    pub(crate) flags: u32,
    /// Does the connection refuse writes?
    pub(crate) readonly: bool,
}

/// A set-up that contradicts itself nowhere we can see without touching a mount.
#[derive(Debug)]
pub struct Plan {
    pub(crate) options: Options,
    /// The root's socket, if we serve it.
    pub(crate) root_io: Option<OwnedFd>,
    pub(crate) root_readonly: bool,
    pub(crate) root_propagation: u32,
    /// The volumes we serve, in spec order.
    pub(crate) volumes: Vec<Volume>,
    /// Device paths to bind, if there is a device connection.
    pub(crate) devices: Vec<String>,
    /// What is left: sync sockets, pipe, device socket, service.
    pub(crate) descriptors: Descriptors,
}

impl Plan {
    /// Checks counts and contradictions, so that a start that cannot succeed fails before the image
    /// is touched.
    ///
    /// # Errors
    /// Too few confs, a number of sockets that does not fit them, a root that is not ours to
    /// serve and nothing else to serve, a missing v2026-08 service, forbidden propagation.
    pub fn new(options: Options, mut descriptors: Descriptors) -> Result<Self, Error> {
        let confs = Confs::of(&options)?;
        confs.count_sockets(&options, &descriptors)?;
        if options.dialect == Dialect::V2026 && descriptors.rpc.is_none() {
            return Err(Error::Parent(
                "--rpc-fd is missing; this parent must give one".to_owned(),
            ));
        }
        let root_propagation = root_propagation(&options.spec)?;
        refuse_shared(&options.spec)?;

        let mut io = std::mem::take(&mut descriptors.io).into_iter();
        let root_io = confs.root.is_lisafs().then(|| io.next()).flatten();
        let root_readonly =
            root_io.is_some() && (options.spec.root.readonly || confs.root.is_overlaid());
        let volumes = confs.volumes(&options.spec, io);
        let devices = match descriptors.dev_io {
            Some(_) => devices::qualifying(&options),
            None => Vec::new(),
        };
        Ok(Self {
            root_io,
            root_readonly,
            root_propagation,
            volumes,
            devices,
            descriptors,
            options,
        })
    }

    /// How many connections will be served, the device connection included.
    pub fn connections(&self) -> usize {
        self.volumes.len()
            + usize::from(self.root_io.is_some())
            + usize::from(self.descriptors.dev_io.is_some())
    }
}

/// The confs, each beside what it is for.
struct Confs {
    root: Conf,
    /// Index in `spec.mounts` and conf of each mount that we serve.
    served: Vec<(usize, Conf)>,
}

impl Confs {
    fn of(options: &Options) -> Result<Self, Error> {
        let with_conf = |index: &usize| {
            let mount = &options.spec.mounts[*index];
            mount.is_gofer_mount() || (options.dialect == Dialect::V2026 && mount.kind == "erofs")
        };
        let indices: Vec<usize> = (0..options.spec.mounts.len()).filter(with_conf).collect();
        let given = match options.dialect {
            Dialect::V2022 => from_overlay(options.overlay, indices.len()),
            _ => options.confs.clone(),
        };
        if given.len() < indices.len() + 1 {
            return Err(Error::Parent(format!(
                "--gofer-mount-confs has {} elements, but the root and {} mounts of config.json \
                 need one each",
                given.len(),
                indices.len()
            )));
        }
        let mut given = given.into_iter();
        let root = given.next().unwrap_or_else(|| Conf::lisafs(Upper::None));
        let served = indices
            .into_iter()
            .zip(given)
            .filter(|(index, conf)| {
                conf.is_lisafs() && options.spec.mounts[*index].is_gofer_mount()
            })
            .collect();
        Ok(Self { root, served })
    }

    fn count_sockets(&self, options: &Options, descriptors: &Descriptors) -> Result<(), Error> {
        let needed = self.served.len() + usize::from(self.root.is_lisafs());
        let given = descriptors.io.len();
        if needed != given {
            let names: Vec<&str> = self
                .served
                .iter()
                .map(|(index, _)| options.spec.mounts[*index].destination.as_str())
                .collect();
            return Err(Error::Parent(format!(
                "--io-fds names {given} sockets, but {needed} are needed: {}{}",
                if self.root.is_lisafs() {
                    "the root and "
                } else {
                    ""
                },
                names.join(", ")
            )));
        }
        if needed == 0 && descriptors.dev_io.is_none() {
            return Err(Error::Parent(
                "there is nothing to serve: no --io-fds".to_owned(),
            ));
        }
        Ok(())
    }

    fn volumes(self, spec: &Spec, io: impl Iterator<Item = OwnedFd>) -> Vec<Volume> {
        self.served
            .into_iter()
            .zip(io)
            .map(|((index, conf), io)| {
                let mount = &spec.mounts[index];
                let overlaid = if conf.is_overlaid() { bits::RDONLY } else { 0 };
                Volume {
                    index,
                    io,
                    flags: mount_options::flags(&mount.options) | bits::BIND | overlaid,
                    readonly: mount.has_option("ro") || conf.is_overlaid(),
                }
            })
            .collect()
    }
}

fn from_overlay(overlay: Overlay, mounts: usize) -> Vec<Conf> {
    let over = |covered| Conf::lisafs(if covered { Upper::Memory } else { Upper::None });
    let root = over(overlay != Overlay::None);
    std::iter::once(root)
        .chain(vec![over(overlay == Overlay::All); mounts])
        .collect()
}

fn root_propagation(spec: &Spec) -> Result<u32, Error> {
    let text = &spec.linux.rootfs_propagation;
    mount_options::root_propagation(text).ok_or_else(|| {
        Error::Spec(format!(
            "linux.rootfsPropagation {text:?} is not allowed; use private, rprivate, slave or rslave"
        ))
    })
}

fn refuse_shared(spec: &Spec) -> Result<(), Error> {
    let shared = |option: &String| option == "shared" || option == "rshared";
    for mount in spec.mounts.iter().filter(|mount| mount.is_gofer_mount()) {
        if mount.options.iter().any(shared) {
            return Err(Error::Spec(format!(
                "mount {:?}: shared propagation is not allowed; use private or slave",
                walk::clean(&mount.destination)
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;
    use crate::conf;

    fn spec() -> Spec {
        Spec::parse(
            br#"{"root":{"path":"/r"},"mounts":[{"destination":"/p","type":"proc","source":"proc"},
            {"destination":"/a","type":"bind","source":"/a","options":["rbind","ro"]},
            {"destination":"/b","type":"bind","source":"/b"}]}"#,
            "/".as_ref(),
        )
        .unwrap()
    }

    fn sockets(count: usize) -> Descriptors {
        let open = || std::fs::File::open("/dev/null").unwrap().into();
        Descriptors {
            io: (0..count).map(|_| open()).collect(),
            ..Descriptors::default()
        }
    }

    fn plan(confs: &str, count: usize) -> Result<Plan, Error> {
        let confs = confs.parse::<conf::Confs>().unwrap().0;
        Plan::new(
            Options {
                confs,
                ..Options::new(Dialect::V2024, spec())
            },
            sockets(count),
        )
    }

    #[test]
    fn counts_are_checked_before_anything_is_touched() {
        let message = |result: Result<Plan, Error>| result.unwrap_err().to_string();
        assert!(message(plan("lisafs:none", 1)).contains("need one each"));
        assert!(message(plan("lisafs:none,lisafs:none,lisafs:none", 2)).contains("3 are needed"));
        assert!(message(plan("lisafs:none,lisafs:none,lisafs:none", 4)).contains("names 4"));
        assert!(
            plan("lisafs:none,lisafs:none,lisafs:none,lisafs:none", 3).is_ok(),
            "extra conf"
        );
    }

    #[test]
    fn read_only_comes_from_options_and_from_an_upper_layer() {
        let plan = plan("lisafs:self,lisafs:none,lisafs:memory", 3).unwrap();
        assert!(plan.root_readonly);
        assert!(
            plan.volumes
                .iter()
                .all(|volume| volume.readonly && volume.flags & 1 == 1)
        );
        let skipped = super::tests::plan("erofs:memory,none:self,lisafs:none", 1).unwrap();
        assert_eq!(skipped.volumes.len(), 1);
        assert_eq!(skipped.volumes[0].index, 2);
        assert!(skipped.root_io.is_none() && !skipped.root_readonly);
    }

    #[test]
    fn the_oldest_dialect_has_no_confs_but_an_overlay() {
        let mut options = Options::new(Dialect::V2022, spec());
        options.overlay = Overlay::Root;
        let plan = Plan::new(options, sockets(3)).unwrap();
        assert!(plan.root_readonly);
        assert_eq!(
            plan.volumes.iter().map(|v| v.readonly).collect::<Vec<_>>(),
            [true, false]
        );
    }

    #[test]
    fn a_device_connection_alone_is_enough_to_serve() {
        let mut descriptors = sockets(0);
        descriptors.dev_io = sockets(1).io.pop();
        let confs = "erofs:none,none:self,none:self"
            .parse::<conf::Confs>()
            .unwrap()
            .0;
        let options = Options {
            confs,
            ..Options::new(Dialect::V2024, spec())
        };
        assert_eq!(Plan::new(options, descriptors).unwrap().connections(), 1);
    }
}
