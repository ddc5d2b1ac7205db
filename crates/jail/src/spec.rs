//! The part of the bundle's `config.json` that a gofer uses, fixed up as the parent's copy is.
//!
//! Belongs here: decoding with Go's leniency (unknown keys ignored, `null` is the zero value),
//! joining of relative paths, the rule which mounts are ours. Belongs elsewhere: the parent's
//! validation of everything else; it has decoded the whole file before it started us.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::Error;
use crate::walk::clean;

/// `null` where Go would leave the zero value.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// What we need of an OCI runtime specification.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Version of the specification, for the state that hooks read.
    #[serde(rename = "ociVersion", deserialize_with = "nullable")]
    pub oci_version: String,
    /// The served root.
    #[serde(deserialize_with = "nullable")]
    pub root: Root,
    /// All mounts of the container, ours or not.
    #[serde(deserialize_with = "nullable")]
    pub mounts: Vec<Mount>,
    /// The first process.
    #[serde(deserialize_with = "nullable")]
    pub process: Process,
    /// Linux section.
    #[serde(deserialize_with = "nullable")]
    pub linux: Linux,
    /// Annotations, values as text.
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// Hooks.
    #[serde(deserialize_with = "nullable")]
    pub hooks: Hooks,
}

/// `root`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Absolute after the fix-up.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// Is the container's root read-only?
    #[serde(deserialize_with = "nullable")]
    pub readonly: bool,
}

/// One element of `mounts`, written back into the cleaned list with the same keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Mount {
    /// Where in the container.
    #[serde(deserialize_with = "nullable")]
    pub destination: String,
    /// `bind`, `tmpfs`, `proc`, …
    #[serde(
        rename = "type",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub kind: String,
    /// Absolute after the fix-up, or empty.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub source: String,
    /// Options in the order given.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Ids of an id-mapped mount.
    #[serde(
        rename = "uidMappings",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub uid_mappings: Vec<IdMapping>,
    /// Ids of an id-mapped mount.
    #[serde(
        rename = "gidMappings",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub gid_mappings: Vec<IdMapping>,
}

impl Mount {
    /// Does the gofer (or an image) back this mount? The parent counts by the same rule.
    pub fn is_gofer_mount(&self) -> bool {
        let bound = |option: &String| option == "bind" || option == "rbind";
        !self.source.is_empty() && (self.kind == "bind" || self.options.iter().any(bound))
    }

    /// Does it ask for an id-mapped mount (v2026-08)?
    pub fn is_id_mapped(&self) -> bool {
        !self.uid_mappings.is_empty() && !self.gid_mappings.is_empty()
    }

    pub(crate) fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }
}

/// One line of an id map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID", deserialize_with = "nullable")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID", deserialize_with = "nullable")]
    pub host_id: u32,
    /// How many.
    #[serde(deserialize_with = "nullable")]
    pub size: u32,
}

/// `process`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Working directory, made by gofers before v2026-08.
    #[serde(deserialize_with = "nullable")]
    pub cwd: String,
    /// Environment, for the NVIDIA rules.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
}

/// `linux`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Linux {
    /// Propagation of the root; empty means recursive slave.
    #[serde(rename = "rootfsPropagation", deserialize_with = "nullable")]
    pub rootfs_propagation: String,
    /// Device nodes.
    #[serde(deserialize_with = "nullable")]
    pub devices: Vec<Device>,
}

/// One element of `linux.devices`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Path on the host and in the container.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
}

/// `hooks`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Run by the parent; we only look for the NVIDIA one.
    #[serde(deserialize_with = "nullable")]
    pub prestart: Vec<Hook>,
    /// Run by a v2026-08 gofer.
    #[serde(rename = "createContainer", deserialize_with = "nullable")]
    pub create_container: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Program.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// Arguments, `argv[0]` included.
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// Environment, exactly.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Seconds, if limited.
    pub timeout: Option<i64>,
}

/// Longest `config.json` we read, in bytes: far above any real one, far below what would hurt.
const SPEC_BYTES_MAX: u64 = 64 << 20;

impl Spec {
    /// Reads the whole file from its beginning, then closes it.
    ///
    /// # Errors
    /// The file cannot be read, is no JSON, or lacks what every container has.
    pub fn read(fd: OwnedFd, bundle: &Path) -> Result<Self, Error> {
        let mut file = std::fs::File::from(fd);
        let mut bytes = Vec::new();
        file.rewind()
            .and_then(|()| file.take(SPEC_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|error| Error::Spec(format!("cannot be read: {error}")))?;
        Self::parse(&bytes, bundle)
    }

    /// Decodes and fixes up: relative root and sources are taken below `bundle`.
    ///
    /// # Errors
    /// As for [`Spec::read`].
    pub fn parse(bytes: &[u8], bundle: &Path) -> Result<Self, Error> {
        let mut spec = Self::decode(bytes)?;
        if spec.root.path.is_empty() {
            return Err(Error::Spec("root.path is missing".to_owned()));
        }
        spec.root.path = below(bundle, &spec.root.path)?;
        for (index, mount) in spec.mounts.iter_mut().enumerate() {
            if !mount.destination.starts_with('/') {
                return Err(Error::Spec(format!(
                    "mounts[{index}].destination {:?} is not absolute",
                    mount.destination
                )));
            }
            if !mount.source.is_empty() {
                mount.source = below(bundle, &mount.source)?;
            }
        }
        Ok(spec)
    }
}

/// Every key that is looked at, in any object.
const KEYS: [&str; 26] = [
    "ociVersion",
    "root",
    "mounts",
    "process",
    "linux",
    "annotations",
    "hooks",
    "path",
    "readonly",
    "destination",
    "type",
    "source",
    "options",
    "uidMappings",
    "gidMappings",
    "containerID",
    "hostID",
    "size",
    "cwd",
    "env",
    "rootfsPropagation",
    "devices",
    "prestart",
    "createContainer",
    "args",
    "timeout",
];

/// Go's rules for keys, by which the parent has read the same file: in any case if there is none in
/// the right one. Of two equal ones the last has won by now. Keys of annotations are free.
fn right_keys(value: Value) -> Value {
    match value {
        Value::Array(elements) => elements.into_iter().map(right_keys).collect(),
        Value::Object(object) => {
            let mut right = Map::new();
            for (key, value) in object {
                let known = KEYS.iter().find(|known| known.eq_ignore_ascii_case(&key));
                let name = known.map_or(key.as_str(), |known| known);
                let is_exact = name == key;
                let value = match name {
                    "annotations" => value,
                    _ => right_keys(value),
                };
                if is_exact || !right.contains_key(name) {
                    right.insert(name.to_owned(), value);
                }
            }
            Value::Object(right)
        }
        other => other,
    }
}

impl Spec {
    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let lenient = serde_json::from_slice(bytes)
            .and_then(|value| serde_json::from_value(right_keys(value)));
        lenient.map_err(|error| {
            // This way it says where.
            let strict: Result<Self, _> = serde_json::from_slice(bytes);
            Error::Spec(strict.err().unwrap_or(error).to_string())
        })
    }

