//! Capabilities: the few that acting on files of any owner needs, and nothing else.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::Error;
use crate::error::Doing;

/// Act on files of any owner, keep set-id bits on write. The reference also keeps `SYS_CHROOT` for
/// its final `chroot`; here the served root is the process's root already.
pub(crate) const FILE_OWNERSHIP: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// Connect to host sockets under the application's ids (v2026-08, `--host-uds=open`).
pub(crate) const CREDENTIALS: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// Highest capability number that fits the kernel's two words.
const NUMBER_MAX: u32 = 63;

/// Reduces every set of this thread to `keep`; inheritable and ambient become empty. What we do
/// not even hold is returned, for a warning.
pub(crate) fn reduce_to(keep: CapabilitySet) -> Result<CapabilitySet, Error> {
    let held = capabilities(None).doing(|| "reading capabilities")?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        drop_bounding(keep)?;
    }
    let granted = keep.intersection(held.permitted);
    let sets = CapabilitySets {
        effective: granted,
        permitted: granted,
        inheritable: CapabilitySet::empty(),
    };
    match clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(Error::host("clearing ambient capabilities", errno)),
    }
    set_capabilities(None, sets).doing(|| "dropping capabilities")?;
    Ok(keep.difference(granted))
}

/// Takes capabilities from this thread for good; a thread may always do that.
pub(crate) fn give_up(these: CapabilitySet) -> Result<(), Errno> {
    let held = capabilities(None)?;
    if !held.permitted.intersects(these) {
        return Ok(());
    }
    let left = held.permitted.difference(these);
    let sets = CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

fn drop_bounding(keep: CapabilitySet) -> Result<(), Error> {
    for number in 0..=NUMBER_MAX {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            // The kernel knows no capability of this number.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => {
                return Err(Error::host(
                    format!("dropping capability {number} for good"),
                    errno,
                ));
            }
        }
    }
    Ok(())
}
