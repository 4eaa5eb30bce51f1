//! strlen by aligned words.
//!
//! An aligned word that has one byte of the string lies in the same page, so it can be read,
//! although it may begin before the string and end behind the NUL.

use super::{WORD, load_around, loop_end};

/// Each byte 1.
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
    // SAFETY: 1. The byte at `s` is in it, by our 1. 2. By `before`.
    let mut word = unsafe { load_around(at) } | first_bytes(before);
    while !has_nul(word) {
        at = at.wrapping_add(WORD);
        // SAFETY: 1. There was no NUL before it, so its first byte is readable by our 1. 2. A word
        // on.
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

/// Whether a byte of the word is 0. (Exact, for a borrow comes from a byte that is 0.)
#[inline(always)]
fn has_nul(word: usize) -> bool {
    word.wrapping_sub(ONES) & !word & TOPS != 0
}

/// How many bytes of the word lie before its first that is 0.
#[inline(always)]
fn nul_in(word: usize) -> usize {
    let bits = if cfg!(target_endian = "little") {
        // A borrow goes to later bytes only: the first mark is right.
        (word.wrapping_sub(ONES) & !word & TOPS).trailing_zeros()
    } else {
        // No carry leaves a byte: each mark is right.
        (!(((word & !TOPS) + !TOPS) | word | !TOPS)).leading_zeros()
    };
    bits as usize / 8
}
