//! `hook-runsc REPLACEMENT PROGRAM ARGS…`: the hook by itself, for tests and for a look around.

use std::{env, io::Write, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let (Some(replacement), Some(program)) = (args.next(), args.next()) else {
        eprintln!("usage: hook-runsc REPLACEMENT PROGRAM ARGS...");
        return ExitCode::from(2);
    };
    let mut on_gofer = |pid| {
        if let Some(log) = env::var_os("HOOK_LOG") {
            let log = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(log);
            _ = log.and_then(|mut log| writeln!(log, "{pid}"));
        }
    };
    let hook = hook::Hook {
        program: PathBuf::from(program),
        args: args.collect(),
        environment: Vec::new(),
        replacement: PathBuf::from(replacement),
        on_gofer: &mut on_gofer,
    };
    match hook::run(hook) {
        Ok(status) => hook::die_like(status),
        Err(error) => {
            eprintln!("hook-runsc: {error}");
            ExitCode::from(125)
        }
    }
}
