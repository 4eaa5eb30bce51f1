//! Getting a thread's attention: one signal however often it is asked for, and a count that tells when it arrived.
//!
//! ```text
//!     interrupt ── wanted += 1 ── ASKED already? done : tgkill ──▶ handler ── clear ASKED ── seen = wanted
//! ```
//!
//! The handler clears `ASKED` before it looks at `wanted`: so whoever found it set was counted before the handler
//! looked, and one signal does for both. A thread that ends waits for whoever is about to signal it, so that the
//! signal cannot go to another thread that got the same id.

use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::{Block, Thread, this_block};
use crate::errno::{Errno, Result};
use crate::signal::{self, INTERRUPT, Signal};
use crate::{futex, sys};

/// A block's part in this.
pub(super) struct Interrupts {
    /// `ENDED`, `ASKED`, and below them how many are signalling this thread at the moment.
    state: AtomicU32,
    wanted: AtomicU32,
    seen: AtomicU32,
}

const ENDED: u32 = 1 << 31;
const ASKED: u32 = 1 << 30;

impl Interrupts {
    pub(super) const fn new() -> Interrupts {
        Interrupts { state: AtomicU32::new(0), wanted: AtomicU32::new(0), seen: AtomicU32::new(0) }
    }

    /// Calls `send` while the thread cannot end; `ESRCH` if it has.
    fn while_alive<T>(&self, send: impl FnOnce() -> Result<T>) -> Result<T> {
        // Acquire pairs with `end`: whoever does not see ENDED is seen by `end`, for the two read and write one word.
        let sent = if self.state.fetch_add(1, Acquire) & ENDED == 0 { send() } else { Err(Errno::ESRCH) };
        // Release: the signal comes before the end.
        if self.state.fetch_sub(1, Release) & !ASKED == ENDED | 1 {
            futex::wake(&self.state, 1); // The last one out, and the thread waits in `end`.
        }
        sent
    }

    /// The thread's last word on signals: when this returns nobody signals it, and nobody will.
    pub(super) fn end(&self) {
        let mut state = self.state.fetch_or(ENDED, Acquire) | ENDED;
        while state & !(ENDED | ASKED) != 0 {
            let _ = futex::wait(&self.state, state);
            state = self.state.load(Acquire);
        }
    }
}

/// Which of a thread's interrupts: see [`Thread::interrupt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

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
    pub fn interrupt(&self) -> Result<Generation> {
        catch()?;
        let interrupts = &self.block().interrupts;
        // Release, here and in `fetch_or`: what the caller did is seen by the thread after its handler.
        let generation = Generation(interrupts.wanted.fetch_add(1, Release).wrapping_add(1));
        interrupts.while_alive(|| {
            self.block().id_to_signal()?; // First: what a thread left unseen that ended by itself is no signal on its way.
            if interrupts.state.fetch_or(ASKED, Release) & ASKED == 0 {
                self.block().kill(INTERRUPT).inspect_err(|_| {
                    // Whoever relied on this signal meanwhile has to ask again, as the caller.
                    interrupts.state.fetch_and(!ASKED, Relaxed);
                })?;
            }
            Ok(generation)
        })
    }

    /// Whether this interrupt has arrived, or one after it.
    pub fn has_seen(&self, generation: Generation) -> bool {
        // Acquire pairs with the handler's release. Numbers wrap around; half of them are the past.
        let seen = self.block().interrupts.seen.load(Acquire);
        seen.wrapping_sub(generation.0) as i32 >= 0
    }

    /// tgkill(2): sends it a signal of the program's. `ESRCH`, the thread has ended; `EAGAIN`, for signals from 34
    /// on: as many are on their way as `RLIMIT_SIGPENDING` allows this user.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.block().interrupts.while_alive(|| self.block().kill(signal.raw()))
    }
}

impl Block {
    fn kill(&self, signal: u32) -> Result<()> {
        sys::tgkill(sys::getpid(), self.id_to_signal()?, signal)
    }

    /// `ESRCH` for a thread that ended without [`Interrupts::end`]: by exit(2) in a call of the program's own, or killed by
    /// a filter.
    fn id_to_signal(&self) -> Result<u32> {
        Some(self.tid()).filter(|tid| *tid != 0).ok_or(Errno::ESRCH)
    }
}

/// Installs the handler, once.
fn catch() -> Result<()> {
    static CAUGHT: AtomicBool = AtomicBool::new(false);
    // Relaxed: whoever installs it again installs the same.
    if !CAUGHT.load(Relaxed) {
        // SAFETY: 1. The handler touches atomics of a thread that is there.
        unsafe { signal::catch_reserved(INTERRUPT, arrived, false) }.map_err(|errno| match errno {
            Errno::EINVAL => Errno::EOPNOTSUPP,
            other => other,
        })?;
        CAUGHT.store(true, Relaxed);
    }
    Ok(())
}

extern "C" fn arrived(_: i32) {
    // SAFETY: a running thread's block stays.
    let interrupts = unsafe { &this_block().as_ref().interrupts };
    // Acquire pairs with the release of whoever found ASKED set, so `wanted` counts them.
    interrupts.state.fetch_and(!ASKED, AcqRel);
    let wanted = interrupts.wanted.load(Acquire);
    interrupts.seen.store(wanted, Release);
}
