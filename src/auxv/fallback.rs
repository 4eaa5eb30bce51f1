//! The auxiliary vector if the loader left it out, and the page size without one.

use core::ptr::null_mut;
use core::slice;

use linux_raw_sys::general as k;

use super::Auxv;
use crate::errno::Result;
use crate::{io, sys};

/// The sources besides the stack.
pub(super) trait Source {
    /// The words of `/proc/self/auxv`, followed by at least two zeros.
    fn proc_auxv(&mut self) -> Result<&'static [usize]>;
    /// Whether `offset` is the first byte of a page in a mapping of [`PROBED`] bytes; an error if
    /// there is no such mapping.
    fn starts_page(&mut self, offset: usize) -> Result<bool>;
}

/// Page sizes are probed up to this.
pub(super) const PROBED: usize = 256 << 10;

/// The page size if no source has it: then all of rt0's sizes and offsets are multiples of every
/// page size in use.
const LARGEST_COMMON: usize = 64 << 10;

/// The vector on the stack; if that is empty, the one of `/proc/self/auxv`.
pub(super) fn complete(stack: Auxv, source: &mut impl Source) -> Auxv {
    match stack {
        Auxv { pairs: [] } => source.proc_auxv().map_or(stack, Auxv::from_words),
        _ => stack,
    }
}

/// The page size in the vector, or else as probed.
pub(super) fn page_size_of(auxv: Auxv, source: &mut impl Source) -> usize {
    auxv.page_size().unwrap_or_else(|| probe_page_size(source).unwrap_or(LARGEST_COMMON))
}

#[cold]
pub(super) fn probe_page_size(source: &mut impl Source) -> Result<usize> {
    let mut size = 4 << 10;
    while size < PROBED && !source.starts_page(size)? {
        size *= 2;
    }
    Ok(size)
}

/// The sources in a running program.
pub(super) struct Kernel;

impl Source for Kernel {
    fn proc_auxv(&mut self) -> Result<&'static [usize]> {
        const WORDS: usize = 512; // A vector has 20 to 40 pairs; a longer one is cut off.
        const ROOM: usize = (WORDS - 2) * size_of::<usize>(); // The last pair stays an AT_NULL.
        let file = sys::open(c"/proc/self/auxv", k::O_RDONLY | k::O_CLOEXEC, 0)?;
        // It stays mapped until the process ends, as a vector on the stack would.
        let base = map(WORDS * size_of::<usize>())?;
        // SAFETY: a fresh mapping of this size, of zeros, that no other code has.
        let bytes = unsafe { slice::from_raw_parts_mut(base, WORDS * size_of::<usize>()) };
        let mut filled = 0;
        loop {
            match io::read(&file, bytes.get_mut(filled..ROOM).unwrap_or_default())? {
                0 => break,
                count => filled += count,
            }
        }
        // SAFETY: the same memory, aligned as a page is, and no longer written.
        Ok(unsafe { slice::from_raw_parts(base.cast(), filled / size_of::<usize>()) })
    }

    fn starts_page(&mut self, offset: usize) -> Result<bool> {
        let base = map(PROBED)?;
        let found = sys::mincore(base.wrapping_add(offset));
        // SAFETY: 1. No other code has the mapping.
        unsafe { sys::munmap(base, PROBED) }?;
        Ok(found.is_ok())
    }
}

fn map(len: usize) -> Result<*mut u8> {
    // SAFETY: 1. Not MAP_FIXED.
    unsafe { sys::mmap(null_mut(), len, k::PROT_READ | k::PROT_WRITE, k::MAP_PRIVATE | k::MAP_ANONYMOUS, -1, 0) }
}
