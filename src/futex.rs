//! Waiting for a word to change: futex(2).
//!
//! A wait may return at any time, even if no thread woke it, and even with `Ok`. So a caller loops
//! on the word, never on the result. The kernel compares the word with `expected` under its own
//! lock, so a change before the wake is never missed.
//!
//! Properties of every wait, including where a system call filter answers instead of the kernel:
//!
//! 1. *A refused wait still waits:* instead of sleeping on the word, it sleeps for 50 µs to 1 ms at
//!    a time and looks at the word in between. After about 2 ms it returns `Ok`, so that the
//!    caller's loop looks too.
//! 2. *`ETIMEDOUT` means that the deadline has passed*, by the clock. The kernel's errno does not
//!    decide: a filter can choose it, and the kernel returns it too early for a deadline that was
//!    cut to 32 bits. A wait without a deadline never returns it.
//! 3. *A timed wait ends on time*, whatever the errno: each error leads to a look at the clock. If
//!    both futex(2) and clock_gettime(2) are refused, the process ends with a message.
//! 4. *No silent loss of a wake-up:* a refused wake is ignored only if no thread of this process
//!    was ever able to sleep by futex(2); then all waits are those of (1). Otherwise the process
//!    ends with a message. The first wait probes the call, and records that it may sleep before it
//!    does.
//!
//! The functions here are for words of one process. [`shared`] has the same functions for memory
//! that several processes map, and for words that the kernel wakes (its wakes are always shared).

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
        /// another value; `EINTR`, a signal handler ran.
        ///
        /// ```no_run
        /// use core::sync::atomic::{AtomicU32, Ordering};
        /// use rt0::futex;
        ///
        /// static STATE: AtomicU32 = AtomicU32::new(0);
        ///
        /// // In one thread: sleep while the word is 0.
        /// while STATE.load(Ordering::Acquire) == 0 {
        ///     let _ = futex::wait(&STATE, 0); // EAGAIN, EINTR: look again.
        /// }
        ///
        /// // In another: change it, then wake.
        /// STATE.store(1, Ordering::Release);
        /// futex::wake(&STATE, 1);
        /// ```
        ///
        /// In handlers: no, it waits.
        #[inline]
        pub fn wait(word: &AtomicU32, expected: u32) -> Result<()> {
            wait_with(word, $shared, expected, None, sys::FUTEX_ANY)
        }

        /// [`wait`] for at most `timeout` by the monotonic clock; then `ETIMEDOUT`. A timeout
        /// beyond the clock's end is no limit.
        ///
        /// In handlers: no, it waits.
        pub fn wait_timeout(word: &AtomicU32, expected: u32, timeout: Duration) -> Result<()> {
            match Instant::now().checked_add(timeout) {
                Some(deadline) => wait_until(word, expected, deadline),
                None => wait(word, expected),
            }
        }

        /// [`wait`] until `deadline` at the latest; then, or if it is in the past, `ETIMEDOUT`. The
        /// word is compared first: `EAGAIN` comes before `ETIMEDOUT`.
        ///
        /// In handlers: no, it waits.
        pub fn wait_until(word: &AtomicU32, expected: u32, deadline: Instant) -> Result<()> {
            wait_with(word, $shared, expected, Some(deadline), sys::FUTEX_ANY)
        }

        /// Wakes up to `count` threads that wait on `word`, and returns how many.
        ///
        /// A lost wake-up is a hang that is hard to explain. So if a filter refuses a wake while a
        /// thread may sleep, the process ends by `SIGABRT`, with a message. If the call was never
        /// allowed, no thread sleeps, and the result is 0. `EFAULT` also gives 0: a waiter that saw
        /// the new value may have unmapped the word.
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

/// The same functions for words that several processes share or that the kernel wakes.
pub mod shared {
    use super::*;

    operations!(true);
}

/// A wait, with an optional deadline, that a wake reaches only if its bitset shares a bit with
/// `bitset`.
pub(crate) fn wait_as(word: &AtomicU32, expected: u32, deadline: Option<Instant>, bitset: u32) -> Result<()> {
    wait_with(word, false, expected, deadline, bitset)
}

/// The wait behind all others. Errors: `EAGAIN`, `EINTR` and `ETIMEDOUT`, as in [`wait_until`].
fn wait_with(word: &AtomicU32, shared: bool, expected: u32, deadline: Option<Instant>, bitset: u32) -> Result<()> {
    wait_till(word, shared, expected, deadline.map(Instant::deadline).as_ref(), bitset)
}

