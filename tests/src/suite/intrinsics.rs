//! memcpy and related functions on this machine: every short length, alignment and overlap, and
//! some long ones, against a model.

use core::ffi::{c_char, c_int, c_void};
use core::hint::black_box;

use rt0::mapping::Mapping;
use rt0_tests::slow;

unsafe extern "C" {
    fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn memset(to: *mut c_void, byte: c_int, len: usize) -> *mut c_void;
    fn memcmp(a: *const c_void, b: *const c_void, len: usize) -> c_int;
    fn bcmp(a: *const c_void, b: *const c_void, len: usize) -> c_int;
    fn strlen(text: *const c_char) -> usize;
}

const ROOM: usize = 512;
const LENGTHS: core::ops::RangeInclusive<usize> = 0..=80;
const OFFSETS: core::ops::Range<usize> = 0..16;

/// Bytes that differ from their neighbours.
fn pattern() -> [u8; ROOM] {
    core::array::from_fn(|i| (i * 7 + i / 256) as u8)
}

/// On slow machines only every fifth offset, with different offsets for each length.
fn step() -> usize {
    if slow() || cfg!(debug_assertions) { 5 } else { 1 }
}

fn at(buf: &mut [u8; ROOM], offset: usize) -> *mut c_void {
    black_box(buf.as_mut_ptr().wrapping_add(offset)).cast()
}

rt0::test_module! {
    memcpy_copies_exactly_its_range,
    memcpy_copies_up_to_600_bytes_between_any_alignments,
    memmove_is_right_for_every_overlap,
    memmove_moves_up_to_600_bytes_by_less_than_two_rounds,
    memset_sets_exactly_its_range_to_the_low_byte,
    memcmp_orders_by_the_first_byte_that_differs_as_unsigned,
    memcmp_and_bcmp_see_one_byte_that_differs_among_600,
    strlen_finds_the_first_nul,
    long_ranges_are_copied_and_set_at_every_alignment_and_nearness,
    nothing_is_touched_beyond_either_end_of_a_page,
    large_blocks_move_whole,
}

fn memcpy_copies_exactly_its_range() {
    let step = step();
    for len in LENGTHS {
        for to in OFFSETS {
            for from in OFFSETS.skip((len + to) % step).step_by(step) {
                let mut source = pattern();
                let mut target = [0xEE; ROOM];
                let start = at(&mut target, 64 + to);
                // SAFETY: both ranges lie in their arrays, which do not overlap.
                assert_eq!(unsafe { memcpy(start, at(&mut source, 64 + from), len) }, start);
                assert!(
                    (0..ROOM).all(|i| {
                        let inside = (64 + to..64 + to + len).contains(&i);
                        target[i] == if inside { source[i - to + from] } else { 0xEE }
                    }),
                    "len {len}, to {to}, from {from}"
                );
            }
        }
    }
}

fn memcpy_copies_up_to_600_bytes_between_any_alignments() {
    const ROOM: usize = 680;
    let few = step() > 1;
    for len in (81..=600).step_by(if few { 37 } else { 1 }) {
        for to in OFFSETS.step_by(if few { 5 } else { 1 }) {
            for from in OFFSETS.step_by(if few { 3 } else { 1 }) {
                let mut source: [u8; ROOM] = core::array::from_fn(|i| (i * 7 + i / 256) as u8);
                let mut target = [0xEE; ROOM];
                let start = black_box(target.as_mut_ptr()).wrapping_add(32 + to).cast();
                let text = black_box(source.as_mut_ptr()).wrapping_add(32 + from).cast();
                // SAFETY: both ranges lie in their arrays, which do not overlap.
                assert_eq!(unsafe { memcpy(start, text, len) }, start);
                let (before, rest) = target.split_at(32 + to);
                let (inside, after) = rest.split_at(len);
                assert!(before.iter().chain(after).all(|&byte| byte == 0xEE), "len {len}, to {to}, from {from}");
                let copied = inside.iter().zip(&source[32 + from..]).all(|(got, want)| got == want);
                assert!(copied, "len {len}, to {to}, from {from}");
            }
        }
    }
}

