//! What the compiler calls and no libc gives: memcpy, memmove, memset, memcmp, bcmp, strlen.
//!
//! The contract is that of ISO C (C17 7.24; `bcmp`: POSIX.1-2001), with what rustc assumes beyond it ([core], "How to
//! use the core library"): of 0 bytes the pointers may be null or dangling. All lengths are in bytes.
//!
//! Copying and setting have one shape, without a loop of bytes:
//!
//! ```text
//!     n >= bulk   │ pair, so that the next is aligned │ words, by instructions for that │ … then less than a word:
//!     n > BLOCK   │ block, clipped so that the next is aligned │ block │ block │ … then the rest:
//!     n >= PAIR   │ pair │ pair →    ← pair │ pair │
//!     n >= 4      │ word →  ← word │
//!     n >= 1      │ first, middle, last byte │
//! ```
//!
//! The accesses of one step may overlap; as a step loads everything before it stores anything, that does no harm, nor
//! does an overlap of source and destination. So memcpy can be memmove, and is. Machines that access words only where
//! they are aligned have plainer forms ([`ANY_ADDRESS`]).
//!
//! Two oddities keep the compiler from making a function a call of itself. [`loop_end`] stands in every loop. And no
//! value is larger than a [`Pair`]: without optimisation, memcpy moves what does not fit into registers.
//! (`#![no_builtins]` would be the other way; it takes the whole crate out of link-time optimisation.)
//!
//! [core]: https://doc.rust-lang.org/core/#how-to-use-the-core-library

use core::arch::asm;
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;

use crate::arch::{Arch, Cpu, TwoWords};

/// Which of the two forms this machine gets. The compiler puts an unaligned word together from bytes where it must.
const ANY_ADDRESS: bool = Cpu::UNALIGNED_WORDS;

/// Copies `n` bytes from `src` to `dest`, and returns `dest`.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: 1. By our 1. That the two may not overlap is a promise we do not need.
    unsafe { memmove(dest, src, n) }
}

/// Copies `n` bytes from `src` to `dest`, which may overlap, and returns `dest`.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    if ANY_ADDRESS {
        // SAFETY: 1. By our 1.
        unsafe { copy(dest, src, n) }
    } else {
        // SAFETY: 1. By our 1.
        unsafe { copy_aligned(dest, src, n) }
    }
    dest
}

/// Sets `n` bytes from `dest` on to the low byte of `byte`, and returns `dest`.
///
/// # Safety
///
/// 1. `dest..dest + n` is writable.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memset(dest: *mut u8, byte: c_int, n: usize) -> *mut u8 {
    // The byte in each place of a word.
    let word = usize::from(byte as u8) * (usize::MAX / 0xFF);
    if ANY_ADDRESS {
        // SAFETY: 1. By our 1.
        unsafe { set(dest, word, n) }
    } else {
        // SAFETY: 1. By our 1.
        unsafe { set_aligned(dest, word, n) }
    }
    dest
}

/// Compares `n` bytes as unsigned numbers: negative, 0 or positive as the first that differs is less in `a`, absent, or
/// greater.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> c_int {
    if ANY_ADDRESS {
        // SAFETY: 1. By our 1.
        unsafe { compare(a, b, n) }
    } else {
        // SAFETY: 1. By our 1.
        unsafe { compare_aligned(a, b, n) }
    }
}

/// 0 if the `n` bytes at `a` and at `b` are equal.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> c_int {
    // SAFETY: 1. By our 1.
    unsafe { memcmp(a, b, n) }
}

/// The number of bytes before the first NUL.
///
/// # Safety
///
/// 1. The bytes from `s` up to and including the first NUL are readable and initialised.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn strlen(s: *const c_char) -> usize {
    // Not a word at a time, which would read beyond the NUL: Rust forbids that even where the machine does not mind,
    // and what ends with a NUL here is short: arguments, variables, names.
    let mut n = 0;
    // SAFETY: 1. By our 1; there was no NUL in the first `n` bytes. 2. A byte. 3. By our 1.
    while unsafe { load::<c_char, true>(s.cast::<u8>().wrapping_add(n)) } != 0 {
        n += 1;
        loop_end();
    }
    n
}

/// The largest value in use: two words. The compiler moves them from place to place as one vector where the machine has
/// such; for one that is stored over and over, [`Arch::pair`] says how.
type Pair = TwoWords;

const WORD: usize = size_of::<usize>();
const PAIR: usize = size_of::<Pair>();
const BLOCK: usize = 4 * PAIR;

const _: () = assert!(size_of::<<Cpu as Arch>::Pair>() == PAIR);
// What is left after the pair must not be less than nothing.
const _: () = assert!(match Cpu::BULK {
    Some(bulk) => bulk.from > BLOCK,
    None => true,
});

