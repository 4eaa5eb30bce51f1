//! memmove, memset and memcmp by words and pairs at any address.
//!
//! Copying and setting have one shape, without a loop of bytes:
//!
//! ```text
//!     n >= bulk   │ pair, so that the rest is aligned │ words, by bulk instructions │ … the rest:
//!     n > BLOCK   │ block, clipped so that the next is aligned │ block │ block │ … the rest:
//!     n > 2 PAIR  │ pair │ pair →    ← pair │ pair │
//!     n >= PAIR   │ pair →  ← pair │
//!     n >= 4      │ word →  ← word │
//!     n >= 1      │ first, middle, last byte │
//! ```
//!
//! Upward, two blocks are a round where no bulk instructions take the long ones.
//!
//! The accesses of one step may overlap. A step loads everything before it stores anything. So
//! neither such an overlap nor an overlap of source and destination does harm, and memcpy is
//! memmove. Comparisons have the same steps, without bulk and clipping.

use core::ffi::c_int;
use core::mem::MaybeUninit;

use super::{BLOCK, PAIR, Pair, WORD, copy_four, load, loop_end, order, set_four, store};
use crate::arch::{Arch, Cpu};

// The number of bytes after the first pair must not be negative.
const _: () = assert!(match Cpu::BULK {
    Some(bulk) => !Cpu::UNALIGNED_WORDS || bulk.copy_from > BLOCK && bulk.set_from > BLOCK,
    None => true,
});

/// memmove.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
#[inline(always)]
pub(super) unsafe fn copy(dest: *mut u8, src: *const u8, n: usize) {
    if n > BLOCK {
        // SAFETY: 1. By 1; `n > BLOCK`.
        unsafe { copy_blocks(dest, src, n) };
    } else {
        // SAFETY: 1. By 1; `n <= BLOCK`.
        unsafe { copy_few(dest, src, n) };
    }
}

/// Copies more than a block. A function of its own: the registers that it saves would have to be
/// saved for a few bytes too.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable; `n > BLOCK`.
#[inline(never)]
unsafe fn copy_blocks(mut dest: *mut u8, mut src: *const u8, mut n: usize) {
    // Upward, a block overwrites only source bytes that were copied already, unless `dest` is
    // strictly inside the source.
    let ahead = src.addr().wrapping_sub(dest.addr());
    let upward = ahead.wrapping_neg() >= n;
    if let Some(bulk) = &Cpu::BULK
        && n >= bulk.copy_from
        && upward
        && ahead >= BLOCK
        && !(1..bulk.apart).contains(&(ahead.wrapping_neg() % 4096))
    {
        // A pair, then words from where the destination is aligned, so that less than a word
        // remains. `ahead` is at least BLOCK, so the pair overwrites no byte that is still to
        // be copied.
        let head = PAIR - dest.addr() % PAIR;
        let words = (n - head) / WORD;
        // SAFETY: 1. By 1; `n >= PAIR`. 2. Not `ALIGNED`. 3. All bytes are a valid MaybeUninit.
        let first: MaybeUninit<Pair> = unsafe { load::<_, false>(src) };
        // SAFETY: 1. By 1; `n >= PAIR`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, first) };
        // SAFETY: 1. By 1: the words end at `n` or before. 2. `upward`.
        unsafe { (bulk.copy)(dest.wrapping_add(head), src.wrapping_add(head), words) };
        let done = head + words * WORD;
        dest = dest.wrapping_add(done);
        src = src.wrapping_add(done);
        n -= done;
    } else if upward {
        // The first step is clipped so that the next blocks are aligned. Up to a pair of its
        // block is then copied twice. So the first copy must not store over these source bytes:
        // `ahead` must be at least a pair.
        let clip = if ahead >= PAIR { dest.addr() % PAIR } else { 0 };
        let mut step = BLOCK - clip;
        loop {
            // SAFETY: 1. By 1; `n > BLOCK`, and a block is four pairs. 2. Not `ALIGNED`.
            unsafe { copy_four::<Pair, false>(dest, src, PAIR, 2 * PAIR, 3 * PAIR) };
            dest = dest.wrapping_add(step);
            src = src.wrapping_add(step);
            n -= step;
            step = BLOCK;
            loop_end();
            while Cpu::BULK.is_none() && n > 2 * BLOCK {
                // SAFETY: 1. By 1; `n > 2 * BLOCK`. 2. Not `ALIGNED`.
                unsafe { copy_four::<Pair, false>(dest, src, PAIR, 2 * PAIR, 3 * PAIR) };
                let (to, from) = (dest.wrapping_add(BLOCK), src.wrapping_add(BLOCK));
                // SAFETY: 1. By 1: the second block. 2. Not `ALIGNED`.
                unsafe { copy_four::<Pair, false>(to, from, PAIR, 2 * PAIR, 3 * PAIR) };
                dest = dest.wrapping_add(2 * BLOCK);
                src = src.wrapping_add(2 * BLOCK);
                n -= 2 * BLOCK;
                loop_end();
            }
            if n <= BLOCK {
                break;
            }
        }
    } else {
        // The same from the end, with the end aligned.
        let end = dest.addr().wrapping_add(n);
        let clip = if ahead.wrapping_neg() >= PAIR { end.wrapping_neg() % PAIR } else { 0 };
        let mut step = BLOCK - clip;
        loop {
            let at = n - BLOCK;
            let (to, from) = (dest.wrapping_add(at), src.wrapping_add(at));
            // SAFETY: 1. By 1; `n > BLOCK`, and this is its last block. 2. Not `ALIGNED`.
            unsafe { copy_four::<Pair, false>(to, from, PAIR, 2 * PAIR, 3 * PAIR) };
            n -= step;
            step = BLOCK;
            loop_end();
            if n <= BLOCK {
                break;
            }
        }
    }
    // SAFETY: 1. By 1: the remaining bytes, at most a block.
    unsafe { copy_few(dest, src, n) };
}