/// [`wait_with`] for a caller that has no [`Instant`].
pub(crate) fn wait_till(
    word: &AtomicU32,
    shared: bool,
    expected: u32,
    deadline: Option<&Timespec>,
    bitset: u32,
) -> Result<()> {
    // Relaxed: each thread that may sleep has seen it set before the kernel compares the word (4).
    let tried = if MAY_SLEEP.load(Relaxed) { Ok(()) } else { probe() };
    match tried.and_then(|()| sys::futex_wait(word, shared, expected, deadline, bitset)) {
        Ok(()) => Ok(()),
        Err(errno) => end_of_wait(word, expected, deadline, errno),
    }
}

/// Whether a thread of this process was ever allowed to sleep by futex(2).
static MAY_SLEEP: AtomicBool = AtomicBool::new(false);

/// Makes a wait that does not sleep, to see whether futex(2) is allowed. Returns its errno if not.
#[cold]
fn probe() -> Result<()> {
    match sys::futex_wait(&AtomicU32::new(0), false, 1, None, sys::FUTEX_ANY) {
        Ok(()) | Err(Errno::EAGAIN) => {
            // This store comes before the kernel compares the word that this thread sleeps on:
            // futex(2) has a full barrier in between (kernel/futex/core.c, `futex_hb_waiters_inc`).
            // It pairs with the fence in `refused_wake`: either the wake sees this store, or the
            // sleep sees the changed word.
            MAY_SLEEP.store(true, Relaxed);
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

/// The result of a refused wake (4).
#[cold]
fn refused_wake(errno: Errno) -> usize {
    fence(SeqCst); // The word was changed before this fence; its partner is in `probe`.
    if MAY_SLEEP.load(Relaxed) { sys::die("futex wake", errno) } else { 0 }
}

/// The result of a wait that the kernel or a filter ended with `errno`: the word and the clock
/// decide. If neither does, the wait ends after some pauses, or at once for a signal.
#[cold]
fn end_of_wait(word: &AtomicU32, expected: u32, deadline: Option<&Timespec>, errno: Errno) -> Result<()> {
    // EAGAIN and an unchanged word: it changed and changed back, or a filter chose the errno.
    let pauses = if errno == Errno::EAGAIN { 3 } else { 5 };
    for pause in 0.. {
        // Relaxed: the caller loads the word itself.
        if word.load(Relaxed) != expected {
            return Err(Errno::EAGAIN);
        }
        if let Some(deadline) = deadline {
            // By the system call: `Instant::now` would link the vDSO parser into every program.
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
        // Two short pauses, for a wake that is about to come; then 50, 200 and 800 µs.
        let slept = pause >= 2 && sys::nanosleep(&Timespec { tv_sec: 0, tv_nsec: 50_000 << (2 * (pause - 2)) }).is_ok();
        if !slept {
            sys::sched_yield();
        }
    }
    if errno == Errno::EINTR { Err(errno) } else { Ok(()) }
}

/// A wait with a `bitset` for at most 100 ms; true if the time is over and the word has not
/// changed.
///
/// The time comes from the system call, so that a program that only starts threads does not link
/// the vDSO parser.
#[cold]
pub(crate) fn wait_a_while(word: &AtomicU32, expected: u32, bitset: u32) -> bool {
    const NANOS: i64 = 100_000_000;
    let Ok(now) = sys::clock_gettime(k::CLOCK_MONOTONIC as i32) else {
        let _ = sys::nanosleep(&Timespec { tv_sec: 0, tv_nsec: NANOS });
        return word.load(Relaxed) == expected;
    };
    let nanos = now.tv_nsec + NANOS;
    let deadline = Timespec { tv_sec: now.tv_sec + nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    loop {
        let waited = wait_till(word, false, expected, Some(&deadline), bitset);
        // Relaxed: the caller loads the word itself.
        if word.load(Relaxed) != expected {
            return false;
        }
        if waited == Err(Errno::ETIMEDOUT) {
            return true;
        }
    }
}

/// Wakes waiters whose bitset shares a bit with `bitset`. The word may be unmapped; see [`wake`].
pub(crate) fn wake_at(word: *const AtomicU32, shared: bool, count: u32, bitset: u32) -> usize {
    match sys::futex_wake(word, shared, count.min(i32::MAX as u32), bitset) {
        Ok(woken) => woken,
        Err(Errno::EFAULT) => 0,
        Err(errno) => refused_wake(errno),
    }
}

/// Moves a thread that waits on `from` to `to`, without waking it. If the kernel refuses, wakes it.
pub(crate) fn requeue(from: &AtomicU32, to: &AtomicU32) {
    if sys::futex_requeue(from, to).is_err() {
        wake_at(from, false, 1, sys::FUTEX_ANY);
    }
}