/// memmove where [`ANY_ADDRESS`] holds.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
#[inline(always)]
unsafe fn copy(mut dest: *mut u8, mut src: *const u8, mut n: usize) {
    if n > BLOCK {
        // Upward, a block overwrites only source that was copied already, unless `dest` lies in the source.
        let ahead = src.addr().wrapping_sub(dest.addr());
        let upward = ahead.wrapping_neg() >= n;
        if let Some(bulk) = Cpu::BULK
            && n >= bulk.from
            && upward
            && ahead >= BLOCK
        {
            // A pair, and words from where the destination is aligned, so that less than a word is left. As `ahead` is
            // large enough, the pair overwrites nothing that is still to be copied.
            let head = PAIR - dest.addr() % PAIR;
            let words = (n - head) / WORD;
            // SAFETY: 1. By our 1; `n >= PAIR`. 2. Not `ALIGNED`. 3. All bytes are a valid MaybeUninit.
            let first: MaybeUninit<Pair> = unsafe { load::<_, false>(src) };
            // SAFETY: 1, 2. As above.
            unsafe { store::<_, false>(dest, first) };
            // SAFETY: 1. By our 1: they end at `n` or before. 2. Upward is right here.
            unsafe { (bulk.copy)(dest.wrapping_add(head), src.wrapping_add(head), words) };
            let done = head + words * WORD;
            dest = dest.wrapping_add(done);
            src = src.wrapping_add(done);
            n -= done;
        } else if upward {
            // The first step is clipped so that the next blocks are aligned. Part of its block is then copied twice and
            // must not have been stored over: hence not if source and destination are closer than a block.
            let clip = if ahead >= BLOCK { dest.addr() % PAIR } else { 0 };
            let mut step = BLOCK - clip;
            loop {
                // SAFETY: 1. By our 1; `n > BLOCK`, which has its four pairs there. 2. Not `ALIGNED`.
                unsafe { copy_four::<Pair, false>(dest, src, PAIR, 2 * PAIR, 3 * PAIR) };
                dest = dest.wrapping_add(step);
                src = src.wrapping_add(step);
                n -= step;
                step = BLOCK;
                loop_end();
                if n <= BLOCK {
                    break;
                }
            }
        } else {
            // The same from the end, with the end aligned.
            let end = dest.addr().wrapping_add(n);
            let clip = if ahead.wrapping_neg() >= BLOCK { end.wrapping_neg() % PAIR } else { 0 };
            let mut step = BLOCK - clip;
            loop {
                let at = n - BLOCK;
                let (to, from) = (dest.wrapping_add(at), src.wrapping_add(at));
                // SAFETY: 1, 2. As above, for the last block of `n` bytes.
                unsafe { copy_four::<Pair, false>(to, from, PAIR, 2 * PAIR, 3 * PAIR) };
                n -= step;
                step = BLOCK;
                loop_end();
                if n <= BLOCK {
                    break;
                }
            }
        }
    }
    if n >= PAIR {
        // Up to two pairs the inner two are the outer two.
        let inner = if n > 2 * PAIR { PAIR } else { 0 };
        // SAFETY: 1. By our 1: the four end at `n` or before. 2. Not `ALIGNED`.
        unsafe { copy_four::<Pair, false>(dest, src, inner, n - PAIR - inner, n - PAIR) };
    } else if n >= WORD {
        // SAFETY: 1. By our 1; `n >= WORD`.
        unsafe { copy_ends::<usize>(dest, src, n) };
    } else if n >= 4 {
        // SAFETY: 1. By our 1; `n >= 4`.
        unsafe { copy_ends::<u32>(dest, src, n) };
    } else if n > 0 {
        // The same one three times if there is one, the last one twice if there are two.
        // SAFETY: 1. By our 1: the first of `n > 0` bytes. 2. Not `ALIGNED`. 3. Every byte is a valid MaybeUninit.
        let first: MaybeUninit<u8> = unsafe { load::<_, false>(src) };
        // SAFETY: 1, 2, 3. As above, with `n / 2 < n`.
        let middle: MaybeUninit<u8> = unsafe { load::<_, false>(src.wrapping_add(n / 2)) };
        // SAFETY: 1, 2, 3. As above, with `n - 1 < n`.
        let last: MaybeUninit<u8> = unsafe { load::<_, false>(src.wrapping_add(n - 1)) };
        // SAFETY: 1. By our 1, as above. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, first) };
        // SAFETY: 1. By our 1, as above. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n / 2), middle) };
        // SAFETY: 1. By our 1, as above. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n - 1), last) };
    }
}