/// Copies at most a block.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable; `n <= BLOCK`.
#[inline(always)]
unsafe fn copy_few(dest: *mut u8, src: *const u8, n: usize) {
    if n > 2 * PAIR {
        // SAFETY: 1. By 1: the four pairs end at `n` or before. 2. Not `ALIGNED`.
        unsafe { copy_four::<Pair, false>(dest, src, PAIR, n - 2 * PAIR, n - PAIR) };
    } else if n >= PAIR {
        // SAFETY: 1. By 1; `n >= PAIR`.
        unsafe { copy_ends::<Pair>(dest, src, n) };
    } else if n >= WORD {
        // SAFETY: 1. By 1; `n >= WORD`.
        unsafe { copy_ends::<usize>(dest, src, n) };
    } else if n >= 4 {
        // SAFETY: 1. By 1; `n >= 4`.
        unsafe { copy_ends::<u32>(dest, src, n) };
    } else if n > 0 {
        // A single byte is copied three times, the second of two bytes twice.
        // SAFETY: 1. By 1: the first of `n > 0` bytes. 2. Not `ALIGNED`. 3. Every byte is a valid
        // MaybeUninit.
        let first: MaybeUninit<u8> = unsafe { load::<_, false>(src) };
        // SAFETY: 1. By 1; `n / 2 < n`. 2. Not `ALIGNED`. 3. Every byte is a valid MaybeUninit.
        let middle: MaybeUninit<u8> = unsafe { load::<_, false>(src.wrapping_add(n / 2)) };
        // SAFETY: 1. By 1; `n - 1 < n`. 2. Not `ALIGNED`. 3. Every byte is a valid MaybeUninit.
        let last: MaybeUninit<u8> = unsafe { load::<_, false>(src.wrapping_add(n - 1)) };
        // SAFETY: 1. By 1; `n > 0`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, first) };
        // SAFETY: 1. By 1; `n > 0`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n / 2), middle) };
        // SAFETY: 1. By 1; `n > 0`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n - 1), last) };
    }
}

/// Copies the first and the last `T` of `n` bytes; loads both before it stores any.
///
/// # Safety
///
/// 1. `n` is at least the size of `T`; `src..src + n` is readable, `dest..dest + n` writable.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(dest: *mut u8, src: *const u8, n: usize) {
    let end = n - size_of::<T>();
    // SAFETY: 1. By 1. 2. Not `ALIGNED`. 3. All bytes are a valid MaybeUninit.
    let first: MaybeUninit<T> = unsafe { load::<_, false>(src) };
    // SAFETY: 1. By 1. 2. Not `ALIGNED`. 3. All bytes are a valid MaybeUninit.
    let last: MaybeUninit<T> = unsafe { load::<_, false>(src.wrapping_add(end)) };
    // SAFETY: 1. By 1. 2. Not `ALIGNED`.
    unsafe { store::<_, false>(dest, first) };
    // SAFETY: 1. By 1. 2. Not `ALIGNED`.
    unsafe { store::<_, false>(dest.wrapping_add(end), last) };
}

