//! A cache of the memory of threads that ended, for threads that start. It uses atomics only, so
//! that `models` runs this code as it is.
//!
//! ```text
//!     slots │ ● │ ● │   │ ● │ … │      a pointer in a slot owns its target; the thread that
//!                                       swaps it out becomes the only owner
//! ```
//!
//! No thread reads through a pointer in a slot, and slots are not linked. So it does no harm if the
//! same memory comes back in between (no ABA problem).

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::futex::base::{AtomicPtr, AtomicU32, MODEL, const_fn};

/// What is kept.
pub(super) trait Keep {
    /// Its size in units of 4096 bytes. A new thread takes only memory of exactly its size.
    fn units(&self) -> u32;

    /// Whether its thread no longer runs on it. Acquire: what the thread did there happens before.
    fn is_idle(&self) -> bool;
}

/// The most that is kept, whatever the limits say.
pub(super) const MOST: usize = if MODEL { 2 } else { 64 };

/// The limits until the program sets others: as many stacks of the default size as there are slots;
/// on 32-bit machines, where addresses are scarce, about 14.
const LIMITS: [u32; 2] =
    [MOST as u32, if usize::BITS == 32 { (32 << 20) / 4096 } else { MOST as u32 * ((3 << 20) / 4096) }];

pub(super) struct Cache<T> {
    slots: [Slot<T>; MOST],
    /// How many units are in the slots; never more than the limit when the last one was added.
    units: AtomicU32,
    /// The largest number of slots in use, and of units, each plus 1; 0 until it is set. So a cache
    /// starts as zeros, which take no space in the program's file.
    limits: [AtomicU32; 2],
}

struct Slot<T> {
    kept: AtomicPtr<T>,
    /// The size of the latest content: a hint that avoids taking entries of the wrong size.
    units: AtomicU32,
}

impl<T> Slot<T> {
    const_fn! {
        const fn new() -> Slot<T> {
            Slot { kept: AtomicPtr::new(null_mut()), units: AtomicU32::new(0) }
        }
    }
}

impl<T: Keep> Cache<T> {
    #[cfg(not(all(loom, test)))]
    pub(super) const fn new() -> Cache<T> {
        Cache {
            slots: [const { Slot::new() }; MOST],
            units: AtomicU32::new(0),
            limits: [AtomicU32::new(0), AtomicU32::new(0)],
        }
    }

    #[cfg(all(loom, test))]
    pub(super) fn new() -> Cache<T> {
        Cache {
            slots: core::array::from_fn(|_| Slot::new()),
            units: AtomicU32::new(0),
            limits: [AtomicU32::new(0), AtomicU32::new(0)],
        }
    }

    /// Keeps `memory` if there is room; returns whether it did. If not, the caller still owns it.
    /// Its thread may still run on it, as long as it only ends.
    pub(super) fn put(&self, memory: NonNull<T>) -> bool {
        // SAFETY: the caller owns it until it is in a slot.
        let units = unsafe { memory.as_ref() }.units();
        // Relaxed, here and below: these count, and order nothing.
        let limit = |which: usize| self.limits[which].load(Relaxed).checked_sub(1).unwrap_or(LIMITS[which]);
        let [slots, limit] = [limit(0), limit(1)];
        let add = |now: u32| now.checked_add(units).filter(|sum| *sum <= limit);
        if self.units.fetch_update(Relaxed, Relaxed, add).is_err() {
            return false;
        }
        let kept = self.put_into(slots as usize, memory, units);
        if !kept {
            self.units.fetch_sub(units, Relaxed);
        }
        kept
    }

    /// Puts it into one of the first `slots`.
    fn put_into(&self, slots: usize, memory: NonNull<T>, units: u32) -> bool {
        self.slots.iter().take(slots).any(|slot| {
            // Release: what was done with the memory happens before it is taken.
            let put = slot.kept.load(Relaxed).is_null()
                && slot.kept.compare_exchange(null_mut(), memory.as_ptr(), Release, Relaxed).is_ok();
            if put {
                slot.units.store(units, Relaxed);
            }
            put
        })
    }

    /// Takes memory of this size that no thread runs on, if there is any. An entry that was swapped
    /// out to look at it and finds no free slot again is passed to `free`.
    pub(super) fn take(&self, units: u32, free: impl FnMut(NonNull<T>)) -> Option<NonNull<T>> {
        self.find(|slot| slot.units.load(Relaxed) == units, |memory| memory.units() == units, free)
    }

    /// Takes memory of any size that no thread runs on; see [`take`](Cache::take).
    pub(super) fn take_any(&self, free: impl FnMut(NonNull<T>)) -> Option<NonNull<T>> {
        self.find(|_| true, |_| true, free)
    }

    /// Sets how many entries are kept at most, and how many units.
    pub(super) fn limit(&self, slots: u32, units: u32) {
        self.limits[0].store(slots.saturating_add(1), Relaxed);
        self.limits[1].store(units.saturating_add(1), Relaxed);
    }

    /// Counts the units in the slots again. No other thread uses the cache meanwhile.
    pub(super) fn count_anew(&self) {
        let kept = self.slots.iter().filter_map(|slot| NonNull::new(slot.kept.load(Relaxed)));
        // SAFETY: it stays in its slot.
        self.units.store(kept.map(|kept| unsafe { kept.as_ref() }.units()).sum(), Relaxed);
    }

    fn find(
        &self,
        hint: impl Fn(&Slot<T>) -> bool,
        fits: impl Fn(&T) -> bool,
        mut free: impl FnMut(NonNull<T>),
    ) -> Option<NonNull<T>> {
        for slot in &self.slots {
            if slot.kept.load(Relaxed).is_null() || !hint(slot) {
                continue;
            }
            // Acquire pairs with the release in `put`.
            let Some(memory) = NonNull::new(slot.kept.swap(null_mut(), Acquire)) else { continue };
            // SAFETY: it was in the slot, so now this function owns it.
            let this = unsafe { memory.as_ref() };
            let units = this.units();
            if fits(this) && this.is_idle() {
                self.units.fetch_sub(units, Relaxed);
                return Some(memory);
            }
            // It is still counted, so it may be put back whatever the limits are. There is no free
            // slot only if all filled meanwhile.
            if !self.put_into(MOST, memory, units) {
                self.units.fetch_sub(units, Relaxed);
                free(memory);
            }
        }
        None
    }
}
