//! What differs between processors: registers, the injected instructions, the call's result.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{CODE, Registers};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{CODE, Registers};

/// A failed call returns the negated errno, below 4096.
fn errno_of(result: u64) -> Option<i32> {
    let errno = i32::try_from(result.wrapping_neg()).ok()?;
    (1..4096).contains(&errno).then_some(errno)
}
