//! Every length to [`MOST`] at every alignment, for both forms of each function. The expected bytes
//! are computed, not copied: on some machines the compiler calls the functions under test.

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

/// Fills `memory` with the pattern, copies within it, and checks all of it.
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
    check_copies(|to, from, n| unsafe { unaligned::copy(to, from, n) });
}

#[test]
fn copies_by_aligned_words() {
    // SAFETY: 1. `check_copy` asserted it.
    check_copies(|to, from, n| unsafe { aligned::copy(to, from, n) });
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
            unsafe { unaligned::set(memory.0.as_mut_ptr().wrapping_add(to), usize::MAX / 0xFF * 2, n) };
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
    check_sets(600, |to, value, n| unsafe { unaligned::set(to, usize::from(value) * (usize::MAX / 0xFF), n) });
}

#[test]
fn sets_by_aligned_words() {
    // SAFETY: 1. Up to 32 + 200 of 700 bytes.
    check_sets(200, |to, value, n| unsafe { aligned::set(to, usize::from(value) * (usize::MAX / 0xFF), n) });
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
    // The bytes around differ, and must not matter.
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
                    // One byte is less, by a little or by a lot, and all following bytes are
                    // greater: only the first difference may count.
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
    check_compares(|a, b, n| unsafe { unaligned::compare(a, b, n) });
}

#[test]
fn compares_by_aligned_words() {
    // SAFETY: 1. Up to 24 + 80 of 128 bytes.
    check_compares(|a, b, n| unsafe { aligned::compare(a, b, n) });
}

/// Longer than one or two blocks, with the difference at many places.
fn check_long_compares(compare: impl Fn(*const u8, *const u8, usize) -> c_int) {
    let mut a = Memory([0; 640]);
    let mut b = Memory([0; 640]);
    for n in (MOST..=600).step_by(7) {
        for (at_a, at_b) in [(0, 0), (3, 0), (1, 15), (16, 8)] {
            for i in 0..n {
                a.0[at_a + i] = pattern(i);
                b.0[at_b + i] = pattern(i);
            }
            let (pa, pb) = (a.0.as_ptr().wrapping_add(at_a), b.0.as_ptr().wrapping_add(at_b));
            assert_eq!(compare(pa, pb, n), 0, "{n} bytes at {at_a}, {at_b}");
            for i in (0..n).step_by(5).chain([n - 1]) {
                b.0[at_b + i] ^= 0x80;
                let expected = if pattern(i) < 0x80 { -1 } else { 1 };
                let (pa, pb) = (a.0.as_ptr().wrapping_add(at_a), b.0.as_ptr().wrapping_add(at_b));
                assert_eq!(compare(pa, pb, n).signum(), expected, "byte {i} of {n} at {at_a}, {at_b}");
                b.0[at_b + i] ^= 0x80;
            }
        }
    }
}

#[test]
fn compares_many_bytes() {
    // SAFETY: 1. Up to 16 + 600 of 640 bytes.
    check_long_compares(|a, b, n| unsafe { unaligned::compare(a, b, n) });
    // SAFETY: 1. Up to 16 + 600 of 640 bytes.
    check_long_compares(|a, b, n| unsafe { aligned::compare(a, b, n) });
    check_long_compares(|a, b, n| {
        // SAFETY: 1. Up to 16 + 600 of 640 bytes.
        let ordered = unsafe { memcmp(a, b, n) };
        // SAFETY: 1. Up to 16 + 600 of 640 bytes.
        assert_eq!(unsafe { bcmp(a, b, n) } != 0, ordered != 0);
        ordered
    });
}

#[test]
fn bcmp_is_zero_for_equal_bytes_only() {
    check_compares(|a, b, n| {
        // SAFETY: 1. Up to 24 + 80 of 128 bytes.
        let ordered = unsafe { memcmp(a, b, n) };
        // SAFETY: 1. Up to 24 + 80 of 128 bytes.
        assert_eq!(unsafe { bcmp(a, b, n) } == 0, ordered == 0);
        ordered
    });
}

/// Strings of each length at each alignment, whose bytes are nearly NUL, with NULs in front and
/// behind.
fn check_lengths(strlen: impl Fn(*const u8) -> usize) {
    for inside in [0x01, 0x80, 0xFF, 0x7F, 0x81] {
        for behind in [0x00, 0x01, 0x80] {
            for n in 0..=3 * MOST {
                for from in 0..64 {
                    let mut memory = Memory([0_u8; 64 + 3 * MOST + 64]);
                    memory.0[from..from + n].fill(inside);
                    memory.0[from + n + 1..].fill(behind);
                    assert_eq!(strlen(memory.0.as_ptr().wrapping_add(from)), n, "{inside:#x} {behind:#x} at {from}");
                }
            }
        }
    }
}

#[test]
fn strlen_counts_up_to_the_first_nul() {
    // SAFETY: 1. `check_lengths` puts a NUL there.
    check_lengths(|s| unsafe { strlen(s.cast()) });
}

#[test]
fn strlen_counts_by_words() {
    // SAFETY: 1. `check_lengths` puts a NUL there.
    check_lengths(|s| unsafe { words::strlen(s) });
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
