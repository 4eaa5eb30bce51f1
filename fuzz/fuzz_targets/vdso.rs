//! The vDSO's parser on any bytes: no panic, no place outside the image, an end.
//!
//! `cargo +nightly fuzz run vdso`; a first image to start from is the host's own, in
//! fuzz/corpus/vdso. What CI runs each time is the unit test in src/vdso/image/tests.rs with
//! 100,000 damaged images.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The file itself, not the crate, which would bring a second memcpy into a program with libc.
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
