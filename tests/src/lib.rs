//! What rt0's test programs share: static binaries without libc, each test in a process of its own.
//! [`rt0::test`] lists and runs them for `cargo xtask test`.
#![no_std]

pub mod children;
pub mod files;
pub mod launch;
pub mod memory;
pub mod processes;
pub mod reports;
pub mod runner;
pub mod seccomp;
pub mod text;
pub mod waiting;

// What most areas use.
pub use files::{numbered, read_file};
pub use memory::{assert_mappings, bytes_of_each_thread, mappings, vm_size_kib, wait_for_mappings_to_go};
pub use processes::{Ended, fork, in_raw_child, stderr_of, stopped_or_ended, wait_a_minute_for, wait_for};
pub use rt0::test::{SKIPPED, skip};
pub use runner::{emulated, machine, make_secure, often, slow, stress_time, thousands, under_valgrind, vdso_image};
pub use text::prints;
pub use waiting::{alarm_after, alarm_every, is_gone, wait_until, wait_until_asleep};

/// A program whose TLS image is aligned to `$align`. A program has one image, so each alignment
/// needs its own program.
///
/// `#[thread_local]` is unstable. xtask enables it for these programs, because rt0 must support
/// crates that use it.
#[macro_export]
macro_rules! tls_tests {
    ($align:literal) => {
        use core::cell::Cell;

        #[repr(align($align))]
        struct Aligned(Cell<u64>);

        #[thread_local]
        static FIRST: Cell<u8> = Cell::new(0x5A);
        #[thread_local]
        static ALIGNED: Aligned = Aligned(Cell::new(0x0123_4567_89AB_CDEF));
        #[thread_local]
        static ZERO: Cell<[u64; 9]> = Cell::new([0; 9]);
        #[thread_local]
        static ALIGNED_ZERO: Aligned = Aligned(Cell::new(0));
        #[thread_local]
        static LAST: Cell<u16> = Cell::new(0xBEEF);

        /// Checks the aligned initial values; then stores others, which must stay this thread's.
        fn check(mark: u64) {
            assert_eq!((FIRST.get(), LAST.get(), ZERO.get()), (0x5A, 0xBEEF, [0; 9]));
            assert_eq!((ALIGNED.0.get(), ALIGNED_ZERO.0.get()), (0x0123_4567_89AB_CDEF, 0));
            for address in [&raw const ALIGNED, &raw const ALIGNED_ZERO] {
                assert_eq!(core::hint::black_box(address).addr() % $align, 0);
            }
            let set = || {
                FIRST.set(mark as u8);
                LAST.set(mark as u16);
                ZERO.set([mark; 9]);
                ALIGNED.0.set(mark);
                ALIGNED_ZERO.0.set(!mark);
            };
            set();
            for _ in 0..20 {
                rt0::thread::yield_now();
                assert_eq!((FIRST.get(), LAST.get(), ZERO.get()), (mark as u8, mark as u16, [mark; 9]));
                assert_eq!((ALIGNED.0.get(), ALIGNED_ZERO.0.get()), (mark, !mark));
            }
            // The block beside the image is intact.
            assert!(rt0::thread::current().name().is_none_or(|name| name == "main"));
        }

        rt0::tests! { main_has_its_image, every_thread_has_an_image_of_its_own }

        fn main_has_its_image() {
            check(1);
        }

        fn every_thread_has_an_image_of_its_own() {
            check(1);
            for round in 0..$crate::often(100) as u64 {
                let threads = [2, 3, 4, 5].map(|mark| rt0::thread::spawn(move || check(mark + round)).unwrap());
                threads.into_iter().for_each(|thread| thread.join());
            }
            assert_eq!(ALIGNED.0.get(), 1);
        }
    };
}
