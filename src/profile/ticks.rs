//! Counts of ticks that a long-lived process does not wrap.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A count of 64 bits, also where a machine exchanges 32 at most. One thread adds to it and reads
/// it.
pub(super) struct Ticks {
    low: AtomicU32,
    high: AtomicU32,
}

impl Ticks {
    pub(super) const fn new(count: u64) -> Ticks {
        Ticks { low: AtomicU32::new(count as u32), high: AtomicU32::new((count >> 32) as u32) }
    }

    pub(super) fn get(&self) -> u64 {
        u64::from(self.high.load(Relaxed)) << 32 | u64::from(self.low.load(Relaxed))
    }

    pub(super) fn add(&self, ticks: u32) {
        let sum = self.get().saturating_add(ticks.into());
        self.low.store(sum as u32, Relaxed);
        self.high.store((sum >> 32) as u32, Relaxed);
    }

    /// Starts anew, on a thread whose timer is not there.
    pub(super) fn clear(&self) {
        self.low.store(0, Relaxed);
        self.high.store(0, Relaxed);
    }
}

/// Adds to a count that any thread adds to, up to its end: that much and more.
pub(super) fn add_saturating(count: &AtomicU32, more: u32) {
    let _ = count.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_add(more))); // It is always some.
}

/// The weights of the samples that stand for so many ticks: mostly one.
pub(super) fn weights(ticks: u64) -> impl Iterator<Item = u32> {
    let mut left = ticks;
    core::iter::from_fn(move || {
        let weight = u32::try_from(left).unwrap_or(u32::MAX);
        left -= u64::from(weight);
        (weight != 0).then_some(weight)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_count_on_beyond_32_bits() {
        let ticks = Ticks::new(u64::from(u32::MAX) - 1);
        ticks.add(1);
        assert_eq!(ticks.get(), u64::from(u32::MAX));
        ticks.add(1);
        assert_eq!(ticks.get(), 1 << 32);
        ticks.add(u32::MAX);
        assert_eq!(ticks.get(), (1 << 33) - 1);
        // What the clock says less this is what no sample stands for: nothing, and no number near
        // 2^32.
        assert_eq!(weights(ticks.get() - ticks.get()).next(), None);
        ticks.clear();
        assert_eq!(ticks.get(), 0);
    }

    #[test]
    fn more_ticks_than_a_sample_can_stand_for_are_several() {
        assert_eq!(weights(0).count(), 0);
        assert_eq!(weights(7).collect::<Vec<_>>(), [7]);
        assert_eq!(weights(u32::MAX.into()).collect::<Vec<_>>(), [u32::MAX]);
        let sum: u64 = weights((1 << 33) + 5).map(u64::from).sum();
        assert_eq!((sum, weights((1 << 33) + 5).count()), ((1 << 33) + 5, 3));
    }

    #[test]
    fn what_is_lost_is_counted_up_to_the_end_and_no_further() {
        let lost = AtomicU32::new(u32::MAX - 3);
        add_saturating(&lost, 2);
        assert_eq!(lost.load(Relaxed), u32::MAX - 1);
        add_saturating(&lost, 2);
        add_saturating(&lost, u32::MAX);
        assert_eq!(lost.load(Relaxed), u32::MAX);
    }
}
