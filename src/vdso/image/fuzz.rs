//! The parser on any bytes: it does not panic, it ends, and each result lies within the image.

use super::Image;

/// One input: the bytes of an image.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    read::<true, true>(bytes);
    read::<true, false>(bytes);
    read::<false, true>(bytes);
    read::<false, false>(bytes);
}

fn read<const WIDE: bool, const BIG: bool>(bytes: &[u8]) {
    let _ = Image::<WIDE, BIG>::len(bytes);
    let Some(image) = Image::<WIDE, BIG>::parse(bytes) else { return };
    for name in ["__vdso_clock_gettime", "__kernel_getrandom", "c", ""] {
        for versions in [&["LINUX_2.6"][..], &["LINUX_2.6.15", "LINUX_5.11"], &[""], &[]] {
            if let Some(place) = image.function(name, versions) {
                assert!(place < bytes.len());
            }
        }
    }
}
