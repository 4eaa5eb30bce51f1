//! A value that many threads may read, or one may change, at a time.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::NonNull;
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::raw_rwlock::{self, RawRwLock};
use crate::futex::base::{self, const_fn};
use crate::time::Instant;

/// Many readers or one writer, as std's, without poisoning. Waiting readers and writers alternate,
/// as [`crate::sync`] says: neither starves the other.
///
/// A thread that locks again what it holds waits forever. Reading twice does so if a writer waits
/// in between, unless by [`read_recursive`](RwLock::read_recursive). More than [`RwLock::READERS`]
/// readers wait until one of them leaves.
///
/// ```
/// use rt0::sync::RwLock;
///
/// let lock = RwLock::new([1, 2]);
/// {
///     let (first, second) = (lock.read(), lock.read()); // Several readers,
///     assert_eq!(first[0] + second[1], 3);
/// }
/// lock.write()[0] = 5; // or one writer.
/// assert_eq!(lock.into_inner(), [5, 2]);
/// ```
pub struct RwLock<T: ?Sized> {
    pub(super) raw: RawRwLock,
    pub(super) value: UnsafeCell<T>,
}

// SAFETY: the lock moves the value between threads.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: writers move the value, and readers share it.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

// A panic ends the process, so no thread sees a half-done change.
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

assert_impl_all!(RwLock<u8>: Send, Sync);
assert_not_impl_any!(RwLock<core::cell::Cell<u8>>: Sync);

impl RwLock<()> {
    /// How many threads can hold a lock for reading at the same time.
    pub const READERS: u32 = raw_rwlock::MAX_READERS;
}

impl<T> RwLock<T> {
    const_fn! {
        /// An unlocked lock.
        ///
        /// In handlers: yes.
        pub const fn new(value: T) -> RwLock<T> {
            RwLock { raw: RawRwLock::new(), value: UnsafeCell::new(value) }
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
        self.read().clone()
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
        core::mem::replace(&mut *self.write(), value)
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Calls `f` with the value, locked for reading, and returns its result.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn with<F: FnOnce(&T) -> R, R>(&self, f: F) -> R {
        f(&self.read())
    }

    /// Calls `f` with the value, locked for writing, and returns its result.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn with_mut<F: FnOnce(&mut T) -> R, R>(&self, f: F) -> R {
        f(&mut self.write())
    }

    /// Acquires the lock for reading; waits while a writer holds it or waits for readers to leave.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.raw.read(|| None);
        self.reader()
    }

    /// Acquires the lock for reading, if no writer holds it or waits for readers to leave.
    ///
    /// In handlers: yes.
    #[must_use]
    #[inline]
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.try_read().then(|| self.reader())
    }

    /// [`read`](RwLock::read) for at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_read_for(&self, timeout: Duration) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.read(|| base::deadline_of(timeout)).then(|| self.reader())
    }

    /// [`read`](RwLock::read) until `deadline` at the latest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_read_until(&self, deadline: Instant) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.read(|| Some(deadline)).then(|| self.reader())
    }

    /// Acquires the lock for writing; waits while another thread holds it.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.raw.write(|| None);
        self.writer()
    }

    /// Acquires the lock for writing, if no thread holds it or waits for it.
    ///
    /// In handlers: yes.
    #[must_use]
    #[inline]
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.try_write().then(|| self.writer())
    }

    /// [`write`](RwLock::write) for at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_write_for(&self, timeout: Duration) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.write(|| base::deadline_of(timeout)).then(|| self.writer())
    }

    /// [`write`](RwLock::write) until `deadline` at the latest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_write_until(&self, deadline: Instant) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.write(|| Some(deadline)).then(|| self.writer())
    }

    /// [`read`](RwLock::read) for a thread that may hold the lock for reading already: it does not
    /// wait for a writer that waits for readers to leave, which would be a deadlock. Threads that
    /// always read in this way can starve writers.
    ///
    /// As [`read`](RwLock::read), it waits while [`RwLock::READERS`] readers hold the lock.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn read_recursive(&self) -> RwLockReadGuard<'_, T> {
        self.raw.read_recursive(|| None);
        self.reader()
    }

    /// [`read_recursive`](RwLock::read_recursive), if that needs no wait.
    ///
    /// In handlers: yes.
    #[must_use]
    #[inline]
    pub fn try_read_recursive(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.try_read_recursive().then(|| self.reader())
    }

    /// Whether a reader or a writer holds the lock now, or waits for it. The answer may be outdated
    /// when this returns, so use it only for messages and assertions.
    ///
    /// In handlers: yes.
    pub fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }

    /// Whether a writer holds the lock now; see [`is_locked`](RwLock::is_locked).
    ///
    /// In handlers: yes.
    pub fn is_locked_exclusive(&self) -> bool {
        self.raw.is_locked_exclusive()
    }

    /// The value, without locking: the borrow excludes all other users.
    ///
    /// In handlers: yes.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The guard of a lock that the caller has just acquired for reading.
    #[inline]
    pub(super) fn reader(&self) -> RwLockReadGuard<'_, T> {
        // SAFETY: the address of a field is not null.
        let value = unsafe { NonNull::new_unchecked(self.value.get()) };
        RwLockReadGuard { raw: &self.raw, value }
    }

    /// The guard of a lock that the caller has just acquired for writing.
    #[inline]
    pub(super) fn writer(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard { lock: self, not_send: PhantomData }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(guard) => f.debug_struct("RwLock").field("data", &&*guard).finish_non_exhaustive(),
            None => f.debug_struct("RwLock").field("data", &format_args!("<locked>")).finish_non_exhaustive(),
        }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> RwLock<T> {
        RwLock::new(value)
    }
}

