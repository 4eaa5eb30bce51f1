//! The functions that the compiler calls and a libc would define: memcpy, memmove, memset, memcmp,
//! bcmp, strlen.
//!
//! The contract is that of ISO C (C17 7.24; `bcmp`: POSIX.1-2001) and rustc's addition ([core],
//! "How to use the core library"): for 0 bytes the pointers may be null or dangling. All lengths
//! are in bytes.
//!
//! Each function has two forms: `unaligned` for machines that access a word at any address as
//! fast as at an aligned one (`Arch::UNALIGNED_WORDS`), `aligned` for the others. strlen reads
//! aligned words on every machine (`words`), or vectors where the machine has a form of its own
//! (`Arch::STRLEN`).
//!
//! All but `memmove` are part of the program's function of that name, whose only caller they are.
//! memcpy is a jump to `memmove`.
//!
//! Two rules keep the compiler from turning a function into a call of itself. Every loop contains
//! `loop_end`. And no value is larger than a `Pair`: without optimisation, the compiler copies
//! values that do not fit into registers by memcpy. (The alternative, `#![no_builtins]`, excludes
//! the whole crate from link-time optimisation.)
//!
//! [core]: https://doc.rust-lang.org/core/#how-to-use-the-core-library

mod aligned;
#[cfg(test)]
mod tests;
mod unaligned;
mod words;

use core::arch::asm;
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;

use crate::arch::{Arch, Cpu};

/// Copies `n` bytes from `src` to `dest`, and returns `dest`.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
#[inline(always)]
pub unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: 1. The caller guarantees it. That the two do not overlap is not needed.
    unsafe { memmove(dest, src, n) }
}

/// Copies `n` bytes from `src` to `dest`, which may overlap, and returns `dest`.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
pub unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    if Cpu::UNALIGNED_WORDS {
        // SAFETY: 1. The caller guarantees it.
        unsafe { unaligned::copy(dest, src, n) }
    } else {
        // SAFETY: 1. The caller guarantees it.
        unsafe { aligned::copy(dest, src, n) }
    }
    dest
}

/// Sets `n` bytes from `dest` on to the low byte of `byte`, and returns `dest`.
///
/// # Safety
///
/// 1. `dest..dest + n` is writable.
#[inline(always)]
pub unsafe extern "C" fn memset(dest: *mut u8, byte: c_int, n: usize) -> *mut u8 {
    // The byte repeated in each place of a word.
    let word = usize::from(byte as u8) * (usize::MAX / 0xFF);
    if Cpu::UNALIGNED_WORDS {
        // SAFETY: 1. The caller guarantees it.
        unsafe { unaligned::set(dest, word, n) }
    } else {
        // SAFETY: 1. The caller guarantees it.
        unsafe { aligned::set(dest, word, n) }
    }
    dest
}

/// Compares `n` bytes as unsigned numbers. The result is negative if the first byte that differs is
/// less in `a`, positive if it is greater, 0 if none differs.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[inline(always)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> c_int {
    if let Some(compare) = Cpu::COMPARE {
        // SAFETY: 1. The caller guarantees it.
        unsafe { compare(a, b, n) }
    } else if Cpu::UNALIGNED_WORDS {
        // SAFETY: 1. The caller guarantees it.
        unsafe { unaligned::compare(a, b, n) }
    } else {
        // SAFETY: 1. The caller guarantees it.
        unsafe { aligned::compare(a, b, n) }
    }
}

/// 0 if the `n` bytes at `a` and at `b` are equal.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[inline(always)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> c_int {
    if Cpu::UNALIGNED_WORDS && Cpu::COMPARE.is_none() {
        // SAFETY: 1. The caller guarantees it.
        c_int::from(unsafe { unaligned::differ(a, b, n) })
    } else {
        // SAFETY: 1. The caller guarantees it.
        unsafe { memcmp(a, b, n) }
    }
}

/// The number of bytes before the first NUL.
///
/// # Safety
///
/// 1. The bytes from `s` up to and including the first NUL are readable and initialised.
#[inline(always)]
pub unsafe extern "C" fn strlen(s: *const c_char) -> usize {
    match Cpu::STRLEN {
        // SAFETY: 1. The caller guarantees it.
        Some(strlen) => unsafe { strlen(s.cast()) },
        // SAFETY: 1. The caller guarantees it.
        None => unsafe { words::strlen(s.cast()) },
    }
}