fn memmove_is_right_for_every_overlap() {
    let step = step();
    for len in (0..=80).chain([127, 128, 129, 200]) {
        for shift in (-100..=100isize).skip(len % step).step_by(step) {
            for base in [128, 129, 135] {
                let mut buf = pattern();
                let before = buf;
                let to = (base as isize + shift) as usize;
                let start = at(&mut buf, to);
                // SAFETY: both ranges lie in the array.
                assert_eq!(unsafe { memmove(start, at(&mut buf, base), len) }, start);
                assert!(
                    (0..ROOM).all(|i| {
                        let inside = (to..to + len).contains(&i);
                        buf[i] == if inside { before[i - to + base] } else { before[i] }
                    }),
                    "len {len}, shift {shift}, base {base}"
                );
            }
        }
    }
}

fn memmove_moves_up_to_600_bytes_by_less_than_two_rounds() {
    const ROOM: usize = 1024;
    let few = step() > 1;
    for len in (81..=600).step_by(if few { 47 } else { 7 }) {
        for shift in (-140..=140isize).skip(len % 5).step_by(if few { 11 } else { 1 }) {
            for base in [192, 195] {
                let before: [u8; ROOM] = core::array::from_fn(|i| (i * 7 + i / 256) as u8);
                let mut buf = before;
                let to = (base as isize + shift) as usize;
                let start = black_box(buf.as_mut_ptr());
                // SAFETY: both ranges lie in the array.
                unsafe { memmove(start.wrapping_add(to).cast(), start.wrapping_add(base).cast(), len) };
                let moved = (0..len).all(|i| buf[to + i] == before[base + i]);
                let rest = (0..to).chain(to + len..ROOM).all(|i| buf[i] == before[i]);
                assert!(moved && rest, "len {len}, shift {shift}, base {base}");
            }
        }
    }
}

fn memset_sets_exactly_its_range_to_the_low_byte() {
    let most = if step() > 1 { 160 } else { 390 };
    for len in (0..=most).chain([255, 256, 257, 300, 383]) {
        for offset in OFFSETS {
            let mut buf = [0xEE; ROOM];
            let start = at(&mut buf, 64 + offset);
            // SAFETY: the range lies in the array.
            assert_eq!(unsafe { memset(start, 0x1_5A, len) }, start);
            let range = 64 + offset..64 + offset + len;
            assert!((0..ROOM).all(|i| buf[i] == if range.contains(&i) { 0x5A } else { 0xEE }), "{len} {offset}");
        }
    }
}

fn memcmp_orders_by_the_first_byte_that_differs_as_unsigned() {
    let mut a = pattern();
    for len in LENGTHS {
        for offset in OFFSETS {
            let same: [u8; ROOM] = core::array::from_fn(|i| a[i.wrapping_sub(offset) % ROOM]);
            let mut b = same;
            let (left, right) = (at(&mut a, 64), at(&mut b, 64 + offset));
            // SAFETY: the ranges lie in the arrays.
            assert_eq!(unsafe { memcmp(left, right, len) }, 0);
            for differs in 0..len {
                b[64 + offset + differs] ^= 0x80;
                // The following bytes must not matter.
                b[64 + offset + differs + 1] ^= 0xFF;
                let less = a[64 + differs] < b[64 + offset + differs];
                let (left, right) = (at(&mut a, 64), at(&mut b, 64 + offset));
                // SAFETY: the ranges lie in the arrays.
                let order = unsafe { memcmp(left, right, len) };
                assert_eq!(order.signum(), if less { -1 } else { 1 }, "len {len}, offset {offset}, byte {differs}");
                // SAFETY: the ranges lie in the arrays.
                assert_ne!(unsafe { bcmp(left, right, len) }, 0);
                b = same;
            }
        }
    }
}

