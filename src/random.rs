//! Random bytes: the vDSO's getrandom, getrandom(2), `/dev/urandom`; random(7).
//!
//! [`fill`] is for bytes that must be unpredictable. [`startup`] is for bytes that must differ
//! between processes, without waiting or failing, such as the seeds of hash tables.

use core::ffi::c_long;

use linux_raw_sys::general as k;

use crate::auxv;
use crate::errno::{Errno, Result};
use crate::thread::{self, Hooks};
use crate::time::ClockId;
use crate::{io, sys, vdso};

/// Fills `buf` with random bytes fit for keys.
///
/// The bytes come from the vDSO without a system call where it has getrandom (see
/// [`vdso::in_use`]), else from getrandom(2), and if that is missing or forbidden, from
/// `/dev/urandom`. Soon after boot the call may wait until the kernel's generator is seeded.
/// `/dev/urandom`, the only source before Linux 3.17, does not wait. Any length is accepted; an
/// empty buffer makes no call.
///
/// A signal handler may call it, even one that interrupts it, and so may a child right after a
/// fork, which gets other bytes than its parent.
///
/// Errors: those of opening and reading `/dev/urandom` (`ENOENT`, `EACCES`, `EMFILE`, …) if
/// getrandom(2) is not available; `EIO` if it is empty. After an error, part of `buf` may be
/// filled.
///
/// ```no_run
/// let mut key = [0; 32];
/// rt0::random::fill(&mut key)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn fill(buf: &mut [u8]) -> Result<()> {
    let mut rest = buf;
    while !rest.is_empty() {
        let filled = match STATE.with(|state| vdso::getrandom(rest, state, || thread::register(&HOOKS))) {
            Some(Ok(filled @ 1..)) => filled,
            _ => ask_kernel(rest)?,
        };
        rest = rest.get_mut(filled..).unwrap_or_default();
    }
    Ok(())
}

thread::part! {
    /// Each thread's state of the vDSO's getrandom.
    static STATE: vdso::StateSlot;
}

/// A thread that leaves the list has all signals blocked, so no handler on it takes a state after
/// that. If it was killed in the middle of a request, the next thread that gets the state makes a
/// system call for each.
static HOOKS: Hooks = Hooks { start: None, end: Some(|_, thread| STATE.of(thread).give_back()), fork: None };

/// Fills the start of `buf` with random bytes by system calls, and returns how many; 0 if a signal
/// handler interrupted the wait.
#[cold]
fn ask_kernel(buf: &mut [u8]) -> Result<usize> {
    match sys::getrandom(buf, 0) {
        Ok(filled @ 1..) => Ok(filled),
        // A handler interrupted the wait for the generator. A call that does not wait cannot be
        // interrupted; if it fails too, a filter refuses the call.
        Err(Errno::EINTR) => match sys::getrandom(&mut buf[..1], k::GRND_NONBLOCK) {
            Err(Errno::EAGAIN) => Ok(0),
            Ok(filled @ 1..) => Ok(filled),
            _ => urandom(buf),
        },
        _ => urandom(buf), // ENOSYS, or a filter's errno.
    }
}

/// Reads `/dev/urandom` into the start of `buf`; returns how many bytes, at least one.
fn urandom(buf: &mut [u8]) -> Result<usize> {
    let file = sys::open(c"/dev/urandom", k::O_RDONLY | k::O_CLOEXEC, 0)?;
    match io::read(&file, buf)? {
        0 => Err(Errno::EIO),
        filled => Ok(filled),
    }
}

/// Makes [`fill`] the backend of the crate getrandom 0.3 and 0.4, on every machine.
///
/// The crate calls it where the program is built with `--cfg getrandom_backend="custom"` (a flag of
/// rustc), as its documentation says; without that flag it calls libc, which a program on rt0 does
/// not have. It is a macro so that the program can name its own version of the crate. An error of
/// [`fill`] becomes `getrandom::Error::new_custom` with the number of the [`Errno`].
///
/// For getrandom 0.2, which has no such backend on Linux, there is
/// [`getrandom_02_backend!`](crate::getrandom_02_backend!).
///
/// ```ignore
/// rt0::getrandom_backend!(getrandom);
/// ```
#[macro_export]
macro_rules! getrandom_backend {
    ($getrandom:ident) => {
        const _: () = {
            /// # Safety
            ///
            /// 1. `len` bytes from `dest` on may be written.
            #[unsafe(no_mangle)]
            unsafe extern "Rust" fn __getrandom_v03_custom(
                dest: *mut u8,
                len: usize,
            ) -> ::core::result::Result<(), $getrandom::Error> {
                // SAFETY: 1. They need not be initialized.
                unsafe { dest.write_bytes(0, len) };
                // SAFETY: 1. Now they are.
                let buf = unsafe { ::core::slice::from_raw_parts_mut(dest, len) };
                $crate::random::fill(buf).map_err(|errno| $getrandom::Error::new_custom(errno.raw()))
            }
        };
    };
}

