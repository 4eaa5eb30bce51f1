//! Where threads wait for each other.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use static_assertions::assert_impl_all;

use super::mutex::Mutex;
use crate::futex::base::{self, ANY, AtomicU32, const_fn};

/// Lets threads meet, again and again, as std's. A barrier of 0 is one of 1: nobody waits, and
/// everybody leads.
pub struct Barrier {
    threads: usize,
    /// How many of this round have come.
    arrived: Mutex<usize>,
    /// The round's number, what those sleep on who wait for the round to be full. It comes round
    /// after 2^32, which would have to pass while a thread looks away.
    round: AtomicU32,
}

assert_impl_all!(Barrier: Send, Sync, UnwindSafe, RefUnwindSafe);

impl Barrier {
    const_fn! {
        /// A barrier for rounds of so many `threads`.
        ///
        /// In handlers: yes.
        #[must_use]
        pub const fn new(threads: usize) -> Barrier {
            Barrier { threads, arrived: Mutex::new(0), round: AtomicU32::new(0) }
        }
    }

    /// Waits until as many threads are here as the barrier is for, one of which, the last to come,
    /// leads. What each did before is seen by all after. Threads beyond that number begin the next
    /// round.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait(&self) -> BarrierWaitResult {
        let mut arrived = self.arrived.lock();
        let round = self.round.load(Relaxed); // It changes under the lock only.
        *arrived += 1;
        if *arrived < self.threads {
            drop(arrived);
            self.wait_for_the_end_of(round);
            return BarrierWaitResult(false);
        }
        *arrived = 0;
        // Release: what all others did was seen under the lock, and is passed on with the new
        // round.
        self.round.fetch_add(1, Release);
        drop(arrived);
        base::wake(&raw const self.round, i32::MAX as u32, ANY);
        BarrierWaitResult(true)
    }

    fn wait_for_the_end_of(&self, round: u32) {
        // Acquire, here and below, pairs with the release of who leads.
        if !base::poll(|| self.round.load(Acquire) != round) {
            while self.round.load(Acquire) == round {
                base::wait(&self.round, round, None, ANY);
            }
        }
    }
}

#[cfg(test)]
impl Barrier {
    /// For two threads, in the round of this number.
    pub(super) fn in_round(round: u32) -> Barrier {
        Barrier { round: AtomicU32::new(round), ..Barrier::new(2) }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

/// What a thread is told that has passed a [`Barrier`].
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// True for one thread of each round.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult").field("is_leader", &self.0).finish()
    }
}
