//! memmove, memset and memcmp by accesses to aligned words and single bytes. Bulk instructions, if
//! the machine has any, get aligned words.

use core::ffi::c_int;
use core::mem::MaybeUninit;

use super::{WORD, load, load_any, loop_end, order, set_four, store};
use crate::arch::{Arch, Cpu};

/// Eight words, which the loops copy and set at a time.
const ROUND: usize = 8 * WORD;

/// memmove. The frequent case, words that are equally aligned, is without calls: what the others
/// need of registers would have to be saved for all.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
#[inline(always)]
pub(super) unsafe fn copy(mut dest: *mut u8, mut src: *const u8, mut n: usize) {
    let ahead = src.addr().wrapping_sub(dest.addr());
    if ahead.wrapping_neg() < n {
        // SAFETY: 1. By 1. 2. `dest` is inside the source.
        unsafe { copy_down(dest, src, n) };
        return;
    }
    if n >= 4 * WORD {
        if !ahead.is_multiple_of(WORD) {
            // SAFETY: 1. By 1; `n >= 4 * WORD`. 2. `dest` is not strictly inside the source.
            unsafe { copy_up_skewed(dest, src, n) };
            return;
        }
        let head = dest.addr().wrapping_neg() % WORD;
        // SAFETY: 1. By 1; `head < WORD`. 2. `dest` is not strictly inside the source.
        unsafe { copy_bytes(dest, src, head) };
        dest = dest.wrapping_add(head);
        src = src.wrapping_add(head);
        n -= head;
        // SAFETY: 1. By 1. 2. `head` aligned both. 3. `dest` is not strictly inside the source.
        let done = unsafe { copy_alike(dest, src, n) };
        dest = dest.wrapping_add(done);
        src = src.wrapping_add(done);
        n -= done;
    }
    // SAFETY: 1. By 1: the remaining bytes. 2. `dest` is not strictly inside the source.
    unsafe { copy_bytes(dest, src, n) };
}

/// Copies upward between addresses that are not equally aligned.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable; `n` is at least four words.
/// 2. `dest` is not strictly inside `src..src + n`.
#[inline(never)]
unsafe fn copy_up_skewed(dest: *mut u8, src: *const u8, n: usize) {
    let skew = src.addr().wrapping_sub(dest.addr()) % WORD;
    // Aligns `dest`, by a word more than needed: then the aligned word that contains `src + head`
    // starts within the source.
    let head = dest.addr().wrapping_neg() % WORD + WORD;
    // SAFETY: 1. By 1; `head < 2 * WORD`. 2. By 2.
    unsafe { copy_bytes(dest, src, head) };
    let (dest, src, n) = (dest.wrapping_add(head), src.wrapping_add(head), n - head);
    // SAFETY: 1. By 1; the word before `src` is part of the head. 2. `head` aligned `dest`, which
    // is `skew` bytes less than `src` modulo a word. 3. By 2.
    let done = unsafe { copy_skewed(dest, src, n, skew) };
    // SAFETY: 1. By 1: the remaining bytes. 2. By 2.
    unsafe { copy_bytes(dest.wrapping_add(done), src.wrapping_add(done), n - done) };
}

/// Copies downward: words only if source and destination are equally aligned, since other cases are
/// rare.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
/// 2. `dest` is inside the source or at its start.
#[inline(never)]
unsafe fn copy_down(dest: *mut u8, src: *const u8, mut n: usize) {
    if n >= 4 * WORD && src.addr().wrapping_sub(dest.addr()).is_multiple_of(WORD) {
        let tail = dest.addr().wrapping_add(n) % WORD;
        // SAFETY: 1. By 1; `tail < WORD`. 2. By 2.
        unsafe { copy_bytes_down(dest, src, n - tail, n) };
        n -= tail;
        while n >= ROUND {
            n -= ROUND;
            // SAFETY: 1. By 1: the last eight words of the remaining bytes. 2. `tail` aligned the
            // end, and both are equally aligned.
            unsafe { copy_eight(dest.wrapping_add(n), src.wrapping_add(n)) };
            loop_end();
        }
        while n >= WORD {
            n -= WORD;
            // SAFETY: 1. By 1: the last word of the remaining bytes. 2. As for the eight.
            unsafe { copy_word(dest.wrapping_add(n), src.wrapping_add(n)) };
            loop_end();
        }
    }
    // SAFETY: 1. By 1: the remaining bytes. 2. By 2.
    unsafe { copy_bytes_down(dest, src, 0, n) };
}

