//! The injected `execve` on arm64.

/// `mov x8, #221; mov x0, x3; svc #0; brk #0`. The path comes by way of `x3` because the kernel
/// writes the result of the `execve` under way to `x0` after the stop. A call that returns has
/// failed, and the trap tells us; without a tracer it ends the process.
pub(crate) const CODE: &[[u8; 8]] = &[
    [0xa8, 0x1b, 0x80, 0xd2, 0xe0, 0x03, 0x03, 0xaa],
    [0x01, 0x00, 0x00, 0xd4, 0x00, 0x00, 0x20, 0xd4],
];

/// A stopped thread's registers.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Registers(libc::user_regs_struct);

impl Registers {
    /// Where the stack ends.
    pub(crate) fn stack_pointer(&self) -> u64 {
        self.0.sp
    }

    /// The next instruction.
    pub(crate) fn instruction(&self) -> u64 {
        self.0.pc
    }

    /// Arguments for [`CODE`].
    pub(crate) fn aim(&mut self, path: u64, argv: u64, envp: u64) {
        self.0.regs[1] = argv;
        self.0.regs[2] = envp;
        self.0.regs[3] = path;
    }

    /// The errno with which the call in [`CODE`] failed.
    pub(crate) fn errno(&self) -> Option<i32> {
        super::errno_of(self.0.regs[0])
    }
}
