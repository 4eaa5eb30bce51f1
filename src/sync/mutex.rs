//! A value that one thread at a time may access.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::raw_mutex::{self, RawMutex};
use crate::futex::base::{self, const_fn};
use crate::time::Instant;

/// Mutual exclusion, as std's, without poisoning. A thread that locks a mutex it holds waits
/// forever.
///
/// ```
/// use rt0::sync::Mutex;
///
/// static COUNT: Mutex<u32> = Mutex::new(0);
///
/// *COUNT.lock() += 1;
/// assert_eq!(COUNT.get_cloned(), 1);
/// ```
pub struct Mutex<T: ?Sized> {
    raw: RawMutex,
    value: UnsafeCell<T>,
}

// SAFETY: the lock moves the value between threads, one at a time.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: the lock moves the value between threads, one at a time.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

// A panic ends the process, so no thread sees a half-done change.
impl<T: ?Sized> UnwindSafe for Mutex<T> {}
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}

assert_impl_all!(Mutex<core::cell::Cell<u8>>: Send, Sync);
assert_not_impl_any!(Mutex<*const u8>: Send, Sync);

impl Mutex<()> {
    /// How many times in a row newcomers may acquire a mutex before a thread that waits; see
    /// [`crate::sync`].
    pub const OVERTAKES: u32 = raw_mutex::OVERTAKES as u32;
}

impl<T> Mutex<T> {
    const_fn! {
        /// An unlocked mutex.
        ///
        /// In handlers: yes.
        pub const fn new(value: T) -> Mutex<T> {
            Mutex { raw: RawMutex::new(), value: UnsafeCell::new(value) }
        }
    }

    /// The value.
    ///
    /// In handlers: yes.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Clones the value, under the lock.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn get_cloned(&self) -> T
    where
        T: Clone,
    {
        self.lock().clone()
    }

    /// Stores `value`, under the lock. The old value is dropped after the unlock.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn set(&self, value: T) {
        drop(self.replace(value));
    }

    /// Stores `value`, under the lock, and returns the old value.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn replace(&self, value: T) -> T {
        core::mem::replace(&mut *self.lock(), value)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Calls `f` with the value, under the lock, and returns its result.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn with_mut<F: FnOnce(&mut T) -> R, R>(&self, f: F) -> R {
        f(&mut self.lock())
    }

    /// Acquires the lock; waits while another thread holds it.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.raw.lock();
        self.guard()
    }

    /// Acquires the lock if it is free and not reserved for waiters.
    ///
    /// In handlers: yes.
    #[must_use]
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.raw.try_lock().then(|| self.guard())
    }

    /// Acquires the lock; waits for at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    #[inline]
    pub fn try_lock_for(&self, timeout: Duration) -> Option<MutexGuard<'_, T>> {
        self.raw.lock_until(|| base::deadline_of(timeout)).then(|| self.guard())
    }

    /// Acquires the lock; waits until `deadline` at the latest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    #[inline]
    pub fn try_lock_until(&self, deadline: Instant) -> Option<MutexGuard<'_, T>> {
        self.raw.lock_until(|| Some(deadline)).then(|| self.guard())
    }

    /// Whether a thread holds the lock now. It may be otherwise when this returns: for messages and
    /// assertions.
    ///
    /// In handlers: yes.
    pub fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }

    /// The value, without locking: the borrow excludes all other users.
    ///
    /// In handlers: yes.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The guard of a lock that the caller has just acquired.
    #[inline]
    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, not_send: PhantomData }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(guard) => f.debug_struct("Mutex").field("data", &&*guard).finish_non_exhaustive(),
            None => f.debug_struct("Mutex").field("data", &format_args!("<locked>")).finish_non_exhaustive(),
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Mutex<T> {
        Mutex::new(value)
    }
}

/// A locked [`Mutex`]; unlocks when dropped.
///
/// ```
/// use core::time::Duration;
/// use rt0::sync::{Mutex, MutexGuard};
/// use rt0::time::Instant;
///
/// let shared = Mutex::new((1, "one"));
/// shared.with_mut(|pair| pair.0 += 1);
/// let guard: MutexGuard<'_, _> = shared.lock();
/// assert!(shared.is_locked() && shared.try_lock().is_none());
/// // Narrowed to a part, if there is one.
/// let number = MutexGuard::try_map_or_err(guard, |pair| match pair {
///     (number @ 2, _) => Ok(number),
///     _ => Err("it is not 2"),
/// });
/// drop(number);
/// assert!(shared.try_lock_for(Duration::from_millis(10)).is_some());
/// assert!(shared.try_lock_until(Instant::now() + Duration::from_millis(10)).is_some());
/// ```
#[must_use = "if unused, the mutex is unlocked at once"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    not_send: PhantomData<*const ()>,
}

// SAFETY: through a shared reference the guard gives out only `&T`.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

assert_not_impl_any!(MutexGuard<'static, u8>: Send, Clone);
assert_impl_all!(MutexGuard<'static, u8>: Sync);

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The lock, for a condition variable, which releases and reacquires it, and for mapped guards.
    pub(super) fn raw(&self) -> &'a RawMutex {
        &self.mutex.raw
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.raw.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}
