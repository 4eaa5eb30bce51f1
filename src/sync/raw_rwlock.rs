//! The lock under a [`RwLock`](super::RwLock): many readers or one writer, which alternate, without
//! a value.
//!
//! A writer sets WRITER, which makes later readers wait, and waits until the active readers have
//! left. When it unlocks or times out, it admits the waiting readers. Each becomes active when it
//! wakes. The next writer may set WRITER meanwhile, and waits until all admitted readers have left.
//! Writers queue for WRITER in a mutex.
//!
//! A thread that may already be an active reader uses a recursive read: it does not wait for a
//! writer that waits for readers to leave.
//!
//! An upgradable reader may become the writer: see `raw_rwlock/upgradable.rs`.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A writer is alone:* it holds the lock once it has set WRITER, no reader is active, and none
//!    is being admitted. While WRITER is set, only readers being admitted become active, and
//!    recursive ones: these do so in the same atomic step that saw an active reader or one being
//!    admitted, for which the writer still waits.
//! 2. *Readers and writers alternate:* a writer that unlocks or times out admits all waiting
//!    readers in the same atomic step that clears WRITER. While ADMITTING is set no reader joins
//!    the waiting ones, so admission ends. ADMITTING implies that some are left, because an
//!    admitted reader does not time out.
//! 3. *No lost wake-ups:* a thread that sleeps has set SLEEPERS in the same atomic step that saw
//!    the state it sleeps on. Only a writer that unlocks or times out clears SLEEPERS. It then
//!    wakes all sleepers. No writer that waits for readers is among them, since only one thread
//!    can have set WRITER.
//! 4. *No access after the release:* from then on a thread passes the address to the kernel only,
//!    because the next owner may have freed the memory.

mod upgradable;

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::raw_mutex::RawMutex;
use crate::futex::base::{self, ANY, AtomicU32, MODEL, const_fn};
use crate::time::Instant;

pub(crate) struct RawRwLock {
    /// ```text
    /// │ waiting readers: 14 bits │ active: 14 bits │ QUEUE │ SLEEPERS │ ADMITTING │ WRITER │
    /// ```
    /// All waiting threads sleep on this word.
    state: AtomicU32,
    /// The queue of writers and upgradable readers; its holder is the next writer, or the
    /// upgradable reader.
    writers: RawMutex,
}

/// A writer holds the lock, or waits for readers to leave.
const WRITER: u32 = 1;
/// Waiting readers are being admitted; other readers do not join them.
const ADMITTING: u32 = 2;
/// A thread may sleep on the state.
const SLEEPERS: u32 = 4;
/// The next writer waits, so `try_write_seen` fails.
const QUEUE: u32 = 8;
/// An active reader.
const READER: u32 = 1 << 4;
/// A reader that waits for admission.
const WAITING: u32 = 1 << 18;
/// The most readers that are counted. One more fits: a writer that downgrades.
pub(super) const MAX_READERS: u32 = if MODEL { 2 } else { (1 << 14) - 2 };

/// How a reader treats a writer that waits for readers to leave.
#[derive(Clone, Copy, PartialEq)]
enum Reader {
    /// The reader waits, so that readers and writers alternate.
    New,
    /// The reader becomes active: the writer may be waiting for the same thread.
    Recursive,
}

/// Futex bitsets: of threads that wait for a writer to be done, and of the writer that waits for
/// readers to leave.
const ENTERING: u32 = 1;
const DRAINING: u32 = 2;

fn active_readers(state: u32) -> u32 {
    state % WAITING / READER
}

fn waiting_readers(state: u32) -> u32 {
    state / WAITING
}

fn has_room(state: u32) -> bool {
    active_readers(state) + waiting_readers(state) < MAX_READERS
}

/// Whether no reader is active or becomes so.
fn is_drained(state: u32) -> bool {
    active_readers(state) == 0 && state & ADMITTING == 0
}

/// Whether a reader becomes active without waiting (1).
fn may_enter(state: u32, reader: Reader) -> bool {
    let writer_waits = active_readers(state) > 0 || state & ADMITTING != 0;
    has_room(state) && (state & WRITER == 0 || reader == Reader::Recursive && writer_waits)
}

