//! Support for code compiled with `-fstack-protector`, C or Rust.
//!
//! Such a function keeps a copy of a secret word, the guard, between its arrays and its return
//! address. On return it calls `__stack_chk_fail` if the copy has changed. On some machines the
//! compiler reads the guard at a fixed offset from the thread pointer, which `Arch::GUARD` gives;
//! on the others from the variable `__stack_chk_guard`.
//!
//! 1. *The guard never changes while a protected function runs:* `FILL` sets it once, before the
//!    program's first constructor; rt0 itself has no protected functions. A spawned thread copies
//!    its parent's guard, and a forked child has its parent's memory.
//! 2. *A program without protected functions contains none of this:* each protected function refers
//!    to `__stack_chk_fail`, which refers to `FILL`. Without a reference the linker drops both, and
//!    the variable.

use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::io::Line;
use crate::signal::{self, Signal};
use crate::{random, thread};

/// The guard on machines where it is a variable. It is set on all machines, because GCC can be told
/// to use the variable on the others too (`-mstack-protector-guard=global`).
#[allow(non_upper_case_globals)]
#[unsafe(export_name = "__rt0_stack_chk_guard")]
static __stack_chk_guard: AtomicUsize = AtomicUsize::new(0);

/// An entry of `.init_array`.
type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// The linker scripts place it before the program's constructors.
#[unsafe(link_section = ".rt0_stack_guard")]
static FILL: Constructor = fill;

/// Chooses the guard.
unsafe extern "C" fn fill(_: c_int, _: *const *const c_char, _: *const *const c_char) {
    let guard = guard_of(random::startup().bytes);
    __stack_chk_guard.store(guard, Relaxed); // There is no second thread yet.
    if let Some(word) = thread::stack_guard() {
        word.set(guard);
    }
}

/// A guard made of random bytes; never 0. Its first byte in memory is 0, so that a copied string
/// cannot contain it, and a string that is read beyond its end stops there.
fn guard_of(random: [u8; 16]) -> usize {
    /// Bytes at which strings end: NUL, carriage return, line feed, EOF.
    const TERMINATORS: [u8; 4] = [0, b'\r', b'\n', 0xff];
    let mut bytes = [0; size_of::<usize>()];
    bytes.copy_from_slice(&random[..size_of::<usize>()]);
    bytes[0] = 0;
    if bytes.iter().all(|byte| *byte == 0) {
        bytes[..4].copy_from_slice(&TERMINATORS);
    }
    usize::from_ne_bytes(bytes)
}

/// The address of the guard that the calling thread's compiled code reads. For tests.
///
/// In handlers: yes.
#[doc(hidden)]
pub fn guard() -> *mut usize {
    thread::stack_guard().map_or(__stack_chk_guard.as_ptr(), |word| word.as_ptr())
}

/// Called by a protected function if the copy of the guard in its frame has changed. Writes a line
/// and ends the process by SIGABRT, as glibc does. It reads nothing from the frame, which may hold
/// anything.
///
/// In handlers: yes.
pub extern "C" fn fail() -> ! {
    core::hint::black_box(&FILL); // This reference links `FILL`.
    let mut line = Line::new(2);
    line.text("rt0: fatal: stack smashing detected: a function wrote beyond an array on its stack\n");
    line.flush(); // An error cannot be reported: stderr has failed.
    signal::die_from(Signal::SIGABRT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_begins_with_a_zero_byte_and_is_not_zero() {
        for random in [[0; 16], [0xff; 16], [1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]] {
            let guard = guard_of(random);
            assert!(guard != 0 && guard.to_ne_bytes()[0] == 0, "{guard:#x}");
        }
        assert_ne!(guard_of([5; 16]), guard_of([6; 16]));
    }
}