/// The largest value in use: two words. The compiler moves it as one vector if the machine has
/// vectors; [`Arch::pair`] makes one for repeated stores.
type Pair = <Cpu as Arch>::Pair;

const WORD: usize = size_of::<usize>();
const PAIR: usize = size_of::<Pair>();
const BLOCK: usize = 4 * PAIR;

const _: () = assert!(PAIR == 2 * WORD);

/// -1, 0 or 1 as `x` is less than, equal to or greater than `y`.
#[inline(always)]
fn order<T: Ord>(x: T, y: T) -> c_int {
    c_int::from(x > y) - c_int::from(x < y)
}

/// Copies the `T`s at offsets 0, `b`, `c` and `d`; loads all before it stores any.
///
/// # Safety
///
/// 1. A `T` is readable at `src` and writable at `dest`, at each of the offsets.
/// 2. If `ALIGNED`, all these are aligned for a `T`.
#[inline(always)]
unsafe fn copy_four<T: Copy, const ALIGNED: bool>(dest: *mut u8, src: *const u8, b: usize, c: usize, d: usize) {
    // SAFETY: 1, 2. The caller guarantees both for the offset 0. 3. All bytes are a valid
    // MaybeUninit.
    let at_a: MaybeUninit<T> = unsafe { load::<_, ALIGNED>(src) };
    // SAFETY: 1, 2. The caller guarantees both for `b`. 3. All bytes are a valid MaybeUninit.
    let at_b: MaybeUninit<T> = unsafe { load::<_, ALIGNED>(src.wrapping_add(b)) };
    // SAFETY: 1, 2. The caller guarantees both for `c`. 3. All bytes are a valid MaybeUninit.
    let at_c: MaybeUninit<T> = unsafe { load::<_, ALIGNED>(src.wrapping_add(c)) };
    // SAFETY: 1, 2. The caller guarantees both for `d`. 3. All bytes are a valid MaybeUninit.
    let at_d: MaybeUninit<T> = unsafe { load::<_, ALIGNED>(src.wrapping_add(d)) };
    // SAFETY: 1, 2. The caller guarantees both for the offset 0.
    unsafe { store::<_, ALIGNED>(dest, at_a) };
    // SAFETY: 1, 2. The caller guarantees both for `b`.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(b), at_b) };
    // SAFETY: 1, 2. The caller guarantees both for `c`.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(c), at_c) };
    // SAFETY: 1, 2. The caller guarantees both for `d`.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(d), at_d) };
}

/// Stores `value` at the offsets 0, `b`, `c` and `d`.
///
/// # Safety
///
/// 1. A `T` is writable at `dest`, at each of the offsets.
/// 2. If `ALIGNED`, all these are aligned for a `T`.
#[inline(always)]
unsafe fn set_four<T: Copy, const ALIGNED: bool>(dest: *mut u8, value: T, b: usize, c: usize, d: usize) {
    // SAFETY: 1, 2. The caller guarantees both for the offset 0.
    unsafe { store::<_, ALIGNED>(dest, value) };
    // SAFETY: 1, 2. The caller guarantees both for `b`.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(b), value) };
    // SAFETY: 1, 2. The caller guarantees both for `c`.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(c), value) };
    // SAFETY: 1, 2. The caller guarantees both for `d`.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(d), value) };
}

/// A `T` with an alignment of 1.
#[repr(C, packed)]
struct Packed<T>(T);

/// Loads a `T` from `p`. (`read_unaligned` is a call and a memcpy without optimisation.)
///
/// # Safety
///
/// 1. `p..p + size_of::<T>()` is readable.
/// 2. If `ALIGNED`, `p` is aligned for a `T`.
/// 3. The bytes there are a valid `T`.
#[inline(always)]
unsafe fn load<T: Copy, const ALIGNED: bool>(p: *const u8) -> T {
    if ALIGNED {
        // SAFETY: the caller guarantees 1, 2 and 3.
        unsafe { *p.cast::<T>() }
    } else {
        // SAFETY: the caller guarantees 1 and 3; `Packed` needs no alignment.
        unsafe { (*p.cast::<Packed<T>>()).0 }
    }
}

