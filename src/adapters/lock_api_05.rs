//! rt0's locks as the raw locks of lock_api 0.5, and its locks and condition variable over them.
//!
//! The same as [`lock_api`](super::lock_api) for version 0.4, which has no condition variable, but
//! without upgradable and recursive readers. A guard has no state: rt0's locks need none. A guard
//! stays on its thread.

use core::num::NonZeroUsize;
use core::time::Duration;

use ::lock_api_05::{GetThreadId, GuardNoSend, RawCondvarTimed, RawMutexTimed, RawRwLockDowngrade, RawRwLockTimed};

use crate::futex::base::{self, deadline_of};
use crate::sync;
use crate::time::Instant;

/// A mutual exclusion primitive of lock_api.
pub type Mutex<T> = ::lock_api_05::Mutex<RawMutex, T>;
/// The guard of [`Mutex`].
pub type MutexGuard<'a, T> = ::lock_api_05::MutexGuard<'a, RawMutex, T>;
/// The guard of a part of what a [`Mutex`] holds.
pub type MappedMutexGuard<'a, T> = ::lock_api_05::MappedMutexGuard<'a, RawMutex, T>;
/// A condition variable of lock_api.
pub type Condvar = ::lock_api_05::Condvar<RawCondvar>;
/// A mutex that its holder may lock again.
pub type ReentrantMutex<T> = ::lock_api_05::ReentrantMutex<RawMutex, RawThreadId, T>;
/// The guard of [`ReentrantMutex`].
pub type ReentrantMutexGuard<'a, T> = ::lock_api_05::ReentrantMutexGuard<'a, RawMutex, RawThreadId, T>;
/// A reader-writer lock of lock_api.
pub type RwLock<T> = ::lock_api_05::RwLock<RawRwLock, T>;
/// The guard of [`RwLock`] for reading.
pub type RwLockReadGuard<'a, T> = ::lock_api_05::RwLockReadGuard<'a, RawRwLock, T>;
/// The guard of [`RwLock`] for writing.
pub type RwLockWriteGuard<'a, T> = ::lock_api_05::RwLockWriteGuard<'a, RawRwLock, T>;

/// The lock inside [`crate::sync::Mutex`].
pub struct RawMutex(sync::RawMutex);

/// The lock inside [`crate::sync::RwLock`].
pub struct RawRwLock(sync::RawRwLock);

/// [`crate::sync::Condvar`], for [`RawMutex`].
///
/// No wait ends without a notification. The notifications do not count the threads that they
/// notify, so they return `false` and 0, as lock_api requires of those.
///
/// ```
/// use rt0::adapters::lock_api_05::{Mutex, RawCondvar};
///
/// let (ready, changed) = (Mutex::new(true), lock_api_05::Condvar::<RawCondvar>::new());
/// let mut guard = ready.lock();
/// while !*guard {
///     changed.wait(&mut guard); // Until another thread sets it and notifies.
/// }
/// ```
pub struct RawCondvar(sync::Condvar);

/// Identifies threads, for [`ReentrantMutex`].
pub struct RawThreadId;

/// The state of a guard, if the lock was acquired.
#[inline]
fn guard(acquired: bool) -> Option<GuardNoSend> {
    acquired.then(GuardNoSend::new)
}

// SAFETY: the lock excludes other threads, as the models of `crate::sync` show, and locking and
// unlocking are acquire and release.
unsafe impl ::lock_api_05::RawMutex for RawMutex {
    const INIT: RawMutex = RawMutex(sync::RawMutex::new());
    type Guard = GuardNoSend;

    #[inline]
    fn lock(&self) -> GuardNoSend {
        self.0.lock();
        GuardNoSend::new()
    }

    #[inline]
    fn try_lock(&self) -> Option<GuardNoSend> {
        guard(self.0.try_lock())
    }

