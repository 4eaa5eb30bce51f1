//! Upgradable readers of an RwLock.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::futex::base::deadline_of;
use crate::time::Instant;

impl<T: ?Sized> RwLock<T> {
    /// Acquires the lock for reading, with the right to become the writer with no other writer in
    /// between: [`RwLockUpgradableReadGuard::upgrade`]. Other threads may read meanwhile, but none
    /// writes or has this right too. It waits as a writer does, but not for readers to leave.
    ///
    /// ```
    /// use rt0::sync::{RwLock, RwLockUpgradableReadGuard};
    ///
    /// let lock = RwLock::new([0; 4]);
    /// let guard = lock.upgradable_read();
    /// if guard.contains(&7) {
    ///     return;
    /// }
    /// RwLockUpgradableReadGuard::upgrade(guard)[0] = 7; // It still contains no 7.
    /// assert_eq!(*lock.read(), [7, 0, 0, 0]);
    /// ```
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn upgradable_read(&self) -> RwLockUpgradableReadGuard<'_, T> {
        self.raw.upgradable(|| None);
        self.upgradable()
    }

    /// [`upgradable_read`](RwLock::upgradable_read), if that needs no wait.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn try_upgradable_read(&self) -> Option<RwLockUpgradableReadGuard<'_, T>> {
        self.raw.try_upgradable().then(|| self.upgradable())
    }

    /// [`upgradable_read`](RwLock::upgradable_read) for at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_upgradable_read_for(&self, timeout: Duration) -> Option<RwLockUpgradableReadGuard<'_, T>> {
        self.raw.upgradable(|| deadline_of(timeout)).then(|| self.upgradable())
    }

    /// [`upgradable_read`](RwLock::upgradable_read) until `deadline` at the latest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[must_use]
    pub fn try_upgradable_read_until(&self, deadline: Instant) -> Option<RwLockUpgradableReadGuard<'_, T>> {
        self.raw.upgradable(|| Some(deadline)).then(|| self.upgradable())
    }

    /// The guard of a lock that the caller has just acquired for upgradable reading.
    fn upgradable(&self) -> RwLockUpgradableReadGuard<'_, T> {
        RwLockUpgradableReadGuard { lock: self, not_send: PhantomData }
    }
}

/// A [`RwLock`] locked for reading, with the right to become the writer; unlocks when dropped.
///
/// ```
/// use core::time::Duration;
/// use rt0::sync::{RwLock, RwLockUpgradableReadGuard};
/// use rt0::time::Instant;
///
/// let lock = RwLock::new(1);
/// let (short, soon) = (Duration::from_millis(1), Instant::now() + Duration::from_millis(1));
/// let guard = lock.try_upgradable_read().unwrap();
/// assert!(lock.try_upgradable_read_for(short).is_none()); // One thread has the right.
/// assert!(lock.try_upgradable_read_until(soon).is_none());
///
/// let reader = lock.read();
/// let guard = RwLockUpgradableReadGuard::try_upgrade(guard).unwrap_err(); // There is a reader.
/// let guard = RwLockUpgradableReadGuard::try_upgrade_for(guard, short).unwrap_err();
/// drop(reader);
/// let deadline = Instant::now() + Duration::from_secs(1);
/// *RwLockUpgradableReadGuard::try_upgrade_until(guard, deadline).unwrap() += 1;
/// assert_eq!(lock.into_inner(), 2);
/// ```
#[must_use = "if unused, the lock is unlocked at once"]
pub struct RwLockUpgradableReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    not_send: PhantomData<*const ()>,
}

// SAFETY: through a shared reference the guard gives out only `&T`.
unsafe impl<T: ?Sized + Sync> Sync for RwLockUpgradableReadGuard<'_, T> {}

assert_not_impl_any!(RwLockUpgradableReadGuard<'static, u8>: Send, Clone);
assert_impl_all!(RwLockUpgradableReadGuard<'static, u8>: Sync);

impl<'a, T: ?Sized> RwLockUpgradableReadGuard<'a, T> {
    /// Turns the guard into one for writing, once the other readers have left; no other thread
    /// writes in between. New readers wait meanwhile.
    ///
    /// In handlers: no, it waits.
    pub fn upgrade(this: Self) -> RwLockWriteGuard<'a, T> {
        match Self::upgraded(this, |lock| lock.raw.upgrade(|| None)) {
            Ok(guard) => guard,
            Err(_) => unreachable!("it waits without a deadline"),
        }
    }

    /// [`upgrade`](Self::upgrade), if there are no other readers; otherwise returns the guard.
    ///
    /// In handlers: yes.
    pub fn try_upgrade(this: Self) -> Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgraded(this, |lock| lock.raw.try_upgrade())
    }

    /// [`upgrade`](Self::upgrade) for at most `timeout`; then it returns the guard, and readers
    /// that waited continue.
    ///
    /// In handlers: no, it waits.
    pub fn try_upgrade_for(this: Self, timeout: Duration) -> Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgraded(this, |lock| lock.raw.upgrade(|| deadline_of(timeout)))
    }

    /// [`try_upgrade_for`](Self::try_upgrade_for), until `deadline` at the latest.
    ///
    /// In handlers: no, it waits.
    pub fn try_upgrade_until(this: Self, deadline: Instant) -> Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgraded(this, |lock| lock.raw.upgrade(|| Some(deadline)))
    }

    /// Turns the guard into one for reading: another thread may have the right now.
    ///
    /// In handlers: yes.
    pub fn downgrade(this: Self) -> RwLockReadGuard<'a, T> {
        let lock = ManuallyDrop::new(this).lock;
        lock.raw.end_right();
        lock.reader()
    }

    fn upgraded(this: Self, upgrade: impl FnOnce(&RwLock<T>) -> bool) -> Result<RwLockWriteGuard<'a, T>, Self> {
        if upgrade(this.lock) { Ok(ManuallyDrop::new(this).lock.writer()) } else { Err(this) }
    }
}

impl<T: ?Sized> Deref for RwLockUpgradableReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, so no thread writes the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwLockUpgradableReadGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.raw.end_upgradable();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockUpgradableReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockUpgradableReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}
