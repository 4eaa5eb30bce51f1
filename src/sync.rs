//! Locks over futex: std's names and shapes, without poisoning (a panic ends the process).
//!
//! | | |
//! |---|---|
//! | [`Mutex`], [`RwLock`] | one at a time; many readers or one writer |
//! | [`Condvar`], [`Parker`] | waiting for a notification of another thread |
//! | [`Once`], [`OnceLock`], [`LazyLock`] | done once; set once; made when first used |
//! | [`Barrier`], [`WaitGroup`] | meeting; waiting for all to be done |
//! | [`Semaphore`], [`Channel`] | counting; passing values |
//!
//! Each can be a `static` and needs no allocation. The forms `*_for` and `*_timeout` wait for a
//! [`Duration`], the forms `*_until` wait until an [`Instant`]. A timeout of zero, or a deadline in
//! the past, tries once. A timeout beyond the clock's end ([`Duration::MAX`]) is no limit. A signal
//! does not end a wait early.
//!
//! A guard stays on the thread that made it, so the thread that locked also unlocks. A thread that
//! locks what it holds already waits forever, as does a [`Once`] or [`LazyLock`] that waits for
//! itself. A panic while a lock is held ends the process with status 101, as any other panic does.
//!
//! # Where they differ from std's
//!
//! There is no poisoning. A function that returns a `LockResult` in std returns the guard or the
//! value here, and the `try_` forms return an [`Option`]. `is_poisoned` and `clear_poison` are
//! missing; [`OnceState`] always says that nothing is poisoned. [`Channel`] is std's `sync_channel`
//! with its capacity, at least one value, in the type. It can have any number of receivers, and it
//! keeps values that no receiver took until it is dropped. The timed forms, [`Semaphore`],
//! [`WaitGroup`] and [`Parker`] are not in std. [`Condvar`] wakes its waiters in order, and never
//! without a cause.
//!
//! # Fairness
//!
//! A thread that finds a [`Mutex`] free acquires it, even while others wait: this makes a busy lock
//! fast. But no waiter starves:
//!
//! 1. Sleeping waiters are woken in the kernel's order: by priority, then first come, first served.
//! 2. While threads wait, newcomers acquire the lock at most [`OVERTAKES`] times in a row. Then a
//!    waiter that is awake or being woken gets it. So a thread with n waiters before it is
//!    overtaken at most (n + 1) × `OVERTAKES` times until it is woken.
//! 3. A waiter that was woken, and finds the lock held each time it looks, closes the lock to
//!    newcomers. The waiters that closed it get it next, in their order.
//!
//! In a [`RwLock`] readers and writers alternate. A waiting reader is admitted when the current
//! writer is done, or after the next writer if the reader came while others were being admitted. A
//! writer waits for the readers that came before it, and for other writers as for a mutex. An
//! upgradable reader waits as a writer, and excludes writers.
//! [`Condvar`] and [`Semaphore`] serve first come, first served, without exception. A [`Channel`]
//! is a mutex and two condition variables.
//!
//! # How they are tested
//!
//! All locks use four operations (`futex::base`), so the same source runs over a fake kernel under
//! loom. `cargo xtask test host::models` (or `RUSTFLAGS="--cfg loom" cargo test -p rt0 --lib
//! --release loom`) explores how threads can interleave, within the bounds that `models` states.
//!
//! [`Duration`]: core::time::Duration
//! [`Duration::MAX`]: core::time::Duration::MAX
//! [`Instant`]: crate::time::Instant
//! [`OVERTAKES`]: Mutex::OVERTAKES

mod barrier;
mod channel;
mod condvar;
mod mapped;
#[cfg(all(loom, test))]
mod models;
mod mutex;
mod once;
mod raw_mutex;
mod raw_rwlock;
#[cfg(not(all(loom, test)))]
mod reentrant;
mod rwlock;
mod semaphore;
#[cfg(all(test, not(loom)))]
mod tests;
mod upgradable;
mod wait_group;
mod wait_list;

#[cfg(any(feature = "critical-section", feature = "lock_api", feature = "lock_api_05"))]
pub(crate) use raw_mutex::RawMutex;
#[cfg(any(feature = "lock_api", feature = "lock_api_05"))]
pub(crate) use raw_rwlock::RawRwLock;

pub use crate::parker::Parker;
pub use barrier::{Barrier, BarrierWaitResult};
pub use channel::{
    Channel, IntoIter, Iter, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryIter,
    TryRecvError, TrySendError, channel,
};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use core::sync::atomic;
pub use mapped::{MappedMutexGuard, MappedRwLockReadGuard, MappedRwLockWriteGuard};
pub use mutex::{Mutex, MutexGuard};
pub use once::{LazyLock, Once, OnceLock, OnceState};
#[cfg(not(all(loom, test)))]
pub use reentrant::{ReentrantLock, ReentrantLockGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Semaphore, SemaphoreGuard};
pub use upgradable::RwLockUpgradableReadGuard;
pub use wait_group::{WaitGroup, WaitGroupGuard};