    /// For the debug log: the parts that decide what this process does, without the values of the
    /// application's variables, of which some are secrets.
    pub fn shown(&self) -> impl std::fmt::Display {
        std::fmt::from_fn(|f| {
            let variables = self.process.env.iter();
            let names = variables.map(|variable| variable.split('=').next().unwrap_or_default());
            f.debug_struct("Spec")
                .field("root", &self.root)
                .field("mounts", &self.mounts)
                .field("cwd", &self.process.cwd)
                .field("env", &names.collect::<Vec<_>>())
                .field("linux", &self.linux)
                .field("annotations", &self.annotations)
                .field("hooks", &self.hooks.create_container.len())
                .finish()
        })
    }
}

/// An absolute path as it is; a relative one joined to the bundle and lexically cleaned.
fn below(bundle: &Path, path: &str) -> Result<String, Error> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let bundle = bundle.to_str().ok_or_else(|| {
        Error::Parent(format!(
            "--bundle {bundle:?} is not UTF-8, yet config.json has relative paths"
        ))
    })?;
    let joined = clean(&format!("{bundle}/{path}"));
    Ok(if bundle.starts_with('/') {
        joined
    } else {
        joined.trim_start_matches('/').to_owned()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    #[test]
    fn relative_paths_are_joined_to_the_bundle_whatever_the_type() {
        let text = br#"{"root":{"path":"rootfs"},"mounts":[
            {"destination":"/proc","type":"proc","source":"proc"},
            {"destination":"/a","type":"bind","source":"x/../y","options":null},
            {"destination":"/b","source":"/kept//as/is","options":["rbind"],"surplus":1},
            {"destination":"/c","type":"bind"}]}"#;
        let spec = Spec::parse(text, "/bundle".as_ref()).unwrap();
        assert_eq!(spec.root.path, "/bundle/rootfs");
        let sources: Vec<&str> = spec
            .mounts
            .iter()
            .map(|mount| mount.source.as_str())
            .collect();
        assert_eq!(sources, ["/bundle/proc", "/bundle/y", "/kept//as/is", ""]);
        let ours: Vec<bool> = spec.mounts.iter().map(Mount::is_gofer_mount).collect();
        assert_eq!(
            ours,
            [false, true, true, false],
            "a bind without source is not counted"
        );
    }

    #[test]
    fn keys_are_found_in_any_case_and_the_last_of_two_counts() {
        let text = br#"{"Root":{"PATH":"/a","readOnly":true},"process":{"cwd":"/x","cwd":"/y"},
            "MOUNTS":[{"Destination":"/d","TYPE":"bind","Source":"/s"}],
            "path":1,"annotations":{"Path":"kept","path":"too"}}"#;
        let spec = Spec::parse(text, "/b".as_ref()).unwrap();
        assert_eq!((&*spec.root.path, spec.root.readonly), ("/a", true));
        assert_eq!(spec.process.cwd, "/y");
        assert!(spec.mounts[0].is_gofer_mount());
        assert_eq!(spec.annotations["Path"], "kept");
        let both = br#"{"root":{"Path":"/a","path":"/b","PATH":"/c"}}"#;
        let spec = Spec::parse(both, "/b".as_ref()).unwrap();
        assert_eq!(spec.root.path, "/b", "one in the right case comes first");
    }

    #[test]
    fn a_mount_is_written_back_with_the_keys_it_had() {
        let text = r#"{"destination":"/a","type":"none","source":"/s","options":["bind"],"uidMappings":[{"containerID":0,"hostID":5,"size":1}]}"#;
        let mount: Mount = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&mount).unwrap(), text);
        let bare: Mount = serde_json::from_str(r#"{"destination":"/a","options":[]}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&bare).unwrap(),
            r#"{"destination":"/a"}"#
        );
    }

    #[test]
    fn a_broken_spec_says_where() {
        for (text, word) in [
            ("", "EOF"),
            ("{}", "root.path"),
            (r#"{"root":{"path":3}}"#, "string"),
            (
                r#"{"root":{"path":"r"},"mounts":[{"destination":"a"}]}"#,
                "mounts[0]",
            ),
        ] {
            let message = Spec::parse(text.as_bytes(), "/b".as_ref())
                .unwrap_err()
                .to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
