//! A queue of sleeping threads, first come, first served: each has its entry on its own stack.

use core::cell::Cell;
use core::ops::Deref;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::{null, null_mut};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::raw_mutex::{FRESH, RawMutex};
use crate::futex::base::{self, ANY, AtomicPtr, AtomicU32, const_fn};
use crate::time::Instant;

/// The entries of the threads that wait. Its owner has a lock for it.
pub(super) struct Queue {
    /// Changed under the lock only, read also without.
    first: AtomicPtr<Waiter>,
    last: Cell<*mut Waiter>,
}

/// A queue with a mutex for its lock.
pub(super) struct WaitList {
    lock: RawMutex,
    queue: Queue,
}

// SAFETY: `last` and the entries' links are accessed under the owner's lock only; an entry stays in
// its place while it is linked.
unsafe impl Send for Queue {}
// SAFETY: the queue is accessed under the mutex only, but for `first`, which is an atomic.
unsafe impl Sync for WaitList {}
// A panic ends the process, so no thread sees what it left half done.
impl UnwindSafe for WaitList {}
impl RefUnwindSafe for WaitList {}

/// A thread's entry.
pub(super) struct Waiter {
    /// ```text
    /// WAITING ── unlinked, its turn has come ──────────────────▶ NOTIFIED
    ///     └───── unlinked, and made a waiter of its mutex ─────▶ ADOPTED
    /// ```
    /// Also what the thread sleeps on.
    state: AtomicU32,
    next: Cell<*mut Waiter>,
    previous: Cell<*mut Waiter>,
    /// What the thread will lock when its turn has come; null if nothing. Borrowed by the thread
    /// for the whole wait.
    mutex: *const RawMutex,
}

pub(super) const WAITING: u32 = 0;
pub(super) const NOTIFIED: u32 = 1;
pub(super) const ADOPTED: u32 = 2;

impl WaitList {
    const_fn! {
        pub(super) const fn new() -> WaitList {
            WaitList { lock: RawMutex::new(), queue: Queue::new() }
        }
    }

    /// Whether no thread waits; exact only for what the caller is ordered after.
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

/// All but [`is_empty`](Queue::is_empty) is for the thread that holds the owner's lock.
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
    /// 1. The entry stays in its place until it is no longer [`WAITING`] or was removed.
    pub(super) unsafe fn push(&self, waiter: &Waiter) {
        let entry = (&raw const *waiter).cast_mut();
        let last = self.last.replace(entry);
        waiter.previous.set(last);
        // SAFETY: linked entries are there (1. of whoever pushed them).
        match unsafe { last.as_ref() } {
            Some(last) => last.next.set(entry),
            None => self.first.store(entry, Relaxed),
        }
    }

    /// Takes out the entry of a thread that waits no longer, unless its turn has come; whether it
    /// did.
    pub(super) fn leave(&self, waiter: &Waiter) -> bool {
        let waits = waiter.state.load(Relaxed) == WAITING;
        if waits {
            self.remove(waiter);
        }
        waits
    }

    /// Takes out an entry that is linked.
    fn remove(&self, waiter: &Waiter) {
        let (previous, next) = (waiter.previous.get(), waiter.next.get());
        // SAFETY: linked entries are there.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => self.first.store(next, Relaxed),
        }
        // SAFETY: as above.
        match unsafe { next.as_ref() } {
            Some(next) => next.previous.set(previous),
            None => self.last.set(previous),
        }
    }

    /// Lets the first go on. What it returns must be woken, best after the list is unlocked; it may
    /// be gone by then. Nothing if nobody waits, or if the first will be woken by its mutex.
    pub(super) fn notify_first(&self) -> Option<*const AtomicU32> {
        // SAFETY: linked entries are there.
        let first = unsafe { self.first.load(Relaxed).as_ref() }?;
        self.remove(first);
        // SAFETY: its thread borrows the mutex until the wait is over, which for an adopted one
        // takes the list's lock.
        let adopted = unsafe { first.mutex.as_ref() }
            .is_some_and(|mutex| mutex.adopt(&first.state, || settle(&first.state, ADOPTED)));
        if adopted {
            return None;
        }
        let word = &raw const first.state;
        settle(&first.state, NOTIFIED); // From here on it may be gone.
        Some(word)
    }

    /// Lets all go on that wait now.
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

    /// One that locks nothing when its turn has come.
    pub(super) fn without_mutex() -> Waiter {
        Waiter::new(null())
    }

    /// Sleeps until its turn has come; the state then, which is [`WAITING`] if the deadline passed
    /// before that. Then `leave` calls [`Queue::leave`] under the lock, and says what that says.
    pub(super) fn wait(&self, deadline: Option<Instant>, leave: impl Fn(&Waiter) -> bool) -> u32 {
        let mut late = false;
        loop {
            // Acquire pairs with the exchange in `settle`.
            let state = self.state.load(Acquire);
            if state != WAITING || (late && leave(self)) {
                return state;
            }
            late = late || base::wait(&self.state, WAITING, deadline, FRESH);
        }
    }
}

/// Under the list's lock, by who unlinked the entry with this state. It borrows no more of the
/// entry, which may go before this returns.
fn settle(state: &AtomicU32, to: u32) {
    state.swap(to, AcqRel);
}

/// Wakes the thread whose entry this was. It may be gone, and something else there, which a wake
/// then reaches for no reason: every wait of rt0 looks again.
pub(super) fn wake(word: *const AtomicU32) {
    base::wake(word, 1, ANY);
}
