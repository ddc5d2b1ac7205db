//! What is known of the processor: how well its string instructions copy.
//!
//! Belongs here: everything that depends on the architecture. Belongs elsewhere: what is done about
//! it (`bulk`).

/// Whether copying with a string instruction, as the kernel does, takes several times as long when
/// the target is not a multiple of 32 bytes.
///
/// Measured, reading pages of a tmpfs: AMD EPYC took five times as long for 64 KiB to an odd
/// address; Intel Xeon (model 167) no longer than to an even one.
#[cfg(target_arch = "x86_64")]
pub(crate) fn copies_badly_to_odd_addresses() -> bool {
    use std::sync::LazyLock;
    /// Asked once: a virtual machine leaves to its host for the answer.
    static AMD: LazyLock<bool> = LazyLock::new(|| {
        let vendor = std::arch::x86_64::__cpuid(0);
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        name.as_flattened() == b"AuthenticAMD"
    });
    *AMD
}

/// As above; not measured on any other architecture, whose kernels copy with plain moves.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const fn copies_badly_to_odd_addresses() -> bool {
    false
}
