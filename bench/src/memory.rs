//! memcpy and related functions, which the compiler calls: rt0's compared with those of std's libc.
//!
//! A libc may choose vectors by the processor. glibc uses the width of x86_64's baseline, as rt0
//! does, under
//! `GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX_Usable,-AVX2_Usable,-AVX2,-AVX,-AVX512F,-AVX512VL`.

use core::ffi::{c_char, c_int, c_void};
use core::hint::black_box;

use crate::{Run, Runtime};

unsafe extern "C" {
    fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memset(to: *mut c_void, byte: c_int, len: usize) -> *mut c_void;
    fn memcmp(a: *const c_void, b: *const c_void, len: usize) -> c_int;
    fn bcmp(a: *const c_void, b: *const c_void, len: usize) -> c_int;
    fn strlen(text: *const c_char) -> usize;
}

const ROOM: usize = 16 << 10;
const SAMPLES: usize = 15;
const CALLS: usize = 20_000;

/// A length, and the names of the metrics in the order of the functions.
type Row = (usize, [&'static str; 6]);

const ROWS: [Row; 4] = [
    (16, ["memcpy_16", "memmove_16", "memset_16", "memcmp_16", "bcmp_16", "strlen_16"]),
    (128, ["memcpy_128", "memmove_128", "memset_128", "memcmp_128", "bcmp_128", "strlen_128"]),
    (1000, ["memcpy_1000", "memmove_1000", "memset_1000", "memcmp_1000", "bcmp_1000", "strlen_1000"]),
    (4096, ["memcpy_4096", "memmove_4096", "memset_4096", "memcmp_4096", "bcmp_4096", "strlen_4096"]),
];

/// Measures each function at each length; memmove copies to 24 bytes above its source. memcpy is
/// also measured with addresses that differ by 24 modulo 4096.
pub(crate) fn measure<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>) {
    let mut text = [1_u8; ROOM];
    let mut other = [1_u8; ROOM];
    let (to, from) = (text.as_mut_ptr().cast::<c_void>(), other.as_mut_ptr().cast::<c_void>());
    for (len, [copy, overlap, set, compare, equal, length]) in ROWS {
        let len = black_box(len);
        if run.wants(&[copy]) {
            run.per_call(copy, SAMPLES, CALLS, || {
                // SAFETY: the arrays are larger.
                unsafe { memcpy(black_box(to), black_box(from), len) };
            });
        }
        if run.wants(&[overlap]) {
            run.per_call(overlap, SAMPLES, CALLS, || {
                // SAFETY: the arrays are larger.
                unsafe { memmove(black_box(to).wrapping_byte_add(24), black_box(to), len) };
            });
        }
        if run.wants(&[set]) {
            run.per_call(set, SAMPLES, CALLS, || {
                // SAFETY: the arrays are larger.
                unsafe { memset(black_box(to), 1, len) };
            });
        }
        if run.wants(&[compare]) {
            run.per_call(compare, SAMPLES, CALLS, || {
                // SAFETY: the arrays are larger.
                black_box(unsafe { memcmp(black_box(to), black_box(from), len) });
            });
        }
        if run.wants(&[equal]) {
            run.per_call(equal, SAMPLES, CALLS, || {
                // SAFETY: the arrays are larger.
                black_box(unsafe { bcmp(black_box(to), black_box(from), len) });
            });
        }
        if run.wants(&[length]) {
            // SAFETY: a byte of the array.
            unsafe { from.cast::<u8>().wrapping_add(len).write(0) };
            run.per_call(length, SAMPLES, CALLS, || {
                // SAFETY: the array contains a NUL.
                black_box(unsafe { strlen(black_box(from).cast()) });
            });
            // SAFETY: a byte of the array.
            unsafe { from.cast::<u8>().wrapping_add(len).write(1) };
        }
    }
    if run.wants(&["memcpy_4096_just_above"]) {
        run.per_call("memcpy_4096_just_above", SAMPLES, CALLS, || {
            // SAFETY: the arrays are larger, and the two ranges do not overlap.
            unsafe { memcpy(black_box(to).wrapping_byte_add(8192 + 24), black_box(to), 4096) };
        });
    }
}
