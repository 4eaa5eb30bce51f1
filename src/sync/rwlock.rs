//! A value that many threads may read at a time, or one may change.

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

/// Many readers or one writer, as std's without poisoning. Those that wait take turns, as
/// [`crate::sync`] says: neither starves the other.
///
/// Locking it again on a thread that has it is a deadlock; reading again, one if a writer came
/// between. More than [`RwLock::READERS`] at a time wait for one of them to leave.
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    value: UnsafeCell<T>,
}

// SAFETY: the lock moves the value between threads.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: writers move it, and readers share it.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

// A panic ends the process, so nobody sees what it left half done.
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

assert_impl_all!(RwLock<u8>: Send, Sync);
assert_not_impl_any!(RwLock<core::cell::Cell<u8>>: Sync);

impl RwLock<()> {
    /// How many can have a lock for reading at the same time.
    pub const READERS: u32 = raw_rwlock::MOST;
}

impl<T> RwLock<T> {
    const_fn! {
        /// An unlocked one.
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

    /// A copy of the value, under the lock.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn get_cloned(&self) -> T
    where
        T: Clone,
    {
        self.read().clone()
    }

    /// Puts `value` there, under the lock; what was there is dropped after it is unlocked.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn set(&self, value: T) {
        drop(self.replace(value));
    }

    /// Puts `value` there, under the lock, and gives out what was there.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn replace(&self, value: T) -> T {
        core::mem::replace(&mut *self.write(), value)
    }
}

impl<T: ?Sized> RwLock<T> {
    /// What `f` returns, called with the value, locked for reading.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn with<F: FnOnce(&T) -> R, R>(&self, f: F) -> R {
        f(&self.read())
    }

    /// What `f` returns, called with the value, locked for writing.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn with_mut<F: FnOnce(&mut T) -> R, R>(&self, f: F) -> R {
        f(&mut self.write())
    }

    /// Waits until no writer has the lock or waits for readers to leave, and takes it for reading.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.raw.read(|| None);
        self.reader()
    }

    /// Takes the lock for reading, if no writer has it or waits for readers to leave.
    ///
    /// In handlers: yes.
    #[must_use]
    #[inline]
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.try_read().then(|| self.reader())
    }

    /// [`read`](RwLock::read), if that takes at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_read_for(&self, timeout: Duration) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.read(|| base::deadline_of(timeout)).then(|| self.reader())
    }

    /// [`read`](RwLock::read), if that is possible before `deadline`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_read_until(&self, deadline: Instant) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.read(|| Some(deadline)).then(|| self.reader())
    }

    /// Waits until nobody else has the lock, and takes it for writing.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.raw.write(|| None);
        self.writer()
    }

    /// Takes the lock for writing, if nobody has it or waits for it.
    ///
    /// In handlers: yes.
    #[must_use]
    #[inline]
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.try_write().then(|| self.writer())
    }

    /// [`write`](RwLock::write), if that takes at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_write_for(&self, timeout: Duration) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.write(|| base::deadline_of(timeout)).then(|| self.writer())
    }

    /// [`write`](RwLock::write), if that is possible before `deadline`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_write_until(&self, deadline: Instant) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.write(|| Some(deadline)).then(|| self.writer())
    }

    /// The value, without locking: nobody else has the lock.
    ///
    /// In handlers: yes.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// For who has just locked it.
    #[inline]
    fn reader(&self) -> RwLockReadGuard<'_, T> {
        // SAFETY: the value has an address.
        let value = unsafe { NonNull::new_unchecked(self.value.get()) };
        RwLockReadGuard { raw: &self.raw, value }
    }

    /// For who has just locked it.
    #[inline]
    fn writer(&self) -> RwLockWriteGuard<'_, T> {
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
#[must_use = "if unused, the lock is unlocked at once"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    raw: &'a RawRwLock,
    /// And not the lock, in whose type `T` is what it is: a guard for a `&'static T` is one for a
    /// `&T` too, as std's. That it is a pointer keeps the guard on its thread.
    value: NonNull<T>,
}

/// A [`RwLock`] locked for writing; unlocks when dropped.
#[must_use = "if unused, the lock is unlocked at once"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    not_send: PhantomData<*const ()>,
}

// SAFETY: by reference the guards give out what `&T` does.
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}
// SAFETY: as above.
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

    /// From now on for reading only; nobody else writes between.
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
        // SAFETY: the lock is held, so it is there and nobody writes.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, by nobody else.
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