/// memset; `word` is the byte repeated in each place.
///
/// # Safety
///
/// 1. `dest..dest + n` is writable.
#[inline(always)]
pub(super) unsafe fn set(mut dest: *mut u8, word: usize, mut n: usize) {
    let pair = Cpu::pair(word);
    if let Some(bulk) = &Cpu::BULK
        && n >= bulk.set_from
    {
        // The bulk as in `copy_blocks`.
        let head = PAIR - dest.addr() % PAIR;
        let words = (n - head) / WORD;
        // SAFETY: 1. By 1; `n >= PAIR`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, pair) };
        // SAFETY: 1. By 1: they end at `n` or before.
        unsafe { (bulk.set)(dest.wrapping_add(head), word, words) };
        let done = head + words * WORD;
        dest = dest.wrapping_add(done);
        n -= done;
    } else if n > BLOCK {
        // The clipping as in `copy_blocks`.
        let mut step = BLOCK - dest.addr() % PAIR;
        loop {
            // SAFETY: 1. By 1; `n > BLOCK`, which has its four pairs there. 2. Not `ALIGNED`.
            unsafe { set_four::<_, false>(dest, pair, PAIR, 2 * PAIR, 3 * PAIR) };
            dest = dest.wrapping_add(step);
            n -= step;
            step = BLOCK;
            loop_end();
            while Cpu::BULK.is_none() && n > 2 * BLOCK {
                // SAFETY: 1. By 1; `n > 2 * BLOCK`. 2. Not `ALIGNED`.
                unsafe { set_four::<_, false>(dest, pair, PAIR, 2 * PAIR, 3 * PAIR) };
                // SAFETY: 1. By 1: the second block. 2. Not `ALIGNED`.
                unsafe { set_four::<_, false>(dest.wrapping_add(BLOCK), pair, PAIR, 2 * PAIR, 3 * PAIR) };
                dest = dest.wrapping_add(2 * BLOCK);
                n -= 2 * BLOCK;
                loop_end();
            }
            if n <= BLOCK {
                break;
            }
        }
    }
    if n > 2 * PAIR {
        // SAFETY: 1. By 1: the four end at `n` or before. 2. Not `ALIGNED`.
        unsafe { set_four::<_, false>(dest, pair, PAIR, n - 2 * PAIR, n - PAIR) };
    } else if n >= PAIR {
        // SAFETY: 1. By 1; `n >= PAIR`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, pair) };
        // SAFETY: 1. By 1; `n >= PAIR`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n - PAIR), pair) };
    } else if n >= WORD {
        // SAFETY: 1. By 1; `n >= WORD`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, word) };
        // SAFETY: 1. By 1; `n >= WORD`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n - WORD), word) };
    } else if n >= 4 {
        // SAFETY: 1. By 1; `n >= 4`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, word as u32) };
        // SAFETY: 1. By 1; `n >= 4`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n - 4), word as u32) };
    } else if n > 0 {
        // SAFETY: 1. By 1: the first of `n > 0` bytes. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest, word as u8) };
        // SAFETY: 1. By 1; `n / 2 < n`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n / 2), word as u8) };
        // SAFETY: 1. By 1; `n - 1 < n`. 2. Not `ALIGNED`.
        unsafe { store::<_, false>(dest.wrapping_add(n - 1), word as u8) };
    }
}

