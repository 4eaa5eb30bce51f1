//! The harness of rt0's test programs: static binaries without libc, one per area, each test in a process of its own.
//!
//! `PROGRAM --list` prints one line per test, its name and what it expects of its process (`NAME[\tKEY=VALUE]…`).
//! `PROGRAM NAME` runs one; status 0 is a pass, [`SKIPPED`] with a line `skipped: REASON` a skip. `cargo xtask test` is
//! who calls them.
#![no_std]

pub mod seccomp;

use core::ffi::CStr;

use linux_raw_sys::general as k;
use rt0::{Env, Errno, println, sys, thread};

/// One test.
pub struct Test {
    /// The sentence that it proves.
    pub name: &'static str,
    /// What it expects of its process, `KEY=VALUE` each: `exit`, `signal`, `stdout`, `stderr`, `args`, `env`, `stack`,
    /// `close`, `native` (a reason why no emulator will do), `alone`, `limit`.
    pub keys: &'static [&'static str],
    /// The test; it fails by panicking.
    pub run: fn(Env),
}

/// The exit status of a skipped test.
pub const SKIPPED: i32 = 77;

/// Defines a test program: functions, each with the keys it needs, of no argument or of the [`Env`].
#[macro_export]
macro_rules! tests {
    ($($(#[doc = $doc:literal])* $(#[keys($($key:literal),*)])? fn $name:ident($($env:ident)?) $body:block)*) => {
        rt0::entry!(main);

        fn main(env: rt0::Env) -> i32 {
            $crate::run(env, &[$($crate::Test {
                name: stringify!($name),
                keys: &[$($($key),*)?],
                run: $name,
            }),*])
        }

        $($(#[doc = $doc])* fn $name(_env: rt0::Env) {
            $(let $env = _env;)?
            $body
        })*
    };
}

/// Lists the tests or runs one; what a test program's main returns.
pub fn run(env: Env, tests: &[Test]) -> i32 {
    let wanted = env.args().nth(1).and_then(|arg| arg.to_str().ok()).unwrap_or("--list");
    if wanted == "--list" {
        for test in tests {
            rt0::print!("{}", test.name);
            test.keys.iter().for_each(|key| rt0::print!("\t{key}"));
            println!();
        }
        return 0;
    }
    match tests.iter().find(|test| test.name == wanted) {
        Some(test) => (test.run)(env),
        None => panic!("no test {wanted:?} in this program"),
    }
    0
}

/// Ends this test as skipped.
pub fn skip(reason: &str) -> ! {
    println!("skipped: {reason}");
    sys::exit_group(SKIPPED)
}

/// The start of a file, as much as fits; the rest of `buf` is left alone.
pub fn read_file<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let file = sys::open(path, sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0)?;
    let mut filled = 0;
    while filled < buf.len() {
        match rt0::io::read(file.as_raw_fd(), &mut buf[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(&buf[..filled])
}

/// How many mappings this process has. (Under an emulator, those of the guest.)
pub fn mappings() -> usize {
    let file = sys::open(c"/proc/self/maps", sys::flags::O_RDONLY | sys::flags::O_CLOEXEC, 0).expect("/proc/self/maps");
    let mut buf = [0; 4096];
    let mut lines = 0;
    loop {
        match rt0::io::read(file.as_raw_fd(), &mut buf).expect("reading /proc/self/maps") {
            0 => return lines,
            count => lines += buf[..count].iter().filter(|byte| **byte == b'\n').count(),
        }
    }
}

/// This process's address space in KiB: VmSize. Under an emulator that is the emulator's, and says nothing of ours.
pub fn vm_size_kib() -> usize {
    let mut buf = [0; 4096];
    let status = read_file(c"/proc/self/status", &mut buf).expect("/proc/self/status");
    let text = core::str::from_utf8(status).expect("ASCII");
    let line = text.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a VmSize line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Waits until `done`, for at most ten seconds; the caller says what it waited for.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        thread::sleep(core::time::Duration::from_millis(1));
    }
    panic!("waited ten seconds in vain: {what}");
}

/// Whether this process runs under an emulator, which shows its own file where it does not pretend.
pub fn emulated() -> bool {
    let link = |path: &CStr, buf: &mut [u8]| {
        let [path, out] = [path.as_ptr().expose_provenance(), buf.as_mut_ptr().expose_provenance()];
        let args = [k::AT_FDCWD as isize as usize, path, out, buf.len(), 0, 0];
        // SAFETY: 1. The kernel reads the path and writes the buffer.
        unsafe { sys::syscall(k::__NR_readlinkat as usize, args) }.expect("/proc")
    };
    let (mut told, mut true_one) = ([0; 4096], [0; 4096]);
    let lengths = (link(c"/proc/self/exe", &mut told), link(c"/proc/thread-self/exe", &mut true_one));
    lengths.0 != lengths.1 || told != true_one
}

/// A program whose TLS image is aligned to `$align`: a program has one image, so each alignment needs its own.
///
/// `#[thread_local]` is not stable; xtask lets these programs use it, for rt0 must honour what others bring.
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

        /// The initial values, aligned; then others, which must stay this thread's.
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
            // The block beside the image is still whole.
            assert!(rt0::thread::current().name().is_none_or(|name| name == "main"));
        }

        $crate::tests! {
            fn main_has_its_image() {
                check(1);
            }

            fn every_thread_has_an_image_of_its_own() {
                check(1);
                for round in 0..20 {
                    let threads = [2, 3, 4, 5].map(|mark| rt0::thread::spawn(move || check(mark + round)).unwrap());
                    threads.into_iter().for_each(|thread| thread.join());
                }
                assert_eq!(ALIGNED.0.get(), 1);
            }
        }
    };
}
