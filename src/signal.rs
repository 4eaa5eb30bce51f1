//! Signals: sets, masks and actions; signal(7).
//!
//! Two of them are rt0's own, and nothing here names, blocks or catches them: number 33, by which
//! `all_threads` reaches every thread, and number 32, by which [`Thread::interrupt`] reaches one.
//! glibc keeps the same two to itself, for the same uses. They are two because an action belongs to
//! a signal: what the first interrupts goes on (`SA_RESTART`), and what the second interrupts must
//! not. (gdb stops at them until it is told `handle SIG32 SIG33 nostop noprint`.)
//!
//! Handlers run on a signal stack: every thread that [`thread::spawn`] makes has one, and the main
//! thread gets its own with the first [`sigaction`] or the first spawn, whichever comes first. A
//! signal stack has room for what the processor's registers take twice, and 16 KiB; at least 32 KiB
//! in all. What runs over meets a guard page.
//!
//! # What a handler may call
//!
//! A handler runs between any two instructions of the thread that it interrupts, also in the middle
//! of a function of rt0's. Each public function says in a line `In handlers:` whether it may be
//! called there:
//!
//! - *yes*: it waits for no other thread and for nothing that the interrupted code may hold. It may
//!   interrupt any function of rt0, also itself. So a handler can wake a waiter
//!   ([`Semaphore::release`], [`Thread::unpark`], [`futex::wake`]), ask the time, read and write
//!   descriptors, and try locks. A guard that it takes is to be dropped before it returns.
//! - *no*: it could wait for ever for what the interrupted code holds, or find it half done.
//!
//! `Clone` and `Debug` of what a handler may have are as the functions that say yes, and so is
//! `Drop`, but not of the last [`Thread`] of a thread that has ended, of a [`JoinHandle`], of
//! channels' ends and of values with a destructor that waits. `tests/src/suite/handlers.rs` calls
//! most of them in a storm of signals: all that share something with the code that they interrupt.
//!
//! [`Semaphore::release`]: crate::sync::Semaphore::release
//! [`Thread`]: crate::thread::Thread
//! [`Thread::unpark`]: crate::thread::Thread::unpark
//! [`JoinHandle`]: crate::thread::JoinHandle
//! [`futex::wake`]: crate::futex::wake
//!
//! # What a process finds of them when it starts
//!
//! execve(2) keeps the mask of the thread that calls it, and which signals are ignored. What a
//! parent left of the signals that rt0 relies on is not the program's choice, so it does not last:
//!
//! | signal | found blocked | found ignored |
//! |---|---|---|
//! | 32, 33 | unblocked at first use; a pending one is dropped | caught when first sent |
//! | SIGSEGV, SIGBUS | unblocked at first use; a pending one is delivered | reported, as default |
//! | SIGPROF | unblocked at first use; it does nothing if it had no action | caught by a profile |
//! | SIGABRT | unblocked by [`die_from`]; a fatal error ends with status 134 | the same |
//! | all others | stays | stays |
//!
//! A spawned thread starts with the mask of the thread that spawned it, and 32 and 33 unblocked.
//!
//! First use is the first of these on the main thread: spawning a thread, [`mask`],
//! [`report_overflows`], [`profile::start`], [`Thread::interrupt`], a call on all threads. It asks
//! for the mask once. A mask or an action that a program sets by a raw system call before that
//! cannot be told from a parent's. What it sets afterwards stays:
//!
//! - A signal that it blocks by [`mask`] stays blocked. A thread that blocks SIGSEGV ends the
//!   process without a line when its stack overflows, for the kernel runs no handler then. A thread
//!   that blocks SIGPROF is sampled where it unblocks it.
//! - [`fault::explain`](crate::fault::explain) unblocks the signals of faults on the thread that
//!   calls it.
//! - An action that it sets by [`sigaction`] stays, also before that: also that SIGSEGV is ignored.
//! - A thread that blocks 32 or 33 by a raw call is not reached until it unblocks them.
//!
//! [`report_overflows`]: crate::thread::report_overflows
//! [`profile::start`]: crate::profile::start
//! [`Thread::interrupt`]: crate::thread::Thread::interrupt
//! [`thread::spawn`]: crate::thread::spawn

mod action;
mod blocking;
mod exec;
mod info;
mod inherited;
mod own;
mod set;
mod stack;
mod wait;

use linux_raw_sys::general as k;

use crate::errno::Result;
use crate::sys;

pub use action::{Action, Flags, Handler, InfoHandler, action_of, sigaction};
pub(crate) use action::{catch_reserved, replace_found, set_default};
pub(crate) use blocking::{Blocked, block_everything, let_default_through};
pub use blocking::{How, mask};
pub(crate) use exec::{ignore_again, reset_actions};
pub use info::{Info, Sender, Siginfo};
pub(crate) use inherited::end_inherited_blocks;
pub(crate) use own::{catch_reserved_with_info, replace_own};
pub(crate) use set::COUNT;
pub use set::{SigSet, Signal};
pub use stack::{SignalStack, sigaltstack, signal_stack};
pub(crate) use stack::{ensure_main_has_stack, set_signal_stack, stack_size};
pub use wait::{pending, suspend, wait, wait_timeout, wait_until};

/// Interrupts one thread: `SIGRTMIN`, glibc's for cancelling.
pub(crate) const INTERRUPT: u32 = k::SIGRTMIN;

/// Makes a thread do its part of a call on all threads: glibc's for setuid(2) and its kin.
pub(crate) const ALL_THREADS: u32 = k::SIGRTMIN + 1;

const fn is_reserved(number: u32) -> bool {
    matches!(number, INTERRUPT | ALL_THREADS)
}

/// Sends `signal` to the calling thread; it was handled when this returns, unless it is blocked.
/// Errors of tgkill(2).
///
/// In handlers: yes.
pub fn raise(signal: Signal) -> Result<()> {
    // A handler that forked between the three calls would let the child signal its parent.
    let before = block_everything();
    // Both are asked for each time: after a fork they differ.
    let sent = sys::tgkill(sys::getpid(), sys::gettid(), signal.raw());
    before.restore();
    sent
}

/// Sends `signal` to the calling thread, also in its handler: it is delivered before this returns.
pub(crate) fn unblock_and_raise(signal: Signal) {
    mask(How::Unblock, &SigSet::from_iter([signal]));
    let _ = raise(signal); // Refused by a filter: then it is not sent.
}

/// Ends the process by `signal`, as if it were not caught: the process that waits for this one sees
/// that it died of it, with a core if that is the signal's default.
///
/// The first process of a PID namespace cannot die of a signal it does not catch; there, and for a
/// signal that by default does not end a process, the exit status is 128 and the signal's number,
/// as a shell reports it.
///
/// On MIPS the last signal has the number 128. The kernel reports a death in the number's low seven
/// bits, which are 0 here, as for a process that ended well; so the exit status is 255 instead.
///
/// In handlers: yes.
pub fn die_from(signal: Signal) -> ! {
    /// What wait(2) can tell of.
    const LAST_REPORTED: u32 = 0x7f;
    if signal.raw() > LAST_REPORTED {
        sys::exit_group(255);
    }
    // SAFETY: 1. The default is no handler. Refused for SIGKILL and SIGSTOP, which have no other.
    let _ = unsafe { sys::rt_sigaction(signal.raw(), Some(&Action::DEFAULT.to_kernel()), None) };
    unblock_and_raise(signal);
    for _ in 0..3 {
        sys::sched_yield(); // Where another thread was chosen to die.
    }
    sys::exit_group(128 + signal.raw() as i32)
}