/// Makes [`fill`] the source of the crate getrandom 0.2, on every machine.
///
/// On Linux that version asks C's `syscall`, and `__errno_location` about an error. This macro
/// defines the two, in the program, for getrandom(2) and no other call. The crate's feature
/// `linux_disable_fallback` must be on, else it calls more of libc: in Cargo.toml
/// `getrandom = { version = "0.2", features = ["linux_disable_fallback"] }`.
///
/// ```ignore
/// rt0::getrandom_02_backend!();
/// ```
///
/// # Panics
///
/// Where a crate calls `syscall` for another number: the message has it.
#[macro_export]
macro_rules! getrandom_02_backend {
    () => {
        const _: () = {
            $crate::thread_local! {
                static ERRNO: ::core::cell::Cell<::core::ffi::c_int> = const { ::core::cell::Cell::new(0) };
            }

            #[unsafe(no_mangle)]
            extern "C" fn __errno_location() -> *mut ::core::ffi::c_int {
                ERRNO.with(::core::cell::Cell::as_ptr)
            }

            /// C's `syscall` with the arguments of getrandom(2). Its prototype is variadic; on
            /// every machine of rt0's such arguments are passed like named ones.
            ///
            /// # Safety
            ///
            /// 1. `len` bytes from `dest` on may be written.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn syscall(
                number: ::core::ffi::c_long,
                dest: *mut u8,
                len: usize,
                _flags: ::core::ffi::c_uint,
            ) -> ::core::ffi::c_long {
                // SAFETY: 1. The caller guarantees it.
                match unsafe { $crate::random::fill_for_c(number, dest, len) } {
                    ::core::result::Result::Ok(()) => len as ::core::ffi::c_long,
                    ::core::result::Result::Err(errno) => {
                        ERRNO.set(errno.raw().into());
                        -1
                    }
                }
            }
        };
    };
}

/// [`fill`] for C's `syscall`, as [`getrandom_02_backend!`](crate::getrandom_02_backend!) has it.
///
/// # Safety
///
/// 1. `len` bytes from `dest` on may be written.
#[doc(hidden)]
pub unsafe fn fill_for_c(number: c_long, dest: *mut u8, len: usize) -> Result<()> {
    assert!(
        number == k::__NR_getrandom as c_long,
        "rt0: `syscall({number}, …)`: getrandom_02_backend! has getrandom(2) alone, and there is no libc"
    );
    if len == 0 {
        return Ok(()); // The pointer of an empty buffer may be null.
    }
    // SAFETY: 1. They need not be initialized.
    unsafe { dest.write_bytes(0, len) };
    // SAFETY: 1. Now they are.
    fill(unsafe { core::slice::from_raw_parts_mut(dest, len) })
}

/// Random bytes for the start of a process, and their source; see [`startup`].
///
/// ```no_run
/// use rt0::random::{self, Source, Startup};
///
/// let Startup { bytes, source, .. } = random::startup();
/// if let Source::Auxv = source {
///     rt0::println!("the kernel's 16 bytes: {bytes:02x?}");
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Startup {
    /// Neither the first nor the last eight bytes are all zero.
    pub bytes: [u8; 16],
    /// The source of the bytes.
    pub source: Source,
}

/// The source of the bytes of [`startup`], from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// `AT_RANDOM`: the kernel passed them to the process at its start.
    Auxv,
    /// getrandom(2).
    Getrandom,
    /// `/dev/urandom`.
    Urandom,
    /// The clocks, the thread's id and the stack's address: they differ between processes, but can
    /// be guessed.
    Clock,
}

/// 16 bytes to seed a generator or a hash. It neither waits nor fails, even if the kernel lacks all
/// sources.
///
/// The kernel passes every process 16 bytes at its start, and each call returns these. A caller
/// that needs several seeds mixes other data into them. If the kernel passed none (some loaders),
/// the other sources are tried in the order of [`Source`].
///
/// In handlers: yes.
pub fn startup() -> Startup {
    find_startup(&mut Kernel)
}

/// The sources of [`find_startup`].
trait Sources {
    /// The 16 bytes of `AT_RANDOM`.
    fn auxv(&mut self) -> Option<[u8; 16]>;
    /// Reads bytes by getrandom(2), without waiting; returns how many.
    fn getrandom(&mut self, buf: &mut [u8]) -> Result<usize>;
    /// Reads bytes from `/dev/urandom`; returns how many.
    fn urandom(&mut self, buf: &mut [u8]) -> Result<usize>;
    /// Numbers that differ between processes.
    fn clock(&mut self) -> [u64; 4];
}

fn find_startup(sources: &mut impl Sources) -> Startup {
    if let Some(bytes) = sources.auxv().filter(is_random) {
        return Startup { bytes, source: Source::Auxv };
    }
    let mut bytes = [0; 16];
    if sources.getrandom(&mut bytes) == Ok(16) && is_random(&bytes) {
        return Startup { bytes, source: Source::Getrandom };
    }
    if sources.urandom(&mut bytes) == Ok(16) && is_random(&bytes) {
        return Startup { bytes, source: Source::Urandom };
    }
    Startup { bytes: spread(sources.clock()), source: Source::Clock }
}

