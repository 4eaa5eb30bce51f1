//! A counting semaphore.
//!
//! ```text
//!     release ── permits += n ── no QUEUE? done : LOCKED already? leave it to the holder, done
//!                                               : lock ── serve ── unlock
//!     acquire ── permit, and no QUEUE? taken : lock ── join the queue ── serve ── unlock ── sleep
//! ```
//!
//! Properties, and how they are achieved:
//!
//! 1. *First come, first served:* while QUEUE is set, a permit goes only to the first thread of the
//!    queue; newcomers take none. Only the holder of the lock changes QUEUE. It sets QUEUE before a
//!    thread joins the queue, and clears it when the queue is empty.
//! 2. *No forgotten permits:* a release that finds QUEUE sets RELEASED in the same atomic step that
//!    sees whether the lock is held. The holder unlocks in the same atomic step that sees RELEASED
//!    clear; otherwise it serves the queue again. So permits that came while threads wait are given
//!    out by the time the lock is free.
//! 3. *A release never waits*, neither for a thread nor for the code it interrupted, so a signal
//!    handler may call it. It acquires the lock only if the lock is free. Each other step is a
//!    single exchange, which fails only if another step succeeded.
//! 4. *No lost wake-ups for the lock:* a thread that sleeps has set SLEEPERS in the same atomic
//!    step that saw the lock held. The unlock clears SLEEPERS and wakes one thread. That thread
//!    sets SLEEPERS again when it acquires the lock, because others may still sleep.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::assert_impl_all;

use super::wait_list::{self, Queue, WAITING, Waiter};
use crate::errno::{Errno, Result};
use crate::futex::base::{self, ANY, AtomicU32, const_fn};
use crate::time::Instant;

/// A number of permits: [`acquire`](Semaphore::acquire) takes one and waits while there is none.
/// [`release`](Semaphore::release) adds permits, which need not have been acquired before. A permit
/// goes to the thread that has waited longest.
///
/// ```
/// use rt0::sync::Semaphore;
///
/// let permits = Semaphore::new(2);
/// let (first, second) = (permits.access(), permits.access());
/// assert!(!permits.try_acquire());
/// drop(first);
/// assert_eq!(permits.available(), 1);
/// ```
pub struct Semaphore {
    /// ```text
    /// │ permits … 31 bits │ QUEUE │
    /// ```
    state: AtomicU32,
    /// The queue's lock: LOCKED, RELEASED, SLEEPERS.
    lock: AtomicU32,
    queue: Queue,
}

/// Threads may wait in the queue: all permits are for them.
const QUEUE: u32 = 1;
const PERMIT: u32 = 2;

const LOCKED: u32 = 1;
/// Permits came while the lock was held.
const RELEASED: u32 = 2;
/// Threads may sleep until the lock is free.
const SLEEPERS: u32 = 4;

// SAFETY: only the thread that set LOCKED accesses the queue.
unsafe impl Sync for Semaphore {}
// A panic ends the process, so no thread sees a half-done change.
impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}

assert_impl_all!(Semaphore: Send, Sync, UnwindSafe, RefUnwindSafe);

impl Semaphore {
    /// The most permits that there can be: 2^31 - 1.
    pub const MAX: u32 = u32::MAX / PERMIT;

    const_fn! {
        /// A semaphore with `permits` permits.
        ///
        /// In handlers: yes.
        ///
        /// # Panics
        ///
        /// If that is more than [`Semaphore::MAX`].
        pub const fn new(permits: u32) -> Semaphore {
            assert!(permits <= Semaphore::MAX, "a semaphore of more than 2^31 - 1 permits");
            Semaphore { state: AtomicU32::new(permits * PERMIT), lock: AtomicU32::new(0), queue: Queue::new() }
        }
    }

