//! The lock under all others: mutual exclusion without a value, fair within the bound that
//! [`crate::sync`] states.
//!
//! A newcomer takes the lock if it is free. Else it looks again a few times, for as long as that
//! has paid on this lock lately; then it joins the waiters and sleeps. An unlock wakes one waiter,
//! unless one is awake already: so a thread that keeps locking and unlocking makes one system call
//! for each waiter and not for each time. What it does meanwhile is to overtake, and that is
//! counted.
//!
//! Properties, and how they are achieved:
//!
//! 1. *No wake is lost.* While threads wait and the lock is free, one of them is awake or about to
//!    be woken. WAKE says that there is none such: who sets it holds the lock or sees it held, and
//!    the unlock that clears it wakes one. A waiter that is awake takes a free lock; before it
//!    sleeps or leaves, it sets WAKE, in one step with seeing the lock held.
//! 2. *No sleep misses its wake.* A waiter reads `turn` before it announces itself; the unlock
//!    clears WAKE, then steps `turn`, then gives up the lock, unless WAKE is back. So of those that
//!    were announced when it cleared WAKE, each sleeps or will find the word changed; and they are
//!    not gone, for the last of them to leave would have set WAKE.
//! 3. *The unlock touches nothing after it gave up the lock.* Only the kernel gets the address: the
//!    next owner may have freed the memory.
//! 4. *Waiters come to their turn.* CLOSED keeps newcomers out. It is set after OVERTAKES of them,
//!    and by a waiter that was woken in vain; a waiter that takes the lock clears it. CLOSED
//!    implies a waiter: the last to leave clears it.

