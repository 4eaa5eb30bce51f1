//! The lock under a [`RwLock`](super::RwLock): many readers or one writer, in turns, without a
//! value.
//!
//! A writer announces itself, which makes readers that come from then on wait, and waits for those
//! that are there to leave. When it is done, or gives up, the readers that wait are let in: each
//! moves in when it wakes, and the next writer, which may announce itself meanwhile, waits for them
//! all to come and go. Writers queue for the announcement in a mutex.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A writer is alone.* It has the lock when WRITER is its own, nobody is in, and nobody is
//!    being let in. While WRITER is set nobody enters but those being let in.
//! 2. *Readers and writers alternate.* Who is done, or gives up, as a writer lets in all that wait,
//!    in one step with giving up WRITER. While they are let in (OPEN), others do not join them, so
//!    this ends; and OPEN implies that some are left, for who is being let in does not give up.
//! 3. *No wake is lost.* Who sleeps has set SLEEPERS, in one step with seeing the state it sleeps
//!    on. Only the writer that ends clears it, and then it wakes all who may sleep: another writer
//!    cannot be among those who wait for readers.
//! 4. *Who leaves touches nothing after that step.* Only the kernel gets the address: the next may
//!    have freed the memory.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::raw_mutex::RawMutex;
use crate::futex::base::{self, ANY, AtomicU32, MODEL, const_fn};
use crate::time::Instant;

pub(super) struct RawRwLock {
    /// ```text
    /// │ readers that wait … 14 bits │ readers that are in … 14 bits │ QUEUE │ SLEEPERS │ OPEN │ WRITER │
    /// ```
    /// Also what all sleep on.
    state: AtomicU32,
    /// Where writers queue; who has it will be the next writer.
    writers: RawMutex,
}

/// A writer has the lock, or waits for readers to leave.
const WRITER: u32 = 1;
/// Readers that wait are let in; more do not join them.
const OPEN: u32 = 2;
/// Somebody sleeps.
const SLEEPERS: u32 = 4;
/// The next writer waits: others may not take a short cut.
const QUEUE: u32 = 8;
/// A reader that is in.
const READER: u32 = 1 << 4;
/// A reader that waits to be let in.
const WAITING: u32 = 1 << 18;
/// How many readers are counted. One more, a writer that becomes a reader, still has room.
pub(super) const MOST: u32 = if MODEL { 2 } else { (1 << 14) - 2 };

/// The kinds of sleepers: who wakes when the writer is done, and the writer that waits for readers
/// to leave.
const FOLLOWERS: u32 = 1;
const LEADER: u32 = 2;

fn inside(state: u32) -> u32 {
    state % WAITING / READER
}

fn waiting(state: u32) -> u32 {
    state / WAITING
}

fn has_room(state: u32) -> bool {
    inside(state) + waiting(state) < MOST
}

impl RawRwLock {
    const_fn! {
        pub(super) const fn new() -> RawRwLock {
            RawRwLock { state: AtomicU32::new(0), writers: RawMutex::new() }
        }
    }

    #[inline]
    pub(super) fn read(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        self.try_read() || self.read_contended(deadline())
    }

    #[inline]
    pub(super) fn try_read(&self) -> bool {
        // There is no load before the exchange, which would wait for it: the word was stored a
        // moment ago. Acquire, wherever the lock is taken, pairs with the release in `end_write`
        // (and, to write, in `end_read`).
        match self.state.compare_exchange(0, READER, Acquire, Relaxed) {
            Ok(_) => true,
            Err(state) => self.try_read_seen(state),
        }
    }