/// Copies the `T`s at offsets 0, `b`, `c` and `d`; loads all before it stores any.
///
/// # Safety
///
/// 1. A `T` is readable at `src` and writable at `dest`, at each of the offsets.
/// 2. If `ALIGNED`, all these are aligned for a `T`.
#[inline(always)]
unsafe fn copy_four<T: Copy, const ALIGNED: bool>(dest: *mut u8, src: *const u8, b: usize, c: usize, d: usize) {
    // SAFETY: 1, 2. By ours. 3. All bytes are a valid MaybeUninit. The same goes for the next three.
    let at_a: MaybeUninit<T> = unsafe { load::<_, ALIGNED>(src) };
    // SAFETY: 1, 2, 3. As above.
    let at_b: MaybeUninit<T> = unsafe { load::<_, ALIGNED>(src.wrapping_add(b)) };
    // SAFETY: 1, 2, 3. As above.
    let at_c: MaybeUninit<T> = unsafe { load::<_, ALIGNED>(src.wrapping_add(c)) };
    // SAFETY: 1, 2, 3. As above.
    let at_d: MaybeUninit<T> = unsafe { load::<_, ALIGNED>(src.wrapping_add(d)) };
    // SAFETY: 1, 2. By ours. The same goes for the next three.
    unsafe { store::<_, ALIGNED>(dest, at_a) };
    // SAFETY: 1, 2. As above.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(b), at_b) };
    // SAFETY: 1, 2. As above.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(c), at_c) };
    // SAFETY: 1, 2. As above.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(d), at_d) };
}

/// Copies the first and the last `T` of `n` bytes; loads both before it stores any.
///
/// # Safety
///
/// 1. `n` is at least the size of `T`; `src..src + n` is readable, `dest..dest + n` writable.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(dest: *mut u8, src: *const u8, n: usize) {
    let end = n - size_of::<T>();
    // SAFETY: 1. By our 1. 2. Not `ALIGNED`. 3. All bytes are a valid MaybeUninit.
    let first: MaybeUninit<T> = unsafe { load::<_, false>(src) };
    // SAFETY: 1, 2, 3. As above.
    let last: MaybeUninit<T> = unsafe { load::<_, false>(src.wrapping_add(end)) };
    // SAFETY: 1. By our 1. 2. Not `ALIGNED`.
    unsafe { store::<_, false>(dest, first) };
    // SAFETY: 1, 2. As above.
    unsafe { store::<_, false>(dest.wrapping_add(end), last) };
}

/// memset where [`ANY_ADDRESS`] holds; `word` is the byte in each place.
///
/// # Safety
///
/// 1. `dest..dest + n` is writable.
#[inline(always)]
unsafe fn set(mut dest: *mut u8, word: usize, mut n: usize) {
    let pair = Cpu::pair(word);
    if let Some(bulk) = Cpu::BULK
        && n >= bulk.from
    {
        // As in `copy`.
        let head = PAIR - dest.addr() % PAIR;
        let words = (n - head) / WORD;
        // SAFETY: 1. By our 1; `n >= PAIR`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, pair) };
        // SAFETY: 1. By our 1: they end at `n` or before.
        unsafe { (bulk.set)(dest.wrapping_add(head), word, words) };
        let done = head + words * WORD;
        dest = dest.wrapping_add(done);
        n -= done;
    } else if n > BLOCK {
        // Clipped as in `copy`.
        let mut step = BLOCK - dest.addr() % PAIR;
        loop {
            // SAFETY: 1. By our 1; `n > BLOCK`, which has its four pairs there. 2. Not `ALIGNED`.
            unsafe { set_four::<_, false>(dest, pair, PAIR, 2 * PAIR, 3 * PAIR) };
            dest = dest.wrapping_add(step);
            n -= step;
            step = BLOCK;
            loop_end();
            if n <= BLOCK {
                break;
            }
        }
    }
    if n >= PAIR {
        // As in `copy`.
        let inner = if n > 2 * PAIR { PAIR } else { 0 };
        // SAFETY: 1. By our 1: the four end at `n` or before. 2. Not `ALIGNED`.
        unsafe { set_four::<_, false>(dest, pair, inner, n - PAIR - inner, n - PAIR) };
    } else if n >= WORD {
        // SAFETY: 1. By our 1; `n >= WORD`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, word) };
        // SAFETY: 1, 2. As above.
        unsafe { store::<_, false>(dest.wrapping_add(n - WORD), word) };
    } else if n >= 4 {
        // SAFETY: 1. By our 1; `n >= 4`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, word as u32) };
        // SAFETY: 1, 2. As above.
        unsafe { store::<_, false>(dest.wrapping_add(n - 4), word as u32) };
    } else if n > 0 {
        // SAFETY: 1. By our 1: the first of `n > 0` bytes. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, word as u8) };
        // SAFETY: 1, 2. As above, with `n / 2 < n`.
        unsafe { store::<_, false>(dest.wrapping_add(n / 2), word as u8) };
        // SAFETY: 1, 2. As above, with `n - 1 < n`.
        unsafe { store::<_, false>(dest.wrapping_add(n - 1), word as u8) };
    }
}