fn memcmp_and_bcmp_see_one_byte_that_differs_among_600() {
    let few = step() > 1;
    // Around multiples of what some machines compare by one instruction, and others.
    let edges = [255, 256, 257, 258, 511, 512, 513, 600];
    for len in (81..=600).step_by(if few { 103 } else { 13 }).chain(edges) {
        for (left, right) in [(0, 0), (0, 8), (1, 0), (3, 14), (7, 7)] {
            let mut a = [0x55_u8; 620];
            let mut b = a;
            for differs in (0..len).skip(len % 3).step_by(if few { 17 } else { 3 }).chain([len - 1]) {
                b[right + differs] = 0xAA;
                // The following bytes must not matter.
                a[left + differs + 1] = 0xFF;
                let (x, y) = (black_box(a.as_ptr()).wrapping_add(left), black_box(b.as_ptr()).wrapping_add(right));
                // SAFETY: the ranges lie in the arrays.
                let order = [unsafe { memcmp(x.cast(), y.cast(), len) }, unsafe { memcmp(y.cast(), x.cast(), len) }];
                assert_eq!(order.map(i32::signum), [-1, 1], "len {len}, {left} {right}, byte {differs}");
                // SAFETY: the ranges lie in the arrays.
                assert_ne!(unsafe { bcmp(x.cast(), y.cast(), len) }, 0, "len {len}, {left} {right}, byte {differs}");
                // SAFETY: the ranges lie in the arrays.
                assert_eq!(unsafe { bcmp(x.cast(), y.cast(), differs) }, 0, "{differs} bytes, {left} {right}");
                // SAFETY: the ranges lie in the arrays.
                assert_eq!(unsafe { memcmp(x.cast(), y.cast(), differs) }, 0, "{differs} bytes, {left} {right}");
                (a, b) = ([0x55; 620], [0x55; 620]);
            }
        }
    }
}

fn strlen_finds_the_first_nul() {
    // Bytes that are nearly NUL, with NULs in front and other bytes behind.
    for (len, fill) in (0..=300).zip([0xFF, 0x01, 0x80].into_iter().cycle()) {
        for offset in 0..64 {
            let mut buf = [fill; ROOM];
            buf[64 + offset - 1] = 0;
            buf[64 + offset + len] = 0;
            // SAFETY: the NUL is in the array.
            assert_eq!(unsafe { strlen(at(&mut buf, 64 + offset).cast()) }, len, "{fill:#x} at {offset}");
        }
    }
}

fn long_ranges_are_copied_and_set_at_every_alignment_and_nearness() {
    const LONG: usize = 8192;
    let byte = |i: usize| (i * 7 + i / 256) as u8;
    let mut buf = [0; LONG];
    let mut check = |to: usize, from: Option<usize>, len: usize| {
        buf.iter_mut().enumerate().for_each(|(i, slot)| *slot = byte(i));
        let start = black_box(buf.as_mut_ptr()).wrapping_add(to).cast();
        match from {
            // If the ranges do not overlap, memcpy must work too.
            Some(from) if from.abs_diff(to) >= len && len.is_multiple_of(2) => {
                // SAFETY: all ranges lie in the array, and these two do not overlap.
                unsafe { memcpy(start, buf.as_ptr().wrapping_add(from).cast(), len) }
            }
            // SAFETY: both ranges lie in the array.
            Some(from) => unsafe { memmove(start, buf.as_ptr().wrapping_add(from).cast(), len) },
            // SAFETY: the range lies in the array.
            None => unsafe { memset(start, 0x1_5A, len) },
        };
        for (i, &got) in buf.iter().enumerate() {
            let inside = (to..to + len).contains(&i);
            let want = if inside { from.map_or(0x5A, |from| byte(i - to + from)) } else { byte(i) };
            assert_eq!(got, want, "byte {i} of {len} to {to} from {from:?}");
        }
    };
    // Around the length from which some machines use bulk instructions, and far above it.
    for len in [2047, 2048, 2049, 2063, 2064, 2079, 2111, 3001] {
        for offset in OFFSETS {
            check(64 + offset, None, len);
            check(64 + offset, Some(4096 + 3 * offset), len);
            check(4096 + 3 * offset, Some(64 + offset), len);
        }
        // Both directions, overlapping by more or less than one step moves.
        for near in [0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 500, 2040] {
            check(2500, Some(2500 + near), len);
            check(2503, Some(2503 - near), len);
        }
    }
    for len in [3071, 3072, 3073, 3087, 3135] {
        OFFSETS.for_each(|offset| check(64 + offset, None, len));
    }
    // To an address with the source's lowest 12 bits, or slightly above.
    for above in [0, 1, 24, 31, 32, 63, 64, 65] {
        [2048, 2100].into_iter().for_each(|len| check(64 + 4096 + above, Some(64), len));
    }
}

