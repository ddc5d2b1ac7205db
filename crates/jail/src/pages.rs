//! The program's own pages, given back when most of them have done their work.
//!
//! Starting up runs code that serving does not need, and the kernel maps sixteen pages for each one
//! that is touched. Afterwards what is needed is mapped again, from memory, when it is touched next:
//! a few dozen faults of about a microsecond for a process that serves for hours.
//!
//! Must hold: only mappings are given back that nobody can have written to, so that the file still
//! says what was in them.
#![allow(
    unsafe_code,
    reason = "where a program lies in memory is asked of the C library, and the kernel believes addresses"
)]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use rustix::param::page_size;

/// Gives back all pages of the program that are read-only. Whatever the kernel does not want is left
/// as it is.
pub fn give_back() {
    // SAFETY: the function is of the right type, uses nothing of ours, and is only called in here.
    unsafe { libc::dl_iterate_phdr(Some(give_back_object), null_mut()) };
}

/// # Safety
/// `info` describes an object that is loaded, as the C library tells it.
unsafe extern "C" fn give_back_object(
    info: *mut libc::dl_phdr_info,
    _bytes: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: the C library tells where the headers lie and how many there are; they are read-only.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for header in headers {
        let writable = header.p_flags & libc::PF_W != 0;
        if header.p_type == libc::PT_LOAD && !writable {
            let at = info.dlpi_addr as usize + header.p_vaddr as usize;
            let (start, end) = whole_pages(at, header.p_memsz as usize);
            // SAFETY: these pages are a private mapping of the program's file that never could be
            // written: they are read from there again. Nobody who runs notices but by the clock.
            unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    // The first object is the program; others may be of the kernel's own making.
    1
}

/// The pages that lie inside of a segment as a whole. Those at its ends may be its neighbours' too.
fn whole_pages(at: usize, bytes: usize) -> (usize, usize) {
    let page = page_size();
    let start = at.next_multiple_of(page);
    let end = (at + bytes) / page * page;
    (start, end.max(start))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    /// KiB of files that are mapped and in memory.
    fn resident_file_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssFile:"));
        let number = line.unwrap().split_whitespace().nth(1);
        number.unwrap().parse().unwrap()
    }

    #[test]
    fn only_pages_that_belong_to_a_segment_alone_are_given_back() {
        let page = page_size();
        assert_eq!(whole_pages(page, 2 * page), (page, 3 * page));
        assert_eq!(whole_pages(page + 1, 2 * page), (2 * page, 3 * page));
        assert_eq!(whole_pages(page + 1, 7), (2 * page, 2 * page));
    }

    #[test]
    fn a_program_goes_on_without_the_pages_that_it_has_given_back() {
        let before = resident_file_kib();
        give_back();
        let after = resident_file_kib();
        assert!(after < before, "{before} KiB before, {after} after");
        assert_eq!(format!("{:.3}", std::f64::consts::PI), "3.142");
    }
}
