//! rt0's locks as the raw locks of lock_api, and lock_api's locks over them.
//!
//! The types are those of the crate parking_lot: code for its `Mutex`, `RwLock` and
//! `ReentrantMutex` works with these. The locks of [`crate::sync`] use the same raw locks.
//!
//! lock_api's other traits are missing because rt0's locks have no such function: unlocking to a
//! certain waiter (`RawMutexFair` and its like; fairness is as [`crate::sync`] says), and turning a
//! writer into an upgradable reader (`RawRwLockUpgradeDowngrade`).

use core::num::NonZeroUsize;
use core::time::Duration;

use ::lock_api::{
    GetThreadId, GuardNoSend, RawMutexTimed, RawRwLockDowngrade, RawRwLockRecursive, RawRwLockRecursiveTimed,
    RawRwLockTimed, RawRwLockUpgrade, RawRwLockUpgradeTimed,
};

use crate::futex::base::{self, deadline_of};
use crate::sync;
use crate::time::Instant;

/// A mutual exclusion primitive of lock_api.
pub type Mutex<T> = ::lock_api::Mutex<RawMutex, T>;
/// The guard of [`Mutex`].
pub type MutexGuard<'a, T> = ::lock_api::MutexGuard<'a, RawMutex, T>;
/// The guard of a part of what a [`Mutex`] holds.
pub type MappedMutexGuard<'a, T> = ::lock_api::MappedMutexGuard<'a, RawMutex, T>;
/// A mutex that its holder may lock again.
///
/// ```
/// use rt0::adapters::lock_api::ReentrantMutex;
///
/// let mutex = ReentrantMutex::new(7);
/// let (first, second) = (mutex.lock(), mutex.lock());
/// let is_free = || mutex.try_lock().is_some();
/// assert!(is_free());
/// assert!(!std::thread::scope(|scope| scope.spawn(is_free).join().unwrap()));
/// # drop((first, second));
/// # assert!(std::thread::scope(|scope| scope.spawn(is_free).join().unwrap()));
/// ```
pub type ReentrantMutex<T> = ::lock_api::ReentrantMutex<RawMutex, RawThreadId, T>;
/// The guard of [`ReentrantMutex`].
pub type ReentrantMutexGuard<'a, T> = ::lock_api::ReentrantMutexGuard<'a, RawMutex, RawThreadId, T>;
/// A reader-writer lock of lock_api.
pub type RwLock<T> = ::lock_api::RwLock<RawRwLock, T>;
/// The guard of [`RwLock`] for reading.
pub type RwLockReadGuard<'a, T> = ::lock_api::RwLockReadGuard<'a, RawRwLock, T>;
/// The guard of [`RwLock`] for reading that can become one for writing.
pub type RwLockUpgradableReadGuard<'a, T> = ::lock_api::RwLockUpgradableReadGuard<'a, RawRwLock, T>;
/// The guard of [`RwLock`] for writing.
pub type RwLockWriteGuard<'a, T> = ::lock_api::RwLockWriteGuard<'a, RawRwLock, T>;
/// The guard of a part of what a [`RwLock`] holds, for reading.
pub type MappedRwLockReadGuard<'a, T> = ::lock_api::MappedRwLockReadGuard<'a, RawRwLock, T>;
/// The guard of a part of what a [`RwLock`] holds, for writing.
pub type MappedRwLockWriteGuard<'a, T> = ::lock_api::MappedRwLockWriteGuard<'a, RawRwLock, T>;

/// The lock inside [`crate::sync::Mutex`].
///
/// ```
/// use rt0::adapters::lock_api::{MappedMutexGuard, Mutex, MutexGuard, RawMutex, RawThreadId};
/// use rt0::adapters::lock_api::{MappedRwLockReadGuard, MappedRwLockWriteGuard, RawRwLock, RwLock};
/// use rt0::adapters::lock_api::{ReentrantMutex, ReentrantMutexGuard};
/// use rt0::adapters::lock_api::{RwLockReadGuard, RwLockWriteGuard};
///
/// let pair = Mutex::new((1, 2));
/// let guard: MutexGuard<'_, _> = pair.lock();
/// let first: MappedMutexGuard<'_, i32> = MutexGuard::map(guard, |pair| &mut pair.0);
/// drop(first);
///
/// let table = RwLock::new([1, 2]);
/// let reader: RwLockReadGuard<'_, _> = table.read();
/// let first: MappedRwLockReadGuard<'_, i32> = RwLockReadGuard::map(reader, |table| &table[0]);
/// drop(first);
/// let writer: RwLockWriteGuard<'_, _> = table.write();
/// let last: MappedRwLockWriteGuard<'_, i32> = RwLockWriteGuard::map(writer, |all| &mut all[1]);
/// drop(last);
///
/// let again = ReentrantMutex::new(());
/// let guard: ReentrantMutexGuard<'_, ()> = again.lock();
/// drop((again.lock(), guard));
///
/// // The raw ones, for types of other crates that are generic over them.
/// type Own<T> = lock_api::ReentrantMutex<RawMutex, RawThreadId, lock_api::RwLock<RawRwLock, T>>;
/// let own = Own::new(lock_api::RwLock::new(1));
/// assert_eq!(*own.lock().read(), 1);
/// ```
pub struct RawMutex(sync::RawMutex);