/// Puts `value` at offsets 0, `b`, `c` and `d`.
///
/// # Safety
///
/// 1. A `T` is writable at `dest`, at each of the offsets.
/// 2. If `ALIGNED`, all these are aligned for a `T`.
#[inline(always)]
unsafe fn set_four<T: Copy, const ALIGNED: bool>(dest: *mut u8, value: T, b: usize, c: usize, d: usize) {
    // SAFETY: 1, 2. By ours. The same goes for the next three.
    unsafe { store::<_, ALIGNED>(dest, value) };
    // SAFETY: 1, 2. As above.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(b), value) };
    // SAFETY: 1, 2. As above.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(c), value) };
    // SAFETY: 1, 2. As above.
    unsafe { store::<_, ALIGNED>(dest.wrapping_add(d), value) };
}

/// memcmp where [`ANY_ADDRESS`] holds.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[inline(always)]
unsafe fn compare(mut a: *const u8, mut b: *const u8, mut n: usize) -> c_int {
    while n > 2 * PAIR {
        // SAFETY: 1. By our 1; `n > 2 * PAIR`.
        if unsafe { pairs_differ(a, b) } {
            break; // The words below find it before they get to `n`.
        }
        // SAFETY: 1. As above.
        if unsafe { pairs_differ(a.wrapping_add(PAIR), b.wrapping_add(PAIR)) } {
            break;
        }
        a = a.wrapping_add(2 * PAIR);
        b = b.wrapping_add(2 * PAIR);
        n -= 2 * PAIR;
        loop_end();
    }
    loop_end(); // Else the first word below is taken from the pair above, which then is no vector.
    if n >= WORD {
        let mut at = 0;
        loop {
            // SAFETY: 1. By our 1; `at <= n - WORD`. 2. Not `ALIGNED`. 3. Initialised bytes are a valid integer.
            let x: usize = unsafe { load::<_, false>(a.wrapping_add(at)) };
            // SAFETY: 1, 2, 3. As above.
            let y: usize = unsafe { load::<_, false>(b.wrapping_add(at)) };
            // The last word reaches back to bytes that are equal.
            if x != y || at == n - WORD {
                return order(usize::from_be(x), usize::from_be(y));
            }
            at = (at + WORD).min(n - WORD);
            loop_end();
        }
    }
    // SAFETY: 1. By our 1; `n < WORD`.
    let x = unsafe { number(a, n) };
    // SAFETY: 1. By our 1; `n < WORD`.
    let y = unsafe { number(b, n) };
    order(x, y)
}

/// Whether the pairs at `a` and `b` differ.
///
/// # Safety
///
/// 1. A pair is readable at `a` and at `b`, and initialised.
#[inline(always)]
unsafe fn pairs_differ(a: *const u8, b: *const u8) -> bool {
    // SAFETY: 1. By our 1. 2. Not `ALIGNED`. 3. Initialised bytes are a valid integer.
    let x: Pair = unsafe { load::<_, false>(a) };
    // SAFETY: 1, 2, 3. As above.
    let y: Pair = unsafe { load::<_, false>(b) };
    x != y
}

/// A number that orders strings of the same length `n < WORD` as memcmp does: the first half of the bytes counts more.
///
/// # Safety
///
/// 1. `n < WORD`; `p..p + n` is readable and initialised.
#[inline(always)]
unsafe fn number(p: *const u8, n: usize) -> usize {
    if n >= 4 {
        // SAFETY: 1. By our 1; `n >= 4`. 2. Not `ALIGNED`. 3. Initialised bytes are a valid integer.
        let first: u32 = unsafe { load::<_, false>(p) };
        // SAFETY: 1, 2, 3. As above.
        let last: u32 = unsafe { load::<_, false>(p.wrapping_add(n - 4)) };
        // Only where a word has 64 bits; `u64` makes the shift compile elsewhere, too.
        (u64::from(u32::from_be(first)) << 32 | u64::from(u32::from_be(last))) as usize
    } else if n > 0 {
        // SAFETY: 1. By our 1: the first of `n > 0` bytes. 2. Not `ALIGNED`. 3. An initialised byte is valid.
        let first: u8 = unsafe { load::<_, false>(p) };
        // SAFETY: 1, 2, 3. As above, with `n / 2 < n`.
        let middle: u8 = unsafe { load::<_, false>(p.wrapping_add(n / 2)) };
        // SAFETY: 1, 2, 3. As above, with `n - 1 < n`.
        let last: u8 = unsafe { load::<_, false>(p.wrapping_add(n - 1)) };
        usize::from(first) << 16 | usize::from(middle) << 8 | usize::from(last)
    } else {
        0
    }
}

/// -1, 0 or 1 as `x` is less than, equal to or greater than `y`.
#[inline(always)]
fn order<T: Ord>(x: T, y: T) -> c_int {
    c_int::from(x > y) - c_int::from(x < y)
}

