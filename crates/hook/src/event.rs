//! What a tracee's stop means and what is to be done about it: decisions only, no system calls.

#![forbid(unsafe_code)]

use std::ops::ControlFlow;

/// The name under which `runsc` starts its gofer.
pub const GOFER: &[u8] = b"runsc-gofer";
/// The name under which `runsc` starts its sandbox, which starts no gofer.
pub const SANDBOX: &[u8] = b"runsc-sandbox";

/// Why `waitpid` reported a tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is gone; the raw wait status says how.
    Ended(i32),
    /// It has executed a program and stands before that program's first instruction.
    Executed,
    /// The process it belongs to was stopped by this signal and stays so until `SIGCONT`.
    Stopped(i32),
    /// A signal is about to be delivered to it.
    Signalled(i32),
    /// Nothing to decide: it made a child, is a new tracee itself, or continues after a stop.
    Passing,
}

impl Event {
    /// Reads a status of `waitpid` on a tracee attached with `PTRACE_SEIZE`.
    #[must_use]
    pub fn from_status(status: i32) -> Self {
        if !libc::WIFSTOPPED(status) {
            return Self::Ended(status);
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            0 => Self::Signalled(signal),
            libc::PTRACE_EVENT_EXEC => Self::Executed,
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Self::Stopped(signal),
            _ => Self::Passing,
        }
    }
}

/// Who executed a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The `runsc` we started.
    Runsc,
    /// A child we made execute our binary: this is that exec.
    Replaced,
    /// Any other process that `runsc` made.
    Child,
}

/// What becomes of a process that executed a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may yet start a gofer.
    Keep,
    /// It is a gofer: put ours in its place.
    Replace,
    /// Our gofer runs in it.
    Done,
    /// No gofer will come from it.
    LetGo,
}

/// Judges an exec by the new program's `argv[0]`.
///
/// A child that runs the same binary under another name is `runsc` again (rootless, it starts
/// itself anew in a user namespace), so its children matter too; `same_binary` is asked only then.
pub fn verdict(who: Who, argv0: Option<&[u8]>, same_binary: impl FnOnce() -> bool) -> Verdict {
    match (who, argv0) {
        (Who::Runsc, _) => Verdict::Keep,
        (Who::Replaced, _) => Verdict::Done,
        (Who::Child, Some(name)) if name == GOFER => Verdict::Replace,
        (Who::Child, Some(name)) if name == SANDBOX => Verdict::LetGo,
        (Who::Child, _) if same_binary() => Verdict::Keep,
        (Who::Child, _) => Verdict::LetGo,
    }
}

/// Whether following goes on: not once `runsc` has ended and no replacement is under way.
pub fn next(ended: Option<i32>, replacements_under_way: usize) -> ControlFlow<i32> {
    match ended {
        Some(status) if replacements_under_way == 0 => ControlFlow::Break(status),
        _ => ControlFlow::Continue(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(signal: i32, event: i32) -> i32 {
        event << 16 | signal << 8 | 0x7f
    }

    #[test]
    fn a_stop_signal_of_the_whole_process_differs_from_one_to_be_delivered() {
        let group = stopped(libc::SIGTSTP, libc::PTRACE_EVENT_STOP);
        assert_eq!(Event::from_status(group), Event::Stopped(libc::SIGTSTP));
        let delivery = stopped(libc::SIGTSTP, 0);
        assert_eq!(
            Event::from_status(delivery),
            Event::Signalled(libc::SIGTSTP)
        );
    }

    #[test]
    fn a_new_tracee_and_a_fork_pass_and_an_exec_does_not() {
        for event in [
            libc::PTRACE_EVENT_CLONE,
            libc::PTRACE_EVENT_VFORK,
            libc::PTRACE_EVENT_STOP,
        ] {
            assert_eq!(
                Event::from_status(stopped(libc::SIGTRAP, event)),
                Event::Passing
            );
        }
        let exec = stopped(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC);
        assert_eq!(Event::from_status(exec), Event::Executed);
    }

    #[test]
    fn every_status_means_something() {
        for status in (0..=u16::MAX)
            .map(i32::from)
            .chain([-1, i32::MIN, i32::MAX])
        {
            let ended = matches!(Event::from_status(status), Event::Ended(same) if same == status);
            assert_eq!(ended, !libc::WIFSTOPPED(status));
        }
    }

    #[test]
    fn only_a_child_of_that_very_name_is_replaced() {
        let judge = |who, name: Option<&[u8]>, same| verdict(who, name, || same);
        assert_eq!(judge(Who::Child, Some(GOFER), true), Verdict::Replace);
        assert_eq!(
            judge(Who::Child, Some(b"runsc-gofer2"), false),
            Verdict::LetGo
        );
        assert_eq!(judge(Who::Child, Some(SANDBOX), true), Verdict::LetGo);
        assert_eq!(judge(Who::Child, Some(b"runsc"), true), Verdict::Keep);
        assert_eq!(judge(Who::Child, None, false), Verdict::LetGo);
        assert_eq!(judge(Who::Runsc, Some(GOFER), true), Verdict::Keep);
        assert_eq!(judge(Who::Replaced, Some(GOFER), true), Verdict::Done);
    }

    #[test]
    fn the_end_waits_for_a_replacement_under_way() {
        assert_eq!(next(Some(7), 1), ControlFlow::Continue(()));
        assert_eq!(next(Some(7), 0), ControlFlow::Break(7));
        assert_eq!(next(None, 0), ControlFlow::Continue(()));
    }
}
