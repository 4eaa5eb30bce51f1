//! The loops, the same for rt0 and for musl. Each repeats one operation. The instructions of a run
//! with twice the repeats, minus those of one, are the operation's.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::hint::black_box;

/// What is counted of a runtime beside the functions that the compiler calls.
pub trait Operations {
    /// getppid(2), which does nothing.
    fn call_the_kernel();
    /// The monotonic clock.
    fn read_the_clock();
    /// Locks and unlocks a mutex that no other thread uses.
    fn lock();
    /// Locks and unlocks a read-write lock for reading.
    fn lock_for_reading();
    /// Calls a `Once` that has run.
    fn call_once();
    /// Starts a thread that does nothing, and joins it.
    fn spawn_and_join();
    /// Catches SIGUSR1 with a function that does nothing.
    fn catch_signal();
    /// Sends SIGUSR1 to the calling thread.
    fn send_signal();
}

unsafe extern "C" {
    fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memset(to: *mut c_void, byte: c_int, len: usize) -> *mut c_void;
    fn memcmp(a: *const c_void, b: *const c_void, len: usize) -> c_int;
    fn strlen(text: *const c_char) -> usize;
}

const MOST: usize = 4096;

/// Bytes for the functions that the compiler calls.
#[repr(align(64))]
struct Bytes([u8; MOST + 64]);

/// Repeats the operation that `name` names; false if there is none.
pub fn run<O: Operations>(name: &CStr, times: usize) -> bool {
    let Ok(name) = name.to_str() else { return false };
    match name {
        "nothing" => repeat(times, || {}),
        "system_call" => repeat(times, O::call_the_kernel),
        "clock" => repeat(times, O::read_the_clock),
        "lock_unlock" => repeat(times, O::lock),
        "read_lock_unlock" => repeat(times, O::lock_for_reading),
        "once" => repeat(times, O::call_once),
        "spawn_join" => repeat(times, O::spawn_and_join),
        "signal" => {
            O::catch_signal();
            repeat(times, O::send_signal);
        }
        _ => return on_bytes(name, times),
    }
    true
}

/// The functions that the compiler calls, named with their length.
fn on_bytes(name: &str, times: usize) -> bool {
    let Some((function, Ok(len))) = name.split_once('_').map(|(function, len)| (function, len.parse::<usize>())) else {
        return false;
    };
    if len > MOST {
        return false;
    }
    let (mut one, mut other) = (Bytes([1; MOST + 64]), Bytes([1; MOST + 64]));
    other.0[len] = 0;
    let (to, from) = (one.0.as_mut_ptr().cast::<c_void>(), other.0.as_mut_ptr().cast::<c_void>());
    match function {
        "memcpy" => repeat(times, || {
            // SAFETY: the arrays are larger than `len`.
            unsafe { memcpy(black_box(to), black_box(from), black_box(len)) };
        }),
        // To 24 bytes above its source.
        "memmove" => repeat(times, || {
            // SAFETY: the array is larger than `len` by 64.
            unsafe { memmove(black_box(to).wrapping_byte_add(24), black_box(to), black_box(len)) };
        }),
        "memset" => repeat(times, || {
            // SAFETY: the array is larger than `len`.
            unsafe { memset(black_box(to), 1, black_box(len)) };
        }),
        "memcmp" => repeat(times, || {
            // SAFETY: the arrays are larger than `len`.
            black_box(unsafe { memcmp(black_box(to), black_box(from), black_box(len)) });
        }),
        "strlen" => repeat(times, || {
            // SAFETY: the array contains a NUL.
            black_box(unsafe { strlen(black_box(from).cast()) });
        }),
        _ => return false,
    }
    true
}

/// Not inlined anywhere but in the loops above: the counter is the only thing that they add.
#[inline(always)]
fn repeat(times: usize, mut operation: impl FnMut()) {
    for _ in 0..times {
        operation();
        // Otherwise an empty loop would vanish, and two rounds could become one.
        black_box(());
    }
}