/// The lock inside [`crate::sync::RwLock`].
pub struct RawRwLock(sync::RawRwLock);

/// Identifies threads, for [`ReentrantMutex`].
pub struct RawThreadId;

impl core::fmt::Debug for RawMutex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RawMutex").field("locked", &self.0.is_locked()).finish()
    }
}

// SAFETY: the lock excludes other threads, as the models of `crate::sync` show.
unsafe impl ::lock_api::RawMutex for RawMutex {
    const INIT: RawMutex = RawMutex(sync::RawMutex::new());
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        self.0.lock();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.0.unlock();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

// SAFETY: true means that the lock was acquired.
unsafe impl RawMutexTimed for RawMutex {
    type Duration = Duration;
    type Instant = Instant;

    #[inline]
    fn try_lock_for(&self, timeout: Duration) -> bool {
        self.0.lock_until(|| deadline_of(timeout))
    }

    #[inline]
    fn try_lock_until(&self, deadline: Instant) -> bool {
        self.0.lock_until(|| Some(deadline))
    }
}

// SAFETY: a writer is alone, as the models of `crate::sync` show.
unsafe impl ::lock_api::RawRwLock for RawRwLock {
    const INIT: RawRwLock = RawRwLock(sync::RawRwLock::new());
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        self.0.read(|| None);
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        self.0.try_read()
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        self.0.end_read();
    }

    #[inline]
    fn lock_exclusive(&self) {
        self.0.write(|| None);
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        self.0.try_write()
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        self.0.end_write();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    #[inline]
    fn is_locked_exclusive(&self) -> bool {
        self.0.is_locked_exclusive()
    }
}

// SAFETY: no writer comes between the writer and the reader that it becomes.
unsafe impl RawRwLockDowngrade for RawRwLock {
    #[inline]
    unsafe fn downgrade(&self) {
        self.0.downgrade();
    }
}

// SAFETY: true means that the lock was acquired.
unsafe impl RawRwLockTimed for RawRwLock {
    type Duration = Duration;
    type Instant = Instant;

    #[inline]
    fn try_lock_shared_for(&self, timeout: Duration) -> bool {
        self.0.read(|| deadline_of(timeout))
    }

    #[inline]
    fn try_lock_shared_until(&self, deadline: Instant) -> bool {
        self.0.read(|| Some(deadline))
    }

    #[inline]
    fn try_lock_exclusive_for(&self, timeout: Duration) -> bool {
        self.0.write(|| deadline_of(timeout))
    }

    #[inline]
    fn try_lock_exclusive_until(&self, deadline: Instant) -> bool {
        self.0.write(|| Some(deadline))
    }
}

// SAFETY: no writer comes between the upgradable reader and the writer that it becomes, as the
// models of `crate::sync` show.
unsafe impl RawRwLockUpgrade for RawRwLock {
    #[inline]
    fn lock_upgradable(&self) {
        self.0.upgradable(|| None);
    }

    #[inline]
    fn try_lock_upgradable(&self) -> bool {
        self.0.try_upgradable()
    }

    #[inline]
    unsafe fn unlock_upgradable(&self) {
        self.0.end_upgradable();
    }

    #[inline]
    unsafe fn upgrade(&self) {
        self.0.upgrade(|| None);
    }

    #[inline]
    unsafe fn try_upgrade(&self) -> bool {
        self.0.try_upgrade()
    }
}

// SAFETY: true means that the lock was acquired or upgraded.
unsafe impl RawRwLockUpgradeTimed for RawRwLock {
    #[inline]
    fn try_lock_upgradable_for(&self, timeout: Duration) -> bool {
        self.0.upgradable(|| deadline_of(timeout))
    }

    #[inline]
    fn try_lock_upgradable_until(&self, deadline: Instant) -> bool {
        self.0.upgradable(|| Some(deadline))
    }

    #[inline]
    unsafe fn try_upgrade_for(&self, timeout: Duration) -> bool {
        self.0.upgrade(|| deadline_of(timeout))
    }

    #[inline]
    unsafe fn try_upgrade_until(&self, deadline: Instant) -> bool {
        self.0.upgrade(|| Some(deadline))
    }
}

// SAFETY: an active reader does not wait for a writer that waits for it.
unsafe impl RawRwLockRecursive for RawRwLock {
    #[inline]
    fn lock_shared_recursive(&self) {
        self.0.read_recursive(|| None);
    }

    #[inline]
    fn try_lock_shared_recursive(&self) -> bool {
        self.0.try_read_recursive()
    }
}

// SAFETY: true means that the lock was acquired.
unsafe impl RawRwLockRecursiveTimed for RawRwLock {
    #[inline]
    fn try_lock_shared_recursive_for(&self, timeout: Duration) -> bool {
        self.0.read_recursive(|| deadline_of(timeout))
    }

    #[inline]
    fn try_lock_shared_recursive_until(&self, deadline: Instant) -> bool {
        self.0.read_recursive(|| Some(deadline))
    }
}

// SAFETY: no two running threads have the same thread pointer.
unsafe impl GetThreadId for RawThreadId {
    const INIT: RawThreadId = RawThreadId;

    #[inline]
    fn nonzero_thread_id(&self) -> NonZeroUsize {
        // `ThreadId` numbers rt0's own threads only; a crate's tests run on the host's.
        NonZeroUsize::new(base::current_thread()).expect("a thread pointer is not 0")
    }
}
