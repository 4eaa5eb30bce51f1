//! The lock under all others: mutual exclusion without a value, fair within the bound that
//! [`crate::sync`] states.
//!
//! A newcomer acquires the lock if it is free. Otherwise it spins for as long as spinning has paid
//! on this lock lately; then it joins the waiters and sleeps. An unlock wakes one waiter, unless
//! one is awake already. So a thread that locks in a loop makes one system call per waiter instead
//! of one per unlock. Meanwhile it overtakes the waiter, and these overtakes are counted.
//!
//! Properties, and how they are achieved:
//!
//! 1. *No lost wake-ups:* while threads wait and the lock is free, one of them is awake or about to
//!    be woken. WAKE means that no waiter is. A thread sets WAKE only while it holds the lock or
//!    sees it held, and the unlock that clears WAKE wakes a waiter. A waiter that is awake acquires
//!    a free lock. Before it sleeps or leaves, it sets WAKE in the same atomic step that sees the
//!    lock held.
//! 2. *No sleep misses its wake:* a waiter reads `wake_seq` before it announces itself. The unlock
//!    clears WAKE, then increments `wake_seq`, then releases the lock, unless WAKE was set again.
//!    So each waiter that was announced when WAKE was cleared is asleep, or will find `wake_seq`
//!    changed. A waiter that leaves meanwhile sets WAKE again if others remain.
//! 3. *No access after the release:* from then on the unlock passes the address to the kernel only,
//!    because the next owner may have freed the memory.
//! 4. *No starvation:* CLOSED keeps newcomers out. The lock is closed after OVERTAKES newcomers, or
//!    by a waiter that was woken in vain. A waiter that acquires the lock clears CLOSED. CLOSED
//!    implies a waiter: the last waiter that leaves clears it.

