//! Where samples wait to be drained: one producer, a signal handler, and one consumer.
//!
//! ```text
//!     words     … │ tid │ weight │ depth │ depth × address │ tid │ …         around and around
//!                 ▲ tail                                   ▲ head
//! ```
//!
//! `heapless::spsc` would do for words of one size; here a whole record is published by one store,
//! so that the consumer never sees part of one, and a ring is all zeros, so that a fresh mapping is
//! one already and nobody moves 64 KiB over a stack.
//!
//! A ring is never given back to the kernel: the handler of a thread may be at work on one at any
//! time. A thread that ends leaves its ring, with what is in it, to the next that starts, so there
//! are as many as there ever were threads at once.

use core::cell::{Cell, UnsafeCell};
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use linux_raw_sys::general as k;

use super::DEPTH;
use super::ticks::add_saturating;
use crate::errno::Result;
use crate::sys;
use crate::thread::Links;

/// A power of two: positions count on for ever, and wrap where an address does.
const WORDS: usize = 8192;

const HEADER: usize = 3;

pub(super) struct Ring {
    /// The producer's: where the next record goes.
    head: AtomicUsize,
    /// The consumer's: what it has not read yet.
    tail: AtomicUsize,
    /// The weight of the records for which there was no room.
    lost: AtomicU32,
    /// Written before the ring is in [`ALL`], and never again.
    next: Cell<*const Ring>,
    /// Touched by who has the links of the list of threads.
    next_free: Cell<*const Ring>,
    words: [UnsafeCell<usize>; WORDS],
}

// SAFETY: the words between tail and head are the consumer's, the others the producer's; the rest
// is as its comment says.
unsafe impl Sync for Ring {}

static ALL: AtomicPtr<Ring> = AtomicPtr::new(null_mut());
static FREE: AtomicPtr<Ring> = AtomicPtr::new(null_mut());

/// Every ring there is.
pub(super) fn all() -> impl Iterator<Item = &'static Ring> {
    // Acquire pairs with `take`'s release.
    let mut next = ALL.load(Acquire).cast_const();
    core::iter::from_fn(move || {
        // SAFETY: rings stay.
        let ring = unsafe { next.as_ref() }?;
        next = ring.next.get();
        Some(ring)
    })
}

/// A ring that no thread has. `ENOMEM`.
pub(super) fn take(_: &Links) -> Result<NonNull<Ring>> {
    // Relaxed: whoever had the links before comes before.
    if let Some(ring) = NonNull::new(FREE.load(Relaxed)) {
        // SAFETY: rings stay.
        FREE.store(unsafe { ring.as_ref() }.next_free.replace(null()).cast_mut(), Relaxed);
        return Ok(ring);
    }
    let flags = k::MAP_PRIVATE | k::MAP_ANONYMOUS | k::MAP_NORESERVE;
    // SAFETY: 1. Not MAP_FIXED.
    let map = unsafe { sys::mmap(null_mut(), size_of::<Ring>(), k::PROT_READ | k::PROT_WRITE, flags, -1, 0) }?;
    let ring = map.cast::<Ring>();
    // SAFETY: fresh memory of this size, on a page, and all zeros is an empty ring.
    unsafe { &*ring }.next.set(ALL.load(Relaxed));
    ALL.store(ring, Release);
    // SAFETY: a mapping is not at address 0.
    Ok(unsafe { NonNull::new_unchecked(ring) })
}

/// Takes back the ring of a thread that will produce no more.
pub(super) fn give_back(_: &Links, ring: NonNull<Ring>) {
    // SAFETY: rings stay.
    unsafe { ring.as_ref() }.next_free.set(FREE.load(Relaxed));
    FREE.store(ring.as_ptr(), Relaxed);
}

/// In a forked child: no thread has a ring, and what is in them is not the child's.
pub(super) fn free_all(links: &Links) {
    FREE.store(null_mut(), Relaxed);
    for ring in all() {
        ring.clear();
        give_back(links, NonNull::from_ref(ring));
    }
}

