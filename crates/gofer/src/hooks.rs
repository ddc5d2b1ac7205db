//! createContainer hooks, which a v2026-08 gofer runs between mounting and entering the root.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jail::Spec;
use jail::spec::Hook;

use crate::flags::{Dialect, GoferFlags};
use crate::log::Log;
use crate::process::{Fatal, fatal};

/// How often a hook with a time limit is asked whether it has ended.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How much of a hook's output an error message repeats, in bytes.
const OUTPUT_BYTES_MAX: u64 = 4096;

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
    let variables = hook
        .env
        .iter()
        .filter_map(|variable| variable.split_once('='));
    let mut child = Command::new(&hook.path)
        .arg0(first)
        .args(rest)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its state is no failure.
        _ = stdin.write_all(state.as_bytes());
    }
    let limit = hook
        .timeout
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    let started = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if limit.is_some_and(|limit| started.elapsed() > limit) => {
                _ = child.kill();
                _ = child.wait();
                return Err("it took longer than its timeout".to_owned());
            }
            None => std::thread::sleep(ASK_EVERY),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut output = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        _ = stderr.take(OUTPUT_BYTES_MAX).read_to_end(&mut output);
    }
    Err(format!(
        "{status}; it said: {}",
        String::from_utf8_lossy(&output).trim()
    ))
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
