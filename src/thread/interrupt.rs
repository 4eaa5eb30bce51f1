//! Getting a thread's attention: one signal however often it is asked for, and a count that tells when it arrived.
//!
//! ```text
//!     interrupt ── wanted += 1 ── ASKED already? done : tgkill ──▶ handler ── clear ASKED ── seen = wanted
//! ```
//!
//! What holds, and how:
//!
//! 1. *An interrupt that found `ASKED` is seen.* The handler clears `ASKED` before it looks at
//!    `wanted`: so a thread that found it set, by an exchange, was counted in `wanted` before the
//!    handler looked. It relies on the signal only if no thread is sending one at the moment, for a
//!    sender may yet fail.
//! 2. *No signal goes to another thread that got the same id.* A sender counts itself in the
//!    target's word while it sends, and a thread that ends waits until none is counted; from then
//!    on senders see `ENDED`.
//! 3. *No sender is interrupted between asking for an id and using it.* It blocks all signals for
//!    that stretch: a handler could fork, and the child would signal its parent's threads.
//! 4. *A sender that is gone is not waited for.* A filter can kill it in tgkill(2). It notes its
//!    target in [`Signalling`] in one stretch with counting itself, without a system call; a thread
//!    that waits for its senders looks for those that are gone (`list.rs`, 2) and uncounts them.
//!    Their target stays, for they had a [`Thread`] of it. `ASKED` may be theirs, with no signal
//!    under way; it is cleared, which costs a signal at most.

use core::cell::Cell;
use core::ptr::null;
use core::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::{Block, Thread, list};
use crate::errno::{Errno, Result};
use crate::signal::{self, Blocked, INTERRUPT, Signal};
use crate::{futex, sys};

/// A block's part in this.
pub(super) struct Interrupts {
    /// `ENDED`, `ASKED`, and below them how many are signalling this thread at the moment.
    state: AtomicU32,
    /// How often it was interrupted, and how much of that the handler has seen.
    wanted: AtomicUsize,
    seen: AtomicUsize,
}

const ENDED: u32 = 1 << 31;
const ASKED: u32 = 1 << 30;
const SENDERS: u32 = ASKED - 1;

/// What a thread is signalling, for others if it is killed meanwhile (4).
pub(super) struct Signalling(Cell<*const Interrupts>);

impl Signalling {
    pub(super) const fn new() -> Signalling {
        Signalling(Cell::new(null()))
    }

    /// Uncounts a thread that is gone; whether it was counted. The caller has the list's latch.
    pub(super) fn give_back(&self) -> bool {
        // SAFETY: the thread had a reference to the block that this lies in, and does not give it
        // up any more.
        let Some(target) = (unsafe { self.0.replace(null()).as_ref() }) else { return false };
        target.state.fetch_and(!ASKED, Relaxed);
        target.leave();
        true
    }
}

impl Interrupts {
    pub(super) const fn new() -> Interrupts {
        Interrupts { state: AtomicU32::new(0), wanted: AtomicUsize::new(0), seen: AtomicUsize::new(0) }
    }

    /// As new, in a forked child, for its thread: a signal that was on its way is the parent's.
    pub(super) fn renew(&self) {
        self.state.store(0, Relaxed);
        self.seen.store(self.wanted.load(Relaxed), Relaxed);
    }

    /// Counts one more.
    fn want(&self) -> Generation {
        // Release: what the caller did is seen by the thread after its handler.
        Generation(self.wanted.fetch_add(1, Release).wrapping_add(1))
    }

    /// The handler's part.
    fn arrive(&self) {
        // Acquire pairs with the release of every thread that found ASKED set, so `wanted` counts them.
        self.state.fetch_and(!ASKED, AcqRel);
        let wanted = self.wanted.load(Acquire);
        self.seen.store(wanted, Release);
    }

    fn has_seen(&self, generation: Generation) -> bool {
        // Acquire pairs with the handler's release. Numbers wrap around; half of them are the past.
        let seen = self.seen.load(Acquire);
        seen.wrapping_sub(generation.0) as isize >= 0
    }

    /// Whether a signal is on its way that was sent.
    fn is_asked(&self) -> bool {
        let is_sent = |state| state & (ENDED | ASKED | SENDERS) == ASKED;
        // An exchange that changes nothing: so it comes before the handler's, or sees it (1).
        self.state.fetch_update(Release, Relaxed, |state| is_sent(state).then_some(state)).is_ok()
    }

    fn leave(&self) {
        // Release: the signal comes before the end.
        if self.state.fetch_sub(1, Release) & !ASKED == ENDED | 1 {
            futex::wake(&self.state, 1); // The last one, and the thread waits in `end`.
        }
    }

    /// What a thread that ends calls before it leaves the list: when this returns no thread signals
    /// it, and none will. All signals are blocked; `before` is what the program has blocked.
    pub(super) fn end(&self, this: &Block, before: &Blocked) {
        let mut state = self.state.fetch_or(ENDED, Acquire) | ENDED;
        while state & SENDERS != 0 {
            if futex::wait_a_while(&self.state, state, sys::FUTEX_ANY) {
                list::look(this, before);
            }
            state = self.state.load(Acquire);
        }
    }
}

