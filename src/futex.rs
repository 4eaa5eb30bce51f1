//! Waiting for a word to change: futex(2).
//!
//! A wait may return at any time, also when nobody woke it and with `Ok`: loop on the word, never on the result. The
//! word is compared with `expected` by the kernel, under its own lock, so a change made before the wake is never
//! missed.
//!
//! The functions here are for words of one process. [`shared`] has the same for words in memory that several processes
//! map, and for those that the kernel wakes (it always wakes as shared).

pub(crate) mod base;
#[cfg(all(loom, test))]
pub(crate) mod fake_kernel;

use core::sync::atomic::AtomicU32;
use core::time::Duration;

use crate::errno::{Errno, Result};
use crate::sys;
use crate::time::Instant;

macro_rules! operations {
    ($shared:literal) => {
        /// Sleeps while `word` holds `expected`, until woken. Errors: `EAGAIN`, the word held something else; `EINTR`,
        /// a signal handler ran. `ENOSYS` and `EPERM` mean a filter forbids futex(2): a caller's loop then spins, which
        /// is slow and not a hang.
        #[inline]
        pub fn wait(word: &AtomicU32, expected: u32) -> Result<()> {
            sys::futex_wait(word, $shared, expected, None, sys::FUTEX_ANY)
        }

        /// [`wait`], for at most `timeout` by the monotonic clock; `ETIMEDOUT` when it is over. A timeout that reaches
        /// past the clock's end never is.
        pub fn wait_timeout(word: &AtomicU32, expected: u32, timeout: Duration) -> Result<()> {
            match Instant::now().checked_add(timeout) {
                Some(deadline) => wait_until(word, expected, deadline),
                None => wait(word, expected),
            }
        }

        /// [`wait`], until `deadline` at the latest; then, and when it lies in the past, `ETIMEDOUT`. The word is
        /// looked at first: `EAGAIN` comes before `ETIMEDOUT`.
        pub fn wait_until(word: &AtomicU32, expected: u32, deadline: Instant) -> Result<()> {
            sys::futex_wait(word, $shared, expected, Some(&deadline.deadline()), sys::FUTEX_ANY)
        }

        /// Wakes up to `count` threads that wait on `word`, and returns how many.
        ///
        /// A lost wake is a hang that nobody can explain, so a refusal by the kernel ends the process with a message.
        /// Only `EFAULT` is let pass, with 0: a waiter that saw the new value may have unmapped the word.
        #[inline]
        pub fn wake(word: &AtomicU32, count: u32) -> usize {
            wake_at(word, $shared, count, sys::FUTEX_ANY)
        }

        /// Wakes every thread that waits on `word`, and returns how many.
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
    let deadline = deadline.map(Instant::deadline);
    sys::futex_wait(word, false, expected, deadline.as_ref(), kinds)
}

/// The wake of a word that may be gone (see [`wake`]), of threads of some kinds only.
pub(crate) fn wake_at(word: *const AtomicU32, shared: bool, count: u32, kinds: u32) -> usize {
    match sys::futex_wake(word, shared, count.min(i32::MAX as u32), kinds) {
        Ok(woken) => woken,
        Err(Errno::EFAULT) => 0,
        Err(errno) => sys::die("futex wake", errno),
    }
}

/// Lets a thread that waits on `from` wait on `to` instead, without waking it. Where the kernel refuses, it is woken.
pub(crate) fn requeue(from: &AtomicU32, to: &AtomicU32) {
    if sys::futex_requeue(from, to).is_err() {
        wake_at(from, false, 1, sys::FUTEX_ANY);
    }
}
