//! Sets of processors, of any size that the kernel can have.

use core::fmt;
use core::slice;

use crate::errno::{Errno, Result};
use crate::mapping::Mapping;

/// Bytes that a set has without a mapping: 1,024 processors.
const NEAR: usize = 128;
/// Bytes in the largest set.
const MOST: usize = 64 << 10;
const BITS: usize = usize::BITS as usize;

/// A set of processors, by their numbers: those below 524,288 can be in it.
///
/// The first 1,024 are in the value itself; for higher ones it has a mapping, which it frees when
/// dropped.
pub struct CpuSet {
    near: [usize; NEAR / size_of::<usize>()],
    /// If there, all of the set is in it, and committed.
    far: Option<Mapping>,
}

impl CpuSet {
    /// The empty set.
    ///
    /// In handlers: yes.
    pub const fn new() -> CpuSet {
        CpuSet { near: [0; _], far: None }
    }

    /// What `get` fills in, as sched_getaffinity(2) does: it refuses a mask that is too small with
    /// `EINVAL`, and returns how many bytes it wrote. Larger masks are tried, four times the size
    /// each, and the largest last.
    pub(super) fn read(mut get: impl FnMut(&mut [usize]) -> Result<usize>) -> Result<CpuSet> {
        let mut bytes = NEAR;
        loop {
            let mut set = CpuSet::with_room(bytes)?;
            match get(set.words_mut()) {
                Ok(written) => {
                    // What the kernel did not write says nothing.
                    set.words_mut().iter_mut().skip(written.div_ceil(size_of::<usize>())).for_each(|word| *word = 0);
                    return Ok(set);
                }
                Err(Errno::EINVAL) if bytes < MOST => bytes = (bytes * 4).min(MOST),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The empty set, with room for this many bytes at least.
    fn with_room(bytes: usize) -> Result<CpuSet> {
        let far = if bytes > NEAR { Some(Mapping::new(bytes)?) } else { None };
        Ok(CpuSet { far, ..CpuSet::new() })
    }

    /// Puts a processor in. `EINVAL` for a number that no kernel has; `ENOMEM` when a mapping for
    /// it cannot be had.
    ///
    /// In handlers: yes.
    pub fn insert(&mut self, processor: usize) -> Result<()> {
        if processor >= MOST * 8 {
            return Err(Errno::EINVAL);
        }
        if processor / BITS >= self.words().len() {
            let mut larger = CpuSet::with_room(MOST)?;
            larger.words_mut()[..self.words().len()].copy_from_slice(self.words());
            *self = larger;
        }
        self.words_mut()[processor / BITS] |= 1 << (processor % BITS);
        Ok(())
    }

    /// Takes a processor out, if it is in.
    ///
    /// In handlers: yes.
    pub fn remove(&mut self, processor: usize) {
        if let Some(word) = self.words_mut().get_mut(processor / BITS) {
            *word &= !(1 << (processor % BITS));
        }
    }

    /// Whether a processor is in.
    ///
    /// In handlers: yes.
    pub fn contains(&self, processor: usize) -> bool {
        self.words().get(processor / BITS).is_some_and(|word| word >> (processor % BITS) & 1 == 1)
    }

    /// How many are in.
    ///
    /// In handlers: yes.
    pub fn len(&self) -> usize {
        self.words().iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether none is in.
    ///
    /// In handlers: yes.
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// The numbers of those that are in, rising.
    ///
    /// In handlers: yes.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.words().iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(index, word)| {
            (0..BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * BITS + bit)
        })
    }

    /// As the kernel takes it: a bit per processor, in words.
    pub(super) fn words(&self) -> &[usize] {
        match &self.far {
            // SAFETY: committed from its first byte to its last, page-aligned, and ours; any bytes
            // are numbers.
            Some(far) => unsafe { slice::from_raw_parts(far.as_ptr().cast(), far.len() / size_of::<usize>()) },
            None => &self.near,
        }
    }

    fn words_mut(&mut self) -> &mut [usize] {
        match &mut self.far {
            // SAFETY: as above, and `self` is borrowed for as long.
            Some(far) => unsafe { slice::from_raw_parts_mut(far.as_ptr().cast(), far.len() / size_of::<usize>()) },
            None => &mut self.near,
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

    /// sched_getaffinity(2) of a kernel with room for this many processors, of which it has the
    /// first and the last.
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
            (MOST * 8, &[128, 4096, 4096, 8192, 32768, 65536]),
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
        assert_eq!(CpuSet::read(kernel(MOST * 8 + 1, &mut tried)).err(), Some(Errno::EINVAL));
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
    fn processors_go_in_and_out() {
        let mut set = CpuSet::new();
        let numbers = [0, 1, 31, 32, 63, 64, 1023, 1024, 5000, MOST * 8 - 1];
        for number in numbers {
            assert!(!set.contains(number));
            set.insert(number).unwrap();
            set.insert(number).unwrap();
            assert!(set.contains(number));
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), numbers);
        assert_eq!(set.insert(MOST * 8), Err(Errno::EINVAL));
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
