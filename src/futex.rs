//! Waiting for a word to change: futex(2).
//!
//! A wait may return at any time, also when nobody woke it and with `Ok`: loop on the word, never
//! on the result. The word is compared with `expected` by the kernel, under its own lock, so a
//! change made before the wake is never missed.
//!
//! What holds of every wait, also where a filter on system calls answers instead of the kernel:
//!
//! 1. *A wait that is refused is a wait all the same.* Instead of sleeping on the word, it sleeps
//!    for 50 µs to 1 ms at a time and looks at the word in between. After some 2 ms it returns
//!    `Ok`, so that the caller's loop looks too.
//! 2. *`ETIMEDOUT` says that the deadline is past*, by the clock. The errno does not decide: a
//!    filter can choose it, and the kernel gives it too early for a deadline that was cut to 32
//!    bits. A wait without a deadline never returns it.
//! 3. *A timed wait ends on time*, whichever errno comes: each one leads to a look at the clock. If
//!    the call and clock_gettime(2) are both refused, the process ends with a message.
//! 4. *No wake is lost without a word.* A refused wake is let pass only if no thread has ever been
//!    able to sleep by futex(2) in this process: then all waits are those of (1). Else the process
//!    ends with a message. The first wait tries the call out, and says that it may sleep before it
//!    does.
//!
//! The functions here are for words of one process. [`shared`] has the same for words in memory
//! that several processes map, and for those that the kernel wakes (it always wakes as shared).

pub(crate) mod base;
#[cfg(all(loom, test))]
pub(crate) mod fake_kernel;

use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use core::time::Duration;

use linux_raw_sys::general as k;

use crate::errno::{Errno, Result};
use crate::sys::{self, Timespec};
use crate::time::Instant;

macro_rules! operations {
    ($shared:literal) => {
        /// Sleeps while `word` holds `expected`, until woken. Errors: `EAGAIN`, the word held
        /// something else; `EINTR`, a signal handler ran.
        ///
        /// In handlers: no, it waits.
        #[inline]
        pub fn wait(word: &AtomicU32, expected: u32) -> Result<()> {
            wait_with(word, $shared, expected, None, sys::FUTEX_ANY)
        }

        /// [`wait`], for at most `timeout` by the monotonic clock; `ETIMEDOUT` when it is over. A
        /// timeout that reaches past the clock's end never is.
        ///
        /// In handlers: no, it waits.
        pub fn wait_timeout(word: &AtomicU32, expected: u32, timeout: Duration) -> Result<()> {
            match Instant::now().checked_add(timeout) {
                Some(deadline) => wait_until(word, expected, deadline),
                None => wait(word, expected),
            }
        }

        /// [`wait`], until `deadline` at the latest; then, and when it lies in the past,
        /// `ETIMEDOUT`. The word is looked at first: `EAGAIN` comes before `ETIMEDOUT`.
        ///
        /// In handlers: no, it waits.
        pub fn wait_until(word: &AtomicU32, expected: u32, deadline: Instant) -> Result<()> {
            wait_with(word, $shared, expected, Some(deadline), sys::FUTEX_ANY)
        }

        /// Wakes up to `count` threads that wait on `word`, and returns how many.
        ///
        /// A lost wake is a hang without a cause that can be found. So a wake that a filter
        /// refuses, while a thread may sleep, ends the process by `SIGABRT`, with a message. Where
        /// the call was never allowed, no thread sleeps, and the result is 0. Only `EFAULT` is let
        /// pass, with 0: a waiter that saw the new value may have unmapped the word.
        ///
        /// In handlers: yes.
        #[inline]
        pub fn wake(word: &AtomicU32, count: u32) -> usize {
            wake_at(word, $shared, count, sys::FUTEX_ANY)
        }

        /// Wakes every thread that waits on `word`, and returns how many.
        ///
        /// In handlers: yes.
        #[inline]
        pub fn wake_all(word: &AtomicU32) -> usize {
            wake_at(word, $shared, i32::MAX as u32, sys::FUTEX_ANY) // The kernel's count is an int.
        }
    };
}

operations!(false);

/// The same for words that several processes share or that the kernel wakes.
pub mod shared {
    use super::*;

    operations!(true);
}

/// The wait of a thread that only wakes with one of its `kinds` reach, with or without a deadline.
pub(crate) fn wait_as(word: &AtomicU32, expected: u32, deadline: Option<Instant>, kinds: u32) -> Result<()> {
    wait_with(word, false, expected, deadline, kinds)
}

/// Every wait. `EAGAIN`, `EINTR`, `ETIMEDOUT`, as the functions above say.
fn wait_with(word: &AtomicU32, shared: bool, expected: u32, deadline: Option<Instant>, kinds: u32) -> Result<()> {
    wait_till(word, shared, expected, deadline.map(Instant::deadline).as_ref(), kinds)
}

