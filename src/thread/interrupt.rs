//! Interrupting a thread: one signal for any number of pending interrupts, and a count that tells
//! when they arrived.
//!
//! ```text
//!     interrupt ── wanted += 1 ── ASKED? yes: done
//!                                        no:  tgkill ──▶ handler ── clear ASKED ── seen = wanted
//! ```
//!
//! Properties, and how they are achieved:
//!
//! 1. *An interrupt that finds `ASKED` set is seen:* the handler clears `ASKED` before it reads
//!    `wanted`. A thread that finds it set, by an exchange, has added to `wanted` before the
//!    handler reads. It relies on the signal only if no thread is sending one at the moment,
//!    because a sender may still fail.
//! 2. *No signal goes to another thread that got the same id:* a sender counts itself in the
//!    target's word while it sends. A thread that ends waits until none is counted, and later
//!    senders see `ENDED`.
//! 3. *No handler runs between asking for an id and using it:* a sender blocks all signals
//!    meanwhile. A handler could fork, and the child would signal its parent's threads.
//! 4. *No thread waits for a sender that was killed:* a filter can kill a sender in tgkill(2). A
//!    sender notes its target in [`Signalling`] and counts itself, with no system call between the
//!    two. A thread that waits for its senders looks for killed ones (`list.rs`, 2) and uncounts
//!    them. Their target is still mapped, because they had a [`Thread`] of it. If a killed sender
//!    had set `ASKED`, its signal was not sent. So `ASKED` is cleared, which costs at most one
//!    signal more.

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

/// The state of a thread's interrupts, in its block.
pub(super) struct Interrupts {
    /// `ENDED`, `ASKED`, and in the bits below, how many threads are signalling this one.
    state: AtomicU32,
    /// How many interrupts were asked for.
    wanted: AtomicUsize,
    /// How many of them the handler has seen.
    seen: AtomicUsize,
}

const ENDED: u32 = 1 << 31;
const ASKED: u32 = 1 << 30;
const SENDERS: u32 = ASKED - 1;

/// The thread that this one is signalling, for others to find if it is killed meanwhile (4).
pub(super) struct Signalling(Cell<*const Interrupts>);

impl Signalling {
    pub(super) const fn new() -> Signalling {
        Signalling(Cell::new(null()))
    }

