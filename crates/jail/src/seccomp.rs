//! seccomp: the system calls that are left, compiled from one table.
//!
//! Belongs here: how rows become a filter, how filters stack. Belongs elsewhere: the rows
//! (`table`), who installs what when (`stage`, `thread`).

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::Error;
use crate::table::SYS_FCHMODAT2;
pub use crate::table::{LOCKED_OUT, READ_ONLY_REFUSED, RULES};

/// One row: a call, when it is needed, what its arguments must be, and why it is here at all.
/// Several rows of one call are alternatives.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Number on this architecture.
    pub number: i64,
    /// Name, for people.
    pub name: &'static str,
    /// Which option needs it.
    pub when: When,
    /// All must hold.
    pub arguments: &'static [Arg],
    /// Why it is needed.
    pub reason: &'static str,
}

/// Which option a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every process.
    Always,
    /// Clients may connect to host sockets.
    HostOpen,
    /// Clients may make host sockets.
    HostCreate,
    /// Either of the two.
    HostSockets,
    /// Connecting under the application's ids (v2026-08).
    Credentials,
    /// Until the thread has tightened itself; then a second filter refuses it.
    UntilTightened,
}

/// What one argument must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// Argument `0` equals `1` (low 32 bits).
    Is(u8, u32),
    /// Argument `0` is anything but `1` (low 32 bits).
    IsNot(u8, u32),
    /// Argument `0` has all bits of `1`.
    Has(u8, u64),
    /// Argument `0` has none of the bits of `1`.
    Lacks(u8, u64),
    /// The argument is the descriptor of the own descriptor directory.
    IsDescriptorDirectory(u8),
    /// The argument is the own process id.
    IsOwnProcess(u8),
}

/// Which rows apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// `--host-uds` open or all.
    pub host_open: bool,
    /// `--host-uds` create or all.
    pub host_create: bool,
    /// Connecting under other ids.
    pub credentials: bool,
    /// Number of the own descriptor directory.
    pub descriptor_directory: u32,
}

impl Wants {
    fn includes(self, when: When) -> bool {
        match when {
            When::Always | When::UntilTightened => true,
            When::HostOpen => self.host_open,
            When::HostCreate => self.host_create,
            When::HostSockets => self.host_open || self.host_create,
            When::Credentials => self.credentials,
        }
    }
}

/// The rows in force under `wants`, in table order.
pub fn rows(wants: Wants) -> impl Iterator<Item = &'static Rule> {
    RULES
        .iter()
        .copied()
        .flatten()
        .filter(move |rule| wants.includes(rule.when))
}

/// Names of the calls in force under `wants`, each once.
pub fn names(wants: Wants) -> BTreeSet<&'static str> {
    rows(wants).map(|rule| rule.name).collect()
}

/// The filter of the whole process. What matches no row is not carried out, told, and ends the
/// process (`violation`); without a handler for the signal, as in other tables, at once.
pub(crate) fn allow_list(wants: Wants) -> Result<BpfProgram, Error> {
    let (mut chains, mut hot) = (Chains::default(), Chains::default());
    for rule in rows(wants) {
        chains.add(rule, wants)?;
        if HOT.contains(&rule.number) {
            hot.add(rule, wants)?;
        }
    }
    Ok(one_after_the_other([
        hot.compile(PASSED_ON, SeccompAction::Allow)?,
        refuse_or(&[CLONE3], libc::ENOSYS, PASSED_ON)?,
        chains.compile(SeccompAction::Trap, SeccompAction::Allow)?,
    ]))
}

/// The filter of a thread that serves: what it changes its own confinement with is refused from now
/// on, and if it may not write, what changes files. Says nothing about other calls.
pub(crate) fn narrower(readonly: bool) -> Result<BpfProgram, Error> {
    let changing = if readonly { READ_ONLY_REFUSED } else { &[] };
    Ok(one_after_the_other([
        refuse_or(changing, libc::EROFS, PASSED_ON)?,
        refuse_or(LOCKED_OUT, libc::EPERM, SeccompAction::Allow)?,
    ]))
}

/// Hides its flags in memory, out of a filter's sight: "no such call" makes the runtime use `clone`,
/// whose flags can be seen.
const CLONE3: i64 = libc::SYS_clone3;

/// Calls of every request whose arguments are looked at. The kernel remembers which calls a filter
/// lets through whatever their arguments; for these it runs the filter each time, which is a chain
/// in the order of the calls' numbers. So their rows come first (measured: half a microsecond of
/// each request).
const HOT: [i64; 3] = [libc::SYS_futex, libc::SYS_openat, SYS_FCHMODAT2];