/// The same for a caller that has no [`Instant`].
pub(crate) fn wait_till(
    word: &AtomicU32,
    shared: bool,
    expected: u32,
    deadline: Option<&Timespec>,
    kinds: u32,
) -> Result<()> {
    // Relaxed: each thread that may sleep has seen it set, before the kernel looks at the word (4).
    let tried = if SLEEPS.load(Relaxed) { Ok(()) } else { try_out() };
    match tried.and_then(|()| sys::futex_wait(word, shared, expected, deadline, kinds)) {
        Ok(()) => Ok(()),
        Err(errno) => end_of_wait(word, expected, deadline, errno),
    }
}

/// Whether a thread of this process was ever allowed to sleep by futex(2).
static SLEEPS: AtomicBool = AtomicBool::new(false);

/// Makes a wait that does not sleep, to see whether the call is allowed; its errno if not.
#[cold]
fn try_out() -> Result<()> {
    match sys::futex_wait(&AtomicU32::new(0), false, 1, None, sys::FUTEX_ANY) {
        Ok(()) | Err(Errno::EAGAIN) => {
            // Before the kernel looks at the word that this thread sleeps on: futex(2) has a full
            // barrier in between (kernel/futex/core.c, `futex_hb_waiters_inc`). It pairs with the
            // fence in `refused_wake`: either the wake sees this, or the sleep sees the changed
            // word.
            SLEEPS.store(true, Relaxed);
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

/// The result of a wake that was refused (4).
#[cold]
fn refused_wake(errno: Errno) -> usize {
    fence(SeqCst); // After the change of the word; the partner is in `try_out`.
    if SLEEPS.load(Relaxed) { sys::die("futex wake", errno) } else { 0 }
}

/// How a wait ends to which the kernel or a filter said `errno`: by the word and the clock. If
/// neither decides, it is over after some pauses, or at once for a signal.
#[cold]
fn end_of_wait(word: &AtomicU32, expected: u32, deadline: Option<&Timespec>, errno: Errno) -> Result<()> {
    // A word that did not change: it did, and changed back; or a filter says so.
    let pauses = if errno == Errno::EAGAIN { 3 } else { 5 };
    for pause in 0.. {
        // Relaxed: the caller looks at the word itself.
        if word.load(Relaxed) != expected {
            return Err(Errno::EAGAIN);
        }
        if let Some(deadline) = deadline {
            // By the system call: `Instant::now` would bring the vDSO into every program.
            match sys::clock_gettime(k::CLOCK_MONOTONIC as i32) {
                Ok(now) if now >= *deadline => return Err(Errno::ETIMEDOUT),
                Ok(_) => {}
                Err(_) if matches!(errno, Errno::EAGAIN | Errno::EINTR | Errno::ETIMEDOUT) => return Err(errno),
                Err(_) => sys::die("futex wait", errno),
            }
        }
        if errno == Errno::EINTR || pause == pauses {
            break;
        }
        // Two short ones, for a wake that is about to come; then 50, 200 and 800 µs.
        let slept = pause >= 2 && sys::nanosleep(&Timespec { tv_sec: 0, tv_nsec: 50_000 << (2 * (pause - 2)) }).is_ok();
        if !slept {
            sys::sched_yield();
        }
    }
    if errno == Errno::EINTR { Err(errno) } else { Ok(()) }
}

/// The wait of a thread that only wakes with one of its `kinds` reach, for at most a tenth of a
/// second; true says that the time is over and the word has not changed.
///
/// The time comes from the system call, so that a program that only starts threads has no vDSO
/// parser in it.
#[cold]
pub(crate) fn wait_a_while(word: &AtomicU32, expected: u32, kinds: u32) -> bool {
    const NANOS: i64 = 100_000_000;
    let Ok(now) = sys::clock_gettime(k::CLOCK_MONOTONIC as i32) else {
        let _ = sys::nanosleep(&Timespec { tv_sec: 0, tv_nsec: NANOS });
        return word.load(Relaxed) == expected;
    };
    let nanos = now.tv_nsec + NANOS;
    let deadline = Timespec { tv_sec: now.tv_sec + nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    loop {
        let waited = wait_till(word, false, expected, Some(&deadline), kinds);
        // Relaxed: the caller looks at the word itself.
        if word.load(Relaxed) != expected {
            return false;
        }
        if waited == Err(Errno::ETIMEDOUT) {
            return true;
        }
    }
}

/// The wake of a word that may be gone (see [`wake`]), of threads of some kinds only.
pub(crate) fn wake_at(word: *const AtomicU32, shared: bool, count: u32, kinds: u32) -> usize {
    match sys::futex_wake(word, shared, count.min(i32::MAX as u32), kinds) {
        Ok(woken) => woken,
        Err(Errno::EFAULT) => 0,
        Err(errno) => refused_wake(errno),
    }
}

/// Lets a thread that waits on `from` wait on `to` instead, without waking it. Where the kernel
/// refuses, it is woken.
pub(crate) fn requeue(from: &AtomicU32, to: &AtomicU32) {
    if sys::futex_requeue(from, to).is_err() {
        wake_at(from, false, 1, sys::FUTEX_ANY);
    }
}
