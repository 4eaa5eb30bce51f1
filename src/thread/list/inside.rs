//! The list for a thread that starts another one, or ends: one of many inside the gate.

use core::ptr::NonNull;

use super::{Block, ListLock, check_for_ended, ensure_listed, lock, threads, with_lock};
use crate::signal::{self, Blocked, How, SigSet};
use crate::thread::{fork, hooks, scope};

/// Proof that the calling thread is inside the gate. Other threads may be inside too. All signals
/// are blocked.
pub(in crate::thread) struct InsideGate<'a> {
    this: &'static Block,
    before: &'a Blocked,
}

impl<'a> InsideGate<'a> {
    /// Enters the gate. Every signal is blocked and stays so, except while another thread has
    /// closed the gate: then the reserved ones are unblocked, because that thread may be waiting
    /// for this one's answer. `before` is what the program has blocked.
    pub(in crate::thread) fn enter(before: &'a Blocked) -> InsideGate<'a> {
        let this = ensure_listed();
        let gate = &threads().gate;
        if !gate.try_enter(&this.held) {
            gate.draw(&this.held);
            signal::mask(How::Set, &SigSet::full());
            gate.wait_for_turn(&this.held, || check_for_ended(this, before));
            signal::block_everything();
            gate.enter_in_turn(&this.held);
        }
        InsideGate { this, before }
    }

    /// Adds a thread that is about to be cloned, and counts it in its scope.
    pub(in crate::thread) fn link(&self, block: NonNull<Block>) {
        // SAFETY: no other thread has the block until it is linked.
        let new = unsafe { block.as_ref() };
        new.lifecycle.mark_not_cloned();
        new.generation.set(fork::generation());
        with_lock(self.this, self.before, |lock| {
            lock.link(block);
            scope::count(new);
        });
    }

    /// Removes a thread that was not cloned, and uncounts it.
    pub(in crate::thread) fn unlink(&self, block: NonNull<Block>) {
        with_lock(self.this, self.before, |lock| {
            lock.unlink(block);
            // SAFETY: the caller has failed to clone it, so it still owns the block.
            scope::uncount(unsafe { block.as_ref() });
        });
    }

    /// Removes the calling thread from the list, and leaves the gate. Between the two it makes no
    /// system call, in which it could be killed while it is inside the gate and not in the list.
    pub(in crate::thread) fn leave_for_good(self) {
        let this = self.this;
        core::mem::forget(self);
        let latch = lock(this, &this.mask);
        ListLock(()).unlink(NonNull::from_ref(this));
        let (is_waited_for, is_last) = (latch.unlock(), threads().gate.leave(&this.held));
        latch.wake(is_waited_for);
        threads().gate.wake_closer(is_last);
    }
}

impl Drop for InsideGate<'_> {
    fn drop(&mut self) {
        let gate = &threads().gate;
        gate.wake_closer(gate.leave(&self.this.held));
    }
}

/// Calls the hooks of the calling thread's start. All signals are blocked.
pub(in crate::thread) fn call_start_hooks(this: &Block) {
    let starts = || hooks::registered().filter_map(|hooks| hooks.start);
    if starts().next().is_some() {
        let inside = InsideGate::enter(&this.mask);
        with_lock(inside.this, inside.before, |lock| starts().for_each(|start| start(lock, this)));
    }
}
