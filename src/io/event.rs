//! A counter with a descriptor: eventfd(2).

use linux_raw_sys::general as k;

use super::{read, write};
use crate::errno::{Errno, Result};
use crate::sys::{self, OwnedFd};

/// A counter that a poller (epoll(7), ppoll(2), io_uring) sees readable while it is not 0: how
/// other threads wake a thread that waits for descriptors. eventfd(2), non-blocking and
/// close-on-exec.
///
/// A poller adds its descriptor to what it waits for, and calls [`take`](EventFd::take) when that
/// is readable. For a thread that blocks in a call without descriptors there is
/// [`Thread::interrupt`](crate::thread::Thread::interrupt).
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// The largest count that it keeps.
    const MOST: u64 = u64::MAX - 1;

    /// A counter of 0. `EMFILE`, `ENFILE`, `ENOMEM`.
    ///
    /// In handlers: yes.
    pub fn new() -> Result<EventFd> {
        sys::eventfd().map(EventFd)
    }

    /// Adds `count`, at most to `u64::MAX - 1`: what does not fit is left out, and a waiter is
    /// woken all the same. What the caller did before happens before the [`take`](EventFd::take)
    /// that sees it.
    ///
    /// In handlers: yes.
    pub fn add(&self, count: u64) -> Result<()> {
        let bytes = count.min(EventFd::MOST).to_ne_bytes();
        match write(self.0.as_raw_fd(), &bytes) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()), // EAGAIN: it would be too much, so it is not 0.
            Err(errno) => Err(errno),
        }
    }

    /// Sets it to 0, and returns what it was; without waiting.
    ///
    /// In handlers: yes.
    pub fn take(&self) -> Result<u64> {
        let mut count = [0; 8];
        match read(self.0.as_raw_fd(), &mut count) {
            Ok(_) => Ok(u64::from_ne_bytes(count)),
            Err(Errno::EAGAIN) => Ok(0),
            Err(errno) => Err(errno),
        }
    }

    /// Waits until it is not 0, and then as [`take`](EventFd::take). `EINTR`: a handler ran, or
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
                count => return Ok(count), // Where several wait, one has it.
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