/// Which of a thread's interrupts: see [`Thread::interrupt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(usize);

impl Thread {
    /// Interrupts the thread where it is: a blocking call of its fails with `EINTR`, and it comes back to its
    /// program, which may look at whatever the caller set before. It is how a runtime asks its threads for something.
    ///
    /// What the caller did happens before the thread goes on. Interrupts that are not yet delivered are one: however
    /// many threads ask, there is one signal on its way, and asking costs one system call or none.
    /// [`has_seen`](Thread::has_seen) tells when it arrived: at once if the thread is waiting in a call, by the next
    /// timer tick or sooner if it computes on another processor, else when the scheduler lets it run.
    ///
    /// A thread that was just about to enter a call when the interrupt arrived waits in the call none the less, as
    /// with every signal. To be sure that it looks, interrupt it again until it answers; a millisecond apart costs
    /// nobody anything. Calls that signal(7) lists as restarted always, as read(2) of a file on a disk, and rt0's own
    /// waits (locks, sleeping, parking, [`io`](crate::io)) go on.
    ///
    /// So it also wakes a thread that blocks in a call of a foreign library, such as a poller's, if
    /// that returns on `EINTR`. A poller of the program's own is better woken by an
    /// [`EventFd`](crate::io::EventFd) among its descriptors: that is never missed.
    ///
    /// May be called in a handler. Errors: `ESRCH`, the thread has ended; `EAGAIN`, as many signals are on their way
    /// as `RLIMIT_SIGPENDING` allows this user; `EOPNOTSUPP`, an emulator without the signal.
    ///
    /// In handlers: yes.
    pub fn interrupt(&self) -> Result<Generation> {
        // SAFETY: 1. The handler accesses atomics of a thread that is there.
        unsafe { signal::catch_reserved(INTERRUPT, arrived, false) }?;
        list::notice_fork(); // Nothing that its parent was sent is on its way to a child.
        let block = self.block();
        let generation = block.interrupts.want();
        // First the end: what a thread left unseen that ended by itself is no signal on its way.
        if block.tid() == 0 || !block.interrupts.is_asked() {
            block.send(INTERRUPT, ASKED)?;
        }
        Ok(generation)
    }

    /// Whether this interrupt has arrived, or one after it. On 32-bit machines the answer is right for
    /// the next 2^31 interrupts of the thread; on 64-bit machines a thread does not have so many.
    ///
    /// In handlers: yes.
    pub fn has_seen(&self, generation: Generation) -> bool {
        self.block().interrupts.has_seen(generation)
    }

    /// tgkill(2): sends it a signal of the program's. `ESRCH`, the thread has ended; `EAGAIN`, for signals from 34
    /// on: as many are on their way as `RLIMIT_SIGPENDING` allows this user.
    ///
    /// In handlers: yes.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.block().send(signal.raw(), 0)
    }
}

impl Block {
    /// tgkill(2) while the thread cannot end (2, 3). With `ASKED` as `asked`, that is set. `ESRCH`
    /// for a thread that ended, also without [`Interrupts::end`]: by exit(2) in a call of the
    /// program's own, or killed by a filter.
    fn send(&self, signal: u32, asked: u32) -> Result<()> {
        let before = signal::block_everything();
        let this = list::settle();
        let interrupts = &self.interrupts;
        let enter = |state| (state & ENDED == 0).then_some((state | asked) + 1);
        // Acquire pairs with `end`: a sender that does not see ENDED is seen by `end`, for the two
        // read and write one word. Release: see `interrupt`.
        let sent = match interrupts.state.fetch_update(AcqRel, Relaxed, enter) {
            Ok(_) => {
                this.signalling.0.set(&raw const *interrupts);
                let sent = match self.tid() {
                    0 => Err(Errno::ESRCH),
                    tid => sys::tgkill(sys::getpid(), tid, signal),
                };
                if sent.is_err() {
                    interrupts.state.fetch_and(!asked, Relaxed);
                }
                this.signalling.0.set(null());
                interrupts.leave();
                sent
            }
            Err(_) => Err(Errno::ESRCH),
        };
        before.restore();
        sent
    }
}

extern "C" fn arrived(_: i32) {
    let Some(block) = super::block_in_handler() else { return };
    block.interrupts.arrive();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_stays_seen_where_the_numbers_wrap() {
        let start = usize::MAX - 2;
        let interrupts =
            Interrupts { state: AtomicU32::new(0), wanted: AtomicUsize::new(start), seen: AtomicUsize::new(start) };
        let mut earlier = Vec::new();
        for _ in 0..6 {
            let generation = interrupts.want();
            assert!(!interrupts.has_seen(generation));
            assert!(earlier.iter().all(|earlier| interrupts.has_seen(*earlier)));
            interrupts.arrive();
            assert!(interrupts.has_seen(generation));
            earlier.push(generation);
        }
        assert!(interrupts.wanted.into_inner() < 6, "they have wrapped");
    }
}