    /// [`RawRwLock::try_read`] of a lock that was in this state.
    #[inline(never)]
    fn try_read_seen(&self, mut state: u32) -> bool {
        while state & WRITER == 0 && has_room(state) {
            match self.state.compare_exchange_weak(state, state + READER, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    #[inline]
    pub(super) fn end_read(&self) {
        let word = &raw const self.state;
        // Release: what was read is not changed before.
        let state = self.state.fetch_sub(READER, Release);
        if state & SLEEPERS != 0 {
            left_with_sleepers(state, word);
        }
    }

    #[cold]
    fn read_contended(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        loop {
            if self.try_read_seen(self.state.load(Relaxed)) {
                return true;
            }
            let state = self.state.load(Relaxed);
            let may_enter = state & WRITER == 0 && has_room(state);
            if state & (WRITER | OPEN) == WRITER && has_room(state) {
                if self.state.compare_exchange(state, state + WAITING, Relaxed, Relaxed).is_ok() {
                    return self.wait_to_be_let_in(deadline);
                }
            } else if late {
                return false;
            } else if !may_enter {
                // Not even counted: there is no room, or others are just being let in.
                late = self.sleep(state, deadline, FOLLOWERS);
            }
        }
    }

    /// Waits until the readers that wait are let in, and moves in; false if the deadline came
    /// before.
    fn wait_to_be_let_in(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        base::poll(|| self.state.load(Relaxed) & OPEN != 0);
        loop {
            let state = self.state.load(Relaxed);
            if state & OPEN != 0 {
                let last = waiting(state) == 1;
                let moved = state - WAITING + READER - if last { OPEN } else { 0 };
                if self.state.compare_exchange(state, moved, Acquire, Relaxed).is_ok() {
                    if last && state & SLEEPERS != 0 {
                        base::wake(&raw const self.state, i32::MAX as u32, FOLLOWERS); // Who could not join may now.
                    }
                    return true;
                }
            } else if !late {
                late = self.sleep(state, deadline, FOLLOWERS);
            } else if self.state.compare_exchange(state, state - WAITING, Relaxed, Relaxed).is_ok() {
                return false;
            }
        }
    }

    #[inline]
    pub(super) fn write(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        self.try_write() || self.write_contended(deadline())
    }

    #[inline]
    pub(super) fn try_write(&self) -> bool {
        // As in `try_read`, there is no load before.
        match self.state.compare_exchange(0, WRITER, Acquire, Relaxed) {
            Ok(_) => true,
            Err(state) => self.try_write_seen(state),
        }
    }

    /// [`RawRwLock::try_write`] of a lock that was in this state.
    fn try_write_seen(&self, state: u32) -> bool {
        // SLEEPERS may be left over from readers that found no room.
        state & !SLEEPERS == 0 && self.state.compare_exchange(state, state | WRITER, Acquire, Relaxed).is_ok()
    }

    #[inline]
    pub(super) fn end_write(&self) {
        let word = &raw const self.state;
        // Release: what was written is seen by those who take the lock from here on.
        if self.state.compare_exchange(WRITER, 0, Release, Relaxed).is_err() {
            let state = self.state.fetch_update(Release, Relaxed, |state| Some(without_writer(state)));
            wake_followers(state, word);
        }
    }

    /// From a writer to a reader, with no writer between.
    pub(super) fn downgrade(&self) {
        let state = self.state.fetch_update(Release, Relaxed, |state| Some(without_writer(state) + READER));
        wake_followers(state, &self.state);
    }

    #[cold]
    fn write_contended(&self, deadline: Option<Instant>) -> bool {
        if base::poll(|| self.try_write_seen(self.state.load(Relaxed))) {
            return true;
        }
        if !self.writers.lock_until(|| deadline) {
            return false;
        }
        let announced = self.announce(deadline);
        self.writers.unlock();
        announced && self.wait_for_readers(deadline)
    }

    /// Becomes the writer, when there is none. By who has `writers`.
    fn announce(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        // Not an exchange, which readers that come and go could make fail for ever. Relaxed:
        // `wait_for_readers` comes next.
        while self.state.fetch_or(WRITER, Relaxed) & WRITER != 0 {
            if late {
                self.state.fetch_and(!QUEUE, Relaxed);
                return false;
            }
            let state = self.state.load(Relaxed);
            if state & WRITER != 0
                && (state & QUEUE != 0 || self.state.compare_exchange(state, state | QUEUE, Relaxed, Relaxed).is_ok())
            {
                late = self.sleep(state | QUEUE, deadline, FOLLOWERS);
            }
        }
        self.state.fetch_and(!QUEUE, Relaxed);
        true
    }

    /// By the writer: waits until all readers have left. If the deadline comes first, it is no
    /// longer the writer.
    fn wait_for_readers(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        let empty = |state: u32| inside(state) == 0 && state & OPEN == 0;
        base::poll(|| empty(self.state.load(Acquire)));
        loop {
            let state = self.state.load(Acquire);
            if empty(state) {
                return true;
            }
            if late {
                self.end_write();
                return false;
            }
            late = self.sleep(state, deadline, LEADER);
        }
    }

    /// Whether a writer has the lock or waits for readers to leave, for models.
    #[cfg(all(loom, test))]
    pub(super) fn has_writer(&self) -> bool {
        self.state.load(Relaxed) & WRITER != 0
    }

    /// Sleeps while the state is as given, but for SLEEPERS; true says that the deadline has
    /// passed.
    fn sleep(&self, state: u32, deadline: Option<Instant>, kind: u32) -> bool {
        let marked = state | SLEEPERS;
        (state == marked || self.state.compare_exchange(state, marked, Relaxed, Relaxed).is_ok())
            && base::wait(&self.state, marked, deadline, kind)
    }
}

/// The state after a writer: readers that wait are let in.
fn without_writer(state: u32) -> u32 {
    (state & !(WRITER | SLEEPERS)) | if waiting(state) > 0 { OPEN } else { 0 }
}

/// After the writer in this state. The lock may be gone.
#[cold]
fn wake_followers(state: Result<u32, u32>, word: *const AtomicU32) {
    if state.is_ok_and(|state| state & SLEEPERS != 0) {
        base::wake(word, i32::MAX as u32, FOLLOWERS);
    }
}

/// After a reader left this state. The lock may be gone: a writer that has seen the last reader
/// leave may have freed it.
#[cold]
fn left_with_sleepers(state: u32, word: *const AtomicU32) {
    if state & WRITER != 0 && inside(state) == 1 {
        base::wake(word, 1, LEADER);
    }
    if !has_room(state) {
        base::wake(word, i32::MAX as u32, ANY);
    }
}