    /// Uncounts a sender that was killed. Returns whether it was counted. The caller holds the
    /// list's latch.
    pub(super) fn give_back(&self) -> bool {
        // SAFETY: the sender had a reference to the block that contains this. It was killed, so it
        // does not release the reference.
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

    /// Resets it in a forked child, for its thread: a pending signal goes to the parent.
    pub(super) fn renew(&self) {
        self.state.store(0, Relaxed);
        self.seen.store(self.wanted.load(Relaxed), Relaxed);
    }

    /// Asks for one more interrupt.
    fn want(&self) -> Generation {
        // Release: after its handler ran, the thread sees what the caller did.
        Generation(self.wanted.fetch_add(1, Release).wrapping_add(1))
    }

    /// The handler's part.
    fn arrive(&self) {
        // Acquire pairs with the release of every thread that found ASKED set, so `wanted` counts
        // them.
        self.state.fetch_and(!ASKED, AcqRel);
        let wanted = self.wanted.load(Acquire);
        self.seen.store(wanted, Release);
    }

    fn has_seen(&self, generation: Generation) -> bool {
        // Acquire pairs with the handler's release. Numbers wrap; the half below is the past.
        let seen = self.seen.load(Acquire);
        seen.wrapping_sub(generation.0) as isize >= 0
    }

    /// Whether a signal is pending for certain: `ASKED` is set, and no sender may still fail.
    fn is_asked(&self) -> bool {
        let is_sent = |state| state & (ENDED | ASKED | SENDERS) == ASKED;
        // An exchange that changes nothing: it comes before the handler's exchange or sees it (1).
        self.state.fetch_update(Release, Relaxed, |state| is_sent(state).then_some(state)).is_ok()
    }

    fn leave(&self) {
        // Release: the signal is sent before the thread ends.
        if self.state.fetch_sub(1, Release) & !ASKED == ENDED | 1 {
            futex::wake(&self.state, 1); // It was the last sender, and the thread waits in `end`.
        }
    }

    /// A thread that ends calls this before it leaves the list. When it returns, no thread signals
    /// this one, and none will. All signals are blocked; `before` is what the program has blocked.
    pub(super) fn end(&self, this: &Block, before: &Blocked) {
        let mut state = self.state.fetch_or(ENDED, Acquire) | ENDED;
        while state & SENDERS != 0 {
            if futex::wait_a_while(&self.state, state, sys::FUTEX_ANY) {
                list::check_for_ended(this, before);
            }
            state = self.state.load(Acquire);
        }
    }
}

/// One of a thread's interrupts: see [`Thread::interrupt`].
///
/// ```no_run
/// use rt0::thread::{Generation, Thread};
///
/// /// Interrupts all, then waits until each was.
/// fn interrupt_all(threads: &[Thread], generations: &mut [Option<Generation>]) {
///     for (thread, generation) in threads.iter().zip(&mut *generations) {
///         *generation = thread.interrupt().ok(); // Not if it has ended.
///     }
///     for (thread, generation) in threads.iter().zip(generations) {
///         while generation.is_some_and(|generation| !thread.has_seen(generation)) {
///             rt0::thread::yield_now();
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(usize);

impl Thread {
    /// Interrupts the thread: if it blocks in a system call, the call fails with `EINTR`. Then the
    /// thread can check what the caller stored before. A runtime uses this to ask its threads for
    /// something.
    ///
    /// What the caller did happens before the thread continues. Interrupts that are not yet
    /// delivered are merged: there is one pending signal, and a call that finds it pending sends
    /// none. [`has_seen`](Thread::has_seen) tells when it arrived: at once if the thread waits in a
    /// call, by the next timer tick if it computes on another processor, otherwise when the
    /// scheduler lets it run.
    ///
    /// If the interrupt arrives just before the thread enters a call, the thread still waits in the
    /// call, as with every signal. To be sure that it checks, interrupt it again until it answers;
    /// once a millisecond costs next to nothing. Calls that signal(7) lists as always restarted,
    /// such as read(2) of a file on a disk, continue, and so do rt0's own waits (locks, sleeping,
    /// parking, [`io`](crate::io)).
    ///
    /// It also wakes a thread that blocks in a call of a foreign library, such as a poller's, if
    /// the library returns on `EINTR`. To wake a poller of the program's own, an
    /// [`EventFd`](crate::io::EventFd) among its descriptors is better: it is never missed.
    ///
    /// Errors: `ESRCH`, the thread has ended; `EAGAIN`, as many signals are pending as
    /// `RLIMIT_SIGPENDING` allows this user; `EOPNOTSUPP`, an emulator does not provide the signal.
    ///
    /// ```no_run
    /// use rt0::time::Duration;
    /// use rt0::{io, thread};
    ///
    /// let reader = thread::spawn(|| io::stdin().read(&mut [0; 64]))?; // EINTR, once interrupted.
    /// let generation = reader.thread().interrupt()?;
    /// while !reader.thread().has_seen(generation) {
    ///     thread::sleep(Duration::from_millis(1));
    /// }
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: yes.
    pub fn interrupt(&self) -> Result<Generation> {
        // SAFETY: 1. The handler accesses only atomics of the thread that it runs on.
        unsafe { signal::catch_reserved(INTERRUPT, arrived, false) }?;
        list::notice_fork(); // A signal that is pending for the parent does not reach the child.
        let block = self.block();
        let generation = block.interrupts.want();
        // The tid is checked first: a thread that ended may have left `ASKED` set, with no signal
        // pending.
        if block.tid() == 0 || !block.interrupts.is_asked() {
            block.send(INTERRUPT, ASKED)?;
        }
        Ok(generation)
    }

    /// Whether this interrupt or a later one has arrived. On 32-bit machines the answer is right
    /// for the next 2^31 interrupts of the thread; on 64-bit machines, for 2^63.
    ///
    /// In handlers: yes.
    pub fn has_seen(&self, generation: Generation) -> bool {
        self.block().interrupts.has_seen(generation)
    }

    /// tgkill(2): sends the thread a signal of the program's. Errors: `ESRCH`, the thread has
    /// ended; `EAGAIN`, for signals from 34 on: as many are pending as `RLIMIT_SIGPENDING` allows
    /// this user.
    ///
    /// ```no_run
    /// use rt0::signal::Signal;
    ///
    /// let worker = rt0::thread::spawn(|| rt0::thread::park())?;
    /// worker.thread().signal(Signal::SIGUSR1)?; // Its handler runs on the worker.
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: yes.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.block().send(signal.raw(), 0)
    }
}

impl Block {
    /// tgkill(2), while the thread cannot end (2, 3). Sets `asked`, which is `ASKED` or 0. `ESRCH`:
    /// the thread has ended. That includes one that did not call [`Interrupts::end`] because an
    /// exit(2) of the program's own or a filter ended it.
    fn send(&self, signal: u32, asked: u32) -> Result<()> {
        let before = signal::block_everything();
        let this = list::ensure_listed();
        let interrupts = &self.interrupts;
        let enter = |state| (state & ENDED == 0).then_some((state | asked) + 1);
        // Acquire pairs with `end`: both change one word, so `end` sees each sender that does not
        // see ENDED. Release: the thread sees what the caller of `interrupt` did after its handler
        // ran.
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
