//! Waiting for signals: sigwaitinfo(2), sigpending(2), sigsuspend(2).

use core::time::Duration;

use super::{SigSet, Siginfo};
use crate::errno::{Errno, Result};
use crate::sys::{self, Timespec};
use crate::time::Instant;

/// sigwaitinfo(2): takes a pending signal of `set`, or waits for one, and returns the kernel's
/// information about it. Its handler does not run.
///
/// The signal must be blocked on every thread; otherwise it may be delivered to a thread that does
/// not wait. A thread starts with the mask of the thread that spawned it. So block the set on the
/// main thread before the first [`spawn`](crate::thread::spawn). Programs that
/// [`Command`](crate::process::Command) starts have no signal blocked. `examples/init.rs` waits in
/// this way.
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
/// A signal below 32 that is sent again while it is pending counts once. So after a SIGCHLD, reap
/// children until there is none left.
///
/// Errors: `EINTR`, a handler of another signal ran, or
/// [`Thread::interrupt`](crate::thread::Thread::interrupt) was called, or another thread that waits
/// took the signal.
///
/// In handlers: no, it waits.
pub fn wait(set: &SigSet) -> Result<Siginfo> {
    sys::rt_sigtimedwait(&set.0, None).map(Siginfo::new)
}

/// As [`wait`], for at most `timeout`; `None` if no signal came. With a timeout of 0 it does not
/// wait.
///
/// ```no_run
/// use rt0::signal::{self, How, SigSet, Signal};
/// use rt0::time::Duration;
///
/// let set = SigSet::from_iter([Signal::SIGTERM]);
/// signal::mask(How::Block, &set);
/// while signal::wait_timeout(&set, Duration::from_secs(1))?.is_none() {
///     rt0::println!("still running");
/// }
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no, it waits.
pub fn wait_timeout(set: &SigSet, timeout: Duration) -> Result<Option<Siginfo>> {
    match Instant::now().checked_add(timeout) {
        Some(deadline) => wait_until(set, deadline),
        None => wait(set).map(Some), // Beyond the clock's end: no limit.
    }
}

/// As [`wait`], until `deadline` of the monotonic clock at the latest; `None` if no signal came.
///
/// ```no_run
/// use rt0::signal::{self, SigSet, Signal};
/// use rt0::time::{Duration, Instant};
///
/// if signal::pending()?.contains(Signal::SIGINT) {
///     rt0::println!("SIGINT is blocked and pending");
/// }
/// let deadline = Instant::now() + Duration::from_secs(10);
/// let info = signal::wait_until(&SigSet::from_iter([Signal::SIGINT]), deadline)?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no, it waits.
pub fn wait_until(set: &SigSet, deadline: Instant) -> Result<Option<Siginfo>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match sys::rt_sigtimedwait(&set.0, Some(&timeout)) {
            Ok(info) => return Ok(Some(Siginfo::new(info))),
            Err(Errno::EAGAIN) if left.is_zero() => return Ok(None),
            Err(Errno::EAGAIN) => {} // Too early: the timeout was cut to a 32-bit timespec.
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

/// sigsuspend(2): blocks exactly the signals of `mask`, waits until a handler has run, and restores
/// what was blocked before. Because the kernel changes the mask as it begins to wait, no signal is
/// missed that arrives after the caller's last check.
///
/// rt0's own signals end it too, so call it in a loop. The only errors are a filter's.
///
/// ```no_run
/// use core::sync::atomic::{AtomicBool, Ordering};
/// use rt0::signal::{self, How, SigSet, Signal};
///
/// static STOP: AtomicBool = AtomicBool::new(false); // A handler of SIGTERM sets it.
///
/// let before = signal::mask(How::Block, &SigSet::from_iter([Signal::SIGTERM]));
/// while !STOP.load(Ordering::Relaxed) {
///     signal::suspend(&before)?;
/// }
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no, it waits.
pub fn suspend(mask: &SigSet) -> Result<()> {
    // SAFETY: 1. The code that installed a handler vouched for it at any instruction.
    match unsafe { sys::rt_sigsuspend(&mask.0) } {
        Errno::EINTR => Ok(()),
        errno => Err(errno),
    }
}