impl RawRwLock {
    const_fn! {
        pub(crate) const fn new() -> RawRwLock {
            RawRwLock { state: AtomicU32::new(0), writers: RawMutex::new() }
        }
    }

    #[inline]
    pub(crate) fn read(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        self.try_read() || self.read_contended(deadline(), Reader::New)
    }

    #[inline]
    pub(crate) fn read_recursive(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        self.try_read_recursive() || self.read_contended(deadline(), Reader::Recursive)
    }

    #[inline]
    pub(crate) fn try_read(&self) -> bool {
        self.try_read_as(Reader::New)
    }

    #[inline]
    pub(crate) fn try_read_recursive(&self) -> bool {
        self.try_read_as(Reader::Recursive)
    }

    #[inline(always)]
    fn try_read_as(&self, reader: Reader) -> bool {
        // No load precedes the exchange: it would stall on the recent store to the word. Acquire,
        // here and wherever the lock is acquired, pairs with the release in `end_write` (and, for
        // writers, in `end_read`).
        match self.state.compare_exchange(0, READER, Acquire, Relaxed) {
            Ok(_) => true,
            Err(state) => self.try_read_seen(state, reader),
        }
    }

    /// [`RawRwLock::try_read_as`] of a lock that was in this state.
    #[inline(never)]
    fn try_read_seen(&self, mut state: u32, reader: Reader) -> bool {
        while may_enter(state, reader) {
            match self.state.compare_exchange_weak(state, state + READER, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    #[inline]
    pub(crate) fn end_read(&self) {
        let word = &raw const self.state;
        // Release: reads of the value stay before a later writer's stores.
        let state = self.state.fetch_sub(READER, Release);
        if state & SLEEPERS != 0 {
            wake_after_read(state, word);
        }
    }

    #[cold]
    fn read_contended(&self, deadline: Option<Instant>, reader: Reader) -> bool {
        let mut late = false;
        loop {
            if self.try_read_seen(self.state.load(Relaxed), reader) {
                return true;
            }
            let state = self.state.load(Relaxed);
            let may_enter = may_enter(state, reader);
            if !may_enter && state & (WRITER | ADMITTING) == WRITER && has_room(state) {
                if self.state.compare_exchange(state, state + WAITING, Relaxed, Relaxed).is_ok() {
                    return self.wait_for_admission(deadline);
                }
            } else if late {
                return false;
            } else if !may_enter {
                // Not counted: there is no room, or other readers are being admitted.
                late = self.sleep(state, deadline, ENTERING);
            }
        }
    }

    /// Waits for admission and becomes an active reader; false if the deadline came first.
    fn wait_for_admission(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        base::spin_until(|| self.state.load(Relaxed) & ADMITTING != 0);
        loop {
            let state = self.state.load(Relaxed);
            if state & ADMITTING != 0 {
                let last = waiting_readers(state) == 1;
                let moved = state - WAITING + READER - if last { ADMITTING } else { 0 };
                if self.state.compare_exchange(state, moved, Acquire, Relaxed).is_ok() {
                    if last && state & SLEEPERS != 0 {
                        // Readers that could not join may do so now.
                        base::wake(&raw const self.state, i32::MAX as u32, ENTERING);
                    }
                    return true;
                }
            } else if !late {
                late = self.sleep(state, deadline, ENTERING);
            } else if self.state.compare_exchange(state, state - WAITING, Relaxed, Relaxed).is_ok() {
                return false;
            }
        }
    }

    #[inline]
    pub(crate) fn write(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        self.try_write() || self.write_contended(deadline())
    }

    #[inline]
    pub(crate) fn try_write(&self) -> bool {
        // No load precedes the exchange, as in `try_read`.
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
    pub(crate) fn end_write(&self) {
        let word = &raw const self.state;
        // Release: the next holders see what was written.
        if self.state.compare_exchange(WRITER, 0, Release, Relaxed).is_err() {
            let state = self.state.fetch_update(Release, Relaxed, |state| Some(without_writer(state)));
            wake_entering(state, word);
        }
    }

    /// Turns the writer into a reader, with no other writer in between.
    pub(crate) fn downgrade(&self) {
        let state = self.state.fetch_update(Release, Relaxed, |state| Some(without_writer(state) + READER));
        wake_entering(state, &self.state);
    }

    #[cold]
    fn write_contended(&self, deadline: Option<Instant>) -> bool {
        if base::spin_until(|| self.try_write_seen(self.state.load(Relaxed))) {
            return true;
        }
        if !self.writers.lock_until(|| deadline) {
            return false;
        }
        let claimed = self.claim_writer(deadline);
        self.writers.unlock();
        if claimed && !self.wait_for_readers(deadline) {
            self.end_write();
            return false;
        }
        claimed
    }

    /// Sets WRITER once it is clear; false if the deadline came first. The caller holds `writers`.
    fn claim_writer(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        // An OR instead of a compare-exchange, which readers that come and go could make fail
        // forever. Relaxed: `wait_for_readers` comes next.
        while self.state.fetch_or(WRITER, Relaxed) & WRITER != 0 {
            if late {
                self.state.fetch_and(!QUEUE, Relaxed);
                return false;
            }
            let state = self.state.load(Relaxed);
            if state & WRITER != 0
                && (state & QUEUE != 0 || self.state.compare_exchange(state, state | QUEUE, Relaxed, Relaxed).is_ok())
            {
                late = self.sleep(state | QUEUE, deadline, ENTERING);
            }
        }
        self.state.fetch_and(!QUEUE, Relaxed);
        true
    }

    /// Waits until all readers have left; false if the deadline came first. The caller has set
    /// WRITER.
    fn wait_for_readers(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        base::spin_until(|| is_drained(self.state.load(Acquire)));
        loop {
            let state = self.state.load(Acquire);
            if is_drained(state) {
                return true;
            }
            if late {
                return false;
            }
            late = self.sleep(state, deadline, DRAINING);
        }
    }

    /// Whether a reader or a writer holds the lock, or waits for it.
    pub(crate) fn is_locked(&self) -> bool {
        self.state.load(Relaxed) & !SLEEPERS != 0
    }

    /// Whether a writer holds the lock; false if it still waits for readers to leave.
    pub(crate) fn is_locked_exclusive(&self) -> bool {
        let state = self.state.load(Relaxed);
        state & (WRITER | ADMITTING) == WRITER && active_readers(state) == 0
    }

    /// Whether a writer has the lock or waits for readers to leave, for models.
    #[cfg(all(loom, test))]
    pub(super) fn has_writer(&self) -> bool {
        self.state.load(Relaxed) & WRITER != 0
    }

    /// Sets SLEEPERS and sleeps while the state is otherwise `state`; true means that the deadline
    /// has passed.
    fn sleep(&self, state: u32, deadline: Option<Instant>, bitset: u32) -> bool {
        let marked = state | SLEEPERS;
        (state == marked || self.state.compare_exchange(state, marked, Relaxed, Relaxed).is_ok())
            && base::wait(&self.state, marked, deadline, bitset)
    }
}

/// The state after a writer: waiting readers are admitted.
fn without_writer(state: u32) -> u32 {
    (state & !(WRITER | SLEEPERS)) | if waiting_readers(state) > 0 { ADMITTING } else { 0 }
}

/// Wakes sleepers after a writer left this state. The lock may be freed already.
#[cold]
fn wake_entering(state: Result<u32, u32>, word: *const AtomicU32) {
    if state.is_ok_and(|state| state & SLEEPERS != 0) {
        base::wake(word, i32::MAX as u32, ENTERING);
    }
}

/// Wakes sleepers after a reader left this state. The lock may be freed already, by a writer that
/// saw the last reader leave.
#[cold]
fn wake_after_read(state: u32, word: *const AtomicU32) {
    if state & WRITER != 0 && active_readers(state) == 1 {
        base::wake(word, 1, DRAINING);
    }
    if !has_room(state) {
        base::wake(word, i32::MAX as u32, ANY);
    }
}
