//! memmove, memset and memcmp by accesses to aligned words and single bytes.

use core::ffi::c_int;
use core::mem::MaybeUninit;

use super::{WORD, copy_four, load, load_any, loop_end, order, set_four, store};

/// memmove.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
#[inline(always)]
pub(super) unsafe fn copy(mut dest: *mut u8, mut src: *const u8, mut n: usize) {
    let ahead = src.addr().wrapping_sub(dest.addr());
    let by_words = n >= 4 * WORD;
    if ahead.wrapping_neg() >= n {
        if by_words {
            // At least one word more than the alignment needs: then the aligned word that contains
            // `src + head` starts within the source.
            let head = 2 * WORD - dest.addr() % WORD;
            // SAFETY: 1. By 1; `head <= 2 * WORD`. 2. `dest` is not strictly inside the source.
            unsafe { copy_bytes(dest, src, head) };
            dest = dest.wrapping_add(head);
            src = src.wrapping_add(head);
            n -= head;
            let skew = src.addr() % WORD;
            if skew == 0 {
                while n >= 4 * WORD {
                    // SAFETY: 1. By 1, for four words. 2. `head` aligned `dest`, and `skew` is 0.
                    unsafe { copy_four::<usize, true>(dest, src, WORD, 2 * WORD, 3 * WORD) };
                    dest = dest.wrapping_add(4 * WORD);
                    src = src.wrapping_add(4 * WORD);
                    n -= 4 * WORD;
                    loop_end();
                }
            } else {
                // SAFETY: 1. By 1: it starts `skew` bytes back, which is less than `head`. 2.
                // `skew` aligns it.
                let mut low = unsafe { load_any(src.wrapping_sub(skew)) };
                while n >= 2 * WORD {
                    // SAFETY: 1. By 1: it ends within `2 * WORD` from `src` on. 2. It is one word
                    // after `low`.
                    let high = unsafe { load_any(src.wrapping_add(WORD - skew)) };
                    // SAFETY: 1. By 1. 2. `head` aligned `dest`.
                    unsafe { store::<_, true>(dest, join(low, high, skew)) };
                    low = high;
                    dest = dest.wrapping_add(WORD);
                    src = src.wrapping_add(WORD);
                    n -= WORD;
                    loop_end();
                }
            }
        }
        // SAFETY: 1. By 1: the remaining bytes. 2. `dest` is not strictly inside the source.
        unsafe { copy_bytes(dest, src, n) };
    } else {
        // Downward, words only if source and destination are equally aligned: other cases are rare.
        let words = by_words && ahead.is_multiple_of(WORD);
        while n > 0 {
            if words && n >= WORD && dest.addr().wrapping_add(n).is_multiple_of(WORD) {
                n -= WORD;
                // SAFETY: 1. By 1: the last word of the remaining bytes. 2. `dest + n` is aligned,
                // and `ahead` is a multiple of a word.
                let word: MaybeUninit<usize> = unsafe { load::<_, true>(src.wrapping_add(n)) };
                // SAFETY: 1. By 1: the last word of the remaining bytes. 2. `dest + n` is aligned.
                unsafe { store::<_, true>(dest.wrapping_add(n), word) };
            } else {
                n -= 1;
                // SAFETY: 1. By 1: the last of the remaining bytes. 2. A byte.
                let byte: MaybeUninit<u8> = unsafe { load::<_, true>(src.wrapping_add(n)) };
                // SAFETY: 1. By 1: the last of the remaining bytes. 2. A byte.
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
/// 2. `dest` is not strictly inside `src..src + n`; `dest == src` is allowed.
#[inline(always)]
unsafe fn copy_bytes(dest: *mut u8, src: *const u8, n: usize) {
    let mut at = 0;
    while at < n {
        // SAFETY: 1. By 1; `at < n`. 2. A byte. 3. Every byte is a valid MaybeUninit.
        let byte: MaybeUninit<u8> = unsafe { load::<_, true>(src.wrapping_add(at)) };
        // SAFETY: 1. By 1; `at < n`. 2. A byte.
        unsafe { store::<_, true>(dest.wrapping_add(at), byte) };
        at += 1;
        loop_end();
    }
}

/// The word that starts `skew` bytes into `low`; `high` follows `low` in memory.
#[inline(always)]
fn join(low: usize, high: usize, skew: usize) -> usize {
    let bits = skew as u32 * 8;
    if cfg!(target_endian = "little") {
        low >> bits | high << (usize::BITS - bits)
    } else {
        low << bits | high >> (usize::BITS - bits)
    }
}

/// memset; `word` is the byte repeated in each place.
///
/// # Safety
///
/// 1. `dest..dest + n` is writable.
#[inline(always)]
pub(super) unsafe fn set(mut dest: *mut u8, word: usize, mut n: usize) {
    while n > 0 {
        let step = if n < WORD || !dest.addr().is_multiple_of(WORD) {
            // SAFETY: 1. By 1; `n > 0`. 2. A byte.
            unsafe { store::<_, true>(dest, word as u8) };
            1
        } else if n < 4 * WORD {
            // SAFETY: 1. By 1; `n >= WORD`. 2. The condition has checked it.
            unsafe { store::<_, true>(dest, word) };
            WORD
        } else {
            // SAFETY: 1. By 1; `n >= 4 * WORD`. 2. The condition has checked it.
            unsafe { set_four::<_, true>(dest, word, WORD, 2 * WORD, 3 * WORD) };
            4 * WORD
        };
        dest = dest.wrapping_add(step);
        n -= step;
        loop_end();
    }
}

/// memcmp.
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
#[inline(always)]
pub(super) unsafe fn compare(mut a: *const u8, mut b: *const u8, mut n: usize) -> c_int {
    let alike = a.addr().wrapping_sub(b.addr()).is_multiple_of(WORD);
    while n > 0 {
        let mut step = 1;
        if alike && n >= WORD && a.addr().is_multiple_of(WORD) {
            // SAFETY: 1. By 1; `n >= WORD`. 2. The condition has checked it. 3. Initialised bytes
            // are valid.
            let x: usize = unsafe { load::<_, true>(a) };
            // SAFETY: 1. By 1; `n >= WORD`. 2. `a` is aligned, and `b` is a multiple of a word
            // away. 3. Initialised bytes are valid.
            let y: usize = unsafe { load::<_, true>(b) };
            if x != y {
                return order(usize::from_be(x), usize::from_be(y));
            }
            step = WORD;
        } else {
            // SAFETY: 1. By 1; `n > 0`. 2. A byte. 3. An initialised byte is valid.
            let x: u8 = unsafe { load::<_, true>(a) };
            // SAFETY: 1. By 1; `n > 0`. 2. A byte. 3. An initialised byte is valid.
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
