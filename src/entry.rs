//! The items that a program must define and a library must not: a main, the panic handler, and the
//! symbols that the compiler expects from a libc.
//!
//! Properties, and how they are achieved:
//!
//! 1. *All of this is defined in the program, by [`entry!`](crate::entry!):* rt0 itself defines no
//!    lang item and no symbol that std or a libc defines. So a crate that depends on rt0 can be
//!    tested by ordinary programs of the host, which have std and libc. The linker scripts give
//!    `_start` its name, for the same reason.
//! 2. *A harness of unit tests gets none of this:* it is recognized as a test that is compiled to
//!    unwind. A test without a harness, as [`tests!`](crate::tests) makes it, is a program.
//! 3. *Without the linker script the only error is one undefined symbol, whose name says what to
//!    do:* the function that C's startup files call is defined here and refers to that symbol.

/// Names the program's main: a `fn(Env) -> i32` whose value is the exit status.
///
/// ```ignore
/// rt0::entry!(main);
///
/// fn main(env: rt0::Env) -> i32 {
///     0
/// }
/// ```
///
/// It also defines `memcpy` and related functions, and the `#[panic_handler]`, which prints the
/// message and ends the process with status 101. (The library itself must not define them, because
/// programs of the host link it too.) To use a handler of your own, depend on rt0 with
/// `default-features = false`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "Rust" fn __rt0_entry_is_missing(env: $crate::Env) -> i32 {
                let main: fn($crate::Env) -> i32 = $main;
                main(env)
            }
        };
        // In a scope of its own: main's path could be one of these names.
        const _: () = {
            $crate::__program!();
            $crate::no_dependency_may_use_std!();
        };
    };
}

/// The definitions of [`entry!`](crate::entry!) besides main and the panic handler.
#[doc(hidden)]
#[macro_export]
macro_rules! __program {
    () => {
        // Not for rustdoc and not for a harness of unit tests: these are no programs on rt0.
        #[cfg(all(panic = "unwind", not(test), not(doc)))]
        ::core::compile_error!(
            "rt0: this program is compiled to unwind when it panics, and nothing here unwinds: put `panic = \"abort\"` \
             under [profile.dev] and [profile.release] in the Cargo.toml of the package, or of its workspace. \
             (`cargo test` ignores that where it builds a program for the tests beside it: keep these in a package of \
             their own.)"
        );

        /// The argument is generic, so that the error appears only when code is generated, not for
        /// clippy and `cargo check`.
        #[cfg(all(test, panic = "unwind"))]
        #[unsafe(no_mangle)]
        extern "C" fn __rt0_unit_tests_of_a_program() {
            $crate::refuse_unit_tests::<0>();
        }

        /// C's startup files call this. They are linked in if rt0's script is not used.
        #[cfg(not(all(test, panic = "unwind")))]
        #[unsafe(no_mangle)]
        extern "C" fn __libc_start_main() -> *const $crate::Constructor {
            (&raw const $crate::__rt0_ld_is_missing).cast()
        }

        /// core refers to it for unwinding. Nothing unwinds here. Without it there would be a
        /// second error message if the script is missing.
        #[cfg(not(all(test, panic = "unwind")))]
        #[unsafe(no_mangle)]
        extern "C" fn rust_eh_personality() {}

        /// C's startup files take its address and do not call it. In a program the linker script
        /// gives the name to the function that calls the program's main.
        #[cfg(not(all(test, panic = "unwind")))]
        #[unsafe(no_mangle)]
        extern "C" fn main() {}

        /// For programs without C's startup files: linkers keep this section, except under rt0's
        /// scripts.
        #[cfg(not(all(test, panic = "unwind")))]
        #[used]
        #[unsafe(link_section = ".jcr")]
        static ASK_FOR_SCRIPT: extern "C" fn() -> *const $crate::Constructor = __libc_start_main;

        $crate::__string_functions! {
            memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8;
            memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8;
            memset(to: *mut u8, byte: ::core::ffi::c_int, n: usize) -> *mut u8;
            memcmp(a: *const u8, b: *const u8, n: usize) -> ::core::ffi::c_int;
            bcmp(a: *const u8, b: *const u8, n: usize) -> ::core::ffi::c_int;
            strlen(text: *const ::core::ffi::c_char) -> usize;
        }

        #[cfg(not(all(test, panic = "unwind")))]
        #[unsafe(no_mangle)]
        extern "C" fn __stack_chk_fail() -> ! {
            $crate::stack_protector::fail()
        }

        /// The name that position-independent code uses on x86 and powerpc.
        #[cfg(not(all(test, panic = "unwind")))]
        #[unsafe(no_mangle)]
        extern "C" fn __stack_chk_fail_local() -> ! {
            $crate::stack_protector::fail()
        }
    };
}

/// The functions of string.h that the compiler calls.
#[doc(hidden)]
#[macro_export]
macro_rules! __string_functions {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {$(
        #[cfg(not(all(test, panic = "unwind")))]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*) -> $result {
            // SAFETY: the contract is the same.
            unsafe { $crate::intrinsics::$name($($arg),*) }
        }
    )*};
}

/// The program's panic handler, or nothing. If std defines one too, the compiler's message shows
/// the name of this macro.
#[cfg(feature = "panic-handler")]
#[doc(hidden)]
#[macro_export]
macro_rules! no_dependency_may_use_std {
    () => {
        #[cfg(not(all(test, panic = "unwind")))]
        #[panic_handler]
        fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::panic::panic(info)
        }
    };
}

/// The program's panic handler, or nothing.
#[cfg(not(feature = "panic-handler"))]
#[doc(hidden)]
#[macro_export]
macro_rules! no_dependency_may_use_std {
    () => {};
}

/// Fails to compile, with the message below, when code is generated for it.
#[doc(hidden)]
pub fn refuse_unit_tests<const N: usize>() {
    const {
        // It depends on N, which is always 0, so that it is not evaluated at this definition.
        assert!(
            N > 0,
            "rt0: a program on rt0 has no unit tests, since a test harness needs std: put `test = false` under [[bin]] \
             in Cargo.toml, and the tests into the package's library"
        )
    }
}