/// memmove by accesses to aligned words and single bytes.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
#[inline(always)]
unsafe fn copy_aligned(mut dest: *mut u8, mut src: *const u8, mut n: usize) {
    let ahead = src.addr().wrapping_sub(dest.addr());
    let by_words = n >= 4 * WORD;
    if ahead.wrapping_neg() >= n {
        if by_words {
            // More than a word, so that the aligned word which `src` then lies in is inside of the source.
            let head = 2 * WORD - dest.addr() % WORD;
            // SAFETY: 1. By our 1; `head <= 2 * WORD`. 2. Upward is right here.
            unsafe { copy_bytes(dest, src, head) };
            dest = dest.wrapping_add(head);
            src = src.wrapping_add(head);
            n -= head;
            let skew = src.addr() % WORD;
            if skew == 0 {
                while n >= 4 * WORD {
                    // SAFETY: 1. By our 1, for four words. 2. `dest` by `head`, and `src` by `skew`.
                    unsafe { copy_four::<usize, true>(dest, src, WORD, 2 * WORD, 3 * WORD) };
                    dest = dest.wrapping_add(4 * WORD);
                    src = src.wrapping_add(4 * WORD);
                    n -= 4 * WORD;
                    loop_end();
                }
            } else {
                // SAFETY: 1. By our 1: it starts `skew` bytes back, which is less than `head`. 2. By `skew`.
                let mut low = unsafe { load_any(src.wrapping_sub(skew)) };
                while n >= 2 * WORD {
                    // SAFETY: 1. By our 1: it ends within `2 * WORD` from `src` on. 2. A word after `low`.
                    let high = unsafe { load_any(src.wrapping_add(WORD - skew)) };
                    // SAFETY: 1. By our 1. 2. By `head`.
                    unsafe { store::<_, true>(dest, join(low, high, skew)) };
                    low = high;
                    dest = dest.wrapping_add(WORD);
                    src = src.wrapping_add(WORD);
                    n -= WORD;
                    loop_end();
                }
            }
        }
        // SAFETY: 1. By our 1: what is left. 2. Upward is right here.
        unsafe { copy_bytes(dest, src, n) };
    } else {
        // Downward, words only if both lie alike: it is rare, and rarer still that they do not.
        let words = by_words && ahead.is_multiple_of(WORD);
        while n > 0 {
            if words && n >= WORD && dest.addr().wrapping_add(n).is_multiple_of(WORD) {
                n -= WORD;
                // SAFETY: 1. By our 1: the last word of what is left. 2. `dest + n` is, and `src` is words away.
                let word: MaybeUninit<usize> = unsafe { load::<_, true>(src.wrapping_add(n)) };
                // SAFETY: 1. By our 1. 2. As above.
                unsafe { store::<_, true>(dest.wrapping_add(n), word) };
            } else {
                n -= 1;
                // SAFETY: 1. By our 1: the last byte of what is left. 2. A byte.
                let byte: MaybeUninit<u8> = unsafe { load::<_, true>(src.wrapping_add(n)) };
                // SAFETY: 1. By our 1. 2. A byte.
                unsafe { store::<_, true>(dest.wrapping_add(n), byte) };
            }
            loop_end();
        }
    }
}

/// Copies `n` bytes one by one, upward.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
/// 2. `dest` does not lie in `src..src + n`, but at its start.
#[inline(always)]
unsafe fn copy_bytes(dest: *mut u8, src: *const u8, n: usize) {
    let mut at = 0;
    while at < n {
        // SAFETY: 1. By our 1; `at < n`. 2. A byte. 3. Every byte is a valid MaybeUninit.
        let byte: MaybeUninit<u8> = unsafe { load::<_, true>(src.wrapping_add(at)) };
        // SAFETY: 1. By our 1. 2. A byte.
        unsafe { store::<_, true>(dest.wrapping_add(at), byte) };
        at += 1;
        loop_end();
    }
}

/// The word that starts `skew` bytes into `low`, where `high` lies behind `low` in memory.
#[inline(always)]
fn join(low: usize, high: usize, skew: usize) -> usize {
    let bits = skew as u32 * 8;
    if cfg!(target_endian = "little") {
        low >> bits | high << (usize::BITS - bits)
    } else {
        low << bits | high >> (usize::BITS - bits)
    }
}

/// An aligned word of bytes that need not be initialised; those that are not become some bits.
///
/// # Safety
///
/// 1. A word is readable at `p`.
/// 2. `p` is aligned for it.
#[inline(always)]
unsafe fn load_any(p: *const u8) -> usize {
    // SAFETY: 1, 2. By ours. 3. All bytes are a valid MaybeUninit.
    let loaded: MaybeUninit<usize> = unsafe { load::<_, true>(p) };
    let word;
    // SAFETY: No instruction; whatever the register holds is a valid word, as far as the compiler can know.
    unsafe { asm!("/* {0} */", inlateout(reg) loaded => word, options(pure, nomem, nostack, preserves_flags)) };
    word
}

