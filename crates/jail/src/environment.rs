//! The environment: it is the caller's (a container manager's, for instance), and stays readable in
//! `/proc/<pid>/environ` for as long as the process lives, unless it is wiped where it lies.

#![allow(unsafe_code, reason = "the C library's environment has no safe form")]

use std::ffi::c_char;

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
    fn clearenv() -> libc::c_int;
}

/// Wipes every variable, for this process and for whoever looks at it. What is needed must have been
/// read before; what is set later is kept elsewhere. With one thread only.
pub fn wipe() {
    // SAFETY: with one thread nobody else reads or changes the list, which ends with a null
    // pointer, or is one. Its strings lie in the process's own writable memory: at the end of the
    // first stack, or in the heap.
    unsafe {
        let mut variable = environ;
        while !variable.is_null() && !(*variable).is_null() {
            let length = libc::strlen(*variable);
            // Volatile: nobody of ours reads what is written.
            for byte in 0..length {
                (*variable).add(byte).write_volatile(0);
            }
            variable = variable.add(1);
        }
        // Cannot fail: it only forgets the list.
        clearenv();
    }
}
