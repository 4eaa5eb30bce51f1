//! What code compiled with `-fstack-protector` expects of the process, be it C's or Rust's.
//!
//! Such a function keeps a copy of a secret word, the guard, between its arrays and its return
//! address. It calls `__stack_chk_fail` if the copy has changed when it returns. On some machines
//! the compiler reads the guard from a fixed place near the thread pointer, which `Arch::GUARD`
//! gives; on the others from the variable `__stack_chk_guard`.
//!
//! 1. *The guard never changes under a function that is running.* It is set before the first
//!    constructor of the program, by `FILL`, and not again; rt0 itself has no protected functions.
//!    A thread gets its parent's when it is spawned, a child of fork(2) has its parent's memory.
//! 2. *A program without protected functions has none of this.* Each protected function names
//!    `__stack_chk_fail`, which names `FILL`; without one the linker finds no use of either, nor of
//!    the variable.

use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::io::Line;
use crate::signal::{self, Signal};
use crate::{random, thread};

/// The guard on the machines where it is a variable. It is set on all: GCC can be told to use it on
/// others too (`-mstack-protector-guard=global`).
#[allow(non_upper_case_globals)]
#[cfg_attr(not(test), unsafe(no_mangle))]
static __stack_chk_guard: AtomicUsize = AtomicUsize::new(0);

/// A function as `.init_array` has them.
type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// The linker scripts put it before the program's constructors.
#[unsafe(link_section = ".rt0_stack_guard")]
static FILL: Constructor = fill;

/// Chooses the guard.
unsafe extern "C" fn fill(_: c_int, _: *const *const c_char, _: *const *const c_char) {
    let guard = guard_of(random::startup().bytes);
    __stack_chk_guard.store(guard, Relaxed); // Before there is a second thread.
    if let Some(word) = thread::stack_guard() {
        word.set(guard);
    }
}

/// A guard from random bytes. Its first byte in memory is 0, so that a string that is copied over
/// it cannot match, and one that is read beyond its end stops there. It is not 0.
fn guard_of(random: [u8; 16]) -> usize {
    /// What strings end at: NUL, carriage return, line feed, EOF.
    const TERMINATORS: [u8; 4] = [0, b'\r', b'\n', 0xff];
    let mut bytes = [0; size_of::<usize>()];
    bytes.copy_from_slice(&random[..size_of::<usize>()]);
    bytes[0] = 0;
    if bytes.iter().all(|byte| *byte == 0) {
        bytes[..4].copy_from_slice(&TERMINATORS);
    }
    usize::from_ne_bytes(bytes)
}

/// Where the calling thread's compiled code finds the guard. For tests.
///
/// In handlers: yes.
#[doc(hidden)]
pub fn guard() -> *mut usize {
    thread::stack_guard().map_or(__stack_chk_guard.as_ptr(), |word| word.as_ptr())
}

/// What a protected function calls when the copy of the guard in its frame has changed. It writes a
/// line and ends the process by SIGABRT, as glibc's does. The frame may hold anything, so it looks
/// at nothing there.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn __stack_chk_fail() -> ! {
    core::hint::black_box(&FILL); // What guards need at the start comes along with this.
    let mut line = Line::new(2);
    line.text("rt0: fatal: stack smashing detected: a function wrote beyond an array on its stack\n");
    line.flush(); // An error: there is nobody left to tell.
    signal::die_from(Signal::SIGABRT)
}

/// The name by which position-independent code calls it on x86 and powerpc.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn __stack_chk_fail_local() -> ! {
    __stack_chk_fail()
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