/// memset by accesses to aligned words and single bytes; `word` is the byte in each place.
///
/// # Safety
///
/// 1. `dest..dest + n` is writable.
#[inline(always)]
unsafe fn set_aligned(mut dest: *mut u8, word: usize, mut n: usize) {
    while n > 0 {
        let step = if n < WORD || !dest.addr().is_multiple_of(WORD) {
            // SAFETY: 1. By our 1; `n > 0`. 2. A byte.
            unsafe { store::<_, true>(dest, word as u8) };
            1
        } else if n < 4 * WORD {
            // SAFETY: 1. By our 1; `n >= WORD`. 2. Just looked at.
            unsafe { store::<_, true>(dest, word) };
            WORD
        } else {
            // SAFETY: 1. By our 1; `n >= 4 * WORD`. 2. Just looked at.
            unsafe { set_four::<_, true>(dest, word, WORD, 2 * WORD, 3 * WORD) };
            4 * WORD
        };
        dest = dest.wrapping_add(step);
        n -= step;
        loop_end();
    }
}

/// memcmp by accesses to aligned words and single bytes.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[inline(always)]
unsafe fn compare_aligned(mut a: *const u8, mut b: *const u8, mut n: usize) -> c_int {
    let alike = a.addr().wrapping_sub(b.addr()).is_multiple_of(WORD);
    while n > 0 {
        let mut step = 1;
        if alike && n >= WORD && a.addr().is_multiple_of(WORD) {
            // SAFETY: 1. By our 1; `n >= WORD`. 2. `a` is, and `b` is words away. 3. Initialised bytes are valid.
            let x: usize = unsafe { load::<_, true>(a) };
            // SAFETY: 1, 2, 3. As above.
            let y: usize = unsafe { load::<_, true>(b) };
            if x != y {
                return order(usize::from_be(x), usize::from_be(y));
            }
            step = WORD;
        } else {
            // SAFETY: 1. By our 1; `n > 0`. 2. A byte. 3. An initialised byte is valid.
            let x: u8 = unsafe { load::<_, true>(a) };
            // SAFETY: 1, 2, 3. As above.
            let y: u8 = unsafe { load::<_, true>(b) };
            if x != y {
                return order(x, y);
            }
        }
        a = a.wrapping_add(step);
        b = b.wrapping_add(step);
        n -= step;
        loop_end();
    }
    0
}

/// Takes `T` to any address.
#[repr(C, packed)]
struct Packed<T>(T);

/// The `T` at `p`. (Not `read_unaligned`, which without optimisation is a function and a memcpy.)
///
/// # Safety
///
/// 1. `p..p + size_of::<T>()` is readable.
/// 2. If `ALIGNED`, `p` is aligned for a `T`.
/// 3. The bytes there are a valid `T`.
#[inline(always)]
unsafe fn load<T: Copy, const ALIGNED: bool>(p: *const u8) -> T {
    if ALIGNED {
        // SAFETY: By our 1, 2 and 3.
        unsafe { *p.cast::<T>() }
    } else {
        // SAFETY: By our 1 and 3; `Packed` needs no alignment.
        unsafe { (*p.cast::<Packed<T>>()).0 }
    }
}

/// Puts `value` at `p`.
///
/// # Safety
///
/// 1. `p..p + size_of::<T>()` is writable.
/// 2. If `ALIGNED`, `p` is aligned for a `T`.
#[inline(always)]
unsafe fn store<T: Copy, const ALIGNED: bool>(p: *mut u8, value: T) {
    if ALIGNED {
        // SAFETY: By our 1 and 2.
        unsafe { *p.cast::<T>() = value };
    } else {
        // SAFETY: By our 1; `Packed` needs no alignment.
        unsafe { (*p.cast::<Packed<T>>()).0 = value };
    }
}

/// Copies the words from `from` to `end`, in little code: for what is mostly nothing or little.
///
/// # Safety
///
/// 1. What lies there is readable, and as much writable at `to`; the two do not overlap.
/// 2. All three are aligned.
#[inline(always)]
pub(crate) unsafe fn copy_words(mut to: *mut usize, mut from: *const usize, end: *const usize) {
    while from < end {
        // SAFETY: 1. and 2. by ours. 3. All bytes are a valid MaybeUninit.
        let word: MaybeUninit<usize> = unsafe { load::<_, true>(from.cast()) };
        // SAFETY: 1. and 2. by ours.
        unsafe { store::<_, true>(to.cast(), word) };
        (from, to) = (from.wrapping_add(1), to.wrapping_add(1));
        loop_end();
    }
}

/// Zeros the words from `from` to `end`, in little code too.
///
/// # Safety
///
/// 1. They are writable.
/// 2. Both are aligned.
#[inline(always)]
pub(crate) unsafe fn zero_words(mut from: *mut usize, end: *mut usize) {
    while from < end {
        // SAFETY: 1. and 2. by ours.
        unsafe { store::<_, true>(from.cast(), 0usize) };
        from = from.wrapping_add(1);
        loop_end();
    }
}