fn nothing_is_touched_beyond_either_end_of_a_page() {
    // A page between two pages that fault.
    let size = rt0::cpu::page_size();
    let mapping = Mapping::reserve(3 * size).expect("reserve");
    mapping.commit(size..2 * size).expect("commit");
    let page = mapping.as_ptr().wrapping_add(size);
    let most = 600.min(size / 2);
    for len in (0..=most).filter(|len| step() == 1 || *len < 40 || len % 23 == 0) {
        // The first and the last bytes of the page.
        let (low, high) = (page, page.wrapping_add(size - len));
        for (to, from) in [(low, high), (high, low)] {
            let (start, text) = (to.cast(), from.cast());
            // SAFETY: the ranges lie in the page, and `len` is at most half of it.
            unsafe { memset(text, 0x5A, len) };
            // SAFETY: the ranges lie in the page.
            unsafe { memset(start, 0x11, len) };
            // SAFETY: the ranges lie in the page.
            assert_eq!(unsafe { memcmp(start, text, len) }.signum(), if len == 0 { 0 } else { -1 });
            // SAFETY: the ranges lie in the page.
            unsafe { memcpy(start, text, len) };
            // SAFETY: the ranges lie in the page.
            assert_eq!(unsafe { memcmp(start, text, len) }, 0, "{len} bytes");
            // SAFETY: the ranges lie in the page.
            assert_eq!(unsafe { bcmp(start, text, len) }, 0, "{len} bytes");
            if len < 4 {
                continue;
            }
            // Towards the end of the page at which this range lies, and away from it.
            for (up, down) in [(3, 0), (0, 3)] {
                // SAFETY: the ranges lie in the page.
                unsafe { memmove(to.wrapping_add(up).cast(), to.wrapping_add(down).cast(), len - 3) };
            }
            // SAFETY: the last byte of the range.
            unsafe { to.wrapping_add(len - 1).write(0) };
            // SAFETY: the range ends with a NUL.
            assert_eq!(unsafe { strlen(to.cast()) }, len - 1, "{len} bytes");
            // SAFETY: the ranges lie in the page.
            assert_eq!(unsafe { memcmp(start, text, len) }.signum(), -1, "{len} bytes");
            // SAFETY: the ranges lie in the page.
            assert_ne!(unsafe { bcmp(start, text, len) }, 0, "{len} bytes");
        }
    }
    // Each string that ends with the page.
    // SAFETY: the page.
    unsafe { memset(page.cast(), 0x01, size) };
    // SAFETY: its last byte.
    unsafe { page.wrapping_add(size - 1).write(0) };
    for len in 0..most {
        // SAFETY: the last byte of the page is NUL.
        assert_eq!(unsafe { strlen(page.wrapping_add(size - 1 - len).cast()) }, len);
    }
}

fn large_blocks_move_whole() {
    const LEN: usize = 256 << 10;
    static BIG: rt0::sync::Mutex<[u8; 3 * LEN]> = rt0::sync::Mutex::new([0; 3 * LEN]);
    let mut big = BIG.lock();
    let byte = |i: usize| (i % 251) as u8;
    for (to, from, len) in [(LEN, 0, LEN), (1, 0, 2 * LEN), (0, 1, 2 * LEN), (4099, 4096, LEN), (7, LEN, LEN + 5)] {
        big.iter_mut().enumerate().for_each(|(i, slot)| *slot = byte(i));
        let start = big.as_mut_ptr();
        // SAFETY: both ranges lie in the array.
        unsafe { memmove(start.wrapping_add(to).cast(), start.wrapping_add(from).cast(), len) };
        for i in 0..big.len() {
            let want = if (to..to + len).contains(&i) { byte(i - to + from) } else { byte(i) };
            assert_eq!(big[i], want, "byte {i} of {to} {from} {len}");
        }
    }
}