/// memcmp.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[inline(always)]
pub(super) unsafe fn compare(mut a: *const u8, mut b: *const u8, mut n: usize) -> c_int {
    if n > PAIR {
        if n > BLOCK {
            // SAFETY: 1. By 1; `n > BLOCK`.
            (a, b) = unsafe { skip_equal_blocks(a, b, n) };
            n = BLOCK;
        }
        let differ = if n > 2 * PAIR {
            // SAFETY: 1. By 1; `n > 2 * PAIR`, and no offset plus a pair exceeds it.
            unsafe { four_differ(a, b, PAIR, n - 2 * PAIR, n - PAIR) }
        } else {
            // SAFETY: 1. By 1; `n > PAIR`.
            unsafe { two_differ(a, b, n - PAIR) }
        };
        if !differ {
            return 0;
        }
    }
    // Otherwise the compiler keeps the words from the pairs for this loop, and loads no vectors.
    loop_end();
    if n >= WORD {
        let mut at = 0;
        loop {
            // SAFETY: 1. By 1; `at <= n - WORD`. 2. Not `ALIGNED`. 3. Initialised bytes are a
            // valid integer.
            let x: usize = unsafe { load::<_, false>(a.wrapping_add(at)) };
            // SAFETY: 1. By 1; `at <= n - WORD`. 2. Not `ALIGNED`. 3. Initialised bytes are a
            // valid integer.
            let y: usize = unsafe { load::<_, false>(b.wrapping_add(at)) };
            // The last word overlaps bytes that are equal.
            if x != y || at == n - WORD {
                return order(usize::from_be(x), usize::from_be(y));
            }
            at = (at + WORD).min(n - WORD);
            loop_end();
        }
    }
    // SAFETY: 1. By 1; `n < WORD`.
    let x = unsafe { number(a, n) };
    // SAFETY: 1. By 1; `n < WORD`.
    let y = unsafe { number(b, n) };
    order(x, y)
}

/// bcmp: whether the bytes differ.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[inline(always)]
pub(super) unsafe fn differ(mut a: *const u8, mut b: *const u8, mut n: usize) -> bool {
    if n >= PAIR {
        if n > BLOCK {
            // SAFETY: 1. By 1; `n > BLOCK`.
            (a, b) = unsafe { skip_equal_blocks(a, b, n) };
            n = BLOCK;
        }
        if n > 2 * PAIR {
            // SAFETY: 1. By 1; `n > 2 * PAIR`, and no offset plus a pair exceeds it.
            unsafe { four_differ(a, b, PAIR, n - 2 * PAIR, n - PAIR) }
        } else {
            // SAFETY: 1. By 1; `n >= PAIR`.
            unsafe { two_differ(a, b, n - PAIR) }
        }
    } else if n >= WORD {
        // SAFETY: 1. By 1; `n >= WORD`. 2. An integer.
        unsafe { ends_differ::<usize>(a, b, n) }
    } else if n >= 4 {
        // SAFETY: 1. By 1; `n >= 4`. 2. An integer.
        unsafe { ends_differ::<u32>(a, b, n) }
    } else {
        // SAFETY: 1. By 1; `n < 4`.
        let x = unsafe { number(a, n) };
        // SAFETY: 1. By 1; `n < 4`.
        let y = unsafe { number(b, n) };
        x != y
    }
}

/// The start of the block with the first difference; if there is none, of the last block.
///
/// # Safety
///
/// 1. `n > BLOCK`; `a..a + n` and `b..b + n` are readable and initialised.
#[inline(always)]
unsafe fn skip_equal_blocks(a: *const u8, b: *const u8, n: usize) -> (*const u8, *const u8) {
    let (mut at, mut left) = (0, n);
    loop {
        // SAFETY: 1. By 1; `left > BLOCK`, which has its four pairs there.
        if unsafe { four_differ(a.wrapping_add(at), b.wrapping_add(at), PAIR, 2 * PAIR, 3 * PAIR) } {
            break;
        }
        at += BLOCK;
        left -= BLOCK;
        loop_end();
        if left <= BLOCK {
            at = n - BLOCK; // The last block overlaps bytes that are equal.
            break;
        }
    }
    (a.wrapping_add(at), b.wrapping_add(at))
}

/// Whether the first or the last `T` of `n` bytes differs.
///
/// # Safety
///
/// 1. `n` is at least the size of `T`; `a..a + n` and `b..b + n` are readable and initialised.
/// 2. Initialised bytes are a valid `T`.
#[inline(always)]
unsafe fn ends_differ<T: Copy + PartialEq>(a: *const u8, b: *const u8, n: usize) -> bool {
    let end = n - size_of::<T>();
    // SAFETY: 1. By 1. 2. Not `ALIGNED`. 3. By 2.
    let first: T = unsafe { load::<_, false>(a) };
    // SAFETY: 1. By 1. 2. Not `ALIGNED`. 3. By 2.
    let last: T = unsafe { load::<_, false>(a.wrapping_add(end)) };
    // SAFETY: 1. By 1. 2. Not `ALIGNED`. 3. By 2.
    let others_first: T = unsafe { load::<_, false>(b) };
    // SAFETY: 1. By 1. 2. Not `ALIGNED`. 3. By 2.
    let others_last: T = unsafe { load::<_, false>(b.wrapping_add(end)) };
    (first != others_first) | (last != others_last)
}

