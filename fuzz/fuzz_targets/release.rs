//! The parser of the kernel's version (src/sys/release.rs).
//!
//! `cargo +nightly fuzz run release`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rt0::fuzzing::release(bytes));
