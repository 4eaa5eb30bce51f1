//! strlen by aligned words.
//!
//! An aligned word that contains one byte of the string lies in one page, so it is readable,
//! although it may begin before the string and end behind the NUL.

use super::{WORD, load_around, loop_end};

/// A 1 in each byte.
const ONES: usize = usize::MAX / 0xFF;
/// The top bit of each byte.
const TOPS: usize = ONES << 7;

/// strlen.
///
/// # Safety
///
/// 1. The bytes from `s` up to and including the first NUL are readable.
#[inline(always)]
pub(super) unsafe fn strlen(s: *const u8) -> usize {
    let before = s.addr() % WORD;
    let mut at = s.wrapping_sub(before);
    // SAFETY: 1. The word contains the byte at `s`, which is readable. 2. `before` aligns it.
    let mut word = unsafe { load_around(at) } | first_bytes(before);
    while !has_nul(word) {
        at = at.wrapping_add(WORD);
        // SAFETY: 1. There was no NUL before it, so its first byte is readable. 2. It is one word
        // further.
        word = unsafe { load_around(at) };
        loop_end();
    }
    at.addr() + nul_in(word) - s.addr()
}

/// A word with all bits set in its first `n < WORD` bytes.
#[inline(always)]
fn first_bytes(n: usize) -> usize {
    let bits = 8 * n as u32;
    if cfg!(target_endian = "little") { !(usize::MAX << bits) } else { !(usize::MAX >> bits) }
}

/// Whether a byte of the word is 0. (Exact, because only a byte that is 0 causes a borrow.)
#[inline(always)]
fn has_nul(word: usize) -> bool {
    word.wrapping_sub(ONES) & !word & TOPS != 0
}

/// How many bytes of the word precede its first zero byte.
#[inline(always)]
fn nul_in(word: usize) -> usize {
    let bits = if cfg!(target_endian = "little") {
        // A borrow affects later bytes only, so the first mark is right.
        (word.wrapping_sub(ONES) & !word & TOPS).trailing_zeros()
    } else {
        // No carry leaves a byte, so each mark is right.
        (!(((word & !TOPS) + !TOPS) | word | !TOPS)).leading_zeros()
    };
    bits as usize / 8
}
