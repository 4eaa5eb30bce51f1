//! Waiting for signals: sigwaitinfo(2), sigpending(2), sigsuspend(2).

use core::time::Duration;

use super::{SigSet, Siginfo};
use crate::errno::{Errno, Result};
use crate::sys::{self, Timespec};
use crate::time::Instant;

/// Takes a pending signal of `set`, or waits for one: what the kernel says about it. Its handler
/// does not run. sigwaitinfo(2)
///
/// The signal must be blocked on every thread, else it may be delivered to one that does not wait.
/// A thread starts with the mask of the thread that spawned it: block the set on the main thread
/// before the first [`spawn`](crate::thread::spawn), and all threads have it blocked. Programs that
/// [`Command`](crate::process::Command) starts have no signal blocked. `examples/init.rs` is a
/// program that does so.
///
/// ```no_run
/// use rt0::signal::{self, How, SigSet, Signal};
/// use rt0::{println, process};
///
/// let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGCHLD]);
/// signal::mask(How::Block, &set); // Before the first thread.
/// loop {
///     match signal::wait(&set) {
///         Ok(info) if info.number() == Signal::SIGTERM.raw() as i32 => break,
///         Ok(_) => while let Ok(Some((pid, status))) = process::try_wait_any() {
///             println!("{pid}: {status}");
///         },
///         Err(_) => {} // EINTR: look again.
///     }
/// }
/// ```
///
/// Two signals of one number that come before the first is taken are one, but for real-time signals
/// (from 34 on): so after a SIGCHLD look for children until there is none.
///
/// `EINTR`: a handler of another signal ran,
/// [`Thread::interrupt`](crate::thread::Thread::interrupt), or another thread that waits took the
/// signal that woke this one.
///
/// In handlers: no, it waits.
pub fn wait(set: &SigSet) -> Result<Siginfo> {
    sys::rt_sigtimedwait(&set.0, None).map(Siginfo::new)
}

/// As [`wait`], for at most `timeout`; `None` if there was none by then. With a timeout of 0 it
/// only looks.
///
/// In handlers: no, it waits.
pub fn wait_timeout(set: &SigSet, timeout: Duration) -> Result<Option<Siginfo>> {
    match Instant::now().checked_add(timeout) {
        Some(deadline) => wait_until(set, deadline),
        None => wait(set).map(Some), // Past the clock's end: for ever.
    }
}

/// As [`wait`], until `deadline` of the monotonic clock at most; `None` if there was none by then.
///
/// In handlers: no, it waits.
pub fn wait_until(set: &SigSet, deadline: Instant) -> Result<Option<Siginfo>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match sys::rt_sigtimedwait(&set.0, Some(&timeout)) {
            Ok(info) => return Ok(Some(Siginfo::new(info))),
            Err(Errno::EAGAIN) if left.is_zero() => return Ok(None),
            Err(Errno::EAGAIN) => {} // In time, or cut to what a narrow timespec holds.
            Err(errno) => return Err(errno),
        }
    }
}

/// The blocked signals that are pending, for the calling thread or the process. The only errors are
/// a filter's.
///
/// In handlers: yes.
pub fn pending() -> Result<SigSet> {
    sys::rt_sigpending().map(SigSet::from_kernel)
}

/// Blocks exactly `mask` until a handler has run, and then what was blocked before: in one step, so
/// that no signal is missed that comes between a look at what its handler sets and the wait.
///
/// rt0's own signals end it too, so look and call it again. The only errors are a filter's.
///
/// In handlers: no, it waits.
pub fn suspend(mask: &SigSet) -> Result<()> {
    // SAFETY: 1. The code that installed a handler vouched for it at any instruction.
    match unsafe { sys::rt_sigsuspend(&mask.0) } {
        Errno::EINTR => Ok(()),
        errno => Err(errno),
    }
}
