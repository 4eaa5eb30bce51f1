//! Tick counts that do not wrap in a long-lived process.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A 64-bit count, also on machines with 32-bit atomics only. Only one thread adds to it and reads
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

    /// Resets the count, on a thread whose timer is gone.
    pub(super) fn clear(&self) {
        self.low.store(0, Relaxed);
        self.high.store(0, Relaxed);
    }
}

/// Adds to a count that several threads add to; it saturates.
pub(super) fn add_saturating(count: &AtomicU32, more: u32) {
    // The closure never returns None.
    let _ = count.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_add(more)));
}

/// The weights of the samples for `ticks` ticks: mostly one sample.
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
        // The clock's ticks minus this count are the ticks without a sample: 0, not a number near
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
