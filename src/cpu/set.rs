//! Sets of processors, as large as any kernel's.

use core::fmt;
use core::slice;

use crate::errno::{Errno, Result};
use crate::mapping::Mapping;

/// Bytes that a set stores inline: 1,024 processors.
const INLINE_BYTES: usize = 128;
/// Bytes in the largest set.
const MAX_BYTES: usize = 64 << 10;
const BITS: usize = usize::BITS as usize;

/// A set of processors, by number; a number must be below 524,288.
///
/// The first 1,024 are stored in the value itself. For higher numbers the set uses a mapping, which
/// it frees when dropped.
pub struct CpuSet {
    inline: [usize; INLINE_BYTES / size_of::<usize>()],
    /// If present, the whole set is in this mapping, which is committed.
    mapped: Option<Mapping>,
}

impl CpuSet {
    /// The empty set.
    ///
    /// In handlers: yes.
    pub const fn new() -> CpuSet {
        CpuSet { inline: [0; _], mapped: None }
    }

    /// A set that `get` fills, as sched_getaffinity(2) does: it fails with `EINVAL` if the mask is
    /// too small, and returns the number of bytes that it wrote. Tries larger masks, each four
    /// times the size, up to the largest.
    pub(super) fn read(mut get: impl FnMut(&mut [usize]) -> Result<usize>) -> Result<CpuSet> {
        let mut bytes = INLINE_BYTES;
        loop {
            let mut set = CpuSet::with_room(bytes)?;
            match get(set.words_mut()) {
                Ok(written) => {
                    // Bytes that the kernel did not write are undefined.
                    set.words_mut().iter_mut().skip(written.div_ceil(size_of::<usize>())).for_each(|word| *word = 0);
                    return Ok(set);
                }
                Err(Errno::EINVAL) if bytes < MAX_BYTES => bytes = (bytes * 4).min(MAX_BYTES),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The empty set, with room for at least this many bytes.
    fn with_room(bytes: usize) -> Result<CpuSet> {
        let mapped = if bytes > INLINE_BYTES { Some(Mapping::new(bytes)?) } else { None };
        Ok(CpuSet { mapped, ..CpuSet::new() })
    }

    /// Adds a processor. `EINVAL` for a number that no kernel has; `ENOMEM` if there is no memory
    /// for the set.
    ///
    /// In handlers: yes.
    pub fn insert(&mut self, processor: usize) -> Result<()> {
        if processor >= MAX_BYTES * 8 {
            return Err(Errno::EINVAL);
        }
        if processor / BITS >= self.words().len() {
            let mut larger = CpuSet::with_room(MAX_BYTES)?;
            larger.words_mut()[..self.words().len()].copy_from_slice(self.words());
            *self = larger;
        }
        self.words_mut()[processor / BITS] |= 1 << (processor % BITS);
        Ok(())
    }

    /// Removes a processor, if it is in the set.
    ///
    /// In handlers: yes.
    pub fn remove(&mut self, processor: usize) {
        if let Some(word) = self.words_mut().get_mut(processor / BITS) {
            *word &= !(1 << (processor % BITS));
        }
    }

    /// Whether the set contains a processor.
    ///
    /// In handlers: yes.
    pub fn contains(&self, processor: usize) -> bool {
        self.words().get(processor / BITS).is_some_and(|word| word >> (processor % BITS) & 1 == 1)
    }

    /// The number of processors in the set.
    ///
    /// In handlers: yes.
    pub fn len(&self) -> usize {
        self.words().iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set is empty.
    ///
    /// In handlers: yes.
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// The processors in the set, in ascending order.
    ///
    /// In handlers: yes.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.words().iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(index, word)| {
            (0..BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * BITS + bit)
        })
    }

    /// The set as the kernel's mask: one bit per processor, in words.
    pub(super) fn words(&self) -> &[usize] {
        match &self.mapped {
            // SAFETY: the mapping is committed, page-aligned and owned; any bytes are valid words.
            Some(mapped) => unsafe { slice::from_raw_parts(mapped.as_ptr().cast(), mapped.len() / size_of::<usize>()) },
            None => &self.inline,
        }
    }

    fn words_mut(&mut self) -> &mut [usize] {
        match &mut self.mapped {
            // SAFETY: the mapping is committed, page-aligned and owned; any bytes are valid words.
            // `self` is borrowed mutably for as long.
            Some(mapped) => unsafe {
                slice::from_raw_parts_mut(mapped.as_ptr().cast(), mapped.len() / size_of::<usize>())
            },
            None => &mut self.inline,
        }
    }
}

impl Default for CpuSet {
    fn default() -> CpuSet {
        CpuSet::new()
    }
}

impl PartialEq for CpuSet {
    fn eq(&self, other: &CpuSet) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for CpuSet {}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::vec::Vec;