use core::sync::atomic::{
    AtomicU16,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::futex::base::{self, ANY, AtomicU32, MODEL, const_fn};
use crate::time::Instant;

pub(super) struct RawMutex {
    /// ```text
    /// │ how many wait … 29 bits │ CLOSED │ WAKE │ LOCKED │
    /// ```
    state: AtomicU32,
    /// What waiters sleep on; stepped by each unlock that wakes.
    turn: AtomicU32,
    /// How often newcomers took the lock since a waiter did. The owner's.
    overtakes: AtomicU16,
    /// How long newcomers look before they sleep, as learned. A hint.
    patience: AtomicU16,
}

const LOCKED: u32 = 1;
/// The unlock must wake a waiter: all of them sleep.
const WAKE: u32 = 2;
/// Only waiters may take the lock.
const CLOSED: u32 = 4;
/// One waiter. Linux has at most 2^22 threads.
const WAITER: u32 = 8;

/// How often in a row newcomers may overtake waiters. Some 80 µs of the shortest critical sections:
/// enough that waking and switching (2 to 50 µs) cost a busy lock little.
pub(super) const OVERTAKES: u16 = if MODEL { 2 } else { 8192 };

/// How often a woken waiter looks before it closes the lock to newcomers and sleeps again; the
/// pause between, some 0.8 µs.
const LOOKS: u32 = if MODEL { 1 } else { 10 };
const PAUSES: u32 = if MODEL { 1 } else { 30 };

/// The kinds of sleepers: those that have not been woken yet, and those that were and closed the
/// lock.
pub(super) const FRESH: u32 = 1;
const CLOSER: u32 = 2;

impl RawMutex {
    const_fn! {
        pub(super) const fn new() -> RawMutex {
            RawMutex {
                state: AtomicU32::new(0),
                turn: AtomicU32::new(0),
                overtakes: AtomicU16::new(0),
                patience: AtomicU16::new(0),
            }
        }
    }

    #[inline]
    pub(super) fn lock(&self) {
        if let Err(state) = self.lock_free() {
            self.lock_contended(state, None);
        }
    }

    /// Whether the lock was taken before the deadline.
    #[inline]
    pub(super) fn lock_until(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        match self.lock_free() {
            Ok(_) => true,
            Err(state) => self.lock_contended(state, deadline()),
        }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        match self.lock_free() {
            Ok(_) => true,
            Err(state) => self.try_lock_seen(state),
        }
    }

    /// Takes the lock if it is free and no thread waits; else returns the state. There is no load
    /// before the exchange, which would wait for it: the word was stored a moment ago.
    #[inline(always)]
    fn lock_free(&self) -> Result<u32, u32> {
        // Acquire, wherever the lock is taken, pairs with the release in `unlock`.
        self.state.compare_exchange(0, LOCKED, Acquire, Relaxed)
    }

    /// Takes the lock if it is still in the state given, and this state lets a newcomer take it.
    fn try_lock_seen(&self, state: u32) -> bool {
        if state == 0 { self.lock_free().is_ok() } else { state & (LOCKED | CLOSED) == 0 && self.overtake(state) }
    }

    /// Gives up the lock, which the caller has.
    #[inline]
    pub(super) fn unlock(&self) {
        // The look decides only: what the exchange expects does not depend on it, so the exchange
        // does not wait for it. Release: what was done under the lock is seen by the next to take
        // it.
        let state = self.state.load(Relaxed);
        if state != LOCKED || self.state.compare_exchange(LOCKED, 0, Release, Relaxed).is_err() {
            self.unlock_contended(state);
        }
    }

    /// [`RawMutex::unlock`] when others wait.
    #[cold]
    fn unlock_contended(&self, state: u32) {
        // No thread is to be woken. Release, here and below, as in `unlock`.
        if state & WAKE == 0 && self.state.compare_exchange(state, state - LOCKED, Release, Relaxed).is_ok() {
            return;
        }
        let turn = &raw const self.turn;
        let mut must_wake = false;
        let released = loop {
            // Acquire pairs with the release of the waiter that set WAKE: it read `turn` before the
            // step (2).
            let state = self.state.fetch_and(!WAKE, Acquire);
            if state & WAKE != 0 {
                self.turn.fetch_add(1, Relaxed);
                must_wake = true;
            }
            let state = state & !WAKE;
            if self.state.compare_exchange(state, state - LOCKED, Release, Relaxed).is_ok() {
                break state;
            }
        };
        // From here on only the address (3). Who closed the lock comes first.
        if must_wake && (released & CLOSED == 0 || base::wake(turn, 1, CLOSER) == 0) {
            base::wake(turn, 1, ANY);
        }
    }

    /// Waits for the lock, which was in this state; whether it was taken before the deadline.
    #[cold]
    fn lock_contended(&self, state: u32, deadline: Option<Instant>) -> bool {
        self.try_lock_seen(state) || self.poll() || self.wait(deadline)
    }

    /// Looks now and then whether the lock is free.
    ///
    /// Under a lock that is hardly ever free it pays to look rarely: the owner then goes on without
    /// the cache line travelling. Found taken at the first look, the pauses of this lock grow,
    /// found free, they shrink; when looking was in vain, they shrink as well, for then sleeping is
    /// the better way to wait.
    fn poll(&self) -> bool {
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
                self.learn(patience, if look > 0 { longer } else { patience - patience.div_ceil(4) });
                return true;
            }
            pauses = (2 * pauses).min(LONGEST);
        }
        self.learn(patience, patience / 2);
        false
    }

    fn learn(&self, before: u16, now: u16) {
        if before != now {
            self.patience.store(now, Relaxed); // Racing with others that learn: it is a hint.
        }
    }

    /// Joins the waiters and sleeps.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut turn = self.turn.load(Relaxed); // Before the release that announces (2), as wherever `turn` is read.
        let mut state = self.state.load(Relaxed);
        while state & (LOCKED | CLOSED) == 0 || !self.join(&mut state) {
            if self.try_lock_seen(self.state.load(Relaxed)) {
                return true;
            }
            turn = self.turn.load(Relaxed);
            state = self.state.load(Relaxed);
        }
        let late = base::wait(&self.turn, turn, deadline, FRESH);
        self.take_turn(late, deadline)
    }

    /// Counts the caller among the waiters if the state is still as given.
    fn join(&self, state: &mut u32) -> bool {
        // The first asks for a wake. Those after it find that asked for, or a waiter awake (1).
        let joined = (*state + WAITER) | if *state < WAITER { WAKE } else { 0 };
        // Release pairs with the acquire in `unlock_contended` (2).
        self.state.compare_exchange(*state, joined, Release, Relaxed).is_ok()
    }

    /// Goes on as a waiter that is awake, until it has the lock or, when it is late, finds it held.
    pub(super) fn take_turn(&self, mut late: bool, deadline: Option<Instant>) -> bool {
        let mut looks = if base::several_processors() { LOOKS } else { 0 };
        loop {
            let turn = self.turn.load(Relaxed);
            let state = self.state.load(Relaxed);
            let others = state - WAITER >= WAITER;
            if state & LOCKED == 0 {
                // Others that wait are all asleep, as far as we know.
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
                late = base::wait(&self.turn, turn, deadline, CLOSER);
            }
        }
    }

    /// Takes the lock before those who wait, if it still is as seen, and closes it to newcomers
    /// after too many.
    #[inline(never)]
    fn overtake(&self, state: u32) -> bool {
        if self.state.compare_exchange(state, state | LOCKED, Acquire, Relaxed).is_err() {
            return false;
        }
        let overtakes = self.overtakes.load(Relaxed).saturating_add(1);
        self.overtakes.store(overtakes, Relaxed);
        if overtakes >= OVERTAKES {
            let close = |state| (state >= WAITER && state & CLOSED == 0).then_some(state | CLOSED);
            let _ = self.state.fetch_update(Relaxed, Relaxed, close); // An error: nobody waits, or closed it is.
        }
        true
    }

    /// Makes a thread that sleeps on `word` a waiter, without waking it, if the lock is held;
    /// whether it was. `mark` tells the thread, which then goes on with [`RawMutex::take_turn`]
    /// when it wakes.
    pub(super) fn adopt(&self, word: &AtomicU32, mark: impl FnOnce()) -> bool {
        loop {
            let turn = self.turn.load(Relaxed);
            let mut state = self.state.load(Relaxed);
            if state & LOCKED == 0 {
                return false;
            }
            if self.join(&mut state) {
                mark();
                base::requeue(word, &self.turn);
                // An unlock that came before the thread was here has woken another, or nobody: then
                // wake one in its place. An exchange sees the newest: the step came before that
                // unlock's wake, which came before the requeue.
                if self.turn.fetch_add(0, Relaxed) != turn {
                    base::wake(&self.turn, 1, ANY);
                }
                return true;
            }
        }
    }

    /// How many wait, for models.
    #[cfg(all(loom, test))]
    pub(super) fn waiters(&self) -> u32 {
        self.state.load(Relaxed) / WAITER
    }
}

#[cfg(test)]
impl RawMutex {
    /// One whose waiters have had so many turns.
    pub(super) fn at_turn(turn: u32) -> RawMutex {
        RawMutex { turn: AtomicU32::new(turn), ..RawMutex::new() }
    }

    pub(super) fn turn_now(&self) -> u32 {
        self.turn.load(Relaxed)
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.state.load(Relaxed) >= WAITER
    }
}
