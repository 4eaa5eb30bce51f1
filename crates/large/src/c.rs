//! C code that the build script has compiled, linked beside rt0.

use core::ffi::{c_int, c_ulong};

use rt0::thread;

unsafe extern "C" {
    safe fn part_started() -> c_int;
    safe fn part_count(to_filled: c_int, to_zero: c_int) -> c_int;
    fn part_reverse(bytes: *mut u8, len: c_ulong);
}

/// It has run once, before main.
pub fn constructor() -> bool {
    part_started() == 1
}

/// Each thread has its own, and starts with what the program's file says.
pub fn variables_of_threads() -> bool {
    let count = || (part_count(1, 0), part_count(0, 1));
    if count() != (41, 42) {
        return false;
    }
    let Ok(other) = thread::spawn(count) else { return false };
    other.join() == (41, 42) && part_count(0, 0) == 42
}

/// The guard is the same when a function returns, on main and on another thread.
pub fn stack_protector() -> bool {
    let reverse = || {
        let mut bytes = *b"abcdef";
        // SAFETY: so many bytes are there.
        unsafe { part_reverse(bytes.as_mut_ptr(), bytes.len() as c_ulong) };
        &bytes == b"fedcba"
    };
    reverse() && thread::spawn(reverse).is_ok_and(|other| other.join())
}
