//! Upgradable readers: an active reader that holds the writers' mutex. It becomes the writer by
//! setting WRITER in place of its own READER.
//!
//! 5. *No writer comes between the upgradable reader and the writer that it becomes:* another
//!    thread sets WRITER either while it holds the writers' mutex, or in the same atomic step that
//!    saw no active reader. Both are impossible from before the upgradable reader is active until
//!    it has set WRITER. If it times out, it becomes active again in the step that clears WRITER,
//!    and still holds the mutex.
//!
//! Properties 1 to 4 are those of the lock (`raw_rwlock.rs`).

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::{ENTERING, QUEUE, READER, RawRwLock, Reader, WRITER, is_drained, may_enter, wake_entering, without_writer};
use crate::time::Instant;

impl RawRwLock {
    /// Acquires the lock for an upgradable reader.
    pub(crate) fn upgradable(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        if self.try_upgradable() {
            return true;
        }
        let deadline = deadline();
        if !self.writers.lock_until(|| deadline) {
            return false;
        }
        let claimed = self.claim_reader(deadline);
        if !claimed {
            self.writers.unlock();
        }
        claimed
    }

    pub(crate) fn try_upgradable(&self) -> bool {
        if !self.writers.try_lock() {
            return false;
        }
        let active = self.try_read();
        if !active {
            self.writers.unlock();
        }
        active
    }

    /// Becomes an active reader once no writer holds the lock; false if the deadline came first.
    /// The caller holds `writers`.
    fn claim_reader(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        loop {
            let state = self.state.load(Relaxed);
            let may_enter = may_enter(state, Reader::New);
            if may_enter {
                let active = (state & !QUEUE) + READER;
                if self.state.compare_exchange(state, active, Acquire, Relaxed).is_ok() {
                    return true;
                }
            } else if late {
                self.state.fetch_and(!QUEUE, Relaxed);
                return false;
            } else if state & QUEUE != 0 || self.state.compare_exchange(state, state | QUEUE, Relaxed, Relaxed).is_ok()
            {
                late = self.sleep(state | QUEUE, deadline, ENTERING);
            }
        }
    }

    /// Releases the lock, which the caller holds as the upgradable reader.
    pub(crate) fn end_upgradable(&self) {
        // In this order: as an active reader, the caller keeps the memory (4).
        self.end_right();
        self.end_read();
    }

    /// Turns the upgradable reader into an ordinary one.
    pub(crate) fn end_right(&self) {
        self.writers.unlock();
    }

    /// Turns the upgradable reader into the writer (5), once the other readers have left. If the
    /// deadline comes first, it stays what it is.
    pub(crate) fn upgrade(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        // WRITER is clear, so this sets it. Acquire, if this is the only reader: pairs with the
        // release in `end_read` of the others.
        let state = self.state.fetch_sub(READER - WRITER, Acquire);
        if !is_drained(state - READER) && !self.wait_for_readers(deadline()) {
            let state = self.state.fetch_update(Release, Relaxed, |state| Some(without_writer(state) + READER));
            wake_entering(state, &self.state);
            return false;
        }
        self.end_right();
        true
    }

    /// [`RawRwLock::upgrade`], if there are no other readers.
    pub(crate) fn try_upgrade(&self) -> bool {
        let alone = |state: u32| is_drained(state - READER).then_some(state - READER + WRITER);
        let upgraded = self.state.fetch_update(Acquire, Relaxed, alone).is_ok();
        if upgraded {
            self.end_right();
        }
        upgraded
    }
}
