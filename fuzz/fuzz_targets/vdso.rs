//! The vDSO's parser on any bytes: it does not panic, it ends, and each result lies within the
//! image.
//!
//! `cargo +nightly fuzz run vdso`; the host's own image is a first input, in fuzz/corpus/vdso. CI
//! runs the unit test in src/vdso/image/tests.rs instead, with 100,000 damaged images.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The source file instead of the crate, which would add a second memcpy to a program with libc.
#[allow(dead_code)]
#[path = "../../src/vdso/image.rs"]
mod image;

use image::Image;

fuzz_target!(|bytes: &[u8]| {
    read::<true, true>(bytes);
    read::<true, false>(bytes);
    read::<false, true>(bytes);
    read::<false, false>(bytes);
});

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