/// Stands for "go on with the next program" until [`one_after_the_other`] has put a jump there.
const PASSED_ON: SeccompAction = SeccompAction::Log;

/// One filter out of several: what one does not decide, the next one does. One, because the kernel
/// runs every filter of a thread for each call whose arguments are looked at.
fn one_after_the_other<const N: usize>(programs: [BpfProgram; N]) -> BpfProgram {
    programs.into_iter().flat_map(passing_on).collect()
}

/// A program that another one follows, unless it decides everything.
fn passing_on(mut program: BpfProgram) -> BpfProgram {
    let length = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if (instruction.code, instruction.k) == (RETURN, libc::SECCOMP_RET_LOG) {
            instruction.code = JUMP;
            // A filter has at most 4096 instructions.
            instruction.k = (length - at - 1) as u32;
        }
    }
    program
}

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;

/// Answers the named calls with an errno and leaves the others to `otherwise`.
fn refuse_or(calls: &[i64], errno: i32, otherwise: SeccompAction) -> Result<BpfProgram, Error> {
    let mut chains = Chains::default();
    for number in calls {
        chains.0.entry(*number).or_default();
    }
    chains.compile(otherwise, SeccompAction::Errno(errno.unsigned_abs()))
}

/// Answers what matches a row with `EPERM` and says nothing about the rest.
pub(crate) fn refuse_rows(rules: &[Rule]) -> Result<BpfProgram, Error> {
    let mut chains = Chains::default();
    for rule in rules {
        chains.add(rule, Wants::default())?;
        #[cfg(target_arch = "x86_64")]
        for number in x32(rule.number) {
            chains.add(&Rule { number, ..*rule }, Wants::default())?;
        }
    }
    chains.compile(
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
    )
}

/// The same call under the numbers of the x32 interface, which kernels may have beside the usual
/// one under the same architecture.
#[cfg(target_arch = "x86_64")]
fn x32(number: i64) -> impl Iterator<Item = i64> {
    const X32: i64 = 0x4000_0000;
    let own = (number == libc::SYS_ioctl).then_some(514);
    std::iter::once(number)
        .chain(own)
        .map(|number| number | X32)
}

/// Installs for all threads.
pub(crate) fn install_everywhere(program: &BpfProgram) -> Result<(), Error> {
    seccompiler::apply_filter_all_threads(program).map_err(|error| Error::Seal(error.to_string()))
}

/// Installs for the calling thread and those it will start.
pub(crate) fn install_here(program: &BpfProgram) -> Result<(), Error> {
    seccompiler::apply_filter(program).map_err(|error| Error::Seal(error.to_string()))
}

/// Alternatives by call. An empty list means: whatever the arguments.
#[derive(Default)]
struct Chains(BTreeMap<i64, Vec<SeccompRule>>);

impl Chains {
    fn add(&mut self, rule: &Rule, wants: Wants) -> Result<(), Error> {
        let chain = self.0.entry(rule.number).or_default();
        if rule.arguments.is_empty() {
            return Ok(());
        }
        let conditions: Result<Vec<_>, _> = rule
            .arguments
            .iter()
            .map(|argument| condition(*argument, wants))
            .collect();
        let rule = conditions.and_then(SeccompRule::new);
        chain.push(rule.map_err(|error| Error::Seal(error.to_string()))?);
        Ok(())
    }

    fn compile(
        self,
        otherwise: SeccompAction,
        matched: SeccompAction,
    ) -> Result<BpfProgram, Error> {
        let arch = TargetArch::try_from(std::env::consts::ARCH);
        arch.and_then(|arch| SeccompFilter::new(self.0, otherwise, matched, arch))
            .and_then(BpfProgram::try_from)
            .map_err(|error| Error::Seal(error.to_string()))
    }
}

