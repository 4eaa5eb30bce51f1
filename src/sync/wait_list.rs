//! A queue of waiting threads, first come, first served. Each entry lies on its thread's stack.

use core::cell::Cell;
use core::ops::Deref;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::{null, null_mut};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::raw_mutex::{FRESH, RawMutex};
use crate::futex::base::{self, ANY, AtomicPtr, AtomicU32, const_fn};
use crate::time::Instant;

/// The entries of the waiting threads. Its owner protects it by a lock.
pub(super) struct Queue {
    /// Changed only under the lock, but also read without it.
    first: AtomicPtr<Waiter>,
    last: Cell<*mut Waiter>,
}

/// A queue that a mutex protects.
pub(super) struct WaitList {
    lock: RawMutex,
    queue: Queue,
}

// SAFETY: `last` and the entries' links are accessed only under the owner's lock. An entry does not
// move while it is linked.
unsafe impl Send for Queue {}
// SAFETY: the queue is accessed only under the mutex, except `first`, which is atomic.
unsafe impl Sync for WaitList {}
// A panic ends the process, so no thread sees a half-done change.
impl UnwindSafe for WaitList {}
impl RefUnwindSafe for WaitList {}

/// A waiting thread's entry.
pub(super) struct Waiter {
    /// ```text
    /// WAITING ── unlinked and notified ─────────────────────▶ NOTIFIED
    ///     └───── unlinked and requeued to its mutex ───────▶ REQUEUED
    /// ```
    /// The thread sleeps on this word.
    state: AtomicU32,
    next: Cell<*mut Waiter>,
    previous: Cell<*mut Waiter>,
    /// The mutex that the thread will acquire once notified; null if none. The thread borrows it
    /// for the whole wait.
    mutex: *const RawMutex,
}

pub(super) const WAITING: u32 = 0;
pub(super) const NOTIFIED: u32 = 1;
pub(super) const REQUEUED: u32 = 2;

impl WaitList {
    const_fn! {
        pub(super) const fn new() -> WaitList {
            WaitList { lock: RawMutex::new(), queue: Queue::new() }
        }
    }

    /// Whether no thread waits; exact only for changes that happen before this call.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        self.lock.lock();
        Locked { list: self }
    }
}

/// A locked list.
pub(super) struct Locked<'a> {
    list: &'a WaitList,
}

impl Deref for Locked<'_> {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.list.queue
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.list.lock.unlock();
    }
}

/// All functions except [`is_empty`](Queue::is_empty) require the owner's lock.
impl Queue {
    const_fn! {
        pub(super) const fn new() -> Queue {
            Queue { first: AtomicPtr::new(null_mut()), last: Cell::new(null_mut()) }
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.load(Relaxed).is_null()
    }

    /// Adds an entry at the end.
    ///
    /// # Safety
    ///
    /// 1. The entry does not move until it is no longer [`WAITING`] or was removed.
    pub(super) unsafe fn push(&self, waiter: &Waiter) {
        let entry = (&raw const *waiter).cast_mut();
        let last = self.last.replace(entry);
        waiter.previous.set(last);
        // SAFETY: linked entries are alive, by 1. of each `push`.
        match unsafe { last.as_ref() } {
            Some(last) => last.next.set(entry),
            None => self.first.store(entry, Relaxed),
        }
    }

    /// Removes the entry of a thread that timed out, unless it was notified; returns whether it was
    /// still waiting.
    pub(super) fn leave(&self, waiter: &Waiter) -> bool {
        let waits = waiter.state.load(Relaxed) == WAITING;
        if waits {
            self.remove(waiter);
        }
        waits
    }

    /// Removes a linked entry.
    fn remove(&self, waiter: &Waiter) {
        let (previous, next) = (waiter.previous.get(), waiter.next.get());
        // SAFETY: linked entries are alive, by 1. of `push`.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => self.first.store(next, Relaxed),
        }
        // SAFETY: linked entries are alive, by 1. of `push`.
        match unsafe { next.as_ref() } {
            Some(next) => next.previous.set(previous),
            None => self.last.set(previous),
        }
    }

    /// Notifies the first waiter. Returns the word to wake, best after the list is unlocked; the
    /// word may be unmapped by then. None if no thread waits, or if the waiter was requeued to its
    /// mutex, whose unlock wakes it.
    pub(super) fn notify_first(&self) -> Option<*const AtomicU32> {
        // SAFETY: linked entries are alive, by 1. of `push`.
        let first = unsafe { self.first.load(Relaxed).as_ref() }?;
        self.remove(first);
        // SAFETY: the thread borrows the mutex until its wait is over. A requeued thread must
        // acquire the list's lock before that, and the caller holds this lock.
        let requeued = unsafe { first.mutex.as_ref() }
            .is_some_and(|mutex| mutex.requeue_waiter(&first.state, || set_state(&first.state, REQUEUED)));
        if requeued {
            return None;
        }
        let word = &raw const first.state;
        set_state(&first.state, NOTIFIED); // From here on the entry may be gone.
        Some(word)
    }

    /// Notifies all threads that wait now.
    pub(super) fn notify_all(&self) {
        while !self.is_empty() {
            if let Some(word) = self.notify_first() {
                wake(word);
            }
        }
    }
}

impl Waiter {
    pub(super) fn new(mutex: *const RawMutex) -> Waiter {
        Waiter { state: AtomicU32::new(WAITING), next: Cell::new(null_mut()), previous: Cell::new(null_mut()), mutex }
    }

    /// An entry without a mutex.
    pub(super) fn without_mutex() -> Waiter {
        Waiter::new(null())
    }

    /// Sleeps until notified; returns the final state, or [`WAITING`] if the deadline passed first.
    /// At the deadline it calls `leave`, which calls [`Queue::leave`] under the lock and returns
    /// the result.
    pub(super) fn wait(&self, deadline: Option<Instant>, leave: impl Fn(&Waiter) -> bool) -> u32 {
        let mut late = false;
        loop {
            // Acquire pairs with the exchange in `set_state`.
            let state = self.state.load(Acquire);
            if state != WAITING || (late && leave(self)) {
                return state;
            }
            late = late || base::wait(&self.state, WAITING, deadline, FRESH);
        }
    }
}

/// Sets the final state of an unlinked entry, under the list's lock. Borrows only `state`: the
/// entry may be gone before this returns.
fn set_state(state: &AtomicU32, to: u32) {
    state.swap(to, AcqRel);
}

/// Wakes the thread of this entry. The entry may be gone, and another futex word may be at its
/// address. Then the wake is spurious, which every wait of rt0 tolerates.
pub(super) fn wake(word: *const AtomicU32) {
    base::wake(word, 1, ANY);
}
