extern crate std;

use super::*;

#[test]
fn lengths_are_rounded_up_to_whole_pages() {
    assert_eq!(whole_pages(1), Ok(4096));
    assert_eq!(whole_pages(4096), Ok(4096));
    assert_eq!(whole_pages(4097), Ok(8192));
    assert_eq!(whole_pages(isize::MAX as usize & !4095), Ok(isize::MAX as usize & !4095));
}

#[test]
fn no_length_is_einval_and_a_giant_one_enomem() {
    assert_eq!(whole_pages(0), Err(Errno::EINVAL));
    for giant in [isize::MAX as usize, isize::MAX as usize + 1, usize::MAX - 4095, usize::MAX] {
        assert_eq!(whole_pages(giant), Err(Errno::ENOMEM), "{giant:#x}");
    }
}

#[test]
fn ranges_of_any_form_are_checked() {
    let mapping = Mapping::reserve(4 * 4096).unwrap();
    let part = |start, len| Ok((mapping.as_ptr().wrapping_add(start), len));
    assert_eq!(mapping.checked_range(..), part(0, 16384));
    assert_eq!(mapping.checked_range(4096..), part(4096, 12288));
    assert_eq!(mapping.checked_range(..8192), part(0, 8192));
    assert_eq!(mapping.checked_range(..=8191), part(0, 8192));
    assert_eq!(mapping.checked_range((Bound::Excluded(4095), Bound::Excluded(8192))), part(4096, 4096));
    assert_eq!(mapping.checked_range(16384..), part(16384, 0));
    for (start, end) in [(0, 1), (1, 4096), (8192, 4096), (0, 20480), (20480, 20480), (0, usize::MAX & !4095)] {
        assert_eq!(mapping.checked_range(start..end), Err(Errno::EINVAL), "{start}..{end}");
    }
    assert_eq!(mapping.checked_range(0..=usize::MAX), Err(Errno::EINVAL));
    assert_eq!(mapping.checked_range((Bound::Excluded(usize::MAX), Bound::Unbounded)), Err(Errno::EINVAL));
}

#[test]
fn names_are_what_the_kernel_takes() {
    assert!(is_name(b"") && is_name(b" rt0: heap, arena 7/8 (cold) {~}"));
    assert!(is_name(&[b'x'; 79]) && !is_name(&[b'x'; 80]));
    for bad in [&b"a[b"[..], b"]", b"$x", b"`", b"a\\b", b"\n", b"\x7f", "é".as_bytes()] {
        assert!(!is_name(bad), "{bad:?}");
    }
}