/// Whether the pairs at one of the offsets 0, `at_b`, `at_c` and `at_d` differ.
///
/// # Safety
///
/// 1. A pair is readable at `a` and at `b`, and initialised, at each of the offsets.
#[inline(always)]
unsafe fn four_differ(a: *const u8, b: *const u8, at_b: usize, at_c: usize, at_d: usize) -> bool {
    // SAFETY: 1. By 1.
    let first = unsafe { difference(a, b) };
    // SAFETY: 1. By 1.
    let second = unsafe { difference(a.wrapping_add(at_b), b.wrapping_add(at_b)) };
    // SAFETY: 1. By 1.
    let third = unsafe { difference(a.wrapping_add(at_c), b.wrapping_add(at_c)) };
    // SAFETY: 1. By 1.
    let fourth = unsafe { difference(a.wrapping_add(at_d), b.wrapping_add(at_d)) };
    !Cpu::is_zero(Cpu::or(Cpu::or(first, second), Cpu::or(third, fourth)))
}

/// Whether the pairs at the offsets 0 or `at` differ.
///
/// # Safety
///
/// 1. An initialised pair is readable at `a` and at `b`, at both offsets.
#[inline(always)]
unsafe fn two_differ(a: *const u8, b: *const u8, at: usize) -> bool {
    // SAFETY: 1. By 1.
    let first = unsafe { difference(a, b) };
    // SAFETY: 1. By 1.
    let second = unsafe { difference(a.wrapping_add(at), b.wrapping_add(at)) };
    !Cpu::is_zero(Cpu::or(first, second))
}

/// Zero if the pairs at `a` and `b` are equal.
///
/// # Safety
///
/// 1. An initialised pair is readable at `a` and at `b`.
#[inline(always)]
unsafe fn difference(a: *const u8, b: *const u8) -> <Cpu as Arch>::Pair {
    // SAFETY: 1. By 1. 2. Not `ALIGNED`. 3. Initialised bytes are valid: integers or a vector
    // of such.
    let x: <Cpu as Arch>::Pair = unsafe { load::<_, false>(a) };
    // SAFETY: 1. By 1. 2. Not `ALIGNED`. 3. Initialised bytes are valid: integers or a vector
    // of such.
    let y: <Cpu as Arch>::Pair = unsafe { load::<_, false>(b) };
    Cpu::xor(x, y)
}

/// A number that orders strings of the same length `n < WORD` as memcmp does: the first bytes are
/// its highest.
///
/// # Safety
///
/// 1. `n < WORD`; `p..p + n` is readable and initialised.
#[inline(always)]
unsafe fn number(p: *const u8, n: usize) -> usize {
    if n >= 4 {
        // SAFETY: 1. By 1; `n >= 4`. 2. Not `ALIGNED`. 3. Initialised bytes are a valid
        // integer.
        let first: u32 = unsafe { load::<_, false>(p) };
        // SAFETY: 1. By 1; `n >= 4`. 2. Not `ALIGNED`. 3. Initialised bytes are a valid integer.
        let last: u32 = unsafe { load::<_, false>(p.wrapping_add(n - 4)) };
        // Reached only where a word has 64 bits; `u64` lets the shift compile elsewhere.
        (u64::from(u32::from_be(first)) << 32 | u64::from(u32::from_be(last))) as usize
    } else if n > 0 {
        // SAFETY: 1. By 1: the first of `n > 0` bytes. 2. Not `ALIGNED`. 3. An initialised byte
        // is valid.
        let first: u8 = unsafe { load::<_, false>(p) };
        // SAFETY: 1. By 1; `n / 2 < n`. 2. Not `ALIGNED`. 3. An initialised byte is valid.
        let middle: u8 = unsafe { load::<_, false>(p.wrapping_add(n / 2)) };
        // SAFETY: 1. By 1; `n - 1 < n`. 2. Not `ALIGNED`. 3. An initialised byte is valid.
        let last: u8 = unsafe { load::<_, false>(p.wrapping_add(n - 1)) };
        usize::from(first) << 16 | usize::from(middle) << 8 | usize::from(last)
    } else {
        0
    }
}
