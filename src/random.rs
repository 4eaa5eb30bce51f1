//! Random bytes: the vDSO's getrandom, getrandom(2), `/dev/urandom`; random(7).
//!
//! [`fill`] is for all that nobody may guess. [`startup`] is for what must differ between processes
//! and cannot wait or fail, such as the seeds of hash tables.

use linux_raw_sys::general as k;

use crate::auxv;
use crate::errno::{Errno, Result};
use crate::time::ClockId;
use crate::{io, sys, thread, vdso};

/// Fills `buf` with random bytes fit for keys.
///
/// They come from the vDSO without a system call where it has them (see [`vdso::in_use`]), else
/// from getrandom(2), and where that is missing or forbidden, from `/dev/urandom`. Once after boot
/// it may wait until the kernel's generator is seeded; `/dev/urandom` does not wait, on the kernels
/// before 3.17 that have nothing else. Any length will do; none asks nobody.
///
/// It may be called in signal handlers, also in one that interrupts it, and in a child right after
/// a fork, which gets other bytes than its parent.
///
/// Errors: those of opening and reading `/dev/urandom` (`ENOENT`, `EACCES`, `EMFILE`, …), when
/// getrandom(2) is not to be had; `EIO` if it is empty. Then part of `buf` may be filled.
///
/// In handlers: yes.
pub fn fill(buf: &mut [u8]) -> Result<()> {
    let mut rest = buf;
    while !rest.is_empty() {
        let filled = match thread::with_random_slot(|slot| vdso::getrandom(rest, slot)) {
            Some(Ok(filled @ 1..)) => filled,
            _ => ask_kernel(rest)?,
        };
        rest = rest.get_mut(filled..).unwrap_or_default();
    }
    Ok(())
}

/// Random bytes into the start of `buf`, and how many, by system calls; 0 if a signal handler ran
/// instead.
#[cold]
fn ask_kernel(buf: &mut [u8]) -> Result<usize> {
    match sys::getrandom(buf, 0) {
        Ok(filled @ 1..) => Ok(filled),
        // The wait for the generator was interrupted. A call that does not wait cannot be: if it
        // says so too, a filter does.
        Err(Errno::EINTR) => match sys::getrandom(&mut buf[..1], k::GRND_NONBLOCK) {
            Err(Errno::EAGAIN) => Ok(0),
            Ok(filled @ 1..) => Ok(filled),
            _ => urandom(buf),
        },
        _ => urandom(buf), // ENOSYS, or what a filter says.
    }
}

/// What `/dev/urandom` puts into the start of `buf`, at least one byte.
fn urandom(buf: &mut [u8]) -> Result<usize> {
    let file = sys::open(c"/dev/urandom", k::O_RDONLY | k::O_CLOEXEC, 0)?;
    match io::read(file.as_raw_fd(), buf)? {
        0 => Err(Errno::EIO),
        filled => Ok(filled),
    }
}

/// Random bytes for a start, and where they are from; see [`startup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Startup {
    /// Neither the first nor the last eight are all zero.
    pub bytes: [u8; 16],
    /// Where they are from.
    pub source: Source,
}

/// Where the bytes of [`startup`] are from, from the best to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `AT_RANDOM`: the kernel gave them to the process at its start.
    Auxv,
    /// getrandom(2).
    Getrandom,
    /// `/dev/urandom`.
    Urandom,
    /// The clocks, the thread's number and the stack's address: they differ from process to
    /// process, and can be guessed.
    Clock,
}

/// 16 bytes to seed a generator or a hash with, at once: it neither waits nor fails, whatever the
/// kernel lacks.
///
/// The kernel gives every process its own at the start, which are the same at each call: who needs
/// several seeds mixes something into them. Only if there are none (some loaders), other sources
/// are tried, in the order of [`Source`].
///
/// In handlers: yes.
pub fn startup() -> Startup {
    settle(&mut Kernel)
}

/// Where [`settle`] looks.
trait Sources {
    /// The 16 bytes of `AT_RANDOM`.
    fn auxv(&mut self) -> Option<[u8; 16]>;
    /// Bytes from getrandom(2), without waiting, and how many.
    fn getrandom(&mut self, buf: &mut [u8]) -> Result<usize>;
    /// Bytes from `/dev/urandom`, and how many.
    fn urandom(&mut self, buf: &mut [u8]) -> Result<usize>;
    /// Numbers that differ from process to process.
    fn clock(&mut self) -> [u64; 4];
}

fn settle(sources: &mut impl Sources) -> Startup {
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

/// Whether neither half is all zero: then nobody has put anything there.
fn is_random(bytes: &[u8; 16]) -> bool {
    let (halves, _) = bytes.as_chunks::<8>();
    halves.iter().all(|half| *half != [0; 8])
}

/// 16 bytes that depend on every bit of the numbers, with no half zero.
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
/// finaliser of MurmurHash3 with the constants of David Stafford's variant 13).
fn mix(mut word: u64) -> u64 {
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
        // SAFETY: the kernel says that 16 bytes lie there, on the initial stack, which stays and
        // which rt0 does not write.
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

    /// Sources that answer from the fields.
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

    /// No half is zero, one is nearly.
    const BYTES: [u8; 16] = [0, 0, 0, 1, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9];
    const FIRST_HALF_ZERO: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9];
    const LAST_HALF_ZERO: [u8; 16] = [9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn startup_goes_down_the_ladder_step_by_step() {
        let all = |auxv, getrandom, urandom| settle(&mut Fake { auxv, getrandom, urandom, ..NOTHING });
        let from = |source| Startup { bytes: BYTES, source };
        assert_eq!(all(Some(BYTES), Ok([1; 16]), Ok([2; 16])), from(Source::Auxv));
        assert_eq!(all(None, Ok(BYTES), Ok([2; 16])), from(Source::Getrandom));
        assert_eq!(all(None, Err(Errno::EAGAIN), Ok(BYTES)), from(Source::Urandom));
        assert_eq!(settle(&mut { NOTHING }).source, Source::Clock);
    }

    #[test]
    fn startup_does_not_take_zeros_for_random() {
        for zero in [[0; 16], FIRST_HALF_ZERO, LAST_HALF_ZERO] {
            let mut sources = Fake { auxv: Some(zero), getrandom: Ok(zero), urandom: Ok(zero), ..NOTHING };
            let found = settle(&mut sources);
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