    use super::*;

    /// sched_getaffinity(2) of a kernel for this many processors, of which the first and the last
    /// exist.
    fn kernel(processors: usize, tried: &mut Vec<usize>) -> impl FnMut(&mut [usize]) -> Result<usize> {
        move |mask| {
            tried.push(size_of_val(mask));
            let needed = processors.div_ceil(BITS) * size_of::<usize>();
            if size_of_val(mask) * 8 < processors {
                return Err(Errno::EINVAL);
            }
            mask[0] |= 1;
            mask[(processors - 1) / BITS] |= 1 << ((processors - 1) % BITS);
            Ok(needed)
        }
    }

    #[test]
    fn the_mask_grows_until_all_processors_of_the_kernel_fit() {
        for (processors, sizes) in [
            (3, &[128][..]),
            (1024, &[128]),
            (1025, &[128, 4096]), // A mapping is whole pages.
            (8192, &[128, 4096]),
            (40_000, &[128, 4096, 4096, 8192]),
            (64 << 10, &[128, 4096, 4096, 8192]),
            (MAX_BYTES * 8, &[128, 4096, 4096, 8192, 32768, 65536]),
        ] {
            let mut tried = Vec::new();
            let set = CpuSet::read(kernel(processors, &mut tried)).unwrap();
            assert_eq!(tried, sizes, "{processors}");
            assert_eq!(set.iter().collect::<Vec<_>>(), [0, processors - 1]);
            assert_eq!((set.len(), set.contains(processors - 1), set.contains(1)), (2, true, false));
        }
    }

    #[test]
    fn a_kernel_that_refuses_every_mask_ends_the_tries() {
        let mut tried = Vec::new();
        assert_eq!(CpuSet::read(kernel(MAX_BYTES * 8 + 1, &mut tried)).err(), Some(Errno::EINVAL));
        assert_eq!(tried.len(), 6);
        assert_eq!(CpuSet::read(|_| Err(Errno::ENOSYS)).err(), Some(Errno::ENOSYS));
    }

    #[test]
    fn what_the_kernel_did_not_write_does_not_count() {
        let set = CpuSet::read(|mask| {
            mask.fill(usize::MAX);
            Ok(8)
        });
        assert_eq!(set.unwrap().len(), 64);
        assert!(CpuSet::read(|mask| Ok(size_of_val(mask) * 2)).unwrap().is_empty());
    }

    #[test]
    fn processors_are_added_and_removed() {
        let mut set = CpuSet::new();
        let numbers = [0, 1, 31, 32, 63, 64, 1023, 1024, 5000, MAX_BYTES * 8 - 1];
        for number in numbers {
            assert!(!set.contains(number));
            set.insert(number).unwrap();
            set.insert(number).unwrap();
            assert!(set.contains(number));
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), numbers);
        assert_eq!(set.insert(MAX_BYTES * 8), Err(Errno::EINVAL));
        assert_eq!(set.insert(usize::MAX), Err(Errno::EINVAL));
        assert!(!set.contains(usize::MAX));
        set.remove(usize::MAX);
        numbers.into_iter().skip(2).for_each(|number| set.remove(number));
        assert_eq!((set.len(), format!("{set:?}")), (2, "{0, 1}".into()));
    }

    #[test]
    fn sets_are_equal_whatever_their_room() {
        let (mut small, mut large) = (CpuSet::new(), CpuSet::new());
        large.insert(2000).unwrap();
        large.remove(2000);
        assert_eq!(small, large);
        small.insert(3).unwrap();
        assert_ne!(small, large);
    }
}