fn condition(argument: Arg, wants: Wants) -> Result<SeccompCondition, seccompiler::BackendError> {
    match argument {
        Arg::Is(index, value) => SeccompCondition::new(index, Length::Dword, Op::Eq, value.into()),
        Arg::IsNot(index, value) => {
            SeccompCondition::new(index, Length::Dword, Op::Ne, value.into())
        }
        Arg::Has(index, bits) => {
            SeccompCondition::new(index, Length::Qword, Op::MaskedEq(bits), bits)
        }
        Arg::Lacks(index, bits) => {
            SeccompCondition::new(index, Length::Qword, Op::MaskedEq(bits), 0)
        }
        Arg::IsDescriptorDirectory(index) => {
            let number = wants.descriptor_directory.into();
            SeccompCondition::new(index, Length::Dword, Op::Eq, number)
        }
        Arg::IsOwnProcess(index) => {
            let own = std::process::id().into();
            SeccompCondition::new(index, Length::Dword, Op::Eq, own)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    const ALL: Wants = Wants {
        host_open: true,
        host_create: true,
        credentials: true,
        descriptor_directory: 7,
    };

    /// Why the row of `statx` has no arguments: the flag that it needs restricts nothing.
    #[test]
    fn the_flag_for_an_empty_path_lets_statx_follow_any_path() {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, b"seven b").unwrap();
        symlink(&file, &link).unwrap();
        let stat = statx(CWD, &link, AtFlags::EMPTY_PATH, StatxFlags::SIZE).unwrap();
        assert_eq!(stat.stx_size, 7, "the link's target, not the link");
    }

    #[test]
    fn every_row_has_a_reason_and_none_makes_another_idle() {
        let free: BTreeSet<&str> = rows(ALL)
            .filter(|rule| rule.arguments.is_empty())
            .map(|rule| rule.name)
            .collect();
        for rule in rows(ALL) {
            assert!(rule.reason.len() > 5, "{} says why it is there", rule.name);
            let bound = !rule.arguments.is_empty();
            assert!(
                !(bound && free.contains(rule.name)),
                "{}: a free row hides this",
                rule.name
            );
        }
    }

    #[test]
    fn what_a_jail_is_for_is_in_no_row() {
        let names: BTreeSet<&str> = rows(ALL).map(|rule| rule.name).collect();
        for name in [
            "openat2",
            "mount",
            "execve",
            "execveat",
            "ptrace",
            "io_uring_setup",
            "userfaultfd",
            "unshare",
            "setns",
            "chroot",
            "pivot_root",
            "bpf",
            "open_by_handle_at",
            "kill",
            "process_vm_readv",
            "keyctl",
            "move_mount",
            "open_tree",
            "init_module",
        ] {
            assert!(!names.contains(name), "{name}");
        }
        let plain: BTreeSet<&str> = rows(Wants::default()).map(|rule| rule.name).collect();
        for name in ["socket", "connect", "bind", "setresuid", "setitimer"] {
            assert!(!plain.contains(name), "{name} needs its option");
        }
    }

    /// Those of x86-64; the other architecture has no other rows.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_list_in_the_documents_is_what_a_serving_thread_may_call() {
        let mut left = names(Wants::default());
        let locked = |name: &&str| {
            let rule = rows(Wants::default()).find(|rule| rule.name == *name);
            !rule.is_some_and(|rule| LOCKED_OUT.contains(&rule.number))
        };
        left.retain(|name| locked(name) && *name != "clone3");
        let text = include_str!("../../../docs/jail.md");
        let (_, list) = text.split_once("<!-- serving thread -->").unwrap();
        let (list, _) = list.split_once("<!-- end -->").unwrap();
        let listed: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, left, "{} calls", left.len());
    }

    #[test]
    fn what_the_hot_rows_do_not_decide_is_passed_on() {
        let decided = seccompiler::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        };
        let open = seccompiler::sock_filter {
            k: libc::SECCOMP_RET_LOG,
            ..decided.clone()
        };
        let jump = |k| seccompiler::sock_filter {
            code: JUMP,
            k,
            ..decided.clone()
        };
        assert_eq!(
            passing_on(vec![open.clone(), decided.clone(), open]),
            [jump(2), decided.clone(), jump(0)]
        );
        let program = allow_list(ALL).unwrap();
        let logged = |i: &seccompiler::sock_filter| i.k == libc::SECCOMP_RET_LOG;
        assert!(!program.iter().any(|i| i.code == RETURN && logged(i)));
    }

    #[test]
    fn the_filters_compile_for_every_combination() {
        for bits in 0..8_u8 {
            let wants = Wants {
                host_open: bits & 1 != 0,
                host_create: bits & 2 != 0,
                credentials: bits & 4 != 0,
                descriptor_directory: 9,
            };
            assert!(allow_list(wants).unwrap().len() < 4096);
        }
        for readonly in [false, true] {
            assert!(!narrower(readonly).unwrap().is_empty());
        }
    }
}
