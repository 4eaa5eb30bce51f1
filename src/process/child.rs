//! A child that runs or ran: waiting for it, and signals to it.

use core::fmt;
use core::time::Duration;

use linux_raw_sys::general as k;
use static_assertions::assert_impl_all;

use super::ExitStatus;
use crate::errno::{Errno, Result};
use crate::signal::Signal;
use crate::sys::{self, OwnedFd, Timespec, Waited, Which};
use crate::time::Instant;

/// A process that [`Command::spawn`](super::Command::spawn) started. As in std, dropping this value
/// neither ends nor reaps the process: after its end it stays a zombie until this process ends, or
/// until some code waits for any child.
///
/// ```no_run
/// use rt0::process::Command;
/// use rt0::signal::Signal;
/// use rt0::time::Duration;
///
/// let mut child = Command::new(c"sleep").args(&[c"100"]).spawn()?;
/// rt0::println!("{} runs, pidfd {:?}", child.id(), child.pidfd());
/// if child.try_wait()?.is_none() {
///     child.signal(Signal::SIGTERM)?;
/// }
/// let status = match child.wait_timeout(Duration::from_secs(1))? {
///     Some(status) => status,
///     None => {
///         child.kill()?;
///         child.wait()?
///     }
/// };
/// rt0::println!("{status}");
/// # Ok::<(), rt0::Errno>(())
/// ```
pub struct Child {
    pid: u32,
    pidfd: Option<OwnedFd>,
    ended: Option<ExitStatus>,
    /// The pipe's end to write to, if its standard input is [`Stdio::Piped`](super::Stdio::Piped).
    pub stdin: Option<OwnedFd>,
    /// The pipe's end to read from, if its standard output is piped.
    pub stdout: Option<OwnedFd>,
    /// The pipe's end to read from, if its standard error is piped.
    pub stderr: Option<OwnedFd>,
}

assert_impl_all!(Child: Send, Sync);

impl Child {
    pub(super) fn new(pid: u32, pidfd: Option<OwnedFd>, pipes: [Option<OwnedFd>; 3]) -> Child {
        let [stdin, stdout, stderr] = pipes;
        Child { pid, pidfd, ended: None, stdin, stdout, stderr }
    }

