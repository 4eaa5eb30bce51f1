//! The search for control groups and its parsers (src/cpu/cgroup/fuzz.rs).
//!
//! `cargo +nightly fuzz run cgroups -- -dict=fuzz/cgroups.dict`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rt0::fuzzing::cgroups(bytes));
