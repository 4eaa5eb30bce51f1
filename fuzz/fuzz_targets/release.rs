//! The parser of the kernel's version on any bytes: its result equals that of a second parser.
//!
//! `cargo +nightly fuzz run release`
#![no_main]

use libfuzzer_sys::fuzz_target;

// The source file instead of the crate, which would add a second memcpy to a program with libc.
#[path = "../../src/sys/release.rs"]
mod release;

fuzz_target!(|bytes: &[u8]| {
    // A second parser, which must give the same result.
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse::<u32>().ok();
    let dot = digits(bytes);
    let expected = (bytes.get(dot) == Some(&b'.')).then(|| {
        let rest = &bytes[dot + 1..];
        Some((number(&bytes[..dot])?, number(&rest[..digits(rest)])?))
    });
    assert_eq!(release::parse(bytes), expected.flatten());
});
