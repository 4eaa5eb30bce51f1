//! Locks over futex: std's names and shapes, without poisoning (a panic ends the process).
//!
//! | | |
//! |---|---|
//! | [`Mutex`], [`RwLock`] | one at a time; many readers or one writer |
//! | [`Condvar`], [`Parker`] | waiting for what another thread says |
//! | [`Once`], [`OnceLock`], [`LazyLock`] | done once; set once; made when first used |
//! | [`Barrier`], [`Semaphore`], [`Channel`] | meeting, counting, handing over |
//!
//! Each can be a `static` and takes no allocation. The forms `*_for` and `*_timeout` wait for a
//! [`Duration`], those named `*_until` to an [`Instant`]: a timeout of zero is a try, a deadline in
//! the past is one of zero, and a timeout beyond the clock's end ([`Duration::MAX`]) is none. No
//! wait ends early because a signal came.
//!
//! Guards stay on the thread that made them, so a lock is unlocked by who locked it. Taking a lock
//! again that the thread has is a deadlock, as is a [`Once`] or [`LazyLock`] that waits for itself.
//! A panic while a lock is held ends the process with status 101, as any other.
//!
//! # Where they differ from std's
//!
//! There is no poisoning: what returns a `LockResult` there returns the guard or the value here,
//! the `try_` forms an [`Option`], and what is about poison is missing (`is_poisoned`,
//! `clear_poison`) or says that there is none ([`OnceState`]). [`Channel`] is std's `sync_channel`
//! with its capacity in the type, room for at least one value, any number of receivers, and the
//! values that nobody received kept until it is dropped. More than std's are the timed forms,
//! [`Semaphore`], [`Parker`] and the order of [`Condvar`]'s waiters, which never wake without a
//! cause.
//!
//! # Fairness
//!
//! A thread that finds a [`Mutex`] free takes it, also when others wait; that is what makes a busy
//! lock fast. But no waiter is starved:
//!
//! 1. Sleeping waiters are woken in the kernel's order: by priority, then first come, first served.
//! 2. While threads wait, newcomers get the lock at most [`OVERTAKES`] times in a row. Then it goes
//!    to a waiter that is awake or being woken. So a thread with n waiters before it is overtaken
//!    at most (n + 1) × `OVERTAKES` times until it is woken.
//! 3. A waiter that was woken and finds the lock taken each time it looks closes it to newcomers.
//!    The next to get it are waiters that closed it, in their order.
//!
//! A [`RwLock`] alternates: a reader that waits gets in after the writer that is there, or after
//! the next if it came while others were being let in; a writer waits for the readers that were
//! there before it, and for writers as for a mutex. [`Condvar`] and [`Semaphore`] serve first come,
//! first served, without exception; a [`Channel`] is a mutex and two condition variables.
//!
//! # How they are tested
//!
//! All stand on four operations (`futex::base`), so that the same source runs over a fake kernel
//! under loom: `cargo xtask test host::models` (or `RUSTFLAGS="--cfg loom" cargo test -p rt0 --lib
//! --release loom`) explores what threads can do to each other, within the bounds that `models`
//! states.
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
mod rwlock;
mod semaphore;
#[cfg(all(test, not(loom)))]
mod tests;
mod wait_list;

pub use crate::parker::Parker;
pub use barrier::{Barrier, BarrierWaitResult};
pub use channel::{
    Channel, IntoIter, Iter, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryIter,
    TryRecvError, TrySendError,
};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use mapped::{MappedMutexGuard, MappedRwLockReadGuard, MappedRwLockWriteGuard};
pub use mutex::{Mutex, MutexGuard};
pub use once::{LazyLock, Once, OnceLock, OnceState};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Semaphore, SemaphoreGuard};