/// Whether neither half is all zero. A zero half means that no source has written it.
fn is_random(bytes: &[u8; 16]) -> bool {
    let (halves, _) = bytes.as_chunks::<8>();
    halves.iter().all(|half| *half != [0; 8])
}

/// 16 bytes that depend on every bit of `numbers`; neither half is zero.
fn spread(numbers: [u64; 4]) -> [u8; 16] {
    let mut state = 0;
    for number in numbers {
        state = mix(state ^ number);
    }
    let mut bytes = [0; 16];
    for (half, salt) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([1, 2]) {
        *half = mix(state.wrapping_add(salt)).max(1).to_ne_bytes();
    }
    bytes
}

/// A permutation of 64 bits in which every bit of the result depends on every bit of `word` (the
/// finaliser of MurmurHash3 with the constants of David Stafford's variant 13). Of a counter with
/// the step of `profile` it makes splitmix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The sources of a running program.
struct Kernel;

impl Sources for Kernel {
    fn auxv(&mut self) -> Option<[u8; 16]> {
        let address = auxv::of_process().get(auxv::AT_RANDOM).filter(|address| *address != 0)?;
        let bytes = core::ptr::with_exposed_provenance::<[u8; 16]>(address);
        // SAFETY: the kernel says that 16 bytes lie there, on the initial stack, which stays mapped
        // and which rt0 does not write.
        Some(unsafe { *bytes })
    }

    fn getrandom(&mut self, buf: &mut [u8]) -> Result<usize> {
        sys::getrandom(buf, k::GRND_NONBLOCK)
    }

    fn urandom(&mut self, buf: &mut [u8]) -> Result<usize> {
        urandom(buf)
    }

    fn clock(&mut self) -> [u64; 4] {
        let nanoseconds = |clock: ClockId| {
            clock
                .now()
                .map_or(0, |now| (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64))
        };
        let local = 0u8;
        let stack = (&raw const local).addr() as u64;
        [nanoseconds(ClockId::CLOCK_REALTIME), nanoseconds(ClockId::CLOCK_MONOTONIC), sys::gettid().into(), stack]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashSet;

    use super::*;

    /// Sources that return the fields.
    struct Fake {
        auxv: Option<[u8; 16]>,
        getrandom: Result<[u8; 16]>,
        urandom: Result<[u8; 16]>,
        clock: [u64; 4],
    }

    const NOTHING: Fake =
        Fake { auxv: None, getrandom: Err(Errno::ENOSYS), urandom: Err(Errno::ENOENT), clock: [0; 4] };

    impl Sources for Fake {
        fn auxv(&mut self) -> Option<[u8; 16]> {
            self.auxv
        }

        fn getrandom(&mut self, buf: &mut [u8]) -> Result<usize> {
            buf.copy_from_slice(&self.getrandom?);
            Ok(buf.len())
        }

        fn urandom(&mut self, buf: &mut [u8]) -> Result<usize> {
            buf.copy_from_slice(&self.urandom?);
            Ok(buf.len())
        }

        fn clock(&mut self) -> [u64; 4] {
            self.clock
        }
    }

    /// Neither half is all zero, but one nearly is.
    const BYTES: [u8; 16] = [0, 0, 0, 1, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9];
    const FIRST_HALF_ZERO: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9];
    const LAST_HALF_ZERO: [u8; 16] = [9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn startup_tries_the_sources_in_order() {
        let all = |auxv, getrandom, urandom| find_startup(&mut Fake { auxv, getrandom, urandom, ..NOTHING });
        let from = |source| Startup { bytes: BYTES, source };
        assert_eq!(all(Some(BYTES), Ok([1; 16]), Ok([2; 16])), from(Source::Auxv));
        assert_eq!(all(None, Ok(BYTES), Ok([2; 16])), from(Source::Getrandom));
        assert_eq!(all(None, Err(Errno::EAGAIN), Ok(BYTES)), from(Source::Urandom));
        assert_eq!(find_startup(&mut { NOTHING }).source, Source::Clock);
    }

    #[test]
    fn startup_does_not_take_zeros_for_random() {
        for zero in [[0; 16], FIRST_HALF_ZERO, LAST_HALF_ZERO] {
            let mut sources = Fake { auxv: Some(zero), getrandom: Ok(zero), urandom: Ok(zero), ..NOTHING };
            let found = find_startup(&mut sources);
            assert_eq!(found.source, Source::Clock);
            assert!(is_random(&found.bytes));
        }
    }

    #[test]
    fn every_bit_of_the_clock_changes_every_part_of_the_bytes() {
        let mut seen = HashSet::from([spread([0; 4])]);
        for bit in 0..256 {
            let mut clock = [0; 4];
            clock[bit / 64] = 1 << (bit % 64);
            let bytes = spread(clock);
            assert!(is_random(&bytes) && seen.insert(bytes), "bit {bit}");
        }
        let halves: HashSet<_> = seen.iter().flat_map(|bytes| bytes.as_chunks::<8>().0).collect();
        assert_eq!(halves.len(), 2 * 257);
    }
}