/// A [`RwLock`] locked for reading; unlocks when dropped.
///
/// ```
/// use core::time::Duration;
/// use rt0::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
/// use rt0::time::Instant;
///
/// let shared = RwLock::new(1);
/// shared.with_mut(|value| *value += 1);
/// assert_eq!(shared.with(|value| *value), 2);
/// let writer: RwLockWriteGuard<'_, u32> = shared.write();
/// assert!(shared.is_locked_exclusive() && shared.try_read().is_none());
/// // No other writer comes between.
/// let reader: RwLockReadGuard<'_, u32> = RwLockWriteGuard::downgrade(writer);
/// assert!(shared.is_locked() && shared.try_write().is_none());
/// assert_eq!(*shared.read_recursive(), 2); // Passes writers that wait.
/// assert!(shared.try_read_recursive().is_some());
///
/// let (short, soon) = (Duration::from_millis(1), Instant::now() + Duration::from_millis(1));
/// assert!(shared.try_read_for(short).is_some() && shared.try_read_until(soon).is_some());
/// assert!(shared.try_write_for(short).is_none() && shared.try_write_until(soon).is_none());
/// drop(reader);
/// ```
#[must_use = "if unused, the lock is unlocked at once"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    raw: &'a RawRwLock,
    /// Instead of a reference to the lock, in whose type `T` is invariant: so a guard of `&'static
    /// T` is also a guard of `&T`, as in std. A raw pointer also keeps the guard on its thread
    /// (`!Send`).
    value: NonNull<T>,
}

/// A [`RwLock`] locked for writing; unlocks when dropped.
#[must_use = "if unused, the lock is unlocked at once"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    not_send: PhantomData<*const ()>,
}

// SAFETY: through a shared reference the guards give out only `&T`.
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}
// SAFETY: through a shared reference the guards give out only `&T`.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

assert_not_impl_any!(RwLockReadGuard<'static, u8>: Send, Clone);
assert_not_impl_any!(RwLockWriteGuard<'static, u8>: Send, Clone);
assert_impl_all!(RwLockReadGuard<'static, u8>: Sync);
assert_impl_all!(RwLockWriteGuard<'static, u8>: Sync);

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    pub(super) fn raw(&self) -> &'a RawRwLock {
        self.raw
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    pub(super) fn raw(&self) -> &'a RawRwLock {
        &self.lock.raw
    }

    /// Turns the guard into one for reading; no other thread writes in between.
    ///
    /// In handlers: yes.
    pub fn downgrade(this: RwLockWriteGuard<'a, T>) -> RwLockReadGuard<'a, T> {
        let lock = ManuallyDrop::new(this).lock;
        lock.raw.downgrade();
        lock.reader()
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, so the value is alive and no thread writes it.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock for writing, so no other thread accesses the value.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.raw.end_read();
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.raw.end_write();
    }
}

macro_rules! formats {
    ($($guard:ident)*) => {$(
        impl<T: ?Sized + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }

        impl<T: ?Sized + fmt::Display> fmt::Display for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&**self, f)
            }
        }
    )*};
}
formats!(RwLockReadGuard RwLockWriteGuard);