    /// Its id. After it was reaped the kernel may give the id to another process.
    ///
    /// In handlers: no.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// The descriptor of the process (pidfd_open(2), Linux 5.4). It becomes readable for a poller
    /// when the process has ended.
    ///
    /// In handlers: no.
    #[must_use]
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// Waits until it has ended, and reaps it. Further calls return the same status. It closes
    /// [`stdin`](Child::stdin) first, so that a child that reads to the end of its input ends. A
    /// stopped child has not ended.
    ///
    /// Errors: `ECHILD`, other code has reaped it, or `SIGCHLD` is ignored and it has ended; its
    /// status is lost.
    ///
    /// In handlers: no.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        loop {
            match self.reap(0) {
                Ok(Some(status)) => return Ok(status),
                Ok(None) | Err(Errno::EINTR) => {} // A handler ran.
                Err(errno) => return Err(errno),
            }
        }
    }

    /// As [`wait`](Child::wait), but returns `None` if the child has not ended, and does not close
    /// [`stdin`](Child::stdin).
    ///
    /// In handlers: no.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.reap(k::WNOHANG)
    }

    /// As [`wait`](Child::wait), for at most `timeout`; `None` if it has not ended by then.
    ///
    /// Without a descriptor of the process (before Linux 5.4) it checks every 10 ms. Also `EINVAL`
    /// if `RLIMIT_NOFILE` is 0.
    ///
    /// In handlers: no.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        let deadline = Instant::now().checked_add(timeout);
        let mut pollable = true;
        loop {
            let ended = self.try_wait()?;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if ended.is_some() || left == Some(Duration::ZERO) {
                return Ok(ended);
            }
            // Linux 5.2 says of a descriptor of a running process that it is readable.
            pollable &= !self.seems_ended(left.unwrap_or(Duration::MAX), pollable)?;
        }
    }

    /// Sleeps for at most `left`, or until the process ends or a handler runs. Returns whether its
    /// descriptor says that it has ended.
    fn seems_ended(&self, left: Duration, pollable: bool) -> Result<bool> {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        const LONGEST: Duration = Duration::from_secs(1 << 30);
        let span = |left: Duration| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let ready = match self.pidfd.as_ref().filter(|_| pollable) {
            Some(pidfd) => {
                let mut entry = [k::pollfd { fd: pidfd.as_raw_fd(), events: k::POLLIN as i16, revents: 0 }];
                sys::ppoll(&mut entry, Some(&span(left.min(LONGEST)))).map(|ready| ready != 0)
            }
            None => sys::nanosleep(&span(left.min(LOOK_EVERY))).map(|()| false),
        };
        ready.or_else(|errno| if errno == Errno::EINTR { Ok(false) } else { Err(errno) })
    }

    /// Ends it by `SIGKILL`. Does nothing if it has ended.
    ///
    /// Errors: `ESRCH`, other code has reaped it; `EPERM`, it runs as another user now.
    ///
    /// In handlers: no.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended.is_some() { Ok(()) } else { self.signal(Signal::SIGKILL) }
    }

    /// Sends it a signal: pidfd_send_signal(2), or kill(2) before Linux 5.1. If it has ended and
    /// was not reaped, the signal has no effect.
    ///
    /// Errors: `ESRCH`, it has been reaped; `EPERM`, it runs as another user now; `EAGAIN`, as many
    /// signals from 34 on are pending as `RLIMIT_SIGPENDING` allows this user.
    ///
    /// In handlers: no.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.ended.is_some() {
            return Err(Errno::ESRCH);
        }
        let sent = self.pidfd.as_ref().map(|pidfd| sys::pidfd_send_signal(pidfd.as_raw_fd(), signal.raw()));
        match sent {
            None | Some(Err(Errno::ENOSYS)) => sys::kill(self.pid as i32, signal.raw()),
            Some(sent) => sent,
        }
    }

    fn reap(&mut self, options: u32) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let by_number = || sys::waitid(Which::Pid(self.pid), options);
            let ended = match &self.pidfd {
                // EINVAL: Linux 5.3 has the descriptors and cannot wait by one.
                Some(fd) => match sys::waitid(Which::PidFd(fd.as_raw_fd()), options) {
                    Err(Errno::EINVAL) => by_number(),
                    ended => ended,
                },
                None => by_number(),
            };
            self.ended = ended?.map(ExitStatus::of);
        }
        Ok(self.ended)
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("pid", &self.pid).field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// Waits until any child has ended, reaps it, and returns its id and status. Children include
/// orphans that the kernel gave to this process: it is the first of a PID namespace, or has set
/// `PR_SET_CHILD_SUBREAPER`.
///
/// After this has reaped a child, [`Child::wait`] fails with `ECHILD`. While another thread is in
/// [`Command::spawn`](super::Command::spawn), this may reap a child that could not execute its
/// program.
///
/// Errors: `ECHILD`, there is no child; `EINTR`, a handler ran, or
/// [`Thread::interrupt`](crate::thread::Thread::interrupt) was called.
///
/// ```no_run
/// use rt0::Errno;
/// use rt0::process;
///
/// loop {
///     match process::wait_any() {
///         Ok((pid, status)) => rt0::println!("{pid}: {status}"),
///         Err(Errno::ECHILD) => break, // All have ended.
///         Err(_) => {}                 // EINTR.
///     }
/// }
/// ```
///
/// In handlers: no.
pub fn wait_any() -> Result<(u32, ExitStatus)> {
    loop {
        if let Some(ended) = sys::waitid(Which::Any, 0)? {
            return Ok(of_any(ended));
        }
    }
}

/// As [`wait_any`], but returns `None` if there are children and none has ended.
///
/// In handlers: no.
pub fn try_wait_any() -> Result<Option<(u32, ExitStatus)>> {
    sys::waitid(Which::Any, k::WNOHANG).map(|ended| ended.map(of_any))
}

fn of_any(ended: Waited) -> (u32, ExitStatus) {
    (ended.pid, ExitStatus::of(ended))
}
