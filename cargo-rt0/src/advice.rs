//! Advice for programs on rt0 that do not compile or link. It is printed before the compiler's own
//! message.

/// A part of a message of the compiler or the linker, and the advice for it.
const ADVICE: &[(&str, &str)] = &[
    ("cannot find linker script rt0.ld", NOT_BELOW),
    ("can't find crate for `rt0`", NOT_BELOW),
    ("unresolved module or unlinked crate `rt0`", NOT_BELOW),
    ("unable to find library -lgcc_s", STD),
    ("unknown argument '-fuse-ld", FLAGS_OF_CC),
    ("unknown argument '-Wl,", FLAGS_OF_CC),
    ("can't find crate for `std`", STD),
    ("duplicate lang item", TWO_HANDLERS),
    ("`#[panic_handler]` function required, but not found", NO_ENTRY),
    ("undefined symbol: __rt0_entry_is_missing", NO_ENTRY),
    ("`main` function not found in crate", NO_ENTRY),
    ("undefined symbol: ", LIBC), // Of any other name.
    ("unwinding panics are not supported without std", UNWINDS),
    ("no global memory allocator found", NO_ALLOCATOR),
    ("can't find crate for `test`", HARNESS),
];

const NOT_BELOW: &str = "rt0 is not among the crate's dependencies: `cargo add rt0` makes it one";
const STD: &str = "std is used, by this program or by a crate below it, and rt0's programs have no std: write \
                   #![no_std] and #![no_main] into the program, and look for a feature `std` that the crate's \
                   dependency can turn off (`default-features = false`); `cargo tree -e features` shows which crate asks for it";
const FLAGS_OF_CC: &str = "rt0's programs are linked by LLD itself, and a flag for a C compiler reaches it: look for \
                           `rustflags` in a section [target] of .cargo/config.toml, in the crate's folder, one above \
                           it or the home folder, and write `-Clink-arg=X` instead of `-Clink-arg=-Wl,X`, or leave \
                           the flag to other crates";
const LIBC: &str = "a crate below this program calls the C library, which rt0's programs do not have: look for a \
                    feature of that crate that turns it off";
const TWO_HANDLERS: &str = "there are two panic handlers: std's, if a crate below this program uses std (then see its \
                            features), or one of the program's own (then turn off rt0's: `default-features = false`)";
const NO_ENTRY: &str = "the program has no main that rt0 calls: write #![no_std], #![no_main] and `rt0::entry!(main);` \
                        with `fn main(env: rt0::Env) -> i32`, or `rt0::tests!` in a test program (and without \
                        rt0's feature `panic-handler`, a panic handler)";
const UNWINDS: &str = "nothing unwinds on rt0: write `panic = \"abort\"` into the profile";
const NO_ALLOCATOR: &str = "the crate `alloc` is used and there is no #[global_allocator]: rt0 brings none, choose one";
const HARNESS: &str = "Rust's own test harness needs std: on rt0 a file of tests/ has `harness = false` in its \
                       section [[test]] of Cargo.toml, and `rt0::tests!` for its main";

/// The advice for this message, if the tool knows the message.
pub fn of(message: &str) -> Option<&'static str> {
    let found = ADVICE.iter().find(|(part, _)| message.contains(part));
    found.map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_known_has_advice_and_others_have_none() {
        let linker = "linking with `rust-lld` failed: exit status: 1\nrust-lld: error: unable to find library -lgcc_s";
        assert_eq!(of(linker), Some(STD));
        let users = "rust-lld: error: unknown argument '-fuse-ld=mold'\nrust-lld: error: undefined symbol: f";
        assert_eq!(of(users), Some(FLAGS_OF_CC));
        assert_eq!(of("mismatched types"), None);
    }
}
