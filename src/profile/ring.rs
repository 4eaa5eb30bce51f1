//! Rings of samples: one producer, a signal handler, and one consumer, which drains them.
//!
//! ```text
//!     words     … │ tid │ weight │ depth │ depth × address │ tid │ …         wraps around
//!                 ▲ tail                                   ▲ head
//! ```
//!
//! `heapless::spsc` suits items of one size. This ring publishes a whole record by one store, so
//! the consumer never sees part of a record. And an empty ring is all zeros, so a new mapping is a
//! ring, and no 64 KiB value moves over a stack.
//!
//! A ring is never unmapped, because a thread's handler may be using it at any time. A thread that
//! ends leaves its ring and the samples in it to the next thread that starts. So there are as many
//! rings as there ever were threads at the same time.

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
use crate::thread::ListLock;

/// A power of two: head and tail grow without limit, and wrap where `usize` does.
const WORDS: usize = 8192;

const HEADER: usize = 3;

pub(super) struct Ring {
    /// Where the next record goes; stored by the producer.
    head: AtomicUsize,
    /// Where the oldest record is; stored by the consumer.
    tail: AtomicUsize,
    /// The weight of the records that found no room.
    lost: AtomicU32,
    /// Written before the ring is added to [`ALL`], and not again.
    next: Cell<*const Ring>,
    /// Accessed only while holding `ListLock`.
    next_free: Cell<*const Ring>,
    words: [UnsafeCell<usize>; WORDS],
}

// SAFETY: only the consumer accesses the words between tail and head, and only the producer the
// others. The comments of the other fields say which thread accesses them.
unsafe impl Sync for Ring {}

static ALL: AtomicPtr<Ring> = AtomicPtr::new(null_mut());
static FREE: AtomicPtr<Ring> = AtomicPtr::new(null_mut());

/// All rings.
pub(super) fn all() -> impl Iterator<Item = &'static Ring> {
    // Acquire pairs with the release in `take`.
    let mut next = ALL.load(Acquire).cast_const();
    core::iter::from_fn(move || {
        // SAFETY: rings are never freed.
        let ring = unsafe { next.as_ref() }?;
        next = ring.next.get();
        Some(ring)
    })
}

/// Takes a free ring or makes one. `ENOMEM`.
pub(super) fn take(_: &ListLock) -> Result<NonNull<Ring>> {
    // Relaxed: earlier holders of `ListLock` happen before.
    if let Some(ring) = NonNull::new(FREE.load(Relaxed)) {
        // SAFETY: rings are never freed.
        FREE.store(unsafe { ring.as_ref() }.next_free.replace(null()).cast_mut(), Relaxed);
        return Ok(ring);
    }
    let flags = k::MAP_PRIVATE | k::MAP_ANONYMOUS | k::MAP_NORESERVE;
    // SAFETY: 1. Not MAP_FIXED.
    let map = unsafe { sys::mmap(null_mut(), size_of::<Ring>(), k::PROT_READ | k::PROT_WRITE, flags, -1, 0) }?;
    let ring = map.cast::<Ring>();
    // SAFETY: a new mapping of this size, page-aligned; all zeros is an empty ring.
    unsafe { &*ring }.next.set(ALL.load(Relaxed));
    ALL.store(ring, Release);
    // SAFETY: the kernel maps nothing at address 0.
    Ok(unsafe { NonNull::new_unchecked(ring) })
}

/// Frees the ring of a thread that produces no more samples.
pub(super) fn give_back(_: &ListLock, ring: NonNull<Ring>) {
    // SAFETY: rings are never freed.
    unsafe { ring.as_ref() }.next_free.set(FREE.load(Relaxed));
    FREE.store(ring.as_ptr(), Relaxed);
}

/// In a forked child: frees all rings and drops the parent's samples.
pub(super) fn free_all(lock: &ListLock) {
    FREE.store(null_mut(), Relaxed);
    for ring in all() {
        ring.clear();
        give_back(lock, NonNull::from_ref(ring));
    }
}

impl Ring {
    /// Adds a sample, or counts it as lost. Only the ring's thread calls this, and its handler only
    /// while the thread does not.
    pub(super) fn push(&self, tid: u32, weight: u32, stack: &[usize]) {
        let head = self.head.load(Relaxed);
        // Acquire pairs with the release in `pop`: the consumer has read those words.
        let used = head.wrapping_sub(self.tail.load(Acquire));
        if WORDS - used < HEADER + stack.len() {
            add_saturating(&self.lost, weight);
            return;
        }
        let record = [tid as usize, weight as usize, stack.len()];
        let mut at = head;
        for word in record.iter().chain(stack) {
            // SAFETY: the word is not between tail and head, so it is the producer's.
            unsafe { self.words[at % WORDS].get().write(*word) };
            at = at.wrapping_add(1);
        }
        self.head.store(at, Release); // Release publishes the record.
    }

    /// Where the newest record ends.
    pub(super) fn end(&self) -> usize {
        // Acquire pairs with the release in `push`.
        self.head.load(Acquire)
    }

    /// Takes the oldest record before `end`: thread, weight and depth; stores as many addresses in
    /// `stack`. Only one thread consumes.
    pub(super) fn pop(&self, end: usize, stack: &mut [usize; DEPTH]) -> Option<(u32, u32, usize)> {
        let tail = self.tail.load(Relaxed);
        // Also negative: in a child that the visitor forks, the rings are cleared.
        if end.wrapping_sub(tail) as isize <= 0 {
            return None;
        }
        // SAFETY: the word is between tail and head, so it is the consumer's.
        let word = |offset: usize| unsafe { self.words[tail.wrapping_add(offset) % WORDS].get().read() };
        let depth = word(2).min(DEPTH);
        stack[..depth].iter_mut().enumerate().for_each(|(i, address)| *address = word(HEADER + i));
        let record = (word(0) as u32, word(1) as u32, depth);
        // Release: the record has been read.
        self.tail.store(tail.wrapping_add(HEADER + depth), Release);
        Some(record)
    }

    /// Drops all records. Only one thread consumes.
    pub(super) fn clear(&self) {
        self.tail.store(self.end(), Release);
        self.lost.store(0, Relaxed);
    }

    /// The weight of the records lost since the last call.
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
        ring.head.store(usize::MAX - 100, Relaxed); // The positions wrap soon.
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
