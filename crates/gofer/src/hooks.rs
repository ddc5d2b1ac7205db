//! createContainer hooks, which a v2026-08 gofer runs between mounting and entering the root.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use jail::Spec;
use jail::spec::Hook;
use rustix::fs::MemfdFlags;

use crate::flags::{Dialect, GoferFlags};
use crate::log::Log;
use crate::process::{Fatal, fatal};

/// How often a hook with a time limit is asked whether it has ended.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How much of a hook's output an error message repeats, in bytes.
const OUTPUT_BYTES_MAX: usize = 4096;

/// The hooks to run, and what they are told.
#[derive(Debug, Default)]
pub(crate) struct CreateContainer {
    hooks: Vec<Hook>,
    state: String,
}

impl CreateContainer {
    /// The hooks of the spec, if this dialect's gofer runs them and serves the root.
    pub(crate) fn new(flags: &GoferFlags, spec: &Spec) -> CreateContainer {
        let serves_root = flags.confs.first().is_some_and(jail::Conf::is_lisafs);
        if flags.dialect != Dialect::V2026_08 || !serves_root {
            return CreateContainer::default();
        }
        let hooks = spec
            .hooks
            .create_container
            .iter()
            .filter(|hook| !is_skipped(hook));
        CreateContainer {
            hooks: hooks.cloned().collect(),
            state: state(flags, spec),
        }
    }

    /// Runs them in order, with the process's present privileges.
    ///
    /// # Errors
    /// The first hook that cannot be run, fails or takes too long.
    pub(crate) fn run(&self, log: &Log) -> Result<(), Fatal> {
        for hook in &self.hooks {
            log.info(format_args!("Running createContainer hook {:?}", hook.path));
            run(hook, &self.state).map_err(|why| {
                fatal(format_args!("createContainer hook {:?}: {why}", hook.path))
            })?;
        }
        Ok(())
    }
}

/// NVIDIA's own hooks, whose work `runsc` does by other means.
fn is_skipped(hook: &Hook) -> bool {
    hook.path.ends_with("/nvidia-container-runtime-hook")
        || hook.path.ends_with("/nvidia-cdi-hook")
            && hook
                .args
                .iter()
                .any(|arg| arg == "disable-device-node-modification")
}

fn run(hook: &Hook, state: &str) -> Result<(), String> {
    if !Path::new(&hook.path).is_absolute() {
        return Err("its path must be absolute".to_owned());
    }
    let (first, rest) = match hook.args.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => (hook.path.as_str(), &[][..]),
    };
    // Files in memory, not pipes: neither a hook that does not read nor one that says much waits
    // for us.
    let (input, output) = (memory_file("state")?, memory_file("output")?);
    input
        .write_all_at(state.as_bytes(), 0)
        .map_err(|error| error.to_string())?;
    let copy = |file: &File| file.try_clone().map_err(|error| error.to_string());
    let mut command = Command::new(&hook.path);
    command.arg0(first).args(rest).env_clear();
    command.envs(
        hook.env
            .iter()
            .filter_map(|variable| variable.split_once('=')),
    );
    command
        .stdin(input)
        .stdout(copy(&output)?)
        .stderr(copy(&output)?);
    let child = command
        .spawn()
        .map_err(|error| format!("cannot start: {error}"))?;
    let limit = hook
        .timeout
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    let status = wait(child, limit)?;
    if status.success() {
        return Ok(());
    }
    let mut said = vec![0; OUTPUT_BYTES_MAX];
    let length = output.read_at(&mut said, 0).unwrap_or(0);
    said.truncate(length);
    Err(format!(
        "{status}; it said: {}",
        String::from_utf8_lossy(&said).trim()
    ))
}

fn memory_file(name: &str) -> Result<File, String> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC);
    file.map(File::from)
        .map_err(|errno| format!("cannot make a file in memory: {errno}"))
}

fn wait(mut child: Child, limit: Option<Duration>) -> Result<ExitStatus, String> {
    let Some(limit) = limit else {
        return child.wait().map_err(|error| error.to_string());
    };
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status);
        }
        if started.elapsed() > limit {
            _ = child.kill();
            _ = child.wait();
            return Err("it took longer than its timeout".to_owned());
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// The container's state, as the OCI runtime specification has it.
fn state(flags: &GoferFlags, spec: &Spec) -> String {
    let id = flags
        .container_id
        .as_ref()
        .map(|id| id.to_string_lossy().into_owned());
    let annotations: Vec<String> = spec
        .annotations
        .iter()
        .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
        .collect();
    let annotations = match annotations.is_empty() {
        true => String::new(),
        false => format!(r#","annotations":{{{}}}"#, annotations.join(",")),
    };
    format!(
        r#"{{"ociVersion":"1.2.1","id":{},"status":"creating","pid":-1,"bundle":{}{annotations}}}"#,
        quoted(&id.unwrap_or_default()),
        quoted(&flags.bundle.to_string_lossy())
    )
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", crate::log::JsonText(text))
}