/// Copies the words of `n` bytes upward; returns how many bytes these are.
///
/// # Safety
///
/// 1. `src..src + n` is readable, `dest..dest + n` writable.
/// 2. Both are aligned for a word.
/// 3. `dest` is not strictly inside `src..src + n`.
#[inline(always)]
unsafe fn copy_alike(dest: *mut u8, src: *const u8, n: usize) -> usize {
    let mut at = 0;
    // A reference: without optimisation, the compiler would copy the constant by memcpy.
    if let Some(bulk) = &Cpu::BULK
        && n >= bulk.copy_from
    {
        // SAFETY: 1. By 1: they end at `n` or before. 2. By 3.
        unsafe { (bulk.copy)(dest, src, n / WORD) };
        return n - n % WORD;
    }
    while n - at >= ROUND {
        // SAFETY: 1. By 1: these words end at `n` or before. 2. By 2; `at` is whole words.
        unsafe { copy_eight(dest.wrapping_add(at), src.wrapping_add(at)) };
        at += ROUND;
        loop_end();
    }
    while n - at >= WORD {
        // SAFETY: 1. By 1: the word ends at `n` or before. 2. By 2; `at` is whole words.
        unsafe { copy_word(dest.wrapping_add(at), src.wrapping_add(at)) };
        at += WORD;
        loop_end();
    }
    at
}

/// Copies words of `n` bytes upward, each joined of two; returns how many bytes it has copied.
///
/// # Safety
///
/// 1. `src - WORD..src + n` is readable, `dest..dest + n` writable.
/// 2. `dest` is aligned for a word, and `src` is `skew` bytes above an aligned word; not 0 bytes.
/// 3. `dest` is not strictly inside `src..src + n`.
#[inline(always)]
unsafe fn copy_skewed(dest: *mut u8, src: *const u8, n: usize, skew: usize) -> usize {
    let words = src.wrapping_sub(skew);
    // SAFETY: 1. By 1: it starts less than a word before `src`. 2. By 2.
    let mut low = unsafe { load_any(words) };
    let mut at = 0;
    while n - at >= 5 * WORD {
        let (to, from) = (dest.wrapping_add(at), words.wrapping_add(at));
        // SAFETY: 1. By 1: it ends within `2 * WORD` from `src + at` on. 2. By 2.
        let second = unsafe { load_any(from.wrapping_add(WORD)) };
        // SAFETY: 1. By 1: it ends within `3 * WORD` from `src + at` on. 2. By 2.
        let third = unsafe { load_any(from.wrapping_add(2 * WORD)) };
        // SAFETY: 1. By 1: it ends within `4 * WORD` from `src + at` on. 2. By 2.
        let fourth = unsafe { load_any(from.wrapping_add(3 * WORD)) };
        // SAFETY: 1. By 1: it ends within `5 * WORD` from `src + at` on. 2. By 2.
        let fifth = unsafe { load_any(from.wrapping_add(4 * WORD)) };
        // SAFETY: 1. By 1. 2. By 2.
        unsafe { store::<_, true>(to, join(low, second, skew)) };
        // SAFETY: 1. By 1: a word on. 2. By 2.
        unsafe { store::<_, true>(to.wrapping_add(WORD), join(second, third, skew)) };
        // SAFETY: 1. By 1: two words on. 2. By 2.
        unsafe { store::<_, true>(to.wrapping_add(2 * WORD), join(third, fourth, skew)) };
        // SAFETY: 1. By 1: three words on. 2. By 2.
        unsafe { store::<_, true>(to.wrapping_add(3 * WORD), join(fourth, fifth, skew)) };
        low = fifth;
        at += 4 * WORD;
        loop_end();
    }
    while n - at >= 2 * WORD {
        // SAFETY: 1. By 1: it ends within `2 * WORD` from `src + at` on. 2. By 2.
        let high = unsafe { load_any(words.wrapping_add(at + WORD)) };
        // SAFETY: 1. By 1. 2. By 2.
        unsafe { store::<_, true>(dest.wrapping_add(at), join(low, high, skew)) };
        low = high;
        at += WORD;
        loop_end();
    }
    at
}