/// Stores `value` at `p`.
///
/// # Safety
///
/// 1. `p..p + size_of::<T>()` is writable.
/// 2. If `ALIGNED`, `p` is aligned for a `T`.
#[inline(always)]
unsafe fn store<T: Copy, const ALIGNED: bool>(p: *mut u8, value: T) {
    if ALIGNED {
        // SAFETY: the caller guarantees 1 and 2.
        unsafe { *p.cast::<T>() = value };
    } else {
        // SAFETY: the caller guarantees 1; `Packed` needs no alignment.
        unsafe { (*p.cast::<Packed<T>>()).0 = value };
    }
}

/// Loads an aligned word; an uninitialised byte has any value.
///
/// # Safety
///
/// 1. A word is readable at `p`.
/// 2. `p` is aligned for it.
#[inline(always)]
unsafe fn load_any(p: *const u8) -> usize {
    // SAFETY: 1, 2. The caller guarantees both. 3. All bytes are a valid MaybeUninit.
    let loaded: MaybeUninit<usize> = unsafe { load::<_, true>(p) };
    any_value(loaded)
}

/// Loads the aligned word at `p`, which may contain bytes outside any Rust object; such a byte has
/// any value.
///
/// Volatile: the machine defines the result of a load beyond an object. A machine maps whole pages,
/// so an aligned word with one readable byte is readable.
///
/// # Safety
///
/// 1. At least one byte of the word is readable.
/// 2. `p` is aligned for it.
#[inline(always)]
unsafe fn load_around(p: *const u8) -> usize {
    // SAFETY: the machine can read the word, by 1 and 2; all bytes are a valid MaybeUninit.
    let loaded = unsafe { p.cast::<MaybeUninit<usize>>().read_volatile() };
    any_value(loaded)
}

/// Makes a word of bytes that may be uninitialised; an uninitialised byte has any value.
#[inline(always)]
fn any_value(loaded: MaybeUninit<usize>) -> usize {
    let word;
    // SAFETY: no instruction. The compiler must assume that the register holds some valid word.
    unsafe { asm!("/* {0} */", inlateout(reg) loaded => word, options(pure, nomem, nostack, preserves_flags)) };
    word
}

/// Copies the words from `from` to `end`, in little code: for images that are empty or small.
///
/// # Safety
///
/// 1. These words are readable, as many words are writable at `to`, and the two do not overlap.
/// 2. All three are aligned.
#[inline(always)]
pub(crate) unsafe fn copy_words(mut to: *mut usize, mut from: *const usize, end: *const usize) {
    while from < end {
        // SAFETY: 1, 2. The caller guarantees both. 3. All bytes are a valid MaybeUninit.
        let word: MaybeUninit<usize> = unsafe { load::<_, true>(from.cast()) };
        // SAFETY: 1, 2. The caller guarantees both.
        unsafe { store::<_, true>(to.cast(), word) };
        (from, to) = (from.wrapping_add(1), to.wrapping_add(1));
        loop_end();
    }
}

/// Zeros the bytes from `from` to `end`, in little code.
///
/// # Safety
///
/// 1. They are writable.
/// 2. Both are multiples of 16.
#[inline(always)]
pub(crate) unsafe fn zero(mut from: *mut u8, end: *mut u8) {
    while from < end {
        // SAFETY: 1. By 1; a pair has at most 16 bytes. 2. By 2.
        unsafe { store::<_, true>(from, Cpu::pair(0)) };
        from = from.wrapping_add(PAIR);
        loop_end();
    }
}

/// The number of bytes before the first NUL, in little code: for a single path in programs without
/// strlen.
///
/// # Safety
///
/// 1. The bytes from `s` up to and including the first NUL are readable and initialised.
#[inline(always)]
pub(crate) unsafe fn short_len(s: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: 1. The first `n` bytes are not NUL, so this one is readable. 2. A byte. 3. It is
    // initialised.
    while unsafe { load::<u8, true>(s.wrapping_add(n)) } != 0 {
        n += 1;
        loop_end();
    }
    n
}

/// Compiler barrier at the end of a loop's body: it may change all memory. So LLVM does not
/// recognise the loop as memcpy, and does not merge stores of two iterations.
#[inline(always)]
fn loop_end() {
    // SAFETY: no instruction.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}
