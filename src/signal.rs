//! Signals: sets, masks and actions; signal(7).
//!
//! Two signals are reserved for rt0, and no function here names, blocks or catches them:
//! `all_threads` sends number 33 to every thread, and [`Thread::interrupt`] sends number 32 to one.
//! glibc reserves the same two, for the same uses. There are two because an action belongs to a
//! signal: a system call that 33 interrupts is restarted (`SA_RESTART`), and one that 32 interrupts
//! must not be. (gdb stops at them unless it is given `handle SIG32 SIG33 nostop noprint pass`.)
//!
//! Handlers run on a signal stack. Every thread that [`thread::spawn`] makes has one. The main
//! thread gets its own with the first [`sigaction`] or the first spawn, whichever comes first. A
//! signal stack has twice the size of the processor's registers plus 16 KiB, and at least 32 KiB.
//! Below it is a guard page.
//!
//! # What a handler may call
//!
//! A handler runs between any two instructions of the thread that it interrupts, also in the middle
//! of a function of rt0's. Each public function says in a line `In handlers:` whether it may be
//! called there:
//!
//! - *yes*: it waits for no other thread and for nothing that the interrupted code may hold. It may
//!   interrupt any function of rt0, also itself. So a handler can wake a waiter
//!   ([`Semaphore::release`], [`Thread::unpark`], [`futex::wake`]), read a clock, read and write
//!   descriptors, and try locks. It must drop a guard before it returns.
//! - *no*: it could wait for ever for what the interrupted code holds, or find a half-done change.
//!
//! `Clone` and `Debug` may be called in handlers. `Drop` may too, with these exceptions: the last
//! [`Thread`] of a thread that has ended, a [`JoinHandle`], the ends of a channel, and a value
//! whose destructor waits. `tests/src/suite/handlers.rs` calls the functions that share state with
//! the code that they interrupt, under frequent signals.
//!
//! [`Semaphore::release`]: crate::sync::Semaphore::release
//! [`Thread`]: crate::thread::Thread
//! [`Thread::unpark`]: crate::thread::Thread::unpark
//! [`JoinHandle`]: crate::thread::JoinHandle
//! [`futex::wake`]: crate::futex::wake
//!
//! # Signals that are blocked or ignored when a process starts
//!
//! execve(2) keeps the mask of the thread that calls it, and which signals are ignored. For the
//! signals that rt0 relies on, that is the parent's choice and not the program's, so rt0 undoes it:
//!
//! | signal | if blocked | if ignored |
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
//! [`report_overflows`], [`profile::start`], [`Thread::interrupt`], a call on all threads. rt0
//! reads the mask once. It cannot tell a mask or an action that the program set before that, by a
//! raw system call, from the parent's. What the program sets afterwards stays:
//!
//! - A signal that the program blocks by [`mask`] stays blocked. If a thread that blocks SIGSEGV
//!   overflows its stack, the process ends without a line, because the kernel runs no handler then.
//!   A thread that blocks SIGPROF is sampled where it unblocks it.
//! - [`fault::explain`](crate::fault::explain) unblocks the signals of faults on the thread that
//!   calls it.
//! - An action that the program sets by [`sigaction`] stays, also if it was set before the first
//!   use, and also if it ignores SIGSEGV.
//! - A thread that blocks 32 or 33 by a raw system call is not reached until it unblocks them.
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
pub(crate) use action::{catch_reserved, ignore, replace_found, set_default};
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

/// Interrupts one thread: `SIGRTMIN`. glibc uses it to cancel threads.
pub(crate) const INTERRUPT: u32 = k::SIGRTMIN;

/// Makes a thread do its part of a call on all threads. glibc uses it for setuid(2) and the like.
pub(crate) const ALL_THREADS: u32 = k::SIGRTMIN + 1;

const fn is_reserved(number: u32) -> bool {
    matches!(number, INTERRUPT | ALL_THREADS)
}

/// Sends `signal` to the calling thread. Unless it is blocked, its handler has run when this
/// returns. Errors: those of tgkill(2).
///
/// ```no_run
/// use rt0::signal::{self, Signal};
///
/// signal::raise(Signal::SIGTSTP)?; // Stops the process, as Ctrl-Z does.
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn raise(signal: Signal) -> Result<()> {
    // If a handler forked between the three calls, the child would signal its parent.
    let before = block_everything();
    // Both ids are read each time, because they change with a fork.
    let sent = sys::tgkill(sys::getpid(), sys::gettid(), signal.raw());
    before.restore();
    sent
}

/// Unblocks `signal` and sends it to the calling thread. It is delivered before this returns, also
/// inside its own handler.
pub(crate) fn unblock_and_raise(signal: Signal) {
    mask(How::Unblock, &SigSet::from_iter([signal]));
    let _ = raise(signal); // Refused by a filter: then it is not sent.
}

/// Ends the process by `signal`, even if the program catches it. The parent sees that the process
/// died of this signal, with a core dump if that is the signal's default.
///
/// The first process of a PID namespace does not die of a signal whose action is the default. For
/// it, and for a signal that by default does not end a process, the exit status is 128 plus the
/// signal's number, as a shell reports it.
///
/// On MIPS the last signal has the number 128. The kernel reports a death in the number's low seven
/// bits, which are 0 here, as for a successful exit. So the exit status is 255 instead.
///
/// ```no_run
/// use rt0::signal::{self, Signal};
///
/// signal::die_from(Signal::SIGTERM) // After the cleanup in response to a SIGTERM.
/// ```
///
/// In handlers: yes.
pub fn die_from(signal: Signal) -> ! {
    /// The highest number that wait(2) can report.
    const LAST_REPORTED: u32 = 0x7f;
    if signal.raw() > LAST_REPORTED {
        sys::exit_group(255);
    }
    // The kernel refuses it for SIGKILL and SIGSTOP, which always have their default action.
    // SAFETY: 1. The default action runs no handler.
    let _ = unsafe { sys::rt_sigaction(signal.raw(), Some(&Action::DEFAULT.to_kernel()), None) };
    unblock_and_raise(signal);
    for _ in 0..3 {
        sys::sched_yield(); // The kernel may have delivered it to another thread.
    }
    sys::exit_group(128 + signal.raw() as i32)
}