use core::sync::atomic::{
    AtomicU16,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::futex::base::{self, ANY, AtomicU32, MODEL, const_fn};
use crate::time::Instant;

pub(crate) struct RawMutex {
    /// ```text
    /// │ number of waiters … 29 bits │ CLOSED │ WAKE │ LOCKED │
    /// ```
    state: AtomicU32,
    /// Waiters sleep on this word; each unlock that wakes increments it.
    wake_seq: AtomicU32,
    /// How many newcomers acquired the lock since a waiter did. Accessed by the holder only.
    overtakes: AtomicU16,
    /// A hint, learned from experience: about four times the first pause of a newcomer that spins.
    patience: AtomicU16,
}

const LOCKED: u32 = 1;
/// All waiters are asleep: the unlock must wake one.
const WAKE: u32 = 2;
/// Only waiters may acquire the lock.
const CLOSED: u32 = 4;
/// One waiter. Linux has at most 2^22 threads.
const WAITER: u32 = 8;

/// How many newcomers in a row may overtake waiters: about 80 µs of the shortest critical sections.
/// That is enough to make a wake and a switch (2 to 50 µs) cheap for a busy lock.
pub(super) const OVERTAKES: u16 = if MODEL { 2 } else { 8192 };

/// How often a woken waiter looks before it closes the lock and sleeps again, and the length of the
/// pause between two looks, about 0.8 µs.
const LOOKS: u32 = if MODEL { 1 } else { 10 };
const PAUSES: u32 = if MODEL { 1 } else { 30 };

/// Futex bitsets: of a waiter that was not woken yet, and of a waiter that was woken and closed the
/// lock.
pub(super) const FRESH: u32 = 1;
const CLOSER: u32 = 2;

impl RawMutex {
    const_fn! {
        pub(crate) const fn new() -> RawMutex {
            RawMutex {
                state: AtomicU32::new(0),
                wake_seq: AtomicU32::new(0),
                overtakes: AtomicU16::new(0),
                patience: AtomicU16::new(0),
            }
        }
    }

    #[inline]
    pub(crate) fn lock(&self) {
        if let Err(state) = self.lock_free() {
            self.lock_contended(state, None);
        }
    }

    /// Acquires the lock; returns whether that was before the deadline.
    #[inline]
    pub(crate) fn lock_until(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        match self.lock_free() {
            Ok(_) => true,
            Err(state) => self.lock_contended(state, deadline()),
        }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> bool {
        match self.lock_free() {
            Ok(_) => true,
            Err(state) => self.try_lock_seen(state),
        }
    }

    /// Acquires the lock if it is free and no thread waits; otherwise returns the state. No load
    /// precedes the exchange: it would stall on the recent store to the word.
    #[inline(always)]
    fn lock_free(&self) -> Result<u32, u32> {
        // Acquire, here and wherever the lock is acquired, pairs with the release in `unlock`.
        self.state.compare_exchange(0, LOCKED, Acquire, Relaxed)
    }

    /// Acquires the lock if the state is still `state` and admits newcomers.
    fn try_lock_seen(&self, state: u32) -> bool {
        if state == 0 { self.lock_free().is_ok() } else { state & (LOCKED | CLOSED) == 0 && self.overtake(state) }
    }

    /// Releases the lock, which the caller holds.
    #[inline]
    pub(crate) fn unlock(&self) {
        // The load only chooses the path. The exchange expects a constant, so it does not wait for
        // the load. Release: the next holder sees what was done under the lock.
        let state = self.state.load(Relaxed);
        if state != LOCKED || self.state.compare_exchange(LOCKED, 0, Release, Relaxed).is_err() {
            self.unlock_contended(state);
        }
    }

    /// [`RawMutex::unlock`] while others wait.
    #[cold]
    fn unlock_contended(&self, state: u32) {
        // No waiter must be woken. Release, here and below: the next holder sees what was done
        // under the lock.
        if state & WAKE == 0 && self.state.compare_exchange(state, state - LOCKED, Release, Relaxed).is_ok() {
            return;
        }
        let wake_seq = &raw const self.wake_seq;
        let mut must_wake = false;
        let released = loop {
            // Acquire pairs with the release of the waiter that set WAKE: it read `wake_seq` before
            // this increment (2).
            let state = self.state.fetch_and(!WAKE, Acquire);
            if state & WAKE != 0 {
                self.wake_seq.fetch_add(1, Relaxed);
                must_wake = true;
            }
            let state = state & !WAKE;
            if self.state.compare_exchange(state, state - LOCKED, Release, Relaxed).is_ok() {
                break state;
            }
        };
        // From here on only the address is used (3). A waiter that closed the lock comes first.
        if must_wake && (released & CLOSED == 0 || base::wake(wake_seq, 1, CLOSER) == 0) {
            base::wake(wake_seq, 1, ANY);
        }
    }

    /// Waits for the lock, which was in this state; returns whether it was acquired before the
    /// deadline.
    #[cold]
    fn lock_contended(&self, state: u32, deadline: Option<Instant>) -> bool {
        self.try_lock_seen(state) || self.spin() || self.wait(deadline)
    }

    /// Spins for a while; returns whether the lock was acquired.
    ///
    /// On a lock that is almost always held it pays to look rarely, so that the cache line stays
    /// with the holder. A success at the first look shortens this lock's pauses; a success at a
    /// later look lengthens them. A failure shortens them too, because sleeping is better then.
    fn spin(&self) -> bool {
        const LOOKS: u32 = if MODEL { 1 } else { 6 };
        const LONGEST: u16 = if MODEL { 1 } else { 256 };
        if !base::several_processors() {
            return false;
        }
        let patience = self.patience.load(Relaxed);
        let mut pauses = patience / 4 + 1;
        for look in 0..LOOKS {
            (0..pauses).for_each(|_| base::pause());
            let state = self.state.load(Relaxed);
            if state & CLOSED != 0 {
                return false;
            }
            if self.try_lock_seen(state) {
                let longer = (2 * patience + 4).min(4 * LONGEST);
                self.set_patience(patience, if look > 0 { longer } else { patience - patience.div_ceil(4) });
                return true;
            }
            pauses = (2 * pauses).min(LONGEST);
        }
        self.set_patience(patience, patience / 2);
        false
    }

    fn set_patience(&self, before: u16, now: u16) {
        if before != now {
            self.patience.store(now, Relaxed); // A race with other threads only loses a hint.
        }
    }

    /// Joins the waiters, sleeps, and acquires the lock.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        // Read before the release that announces this waiter (2), as every read of `wake_seq`.
        let mut wake_seq = self.wake_seq.load(Relaxed);
        let mut state = self.state.load(Relaxed);
        while state & (LOCKED | CLOSED) == 0 || !self.join(&mut state) {
            if self.try_lock_seen(self.state.load(Relaxed)) {
                return true;
            }
            wake_seq = self.wake_seq.load(Relaxed);
            state = self.state.load(Relaxed);
        }
        let late = base::wait(&self.wake_seq, wake_seq, deadline, FRESH);
        self.acquire_as_waiter(late, deadline)
    }

    /// Adds the caller to the waiters if the state is still `state`.
    fn join(&self, state: &mut u32) -> bool {
        // The first waiter asks for a wake. Later ones find WAKE set, or a waiter awake (1).
        let joined = (*state + WAITER) | if *state < WAITER { WAKE } else { 0 };
        // Release pairs with the acquire in `unlock_contended` (2).
        self.state.compare_exchange(*state, joined, Release, Relaxed).is_ok()
    }

    /// Acquires the lock as a waiter that is awake. False if `late` and the lock is held.
    pub(super) fn acquire_as_waiter(&self, mut late: bool, deadline: Option<Instant>) -> bool {
        let mut looks = if base::several_processors() { LOOKS } else { 0 };
        loop {
            let wake_seq = self.wake_seq.load(Relaxed);
            let state = self.state.load(Relaxed);
            let others = state - WAITER >= WAITER;
            if state & LOCKED == 0 {
                // As far as this thread knows, all other waiters are asleep.
                let taken = LOCKED | if others { (state - WAITER) & !CLOSED | WAKE } else { 0 };
                if self.state.compare_exchange(state, taken, Acquire, Relaxed).is_ok() {
                    self.overtakes.store(0, Relaxed);
                    return true;
                }
            } else if late {
                let left = if others { (state - WAITER) | WAKE } else { LOCKED };
                // Release, here and below, pairs with the acquire in `unlock_contended` (2).
                if self.state.compare_exchange(state, left, Release, Relaxed).is_ok() {
                    return false;
                }
            } else if looks > 0 {
                looks -= 1;
                (0..PAUSES).for_each(|_| base::pause());
            } else if self.state.compare_exchange(state, state | CLOSED | WAKE, Release, Relaxed).is_ok() {
                late = base::wait(&self.wake_seq, wake_seq, deadline, CLOSER);
            }
        }
    }

    /// Acquires the lock before its waiters, if the state is still `state`. Closes it to newcomers
    /// after OVERTAKES of them.
    #[inline(never)]
    fn overtake(&self, state: u32) -> bool {
        if self.state.compare_exchange(state, state | LOCKED, Acquire, Relaxed).is_err() {
            return false;
        }
        let overtakes = self.overtakes.load(Relaxed).saturating_add(1);
        self.overtakes.store(overtakes, Relaxed);
        if overtakes >= OVERTAKES {
            let close = |state| (state >= WAITER && state & CLOSED == 0).then_some(state | CLOSED);
            // It fails if no thread waits or the lock is closed already.
            let _ = self.state.fetch_update(Relaxed, Relaxed, close);
        }
        true
    }

    /// If the lock is held, makes a thread that sleeps on `word` a waiter of this lock without
    /// waking it; returns whether it did. `mark` tells the thread: once woken, it calls
    /// [`RawMutex::acquire_as_waiter`].
    pub(super) fn requeue_waiter(&self, word: &AtomicU32, mark: impl FnOnce()) -> bool {
        loop {
            let wake_seq = self.wake_seq.load(Relaxed);
            let mut state = self.state.load(Relaxed);
            if state & LOCKED == 0 {
                return false;
            }
            if self.join(&mut state) {
                mark();
                base::requeue(word, &self.wake_seq);
                // An unlock before the requeue may have woken another thread or none; then this
                // wakes a waiter in its place. An exchange reads the newest value: the increment
                // came before that unlock's wake, and the wake before the requeue.
                if self.wake_seq.fetch_add(0, Relaxed) != wake_seq {
                    base::wake(&self.wake_seq, 1, ANY);
                }
                return true;
            }
        }
    }

    /// Whether a thread holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        self.state.load(Relaxed) & LOCKED != 0
    }

    /// The number of waiters, for models.
    #[cfg(all(loom, test))]
    pub(super) fn waiters(&self) -> u32 {
        self.state.load(Relaxed) / WAITER
    }
}

#[cfg(test)]
impl RawMutex {
    /// A lock with this `wake_seq`.
    pub(super) fn at_wake_seq(wake_seq: u32) -> RawMutex {
        RawMutex { wake_seq: AtomicU32::new(wake_seq), ..RawMutex::new() }
    }

    pub(super) fn wake_seq_now(&self) -> u32 {
        self.wake_seq.load(Relaxed)
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.state.load(Relaxed) >= WAITER
    }
}
