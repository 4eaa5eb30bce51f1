//! Locks over futex: std's names and shapes, without poisoning (a panic ends the process).

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use static_assertions::{assert_impl_all, assert_not_impl_any};

use crate::futex;

/// Mutual exclusion, as std's without poisoning. Locking it again on the thread that holds it is a deadlock.
pub struct Mutex<T: ?Sized> {
    /// ```text
    /// UNLOCKED ── lock ──▶ LOCKED ── another waits ──▶ CONTENDED
    ///     ▲◀──── unlock ─────┘                             │
    ///     └◀──── unlock: wakes one, who locks as CONTENDED ┘
    /// ```
    state: AtomicU32,
    value: UnsafeCell<T>,
}

const UNLOCKED: u32 = 0;
const LOCKED: u32 = 1;
const CONTENDED: u32 = 2;

// SAFETY: the lock moves the value between threads, one at a time.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { state: AtomicU32::new(UNLOCKED), value: UnsafeCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until the lock is free, and takes it.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // Acquire pairs with the release in the guard's drop.
        if self.state.compare_exchange(UNLOCKED, LOCKED, Acquire, Relaxed).is_err() {
            self.lock_contended();
        }
        MutexGuard { mutex: self, not_send: PhantomData }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let taken = self.state.compare_exchange(UNLOCKED, LOCKED, Acquire, Relaxed).is_ok();
        taken.then_some(MutexGuard { mutex: self, not_send: PhantomData })
    }

    #[cold]
    fn lock_contended(&self) {
        // Who has waited cannot know whether others still do, so it locks as CONTENDED; at worst that is one wake too
        // many.
        while self.state.swap(CONTENDED, Acquire) != UNLOCKED {
            // EAGAIN, EINTR and a spurious Ok all mean: look again.
            let _ = futex::wait(&self.state, CONTENDED);
        }
    }

    /// The value, without locking: nobody else has the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(guard) => f.debug_struct("Mutex").field("data", &&*guard).finish(),
            None => f.debug_struct("Mutex").field("data", &format_args!("<locked>")).finish(),
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
#[must_use = "if unused, the mutex is unlocked at once"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    not_send: PhantomData<*const ()>,
}

// SAFETY: by reference the guard gives out what `&T` does.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

assert_not_impl_any!(MutexGuard<'static, u8>: Send);
assert_impl_all!(MutexGuard<'static, u8>: Sync);

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // A pointer, for the next to lock may free the mutex before the wake.
        let state = &raw const self.mutex.state;
        // Release: what was done under the lock is seen by the next to take it.
        if self.mutex.state.swap(UNLOCKED, Release) == CONTENDED {
            futex::wake_at(state, false, 1);
        }
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
