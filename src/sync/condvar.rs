//! Waiting, with a mutex given up, until another thread says that what one waits for may have come.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::time::Duration;

use static_assertions::assert_impl_all;

use super::mutex::MutexGuard;
use super::wait_list::{self, ADOPTED, WAITING, WaitList, Waiter};
use crate::futex::base::{self, const_fn};
use crate::time::Instant;

/// A condition variable, as std's; first come, first served, and no wait ends without a cause.
///
/// A notification by a thread that has the mutex wakes nobody: it makes the waiter one of the
/// mutex, whose unlock then wakes it. Without a waiter it is one load.
pub struct Condvar {
    waiters: WaitList,
}

assert_impl_all!(Condvar: Send, Sync, UnwindSafe, RefUnwindSafe);

impl Condvar {
    const_fn! {
        /// A condition variable that nobody waits for.
        ///
        /// In handlers: yes.
        #[must_use]
        pub const fn new() -> Condvar {
            Condvar { waiters: WaitList::new() }
        }
    }

    /// Gives up the mutex, waits for a notification, and takes the mutex again. Giving up and
    /// beginning to wait are one step: a notification by who locks the mutex after that is not
    /// missed.
    ///
    /// Threads that wait at the same time may each come with a mutex of its own.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_with(guard, None).0
    }

    /// [`wait`](Condvar::wait), as long as `condition` says so; it is asked first.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait_while<'a, T: ?Sized, F>(&self, mut guard: MutexGuard<'a, T>, mut condition: F) -> MutexGuard<'a, T>
    where
        F: FnMut(&mut T) -> bool,
    {
        while condition(&mut *guard) {
            guard = self.wait(guard);
        }
        guard
    }

    /// [`wait`](Condvar::wait), for at most `timeout`. Taking the mutex again may take longer.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        self.wait_with(guard, base::deadline_of(timeout))
    }

    /// [`wait`](Condvar::wait), until `deadline` at the latest. Taking the mutex again may take
    /// longer.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait_until<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Instant,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        self.wait_with(guard, Some(deadline))
    }

    /// [`wait_while`](Condvar::wait_while), for at most `timeout`; timed out says that `condition`
    /// still held.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait_timeout_while<'a, T: ?Sized, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: F,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult)
    where
        F: FnMut(&mut T) -> bool,
    {
        let deadline = base::deadline_of(timeout);
        let mut result = WaitTimeoutResult(false);
        while condition(&mut *guard) {
            if result.timed_out() {
                return (guard, result);
            }
            (guard, result) = self.wait_with(guard, deadline);
        }
        (guard, WaitTimeoutResult(false))
    }

    fn wait_with<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        let mutex = guard.raw();
        let waiter = Waiter::new(mutex);
        // SAFETY: 1. It stays until `wait` returned, and `wait` only returns WAITING when it has
        // removed the entry.
        unsafe { self.waiters.lock().push(&waiter) };
        mutex.unlock();
        let state = waiter.wait(deadline, |waiter| self.waiters.lock().leave(waiter));
        if state == ADOPTED {
            // Who notified us may still be busy with our mutex, which we may free later.
            drop(self.waiters.lock());
            mutex.take_turn(false, None);
        } else {
            mutex.lock();
        }
        (guard, WaitTimeoutResult(state == WAITING))
    }

    /// Lets the thread go on that has waited longest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn notify_one(&self) {
        // A waiter that we must see entered the list before it gave up the mutex, which we locked
        // since.
        if !self.waiters.is_empty() {
            self.notify_first();
        }
    }

    /// Lets all threads go on that wait now.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn notify_all(&self) {
        if !self.waiters.is_empty() {
            self.notify_everyone();
        }
    }

    #[inline(never)]
    fn notify_first(&self) {
        let first = self.waiters.lock().notify_first();
        if let Some(word) = first {
            wait_list::wake(word);
        }
    }

    #[cold]
    fn notify_everyone(&self) {
        self.waiters.lock().notify_all();
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

/// Whether a wait ended because its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// True if no notification came in time.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}
