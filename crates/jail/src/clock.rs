//! Local time, asked while the host's zone files can still be read.

#![allow(unsafe_code, reason = "the C library keeps the rules of time zones")]

/// Seconds that local time is ahead of UTC now: `TZ`, or `/etc/localtime`. Zero if unknown. The
/// logs of a process that lives across a change of the clocks keep the old offset.
pub fn utc_offset_seconds() -> i64 {
    // SAFETY: `time` with a null pointer only returns the time.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    // SAFETY: all zeroes is a valid `tm`.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both live; the process has one thread, so nobody changes the environment meanwhile.
    let known = unsafe { !libc::localtime_r(&raw const now, &raw mut local).is_null() };
    if known { local.tm_gmtoff } else { 0 }
}
