//! The list for a thread that goes through it while no thread starts or ends.

use core::cell::Cell;
use core::ops::Deref;
use core::ptr::NonNull;

use super::{Block, ListLock, begin_list, check_for_ended, ensure_listed, threads, with_lock};
use crate::signal::{self, Blocked, How, SigSet};
use crate::sys;
use crate::thread::block::release;
use crate::thread::{fork, scope};

/// The closed list: no other thread adds to it or removes from it.
pub(crate) struct List<'a> {
    lock: ListLock,
    this: &'static Block,
    before: &'a Blocked,
}

impl List<'_> {
    /// Calls `f` with the list closed. The program's signals are blocked, because a handler could
    /// need the list too. The reserved ones are not, so that this thread can answer another one
    /// that has closed the list before.
    ///
    /// In a child that `f` forks, the list holds only the calling thread, and `f` continues there
    /// with that list.
    pub(crate) fn with<T>(f: impl FnOnce(&List<'_>) -> T) -> T {
        let before = signal::block_everything();
        let this = ensure_listed();
        let gate = &threads().gate;
        let generation = fork::generation();
        gate.draw(&this.held);
        signal::mask(How::Set, &SigSet::full());
        gate.wait_for_turn(&this.held, || check_for_ended(this, &before));
        gate.close(|| check_for_ended(this, &before));
        let done = f(&List { lock: ListLock(()), this, before: &before });
        if fork::generation() == generation {
            gate.open(&this.held);
        }
        before.restore();
        done
    }

    /// [`with`](List::with) for a handler, and for a caller that must not wait long: `None` if the
    /// list cannot be closed within this many tenths of a second. `f` forks no process.
    ///
    /// A handler of the program that runs in a wait of this thread for the list (4) finds what the
    /// thread holds there, and gets `None`.
    pub(crate) fn within<T>(tenths: u32, f: impl FnOnce(&List<'_>) -> T) -> Option<T> {
        const TRIES_A_TENTH: u32 = 20;
        let before = signal::block_everything();
        let this = ensure_listed();
        let gate = &threads().gate;
        let is_free = !this.held.is_something();
        let draws = is_free
            && (0..tenths * TRIES_A_TENTH).any(|_| {
                let drawn = gate.try_draw(&this.held);
                // The thread that closed the list may be waiting for this one's answer.
                signal::mask(How::Set, &SigSet::full());
                if !drawn {
                    // A handler may shorten it.
                    let _ = sys::nanosleep(&sys::Timespec { tv_sec: 0, tv_nsec: 5_000_000 });
                    signal::block_everything();
                }
                drawn
            });
        let done = draws.then(|| {
            let left = Cell::new(tenths);
            let closed = gate.close_while(|| {
                check_for_ended(this, &before);
                left.set(left.get().saturating_sub(1));
                left.get() > 0
            });
            let done = closed.then(|| f(&List { lock: ListLock(()), this, before: &before }));
            gate.open(&this.held);
            done
        });
        before.restore();
        done.flatten()
    }

    /// For an `f` that waits: called after each step without change, it unblocks signals for a
    /// moment (4).
    pub(crate) fn let_signals_through(&self) {
        signal::let_default_through(self.before);
    }

    /// Removes threads that ended without leaving the list: by an exit(2) of the program's own, or
    /// killed by a filter. Their scopes no longer wait for them, and what they held is released.
    /// Their memory is freed when their handles are dropped. A thread with a ticket whose turn has
    /// not come stays in the list until a later call.
    pub(crate) fn remove_ended(&self) {
        // SAFETY: a block stays as long as it is linked.
        if !self.iter().any(|block| unsafe { block.as_ref() }.is_gone()) {
            return;
        }
        let now = signal::block_everything();
        with_lock(self.this, self.before, |lock| {
            lock.release_what_ended_threads_hold();
            let can_go = |block: &NonNull<Block>| {
                // SAFETY: a block stays as long as it is linked.
                let block = unsafe { block.as_ref() };
                block.is_gone() && !threads().gate.is_awaited(&block.held)
            };
            while let Some(ended) = lock.iter().find(can_go) {
                lock.unlink(ended);
                // SAFETY: 1. It has ended. Its own reference keeps the block: it was linked until
                // the line above.
                unsafe { scope::uncount_ended(ended) };
                // SAFETY: its own reference keeps the block until the end of this loop's body.
                let block = unsafe { ended.as_ref() };
                if block.lifecycle.was_never_cloned() {
                    // Its parent was killed in clone(2), before there was a handle.
                    block.lifecycle.mark_ended();
                    // SAFETY: 1. The handle's reference: the parent did not get to make a handle.
                    unsafe { release(ended) };
                }
                // SAFETY: 1. The thread's own reference. A thread releases it after it leaves the
                // list, and this one ended before it left.
                unsafe { release(ended) };
            }
        });
        now.restore();
    }

    /// The number of threads in the list for which `f` is true.
    pub(in crate::thread) fn count(&self, f: impl Fn(&Block) -> bool) -> usize {
        // SAFETY: a block stays as long as it is linked.
        self.iter().filter(|block| f(unsafe { block.as_ref() })).count()
    }

    /// fork(2), while no thread is in the middle of a start or an end. In the child the list
    /// contains only the calling thread.
    ///
    /// # Safety
    ///
    /// 1. Condition 1 of [`sys::fork`].
    pub(in crate::thread) unsafe fn fork(&self) -> crate::errno::Result<u32> {
        let now = signal::block_everything();
        // SAFETY: the caller guarantees the same (1).
        let forked = unsafe { sys::fork() };
        if forked == Ok(0) {
            begin_list(self.this);
        }
        now.restore();
        forked
    }
}

impl Deref for List<'_> {
    type Target = ListLock;

    fn deref(&self) -> &ListLock {
        &self.lock
    }
}