    #[inline]
    unsafe fn unlock(&self, _: GuardNoSend) {
        self.0.unlock();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

// SAFETY: a state is returned only if the lock was acquired.
unsafe impl RawMutexTimed for RawMutex {
    type Duration = Duration;
    type Instant = Instant;

    #[inline]
    fn try_lock_for(&self, timeout: Duration) -> Option<GuardNoSend> {
        guard(self.0.lock_until(|| deadline_of(timeout)))
    }

    #[inline]
    fn try_lock_until(&self, deadline: Instant) -> Option<GuardNoSend> {
        guard(self.0.lock_until(|| Some(deadline)))
    }
}

// SAFETY: the waiter is in the list before it unlocks the mutex, and a notification takes it from
// there. The mutex is locked again when a wait returns, and no wait panics.
unsafe impl ::lock_api_05::RawCondvar for RawCondvar {
    const INIT: RawCondvar = RawCondvar(sync::Condvar::new());
    type RawMutex = RawMutex;

    #[inline]
    unsafe fn wait(&self, mutex: &RawMutex, _: &mut GuardNoSend) {
        self.0.wait_for_raw(&mutex.0, None);
    }

    #[inline]
    fn notify_one(&self) -> bool {
        self.0.notify_one();
        false
    }

    #[inline]
    fn notify_all(&self) -> usize {
        self.0.notify_all();
        0
    }
}

// SAFETY: as `RawCondvar`.
unsafe impl RawCondvarTimed for RawCondvar {
    #[inline]
    fn checked_duration_to_instant(timeout: &Duration) -> Option<Instant> {
        deadline_of(*timeout)
    }

    #[inline]
    unsafe fn wait_until(&self, mutex: &RawMutex, _: &mut GuardNoSend, deadline: &Instant) -> bool {
        self.0.wait_for_raw(&mutex.0, Some(*deadline)).timed_out()
    }
}

// SAFETY: a writer is alone, as the models of `crate::sync` show.
unsafe impl ::lock_api_05::RawRwLock for RawRwLock {
    const INIT: RawRwLock = RawRwLock(sync::RawRwLock::new());
    type SharedGuard = GuardNoSend;
    type ExclusiveGuard = GuardNoSend;

    #[inline]
    fn lock_shared(&self) -> GuardNoSend {
        self.0.read(|| None);
        GuardNoSend::new()
    }

    #[inline]
    fn try_lock_shared(&self) -> Option<GuardNoSend> {
        guard(self.0.try_read())
    }

    #[inline]
    unsafe fn unlock_shared(&self, _: GuardNoSend) {
        self.0.end_read();
    }

    #[inline]
    fn lock_exclusive(&self) -> GuardNoSend {
        self.0.write(|| None);
        GuardNoSend::new()
    }

    #[inline]
    fn try_lock_exclusive(&self) -> Option<GuardNoSend> {
        guard(self.0.try_write())
    }

    #[inline]
    unsafe fn unlock_exclusive(&self, _: GuardNoSend) {
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
    unsafe fn downgrade(&self, state: GuardNoSend) -> GuardNoSend {
        self.0.downgrade();
        state
    }
}

// SAFETY: a state is returned only if the lock was acquired.
unsafe impl RawRwLockTimed for RawRwLock {
    type Duration = Duration;
    type Instant = Instant;

    #[inline]
    fn try_lock_shared_for(&self, timeout: Duration) -> Option<GuardNoSend> {
        guard(self.0.read(|| deadline_of(timeout)))
    }

    #[inline]
    fn try_lock_shared_until(&self, deadline: Instant) -> Option<GuardNoSend> {
        guard(self.0.read(|| Some(deadline)))
    }

    #[inline]
    fn try_lock_exclusive_for(&self, timeout: Duration) -> Option<GuardNoSend> {
        guard(self.0.write(|| deadline_of(timeout)))
    }

    #[inline]
    fn try_lock_exclusive_until(&self, deadline: Instant) -> Option<GuardNoSend> {
        guard(self.0.write(|| Some(deadline)))
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
