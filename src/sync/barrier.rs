//! A barrier: threads wait until all have arrived.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use static_assertions::assert_impl_all;

use super::mutex::Mutex;
use crate::futex::base::{self, ANY, AtomicU32, const_fn};

/// A reusable barrier, as std's. A barrier of 0 threads is one of 1: no thread waits, and each is a
/// leader.
///
/// ```no_run
/// use rt0::sync::Barrier;
/// use rt0::thread;
///
/// let barrier = Barrier::new(2);
/// thread::scope(|scope| {
///     scope.spawn(|| barrier.wait())?;
///     barrier.wait(); // Both threads are here.
///     Ok::<(), rt0::Errno>(())
/// })?;
/// # Ok::<(), rt0::Errno>(())
/// ```
pub struct Barrier {
    threads: usize,
    /// How many threads of this round have arrived.
    arrived: Mutex<usize>,
    /// The round's number, which waiters sleep on. It wraps after 2^32 rounds; a waiter would have
    /// to miss all of them.
    round: AtomicU32,
}

assert_impl_all!(Barrier: Send, Sync, UnwindSafe, RefUnwindSafe);

impl Barrier {
    const_fn! {
        /// A barrier for rounds of `threads` threads.
        ///
        /// In handlers: yes.
        #[must_use]
        pub const fn new(threads: usize) -> Barrier {
            Barrier { threads, arrived: Mutex::new(0), round: AtomicU32::new(0) }
        }
    }

    /// Waits until the barrier's number of threads have arrived. The last to arrive is the leader.
    /// What each thread did before happens before every return. More threads begin the next round.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait(&self) -> BarrierWaitResult {
        let mut arrived = self.arrived.lock();
        let round = self.round.load(Relaxed); // It changes only under the lock.
        *arrived += 1;
        if *arrived < self.threads {
            drop(arrived);
            self.wait_for_next_round(round);
            return BarrierWaitResult(false);
        }
        *arrived = 0;
        // Release: the lock made visible here what the other threads did; the new round passes it
        // on.
        self.round.fetch_add(1, Release);
        drop(arrived);
        base::wake(&raw const self.round, i32::MAX as u32, ANY);
        BarrierWaitResult(true)
    }

    fn wait_for_next_round(&self, round: u32) {
        // Acquire, here and below, pairs with the leader's release.
        if !base::spin_until(|| self.round.load(Acquire) != round) {
            while self.round.load(Acquire) == round {
                base::wait(&self.round, round, None, ANY);
            }
        }
    }
}

#[cfg(test)]
impl Barrier {
    /// A barrier for two threads, in the given round.
    pub(super) fn in_round(round: u32) -> Barrier {
        Barrier { round: AtomicU32::new(round), ..Barrier::new(2) }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

/// The result of [`Barrier::wait`].
///
/// ```no_run
/// use rt0::sync::{Barrier, BarrierWaitResult};
///
/// static BOTH: Barrier = Barrier::new(2);
///
/// fn phase() {
///     // … the work of one phase …
///     let result: BarrierWaitResult = BOTH.wait();
///     if result.is_leader() {
///         // One thread of the two comes here.
///     }
/// }
/// ```
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// True for one thread of each round, the leader.
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