    /// Takes a permit; waits while there is none.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn acquire(&self) {
        if !self.try_acquire() {
            self.wait(None);
        }
    }

    /// Takes a permit if there is one and no thread waits for it; returns whether it did.
    ///
    /// In handlers: yes.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        let take = |state| if state & QUEUE == 0 { u32::checked_sub(state, PERMIT) } else { None };
        // Acquire pairs with the release in `release`.
        self.state.fetch_update(Acquire, Relaxed, take).is_ok()
    }

    /// Takes a permit; waits for at most `timeout` while there is none. Returns whether it did.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn try_acquire_for(&self, timeout: Duration) -> bool {
        self.try_acquire() || self.wait(base::deadline_of(timeout))
    }

    /// Takes a permit; waits until `deadline` at the latest while there is none. Returns whether it
    /// did.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn try_acquire_until(&self, deadline: Instant) -> bool {
        self.try_acquire() || self.wait(Some(deadline))
    }

    /// [`acquire`](Semaphore::acquire), with a guard that returns the permit.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn access(&self) -> SemaphoreGuard<'_> {
        self.acquire();
        SemaphoreGuard { semaphore: self }
    }

    /// Adds `permits` permits. Waiting threads get them first. What the caller did before happens
    /// before the acquires that take them.
    ///
    /// Errors: `EOVERFLOW` if there would be more than [`Semaphore::MAX`]; then none is added. (A
    /// permit for a waiting thread counts until that thread has been given it.)
    ///
    /// In handlers: yes. It may interrupt any function of the same semaphore.
    pub fn release(&self, permits: u32) -> Result<()> {
        // Release pairs with the acquires in `try_acquire` and `serve`.
        match self.state.fetch_update(Release, Relaxed, |state| add(state, permits)) {
            Ok(before) if before & QUEUE == 0 => Ok(()),
            Ok(_) => {
                self.serve_or_delegate();
                Ok(())
            }
            Err(_) => Err(Errno::EOVERFLOW),
        }
    }

    /// The number of permits that any thread may take now.
    ///
    /// In handlers: yes.
    pub fn available(&self) -> u32 {
        let state = self.state.load(Relaxed);
        if state & QUEUE == 0 { state / PERMIT } else { 0 }
    }

    /// Gives permits to waiting threads, or leaves that to the holder of the lock (2).
    #[cold]
    fn serve_or_delegate(&self) {
        // Acquire pairs with the release in `unlock`. Release: the permits come before RELEASED.
        if self.lock.fetch_or(LOCKED | RELEASED, AcqRel) & LOCKED == 0 {
            drop(Locked { semaphore: self });
        }
    }

    #[cold]
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let waiter = Waiter::without_mutex();
        let locked = self.lock();
        loop {
            let state = self.state.load(Relaxed);
            if state & QUEUE != 0 {
                break;
            }
            if state >= PERMIT {
                if self.try_acquire() {
                    return true;
                }
            } else if self.state.compare_exchange(state, QUEUE, Relaxed, Relaxed).is_ok() {
                break;
            }
        }
        // SAFETY: 1. The entry stays until `wait` returns, and `wait` returns WAITING only after
        // `leave` removed it.
        unsafe { self.queue.push(&waiter) };
        drop(locked);
        waiter.wait(deadline, |waiter| self.lock().semaphore.queue.leave(waiter)) != WAITING
    }

    /// Acquires the lock; waits while it is held.
    pub(super) fn lock(&self) -> Locked<'_> {
        let mut slept = 0;
        loop {
            let state = self.lock.load(Relaxed);
            if state & LOCKED == 0 {
                // Acquire pairs with the release in `unlock`.
                if self.lock.compare_exchange(state, LOCKED | slept, Acquire, Relaxed).is_ok() {
                    return Locked { semaphore: self };
                }
                continue;
            }
            let marked = state | SLEEPERS;
            if state == marked || self.lock.compare_exchange(state, marked, Relaxed, Relaxed).is_ok() {
                base::wait(&self.lock, marked, None, ANY);
                slept = SLEEPERS; // Others may still sleep (4).
            }
        }
    }

    /// Gives permits to waiting threads and releases the lock, which the caller holds.
    fn unlock(&self) {
        let mut last = None;
        loop {
            self.serve(&mut last);
            let free = |state: u32| (state & RELEASED == 0).then_some(0);
            // Release: the next holder sees the queue.
            match self.lock.fetch_update(Release, Relaxed, free) {
                Ok(before) => {
                    if before & SLEEPERS != 0 {
                        base::wake(&raw const self.lock, 1, ANY);
                    }
                    break;
                }
                // Acquire pairs with the release in `serve_or_delegate`: the permits are seen.
                Err(_) => _ = self.lock.fetch_and(!RELEASED, Acquire),
            }
        }
        // The last wake, mostly the only one, comes after the unlock, so that the woken thread
        // finds the lock free.
        last.into_iter().for_each(wait_list::wake);
    }

    /// Gives permits to the first threads of the queue while there are both; clears QUEUE if the
    /// queue is empty. The caller holds the lock, and wakes `last`, the last thread that got one.
    fn serve(&self, last: &mut Option<*const AtomicU32>) {
        loop {
            let state = self.state.load(Relaxed);
            let is_empty = self.queue.is_empty();
            let served = match (state & QUEUE != 0, is_empty) {
                (true, true) => state - QUEUE,
                (true, false) if state >= PERMIT => state - PERMIT,
                _ => return,
            };
            // Acquire pairs with the release in `release`; `set_state` passes it on to the waiter.
            if self.state.compare_exchange(state, served, Acquire, Relaxed).is_err() {
                continue;
            }
            if is_empty {
                return;
            }
            last.take().into_iter().for_each(wait_list::wake);
            *last = self.queue.notify_first();
        }
    }
}

#[cfg(all(loom, test))]
impl Semaphore {
    /// Whether no thread waits, for models.
    pub(super) fn is_queue_empty(&self) -> bool {
        self.lock().semaphore.queue.is_empty()
    }
}

/// A semaphore whose queue is locked.
pub(super) struct Locked<'a> {
    semaphore: &'a Semaphore,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.semaphore.unlock();
    }
}

/// The state with `permits` permits added; none if that is too many.
fn add(state: u32, permits: u32) -> Option<u32> {
    state.checked_add(permits.checked_mul(PERMIT)?)
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("available", &self.available()).finish()
    }
}

/// A permit that is returned on drop, on any thread.
///
/// ```
/// use core::time::Duration;
/// use rt0::sync::{Semaphore, SemaphoreGuard};
/// use rt0::time::Instant;
///
/// static CONNECTIONS: Semaphore = Semaphore::new(1);
///
/// let permit: SemaphoreGuard<'_> = CONNECTIONS.access();
/// assert!(!CONNECTIONS.try_acquire_for(Duration::from_millis(1)));
/// drop(permit); // Returned.
/// assert!(CONNECTIONS.try_acquire_until(Instant::now() + Duration::from_millis(1)));
/// CONNECTIONS.release(1)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
#[must_use = "if unused, the permit is put back at once"]
#[derive(Debug)]
pub struct SemaphoreGuard<'a> {
    semaphore: &'a Semaphore,
}

impl Drop for SemaphoreGuard<'_> {
    /// # Panics
    ///
    /// If others have added so many that there would be more than [`Semaphore::MAX`].
    fn drop(&mut self) {
        self.semaphore.release(1).expect("a semaphore of more than 2^31 - 1 permits");
    }
}
