//! The vDSO's parser (src/vdso/image/fuzz.rs).
//!
//! `cargo +nightly fuzz run vdso`; the host's own image is a first input, in fuzz/corpus/vdso. CI
//! runs the unit test in src/vdso/image/tests.rs instead, with 100,000 damaged images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rt0::fuzzing::vdso(bytes));
