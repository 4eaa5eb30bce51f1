//! A counter with a descriptor: eventfd(2).

use linux_raw_sys::general as k;

use super::{read, write};
use crate::errno::{Errno, Result};
use crate::sys::{self, AsFd, BorrowedFd, OwnedFd};

/// A counter that a poller (epoll(7), ppoll(2), io_uring) sees as readable while it is not 0:
/// threads use it to wake a thread that waits for descriptors. eventfd(2), non-blocking and
/// close-on-exec.
///
/// A poller waits for its descriptor among others, and calls [`take`](EventFd::take) when it is
/// readable. To wake a thread that blocks in a call without descriptors, use
/// [`Thread::interrupt`](crate::thread::Thread::interrupt).
///
/// ```no_run
/// use rt0::io::EventFd;
///
/// let event = EventFd::new()?;
/// event.add(2)?;
/// assert_eq!(event.take()?, 2);
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// The largest count.
    const MAX: u64 = u64::MAX - 1;

    /// A counter of 0. `EMFILE`, `ENFILE`, `ENOMEM`.
    ///
    /// In handlers: yes.
    pub fn new() -> Result<EventFd> {
        sys::eventfd().map(EventFd)
    }

    /// Adds `count`. The sum is limited to `u64::MAX - 1`; a waiter is woken in any case. What the
    /// caller did before happens before the [`take`](EventFd::take) that sees the count.
    ///
    /// In handlers: yes.
    pub fn add(&self, count: u64) -> Result<()> {
        let bytes = count.min(EventFd::MAX).to_ne_bytes();
        match write(&self.0, &bytes) {
            // EAGAIN: the sum is too large, so the counter is not 0.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Sets the counter to 0 and returns its old value, without waiting.
    ///
    /// In handlers: yes.
    pub fn take(&self) -> Result<u64> {
        let mut count = [0; 8];
        match read(&self.0, &mut count) {
            Ok(_) => Ok(u64::from_ne_bytes(count)),
            Err(Errno::EAGAIN) => Ok(0),
            Err(errno) => Err(errno),
        }
    }

    /// Waits until the counter is not 0, then does the same as [`take`](EventFd::take). `EINTR`: a
    /// signal handler ran, or another thread called
    /// [`Thread::interrupt`](crate::thread::Thread::interrupt).
    ///
    /// In handlers: no, it waits.
    pub fn wait(&self) -> Result<u64> {
        loop {
            match self.take()? {
                0 => {
                    let entry = k::pollfd { fd: self.0.as_raw_fd(), events: k::POLLIN as i16, revents: 0 };
                    sys::ppoll(&mut [entry], None)?;
                }
                count => return Ok(count), // If several threads wait, one of them gets the count.
            }
        }
    }

    /// The descriptor, for a poller.
    ///
    /// In handlers: yes.
    pub const fn as_fd(&self) -> &OwnedFd {
        &self.0
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
