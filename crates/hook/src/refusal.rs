//! Why tracing was refused, in words that name what forbids it and the way out.

#![forbid(unsafe_code)]

use std::{fs, io};

/// Looks at this machine.
pub(crate) fn explain(cause: &io::Error) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    diagnose(
        cause,
        &read("/proc/sys/kernel/yama/ptrace_scope"),
        &read("/proc/self/status"),
    )
}

/// The explanation for an errno, the text of `yama/ptrace_scope` and that of `/proc/self/status`.
#[must_use]
pub fn diagnose(cause: &io::Error, ptrace_scope: &str, status: &str) -> String {
    const CAP_SYS_PTRACE: u32 = 19;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.trim()))
            .unwrap_or_default()
    };
    let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap_or_default();
    let may_trace_all = capabilities >> CAP_SYS_PTRACE & 1 == 1;
    let mut reasons = Vec::new();
    match ptrace_scope.trim() {
        "3" => reasons.push(
            "/proc/sys/kernel/yama/ptrace_scope is 3, which forbids tracing to everybody until \
             the next boot: boot with a lower kernel.yama.ptrace_scope"
                .to_owned(),
        ),
        "2" if !may_trace_all => reasons.push(
            "/proc/sys/kernel/yama/ptrace_scope is 2 and this process lacks CAP_SYS_PTRACE: run \
             as root, grant the capability, or set it to 1"
                .to_owned(),
        ),
        _ => {}
    }
    if !matches!(field("TracerPid:"), "" | "0") {
        let tracer = field("TracerPid:");
        reasons.push(format!(
            "process {tracer} (strace, a debugger) follows ours: leave it out"
        ));
    }
    if field("Seccomp:") == "2" {
        reasons.push(
            "a seccomp filter is installed, as containers do: allow ptrace in its profile (Docker: \
             --cap-add SYS_PTRACE or --security-opt seccomp=PROFILE)"
                .to_owned(),
        );
    }
    if reasons.is_empty() {
        reasons.push(format!(
            "no rule we know forbids it (CapEff {}, NoNewPrivs {}): ask the security module, if \
             any (AppArmor, SELinux)",
            field("CapEff:"),
            field("NoNewPrivs:")
        ));
    }
    format!("{cause}; {}", reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ptrace_scope: &str, status: &str) -> String {
        diagnose(
            &io::Error::from_raw_os_error(libc::EPERM),
            ptrace_scope,
            status,
        )
    }

    #[test]
    fn yama_is_named_with_the_way_out() {
        assert!(told("3\n", "CapEff:\tffffffffffffffff\n").contains("boot with a lower"));
        assert!(told("2\n", "CapEff:\t0000000000000000\n").contains("lacks CAP_SYS_PTRACE"));
        assert!(!told("2\n", "CapEff:\t0000000000080000\n").contains("yama"));
        assert!(!told("1\n", "CapEff:\t0000000000000000\n").contains("yama"));
    }

    #[test]
    fn another_tracer_and_a_filter_are_both_named() {
        let told = told("", "TracerPid:\t42\nSeccomp:\t2\nCapEff:\t0\n");
        assert!(
            told.contains("process 42") && told.contains("seccomp filter"),
            "{told}"
        );
    }

    #[test]
    fn without_a_known_reason_the_facts_are_given() {
        assert!(told("0", "TracerPid:\t0\nCapEff:\tff\nSeccomp:\t0\n").contains("CapEff ff"));
    }
}
