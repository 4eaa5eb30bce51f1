//! Condition variables.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::time::Duration;

use static_assertions::assert_impl_all;

use super::mutex::MutexGuard;
use super::raw_mutex::RawMutex;
use super::wait_list::{self, REQUEUED, WAITING, WaitList, Waiter};
use crate::futex::base::{self, const_fn};
use crate::time::Instant;

/// A condition variable, as std's. It wakes in the order of the waits, and no wait ends without a
/// cause.
///
/// A notification while the notifier holds the mutex wakes no thread: it requeues the waiter to the
/// mutex, whose unlock then wakes it. Without a waiter, a notification is one load.
///
/// ```no_run
/// use rt0::sync::{Condvar, Mutex};
/// use rt0::thread;
///
/// static READY: Mutex<bool> = Mutex::new(false);
/// static CHANGED: Condvar = Condvar::new();
///
/// let child = thread::spawn(|| {
///     *READY.lock() = true;
///     CHANGED.notify_one();
/// })?;
/// drop(CHANGED.wait_while(READY.lock(), |ready| !*ready));
/// child.join();
/// # Ok::<(), rt0::Errno>(())
/// ```
pub struct Condvar {
    waiters: WaitList,
}

assert_impl_all!(Condvar: Send, Sync, UnwindSafe, RefUnwindSafe);

impl Condvar {
    const_fn! {
        /// A condition variable without waiters.
        ///
        /// In handlers: yes.
        #[must_use]
        pub const fn new() -> Condvar {
            Condvar { waiters: WaitList::new() }
        }
    }

    /// Releases the mutex, waits for a notification, and acquires the mutex again. Release and
    /// start of the wait are one step: a notification by a thread that acquires the mutex
    /// afterwards is not missed.
    ///
    /// Threads that wait at the same time may use different mutexes.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_with(guard, None).0
    }

    /// [`wait`](Condvar::wait) while `condition` returns true; it is checked first.
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

    /// [`wait`](Condvar::wait) for at most `timeout`. Acquiring the mutex again may take longer.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        self.wait_with(guard, base::deadline_of(timeout))
    }

    /// [`wait`](Condvar::wait) until `deadline` at the latest. Acquiring the mutex again may take
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

    /// [`wait_while`](Condvar::wait_while) for at most `timeout`; timed out means that `condition`
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
        let result = self.wait_for_raw(guard.raw(), deadline);
        (guard, result)
    }

    /// [`wait`](Condvar::wait) with a mutex that this thread holds, also when it returns.
    pub(crate) fn wait_for_raw(&self, mutex: &RawMutex, deadline: Option<Instant>) -> WaitTimeoutResult {
        let waiter = Waiter::new(mutex);
        // SAFETY: 1. The entry stays until `wait` returns, and `wait` returns WAITING only after it
        // removed the entry.
        unsafe { self.waiters.lock().push(&waiter) };
        mutex.unlock();
        let state = waiter.wait(deadline, |waiter| self.waiters.lock().leave(waiter));
        if state == REQUEUED {
            // The notifier may still use the mutex, which this thread may free afterwards: it holds
            // the list's lock until it is done.
            drop(self.waiters.lock());
            mutex.acquire_as_waiter(false, None);
        } else {
            mutex.lock();
        }
        WaitTimeoutResult(state == WAITING)
    }

    /// Notifies the thread that has waited longest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn notify_one(&self) {
        // A waiter that must be notified joined the list before it released the mutex, which the
        // caller has acquired since.
        if !self.waiters.is_empty() {
            self.notify_first();
        }
    }

    /// Notifies all threads that wait now.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn notify_all(&self) {
        if !self.waiters.is_empty() {
            self.notify_all_waiters();
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
    fn notify_all_waiters(&self) {
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

/// Whether a wait ended by its timeout.
///
/// ```no_run
/// use core::time::Duration;
/// use rt0::sync::{Condvar, Mutex, WaitTimeoutResult};
///
/// static JOBS: Mutex<u32> = Mutex::new(0);
/// static ADDED: Condvar = Condvar::new();
///
/// fn wait_for_job() -> bool {
///     let second = Duration::from_secs(1);
///     let (mut jobs, result) = ADDED.wait_timeout_while(JOBS.lock(), second, |jobs| *jobs == 0);
///     let result: WaitTimeoutResult = result;
///     if !result.timed_out() {
///         *jobs -= 1;
///     }
///     !result.timed_out()
/// }
///
/// *JOBS.lock() += 2;
/// ADDED.notify_all();
/// ```
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
