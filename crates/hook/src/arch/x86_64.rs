//! The injected `execve` on x86-64.

/// `mov eax, 59; syscall; int3`. The number is loaded here because the kernel writes the result
/// of the `execve` under way to `rax` after the stop. A call that returns has failed, and the
/// trap tells us; without a tracer it ends the process.
pub(crate) const CODE: &[[u8; 8]] = &[[0xb8, 59, 0, 0, 0, 0x0f, 0x05, 0xcc]];

/// A stopped thread's registers.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Registers(libc::user_regs_struct);

impl Registers {
    /// Where the stack ends.
    pub(crate) fn stack_pointer(&self) -> u64 {
        self.0.rsp
    }

    /// The next instruction.
    pub(crate) fn instruction(&self) -> u64 {
        self.0.rip
    }

    /// Arguments for [`CODE`].
    pub(crate) fn aim(&mut self, path: u64, argv: u64, envp: u64) {
        (self.0.rdi, self.0.rsi, self.0.rdx) = (path, argv, envp);
        // No call is under way any more that a signal could make the kernel restart.
        self.0.orig_rax = u64::MAX;
    }

    /// The errno with which the call in [`CODE`] failed.
    pub(crate) fn errno(&self) -> Option<i32> {
        super::errno_of(self.0.rax)
    }
}