/// Copies eight words; loads all before it stores any.
///
/// # Safety
///
/// 1. They are readable at `src` and writable at `dest`.
/// 2. Both are aligned for a word.
#[inline(always)]
unsafe fn copy_eight(dest: *mut u8, src: *const u8) {
    // Not an array: without optimisation, the compiler would copy that by memcpy.
    macro_rules! copy_all {
        ($($word:ident at $nr:literal)*) => {
            $(
                // SAFETY: 1. By 1; the number is below 8. 2. By 2. 3. All bytes are a valid
                // MaybeUninit.
                let $word: MaybeUninit<usize> = unsafe { load::<_, true>(src.wrapping_add($nr * WORD)) };
            )*
            $(
                // SAFETY: 1. By 1; the number is below 8. 2. By 2.
                unsafe { store::<_, true>(dest.wrapping_add($nr * WORD), $word) };
            )*
        };
    }
    copy_all!(a at 0 b at 1 c at 2 d at 3 e at 4 f at 5 g at 6 h at 7);
}

/// Copies one word.
///
/// # Safety
///
/// 1. It is readable at `src` and writable at `dest`.
/// 2. Both are aligned for a word.
#[inline(always)]
unsafe fn copy_word(dest: *mut u8, src: *const u8) {
    // SAFETY: 1, 2. The caller guarantees both. 3. All bytes are a valid MaybeUninit.
    let word: MaybeUninit<usize> = unsafe { load::<_, true>(src) };
    // SAFETY: 1, 2. The caller guarantees both.
    unsafe { store::<_, true>(dest, word) };
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

/// Copies the bytes from `start` to `end` one by one, downward.
///
/// # Safety
///
/// 1. `src..src + end` is readable, `dest..dest + end` writable; `start <= end`.
/// 2. `dest` is inside the source or at its start.
#[inline(always)]
unsafe fn copy_bytes_down(dest: *mut u8, src: *const u8, start: usize, end: usize) {
    let mut at = end;
    while at > start {
        at -= 1;
        // SAFETY: 1. By 1; `at < end`. 2. A byte. 3. Every byte is a valid MaybeUninit.
        let byte: MaybeUninit<u8> = unsafe { load::<_, true>(src.wrapping_add(at)) };
        // SAFETY: 1. By 1; `at < end`. 2. A byte.
        unsafe { store::<_, true>(dest.wrapping_add(at), byte) };
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
    if n >= WORD {
        let head = dest.addr().wrapping_neg() % WORD;
        // SAFETY: 1. By 1; `head < WORD`.
        unsafe { set_bytes(dest, word, head) };
        dest = dest.wrapping_add(head);
        n -= head;
        // A reference, as in `copy_alike`.
        if let Some(bulk) = &Cpu::BULK
            && n >= bulk.set_from
        {
            let words = n / WORD;
            // SAFETY: 1. By 1: they end at `n` or before.
            unsafe { (bulk.set)(dest, word, words) };
            dest = dest.wrapping_add(words * WORD);
            n %= WORD;
        }
        let rounds_end = dest.wrapping_add(n - n % ROUND);
        n %= ROUND;
        while dest != rounds_end {
            // SAFETY: 1. By 1: before `rounds_end` there are whole rounds, of eight words. 2.
            // `head` aligned it.
            unsafe { set_four::<_, true>(dest, word, WORD, 2 * WORD, 3 * WORD) };
            let dest_on = dest.wrapping_add(4 * WORD);
            // SAFETY: 1. By 1: the other four of the eight words. 2. `head` aligned it.
            unsafe { set_four::<_, true>(dest_on, word, WORD, 2 * WORD, 3 * WORD) };
            dest = dest.wrapping_add(ROUND);
            loop_end();
        }
        while n >= WORD {
            // SAFETY: 1. By 1; `n >= WORD`. 2. `head` aligned it.
            unsafe { store::<_, true>(dest, word) };
            dest = dest.wrapping_add(WORD);
            n -= WORD;
            loop_end();
        }
    }
    // SAFETY: 1. By 1: the remaining bytes.
    unsafe { set_bytes(dest, word, n) };
}

/// Sets `n` bytes one by one.
///
/// # Safety
///
/// 1. `dest..dest + n` is writable.
#[inline(always)]
unsafe fn set_bytes(dest: *mut u8, word: usize, n: usize) {
    let mut at = 0;
    while at < n {
        // SAFETY: 1. By 1; `at < n`. 2. A byte.
        unsafe { store::<_, true>(dest.wrapping_add(at), word as u8) };
        at += 1;
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