impl Ring {
    /// Adds a sample, or counts it as lost. Only the ring's thread calls this, and its handler only
    /// while it does not.
    pub(super) fn push(&self, tid: u32, weight: u32, stack: &[usize]) {
        let head = self.head.load(Relaxed);
        // Acquire pairs with the release in `pop`: those words have been read.
        let used = head.wrapping_sub(self.tail.load(Acquire));
        if WORDS - used < HEADER + stack.len() {
            add_saturating(&self.lost, weight);
            return;
        }
        let record = [tid as usize, weight as usize, stack.len()];
        let mut at = head;
        for word in record.iter().chain(stack) {
            // SAFETY: not between tail and head, so the producer's.
            unsafe { self.words[at % WORDS].get().write(*word) };
            at = at.wrapping_add(1);
        }
        self.head.store(at, Release); // The record is there.
    }

    /// Where the records end that are there now.
    pub(super) fn end(&self) -> usize {
        // Acquire pairs with the release in `push`.
        self.head.load(Acquire)
    }

    /// Takes the oldest record before `end`: thread, weight and depth, and as many addresses in
    /// `stack`. There is one consumer.
    pub(super) fn pop(&self, end: usize, stack: &mut [usize; DEPTH]) -> Option<(u32, u32, usize)> {
        let tail = self.tail.load(Relaxed);
        // Not only equal: a visitor that forks finds all cleared in the child.
        if end.wrapping_sub(tail) as isize <= 0 {
            return None;
        }
        // SAFETY: between tail and head, so the consumer's.
        let word = |offset: usize| unsafe { self.words[tail.wrapping_add(offset) % WORDS].get().read() };
        let depth = word(2).min(DEPTH);
        stack[..depth].iter_mut().enumerate().for_each(|(i, address)| *address = word(HEADER + i));
        let record = (word(0) as u32, word(1) as u32, depth);
        self.tail.store(tail.wrapping_add(HEADER + depth), Release); // It has been read.
        Some(record)
    }

    /// Drops what is there. As for `pop`, there is one consumer.
    pub(super) fn clear(&self) {
        self.tail.store(self.end(), Release);
        self.lost.store(0, Relaxed);
    }

    /// The weight of what was lost since this was asked last.
    pub(super) fn take_lost(&self) -> u32 {
        self.lost.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Box<Ring> {
        // SAFETY: all zeros is an empty ring.
        unsafe { Box::<Ring>::new_zeroed().assume_init() }
    }

    fn pop(ring: &Ring) -> Option<(u32, u32, Vec<usize>)> {
        let mut stack = [0; DEPTH];
        ring.pop(ring.end(), &mut stack).map(|(tid, weight, depth)| (tid, weight, stack[..depth].to_vec()))
    }

    #[test]
    fn records_come_out_as_they_went_in_around_every_end() {
        let ring = ring();
        ring.head.store(usize::MAX - 100, Relaxed); // Positions wrap soon.
        ring.tail.store(usize::MAX - 100, Relaxed);
        for round in 0..50_000usize {
            let stack: Vec<usize> = (0..round % (DEPTH + 1)).map(|i| i * 7 + round).collect();
            ring.push(round as u32, 3, &stack);
            assert_eq!(pop(&ring), Some((round as u32, 3, stack)));
            assert_eq!(pop(&ring), None);
        }
        assert_eq!(ring.take_lost(), 0);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_is_there_stays() {
        let ring = ring();
        let fits = WORDS / (HEADER + 10);
        for i in 0..fits + 5 {
            ring.push(i as u32, 2, &[i; 10]);
        }
        assert_eq!((ring.take_lost(), ring.take_lost()), (10, 0));
        for i in 0..fits {
            assert_eq!(pop(&ring), Some((i as u32, 2, vec![i; 10])));
        }
        assert_eq!(pop(&ring), None);
    }

    #[test]
    fn a_producer_and_a_consumer_at_once_lose_nothing_uncounted() {
        const COUNT: usize = 200_000;
        let ring = ring();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..COUNT).for_each(|i| ring.push(i as u32, 1, &vec![i; i % 20])));
            let (mut seen, mut lost, mut next) = (0, 0, 0);
            while seen + lost < COUNT {
                lost += ring.take_lost() as usize;
                while let Some((tid, 1, stack)) = pop(&ring) {
                    assert!(tid >= next, "in order");
                    assert_eq!(stack, vec![tid as usize; tid as usize % 20]);
                    next = tid + 1;
                    seen += 1;
                }
            }
            assert_eq!(seen + lost, COUNT);
        });
    }
}
