//! Which device nodes of the spec the device connection offers.

use std::path::Path;

use crate::plan::{Dialect, Options};
use crate::spec::{Hook, Spec};

/// The paths to bind, in spec order.
pub(crate) fn qualifying(options: &Options) -> Vec<String> {
    let enabled = Enabled::of(options);
    let devices = options.spec.linux.devices.iter().map(|device| &device.path);
    devices
        .filter(|path| enabled.admits(path))
        .cloned()
        .collect()
}

struct Enabled {
    nvidia: bool,
    tpu: bool,
    rdma: bool,
}

impl Enabled {
    fn of(options: &Options) -> Self {
        let spec = &options.spec;
        let newest = options.dialect == Dialect::V2026;
        let listed = |test: &dyn Fn(&str) -> bool| {
            newest && spec.linux.devices.iter().any(|device| test(&device.path))
        };
        let nvidia = options.devices.nvidia || annotated(spec, "dev.gvisor.internal.nvproxy");
        let tpu = options.devices.tpu || annotated(spec, "dev.gvisor.internal.tpuproxy");
        Self {
            nvidia: nvidia
                || listed(&|path| path == "/dev/nvidiactl")
                || (newest && nvidia_wish(spec, options.devices.nvidia_docker)),
            tpu: tpu
                || listed(&|path| {
                    path.starts_with("/dev/accel")
                        || (path.starts_with("/dev/vfio") && path != "/dev/vfio/vfio")
                }),
            rdma: newest && options.devices.rdma,
        }
    }

    fn admits(&self, path: &str) -> bool {
        self.nvidia && is_nvidia(path)
            || self.tpu && (path.starts_with("/dev/vfio") || is_tpu(path))
            || self.rdma && path.starts_with("/dev/infiniband/uverbs")
    }
}

fn annotated(spec: &Spec, name: &str) -> bool {
    let value = spec.annotations.get(name).map(String::as_str);
    matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// Does a hook, or what counts as one, ask for NVIDIA devices?
fn nvidia_wish(spec: &Spec, docker: bool) -> bool {
    let ends = |hooks: &[Hook], end: &str| hooks.iter().any(|hook| hook.path.ends_with(end));
    let cdi = ends(&spec.hooks.create_container, "/nvidia-cdi-hook");
    if !docker && !cdi && !ends(&spec.hooks.prestart, "/nvidia-container-runtime-hook") {
        return false;
    }
    let mut values = spec
        .process
        .env
        .iter()
        .filter_map(|line| line.strip_prefix("NVIDIA_VISIBLE_DEVICES="));
    let last = if cdi {
        values.rfind(|value| *value != "void")
    } else {
        values.next_back()
    };
    last.is_some_and(|value| !value.is_empty() && value != "void")
}

/// Who makes TPUs.
const TPU_VENDOR: u32 = 0x1ae0;
/// Those that the newest release knows. Older ones know the first two in this place; a device that
/// they do not know is none that their sandbox would open.
const TPU_DEVICES: [u32; 8] = [
    0x005e, 0x0056, 0x0063, 0x0062, 0x006f, 0x006e, 0x0075, 0x0076,
];

fn is_nvidia(path: &str) -> bool {
    match path.strip_prefix("/dev/nvidia") {
        Some("ctl" | "-uvm") => true,
        Some(number) => is_number(number),
        None => false,
    }
}

fn is_tpu(path: &str) -> bool {
    let Some(number) = path
        .strip_prefix("/dev/accel")
        .filter(|number| is_number(number))
    else {
        return false;
    };
    let device = format!("/sys/class/accel/accel{number}/device");
    read_hex(&format!("{device}/vendor")) == Some(TPU_VENDOR)
        && read_hex(&format!("{device}/device")).is_some_and(|id| TPU_DEVICES.contains(&id))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn read_hex(path: &str) -> Option<u32> {
    let text = std::fs::read_to_string(Path::new(path)).ok()?;
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;
    use crate::plan::DeviceKinds;

    fn paths(kinds: DeviceKinds, dialect: Dialect) -> Vec<String> {
        let spec = Spec::parse(
            br#"{"root":{"path":"/r"},"linux":{"devices":[{"path":"/dev/nvidiactl"},
            {"path":"/dev/nvidia0"},{"path":"/dev/nvidia-modeset"},{"path":"/dev/vfio/7"},
            {"path":"/dev/infiniband/uverbs0"},{"path":"/dev/sda"}]}}"#,
            "/".as_ref(),
        )
        .unwrap();
        qualifying(&Options {
            devices: kinds,
            ..Options::new(dialect, spec)
        })
    }

    #[test]
    fn only_recognised_nodes_qualify() {
        let nvidia = DeviceKinds {
            nvidia: true,
            ..DeviceKinds::default()
        };
        assert_eq!(
            paths(nvidia, Dialect::V2024),
            ["/dev/nvidiactl", "/dev/nvidia0"]
        );
        let tpu = DeviceKinds {
            tpu: true,
            ..DeviceKinds::default()
        };
        assert_eq!(paths(tpu, Dialect::V2024), ["/dev/vfio/7"]);
        assert_eq!(paths(DeviceKinds::default(), Dialect::V2024), [""; 0]);
    }

    #[test]
    fn the_newest_dialect_reads_the_wish_for_nvidia_devices_as_its_parent_does() {
        let wishes = |hooks: &str, variables: &str, docker: bool| {
            let text = format!(
                r#"{{"root":{{"path":"/r"}},"linux":{{"devices":[{{"path":"/dev/nvidia0"}}]}},
                "hooks":{{{hooks}}},"process":{{"env":[{variables}]}}}}"#
            );
            let spec = Spec::parse(text.as_bytes(), "/".as_ref()).unwrap();
            let kinds = DeviceKinds {
                nvidia_docker: docker,
                ..DeviceKinds::default()
            };
            let of = |dialect| {
                let spec = spec.clone();
                !qualifying(&Options {
                    devices: kinds,
                    ..Options::new(dialect, spec)
                })
                .is_empty()
            };
            assert!(!of(Dialect::V2024), "older ones ask for --nvproxy");
            of(Dialect::V2026)
        };
        let all = r#""NVIDIA_VISIBLE_DEVICES=all""#;
        let none = r#""NVIDIA_VISIBLE_DEVICES=all","NVIDIA_VISIBLE_DEVICES=void""#;
        let prestart = r#""prestart":[{"path":"/usr/bin/nvidia-container-runtime-hook"}]"#;
        let cdi = r#""createContainer":[{"path":"/usr/bin/nvidia-cdi-hook"}]"#;
        for (hooks, variables, docker, wished) in [
            ("", all, false, false),
            ("", all, true, true),
            ("", none, true, false),
            ("", "", true, false),
            (prestart, all, false, true),
            (prestart, none, false, false),
            (cdi, none, false, true),
            (cdi, "", false, false),
        ] {
            let found = wishes(hooks, variables, docker);
            assert_eq!(found, wished, "{hooks} {variables} {docker}");
        }
    }

    #[test]
    fn the_newest_dialect_takes_a_listed_device_as_the_wish() {
        let rdma = DeviceKinds {
            rdma: true,
            ..DeviceKinds::default()
        };
        assert_eq!(
            paths(rdma, Dialect::V2026),
            [
                "/dev/nvidiactl",
                "/dev/nvidia0",
                "/dev/vfio/7",
                "/dev/infiniband/uverbs0"
            ]
        );
    }
}
