//! The lock under which a thread inside the gate changes the list, for a few instructions.
//!
//! Property, and how it is achieved:
//!
//! 1. *The latch of a killed holder goes to a waiter:* the latch names its holder. A waiter that
//!    saw no change for a step asks the kernel whether the holder's tid word is clear. It does not
//!    load the word itself, because the memory may be unmapped. If the latch is still held by the
//!    same acquisition after that, the holder was in the list all the time; so the word was mapped,
//!    and the answer is about the holder. The list is consistent whenever a thread that holds the
//!    latch makes a system call.
//!
//! It uses atomics and the futex only, so that `models` runs this code as it is.

use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::futex::base::{self, ANY, AtomicPtr, AtomicU32, const_fn};

/// A lock that is held for a few instructions, with all signals blocked. So a waiter waits at most
/// until the holder gets a processor. It is not fair: a queue would stall whenever its first waiter
/// has no processor.
pub(super) struct Latch {
    /// ```text
    /// │ number of acquisitions … 30 bits │ HAS_WAITERS │ LOCKED │
    /// ```
    state: AtomicU32,
    /// The tid word of the thread that holds it.
    holder: AtomicPtr<u32>,
}

const LOCKED: u32 = 1;
/// A thread may be asleep.
const HAS_WAITERS: u32 = 2;
/// One acquisition more.
const ACQUISITION: u32 = 4;

impl Latch {
    const_fn! {
        pub(super) const fn new() -> Latch {
            Latch { state: AtomicU32::new(0), holder: AtomicPtr::new(null_mut()) }
        }
    }

    /// Acquires it, for the thread whose tid word is at `holder`. All signals are blocked. After a
    /// step without change `is_gone` says whether the present holder's tid word is clear (1).
    pub(super) fn lock(&self, holder: *mut u32, is_gone: impl Fn(*mut u32) -> bool) {
        let mut waited = 0;
        loop {
            // Acquire pairs with the release in `unlock`: a `holder` that is read after this is not
            // one from before that unlock.
            let seen = self.state.load(Acquire);
            if seen & LOCKED == 0 {
                if self.replace(seen, seen.wrapping_add(ACQUISITION) | LOCKED | waited) {
                    break;
                }
                continue;
            }
            if seen & HAS_WAITERS == 0 && !self.replace(seen, seen | HAS_WAITERS) {
                continue;
            }
            let seen = seen | HAS_WAITERS;
            waited = HAS_WAITERS;
            if base::wait_a_while(&self.state, seen, ANY) && self.take_over(seen, &is_gone) {
                break;
            }
        }
        self.holder.store(holder, Relaxed);
    }

    /// Takes the latch over from a holder that ended; returns whether it did.
    #[cold]
    fn take_over(&self, seen: u32, is_gone: impl Fn(*mut u32) -> bool) -> bool {
        let holder = self.holder.load(Relaxed);
        // The order matters: the latch must be unchanged after the tid word was found clear (1).
        // Of several waiters, the one whose exchange clears `holder` gets the latch.
        let is_mine = !holder.is_null()
            && is_gone(holder)
            && self.state.load(Acquire) == seen
            && self.holder.compare_exchange(holder, null_mut(), Relaxed, Relaxed).is_ok();
        if is_mine {
            self.state.fetch_add(ACQUISITION, Acquire);
        }
        is_mine
    }

    fn replace(&self, seen: u32, new: u32) -> bool {
        // Acquire pairs with the release in `unlock`.
        self.state.compare_exchange(seen, new, Acquire, Relaxed).is_ok()
    }

    /// Releases it. The caller passes the result to [`wake`](Latch::wake).
    #[must_use]
    pub(super) fn unlock(&self) -> bool {
        self.holder.store(null_mut(), Relaxed);
        self.state.fetch_and(!(LOCKED | HAS_WAITERS), Release) & HAS_WAITERS != 0
    }

    /// Wakes a waiter, if there are any.
    pub(super) fn wake(&self, has_waiters: bool) {
        if has_waiters {
            base::wake(&self.state, 1, ANY);
        }
    }

    /// Resets it, in a forked child.
    pub(super) fn renew(&self) {
        self.holder.store(null_mut(), Relaxed);
        self.state.store(0, Relaxed);
    }
}