/// Ends a loop's body: the compiler must take all memory for changed by each round, and so does not know the loop for
/// what it is, nor joins the stores of two rounds.
#[inline(always)]
fn loop_end() {
    // SAFETY: No instruction.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    //! Every length to [`MOST`] at every alignment, for both forms of each function. What is expected is computed, not
    //! copied, so that these run on a machine where the functions under test are what the compiler calls.

    use super::*;

    const MOST: usize = 80;

    #[repr(align(64))]
    struct Memory<const N: usize>([u8; N]);

    /// Differs between neighbours, and between places 256 bytes apart.
    fn pattern(at: usize) -> u8 {
        (at * 31 + (at >> 8) * 7) as u8
    }

    fn next(seed: &mut u32, below: usize) -> usize {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 17;
        *seed ^= *seed << 5;
        *seed as usize % below
    }

    /// Fills `memory` with the pattern, copies in it, and looks at all of it.
    fn check_copy(memory: &mut [u8], to: usize, from: usize, n: usize, copy: impl Fn(*mut u8, *const u8, usize)) {
        for (at, byte) in memory.iter_mut().enumerate() {
            *byte = pattern(at);
        }
        assert!(to + n <= memory.len() && from + n <= memory.len());
        let start = memory.as_mut_ptr();
        copy(start.wrapping_add(to), start.wrapping_add(from), n);
        for (at, &byte) in memory.iter().enumerate() {
            let expected = if at >= to && at < to + n { pattern(at - to + from) } else { pattern(at) };
            assert_eq!(byte, expected, "byte {at} after {n} bytes from {from} to {to}");
        }
    }

    fn check_copies(copy: impl Fn(*mut u8, *const u8, usize)) {
        let mut memory = Memory([0; 304]);
        for n in 0..=MOST {
            for to in 96..112 {
                for from in to - 96..=to + 96 {
                    check_copy(&mut memory.0, to, from, n, &copy);
                }
            }
        }
        let mut large = Memory([0; 9000]);
        let mut seed = 1;
        for _ in 0..1000 {
            let (to, from) = (next(&mut seed, 4000), next(&mut seed, 4000));
            check_copy(&mut large.0, to, from, next(&mut seed, 5000), &copy);
            check_copy(&mut large.0, to, to + next(&mut seed, 150), next(&mut seed, 4800), &copy);
            check_copy(&mut large.0, from + next(&mut seed, 150), from, next(&mut seed, 4800), &copy);
        }
    }

    #[test]
    fn copies_between_any_addresses() {
        // SAFETY: 1. `check_copy` asserted it.
        check_copies(|to, from, n| unsafe { copy(to, from, n) });
    }

    #[test]
    fn copies_by_aligned_words() {
        // SAFETY: 1. `check_copy` asserted it.
        check_copies(|to, from, n| unsafe { copy_aligned(to, from, n) });
    }

    #[test]
    fn memcpy_and_memmove_copy_and_return_the_destination() {
        let mut memory = Memory([0; 400]);
        for n in 0..=200 {
            check_copy(&mut memory.0, 3, 200, n, |to, from, n| {
                // SAFETY: 1. `check_copy` asserted it.
                let returned = unsafe { memcpy(to, from, n) };
                assert_eq!(returned, to);
            });
            check_copy(&mut memory.0, 30, 5, n, |to, from, n| {
                // SAFETY: 1. `check_copy` asserted it.
                let returned = unsafe { memmove(to, from, n) };
                assert_eq!(returned, to);
            });
        }
    }

    fn check_sets(most: usize, set: impl Fn(*mut u8, u8, usize)) {
        let mut memory = Memory([0; 700]);
        for n in 0..=most {
            for to in 16..32 {
                for value in [0, 1, 0x5A, 0x80, 0xFF] {
                    for (at, byte) in memory.0.iter_mut().enumerate() {
                        *byte = pattern(at);
                    }
                    set(memory.0.as_mut_ptr().wrapping_add(to), value, n);
                    for (at, &byte) in memory.0.iter().enumerate() {
                        let expected = if at >= to && at < to + n { value } else { pattern(at) };
                        assert_eq!(byte, expected, "byte {at} after setting {n} bytes at {to}");
                    }
                }
            }
        }
    }

    #[test]
    fn sets_in_bulk() {
        let mut memory = Memory([0; 3000]);
        for n in 2000..2200 {
            for to in 16..32 {
                memory.0.fill(1);
                // SAFETY: 1. Up to 32 + 2200 of 3000 bytes.
                unsafe { set(memory.0.as_mut_ptr().wrapping_add(to), usize::MAX / 0xFF * 2, n) };
                let (before, rest) = memory.0.split_at(to);
                let (inside, after) = rest.split_at(n);
                let all = |part: &[u8], value: u8| part.iter().all(|&byte| byte == value);
                assert!(all(before, 1) && all(inside, 2) && all(after, 1), "{n} bytes at {to}");
            }
        }
    }

    #[test]
    fn sets_at_any_address() {
        // SAFETY: 1. Up to 32 + 600 of 700 bytes.
        check_sets(600, |to, value, n| unsafe { set(to, usize::from(value) * (usize::MAX / 0xFF), n) });
    }

    #[test]
    fn sets_by_aligned_words() {
        // SAFETY: 1. Up to 32 + 200 of 700 bytes.
        check_sets(200, |to, value, n| unsafe { set_aligned(to, usize::from(value) * (usize::MAX / 0xFF), n) });
    }

    #[test]
    fn memset_takes_the_low_byte_and_returns_the_destination() {
        check_sets(200, |to, value, n| {
            // SAFETY: 1. Up to 32 + 200 of 700 bytes.
            let returned = unsafe { memset(to, 0x7FFF_FF00 | c_int::from(value), n) };
            assert_eq!(returned, to);
        });
    }

    fn check_compares(compare: impl Fn(*const u8, *const u8, usize) -> c_int) {
        // What lies around differs, and must not count.
        let mut a = Memory([1; 128]);
        let mut b = Memory([2; 128]);
        for n in 0..=MOST {
            for at_a in 8..24 {
                for at_b in 8..24 {
                    for i in 0..n {
                        a.0[at_a + i] = pattern(i);
                        b.0[at_b + i] = pattern(i);
                    }
                    let (pa, pb) = (a.0.as_ptr().wrapping_add(at_a), b.0.as_ptr().wrapping_add(at_b));
                    assert_eq!(compare(pa, pb, n), 0, "{n} bytes at {at_a}, {at_b}");
                    for i in 0..n {
                        // One byte less by a little or by a lot, and all that follow greater, so that the first counts.
                        let less = if i % 2 == 0 { 0x01 } else { 0x80 };
                        a.0[at_a + i] = less - 1;
                        b.0[at_b + i] = less;
                        if i + 1 < n {
                            a.0[at_a + i + 1] = 0xFF;
                            b.0[at_b + i + 1] = 0x00;
                        }
                        let (pa, pb) = (a.0.as_ptr().wrapping_add(at_a), b.0.as_ptr().wrapping_add(at_b));
                        assert!(compare(pa, pb, n) < 0, "byte {i} of {n} at {at_a}, {at_b}");
                        assert!(compare(pb, pa, n) > 0, "byte {i} of {n} at {at_b}, {at_a}");
                        for j in i..n.min(i + 2) {
                            a.0[at_a + j] = pattern(j);
                            b.0[at_b + j] = pattern(j);
                        }
                    }
                    a.0.fill(1);
                    b.0.fill(2);
                }
            }
        }
    }

    #[test]
    fn compares_at_any_addresses() {
        // SAFETY: 1. Up to 24 + 80 of 128 bytes.
        check_compares(|a, b, n| unsafe { compare(a, b, n) });
    }

    #[test]
    fn compares_by_aligned_words() {
        // SAFETY: 1. Up to 24 + 80 of 128 bytes.
        check_compares(|a, b, n| unsafe { compare_aligned(a, b, n) });
    }

    #[test]
    fn bcmp_is_zero_for_equal_bytes_only() {
        check_compares(|a, b, n| {
            // SAFETY: 1. Up to 24 + 80 of 128 bytes.
            let ordered = unsafe { memcmp(a, b, n) };
            // SAFETY: 1. As above.
            assert_eq!(unsafe { bcmp(a, b, n) } == 0, ordered == 0);
            ordered
        });
    }

    #[test]
    fn strlen_counts_up_to_the_first_nul() {
        for n in 0..=MOST {
            for from in 0..16 {
                let mut memory = Memory([0x80_u8; 128]);
                memory.0[from + n] = 0;
                memory.0[from + n + 2] = 0;
                // SAFETY: 1. There is a NUL, at `from + n`.
                assert_eq!(unsafe { strlen(memory.0.as_ptr().wrapping_add(from).cast()) }, n);
            }
        }
    }

    #[test]
    fn of_no_bytes_the_pointers_may_be_null() {
        let null = core::ptr::null_mut();
        // SAFETY: 1. No bytes.
        assert_eq!(unsafe { memcpy(null, null, 0) }, null);
        // SAFETY: 1. No bytes.
        assert_eq!(unsafe { memmove(null, null, 0) }, null);
        // SAFETY: 1. No bytes.
        assert_eq!(unsafe { memset(null, 1, 0) }, null);
        // SAFETY: 1. No bytes.
        assert_eq!(unsafe { memcmp(null, null, 0) }, 0);
    }
}
