//! A lock that its holder may acquire again.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::raw_mutex::RawMutex;
use crate::futex::base;
use crate::time::Instant;

/// Mutual exclusion between threads, as std's unstable `ReentrantLock`: the holder may lock it
/// again, and its last guard releases the lock. So a guard gives out only `&T`.
///
/// Signal handlers must not use it: the interrupted code may be locking or unlocking it.
///
/// ```no_run
/// use rt0::sync::ReentrantLock;
///
/// let lock = ReentrantLock::new(1);
/// let outer = lock.lock();
/// let inner = lock.lock(); // The same thread again.
/// assert_eq!(*outer + *inner, 2);
/// ```
pub struct ReentrantLock<T: ?Sized> {
    raw: RawMutex,
    /// The holder's [`base::current_thread`], or 0. Relaxed: a thread finds its own number only if
    /// it stored it and holds the lock.
    owner: AtomicUsize,
    /// The number of the holder's guards. Accessed by the holder only.
    guards: Cell<usize>,
    value: T,
}

// SAFETY: the value moves with the lock.
unsafe impl<T: ?Sized + Send> Send for ReentrantLock<T> {}
// SAFETY: the lock gives the value to one thread at a time, and only the holder accesses the cell.
unsafe impl<T: ?Sized + Send> Sync for ReentrantLock<T> {}
impl<T: ?Sized + UnwindSafe> UnwindSafe for ReentrantLock<T> {}
impl<T: ?Sized + RefUnwindSafe> RefUnwindSafe for ReentrantLock<T> {}

assert_impl_all!(ReentrantLock<Cell<u8>>: Send, Sync);
assert_not_impl_any!(ReentrantLock<*const u8>: Send, Sync);

impl<T> ReentrantLock<T> {
    /// An unlocked lock.
    ///
    /// In handlers: yes.
    pub const fn new(value: T) -> ReentrantLock<T> {
        ReentrantLock { raw: RawMutex::new(), owner: AtomicUsize::new(0), guards: Cell::new(0), value }
    }

    /// The value.
    ///
    /// In handlers: yes.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T: ?Sized> ReentrantLock<T> {
    /// Acquires the lock; waits while another thread holds it.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    ///
    /// # Panics
    ///
    /// If the thread has `usize::MAX` guards.
    pub fn lock(&self) -> ReentrantLockGuard<'_, T> {
        self.lock_by(|| {
            self.raw.lock();
            true
        });
        self.guard()
    }

    /// Acquires the lock if no other thread holds it.
    ///
    /// In handlers: no, the interrupted code may be about to lock or unlock it.
    #[must_use]
    pub fn try_lock(&self) -> Option<ReentrantLockGuard<'_, T>> {
        self.lock_by(|| self.raw.try_lock()).then(|| self.guard())
    }

    /// [`lock`](ReentrantLock::lock) for at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_lock_for(&self, timeout: Duration) -> Option<ReentrantLockGuard<'_, T>> {
        self.lock_by(|| self.raw.lock_until(|| base::deadline_of(timeout))).then(|| self.guard())
    }

    /// [`lock`](ReentrantLock::lock) until `deadline` at the latest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_lock_until(&self, deadline: Instant) -> Option<ReentrantLockGuard<'_, T>> {
        self.lock_by(|| self.raw.lock_until(|| Some(deadline))).then(|| self.guard())
    }

    /// Counts one more guard; calls `acquire` if this thread has none. Returns whether this thread
    /// holds the lock.
    fn lock_by(&self, acquire: impl FnOnce() -> bool) -> bool {
        let me = base::current_thread();
        if self.owner.load(Relaxed) == me {
            let more = self.guards.get().checked_add(1);
            self.guards.set(more.expect("lock count overflow in reentrant mutex"));
            return true;
        }
        let acquired = acquire();
        if acquired {
            self.guards.set(1);
            self.owner.store(me, Relaxed);
        }
        acquired
    }

    fn guard(&self) -> ReentrantLockGuard<'_, T> {
        ReentrantLockGuard { lock: self, not_send: PhantomData }
    }

    /// The value, without locking: the borrow excludes all other users.
    ///
    /// In handlers: yes.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(guard) => f.debug_struct("ReentrantLock").field("data", &&*guard).finish_non_exhaustive(),
            None => f.debug_struct("ReentrantLock").field("data", &format_args!("<locked>")).finish_non_exhaustive(),
        }
    }
}

impl<T: Default> Default for ReentrantLock<T> {
    fn default() -> ReentrantLock<T> {
        ReentrantLock::new(T::default())
    }
}

impl<T> From<T> for ReentrantLock<T> {
    fn from(value: T) -> ReentrantLock<T> {
        ReentrantLock::new(value)
    }
}

/// A locked [`ReentrantLock`]; dropping its thread's last guard unlocks it.
///
/// ```
/// use core::time::Duration;
/// use rt0::sync::{ReentrantLock, ReentrantLockGuard};
/// use rt0::time::Instant;
///
/// let shared = ReentrantLock::new(1);
/// let outer: ReentrantLockGuard<'_, u32> = shared.lock();
/// assert_eq!(shared.try_lock().as_deref(), Some(&1)); // The thread holds it already.
/// assert!(shared.try_lock_for(Duration::ZERO).is_some());
/// assert!(shared.try_lock_until(Instant::now()).is_some());
/// drop(outer);
/// ```
#[must_use = "if unused, the lock is unlocked at once"]
pub struct ReentrantLockGuard<'a, T: ?Sized> {
    lock: &'a ReentrantLock<T>,
    not_send: PhantomData<*const ()>,
}

// SAFETY: through a shared reference the guard gives out only `&T`.
unsafe impl<T: ?Sized + Sync> Sync for ReentrantLockGuard<'_, T> {}

assert_not_impl_any!(ReentrantLockGuard<'static, u8>: Send, Clone);

impl<T: ?Sized> Deref for ReentrantLockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.lock.value
    }
}

impl<T: ?Sized> Drop for ReentrantLockGuard<'_, T> {
    fn drop(&mut self) {
        let left = self.lock.guards.get() - 1;
        if left == 0 {
            self.lock.owner.store(0, Relaxed);
            self.lock.guards.set(0);
            self.lock.raw.unlock();
        } else {
            self.lock.guards.set(left);
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for ReentrantLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}
