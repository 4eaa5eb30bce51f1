//! Counting what there is.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::assert_impl_all;

use super::wait_list::{self, WAITING, WaitList, Waiter};
use crate::errno::{Errno, Result};
use crate::futex::base::{self, AtomicU32, const_fn};
use crate::time::Instant;

/// A number of permits: [`acquire`](Semaphore::acquire) takes one and waits while there is none,
/// [`release`](Semaphore::release) puts some back, also such as nobody took. First come, first served: a permit goes to
/// who has waited longest.
pub struct Semaphore {
    /// ```text
    /// │ permits … 31 bits │ QUEUE │
    /// ```
    /// QUEUE says that threads may wait in the list: then there are no permits, for each that comes goes to one of
    /// them, and this is changed by who has the list's lock only.
    state: AtomicU32,
    waiters: WaitList,
}

const QUEUE: u32 = 1;
const PERMIT: u32 = 2;

assert_impl_all!(Semaphore: Send, Sync, UnwindSafe, RefUnwindSafe);

impl Semaphore {
    /// The most permits there can be: 2^31 - 1.
    pub const MAX: u32 = u32::MAX / PERMIT;

    const_fn! {
        /// A semaphore with so many `permits`.
        ///
        /// # Panics
        ///
        /// If that is more than [`Semaphore::MAX`].
        pub const fn new(permits: u32) -> Semaphore {
            assert!(permits <= Semaphore::MAX, "a semaphore of more than 2^31 - 1 permits");
            Semaphore { state: AtomicU32::new(permits * PERMIT), waiters: WaitList::new() }
        }
    }

    /// Takes a permit; waits while there is none.
    #[inline]
    pub fn acquire(&self) {
        if !self.try_acquire() {
            self.wait(None);
        }
    }

    /// Takes a permit if there is one and nobody waits for it; whether there was.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        // Acquire pairs with the release in `release`.
        self.state.fetch_update(Acquire, Relaxed, |state| state.checked_sub(PERMIT)).is_ok()
    }

    /// Takes a permit; waits for at most `timeout` while there is none. Whether there was.
    pub fn try_acquire_for(&self, timeout: Duration) -> bool {
        self.try_acquire() || self.wait(base::deadline_of(timeout))
    }

    /// Takes a permit; waits until `deadline` at the latest while there is none. Whether there was.
    pub fn try_acquire_until(&self, deadline: Instant) -> bool {
        self.try_acquire() || self.wait(Some(deadline))
    }

    /// [`acquire`](Semaphore::acquire), with a guard that puts the permit back.
    pub fn access(&self) -> SemaphoreGuard<'_> {
        self.acquire();
        SemaphoreGuard { semaphore: self }
    }

    /// Adds so many `permits`. Each goes to a thread that waits, the rest may be taken by any. What the caller did
    /// before is seen by those.
    ///
    /// Errors: `EOVERFLOW` if there would be more than [`Semaphore::MAX`]; then nothing was added.
    pub fn release(&self, permits: u32) -> Result<()> {
        loop {
            // Release pairs with the acquire in `try_acquire`.
            match self.state.fetch_update(Release, Relaxed, |state| add(state, permits).filter(|_| state & QUEUE == 0))
            {
                Ok(_) => return Ok(()),
                Err(_) if permits > Semaphore::MAX => return Err(Errno::EOVERFLOW),
                Err(state) if state & QUEUE == 0 => return Err(Errno::EOVERFLOW),
                Err(_) if self.hand_out(permits) => return Ok(()),
                Err(_) => {} // The last to wait has left.
            }
        }
    }

    /// How many permits there are now.
    pub fn available(&self) -> u32 {
        self.state.load(Relaxed) / PERMIT
    }

    /// Gives permits to those who wait, and adds the rest; false if there is no queue any more.
    #[cold]
    fn hand_out(&self, permits: u32) -> bool {
        let list = self.waiters.lock();
        if self.state.load(Relaxed) & QUEUE == 0 {
            return false;
        }
        let mut left = permits;
        let mut last = None;
        while left > 0 && !list.is_empty() {
            last.into_iter().for_each(wait_list::wake);
            last = list.notify_first();
            left -= 1;
        }
        if list.is_empty() {
            // Nobody else changes the state while there is a queue and we have the list. Release: as in `release`.
            self.state.swap(left * PERMIT, Release);
        }
        drop(list);
        // The last wake, mostly the only one, comes when nobody it wakes finds the list locked.
        last.into_iter().for_each(wait_list::wake);
        true
    }

    #[cold]
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let list = self.waiters.lock();
        loop {
            let state = self.state.load(Relaxed);
            if state >= PERMIT {
                if self.try_acquire() {
                    return true;
                }
            } else if state & QUEUE != 0 || self.state.compare_exchange(state, QUEUE, Relaxed, Relaxed).is_ok() {
                break;
            }
        }
        let waiter = Waiter::without_mutex();
        // SAFETY: 1. It stays until `wait` returned, and `wait` only returns WAITING when it has removed the entry.
        unsafe { list.push(&waiter) };
        drop(list);
        // Who gives up leaves QUEUE to the next who releases.
        waiter.wait(&self.waiters, deadline) != WAITING
    }
}

/// The state with so many `permits` more; none if that is too many.
fn add(state: u32, permits: u32) -> Option<u32> {
    state.checked_add(permits.checked_mul(PERMIT)?)
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("available", &self.available()).finish()
    }
}

/// A permit, put back when dropped, on whatever thread that is.
#[must_use = "if unused, the permit is put back at once"]
#[derive(Debug)]
pub struct SemaphoreGuard<'a> {
    semaphore: &'a Semaphore,
}

impl Drop for SemaphoreGuard<'_> {
    /// # Panics
    ///
    /// If so many were added meanwhile that there would be more than [`Semaphore::MAX`].
    fn drop(&mut self) {
        self.semaphore.release(1).expect("a semaphore of more than 2^31 - 1 permits");
    }
}
