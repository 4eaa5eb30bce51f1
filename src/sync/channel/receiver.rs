//! The receiving end of a channel, and its iterators.

use core::fmt;
use core::marker::PhantomData;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::NonNull;
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::{Channel, Limit, RecvError, RecvTimeoutError, TryRecvError, count_one_more};
use crate::futex::base;
use crate::time::Instant;

/// The receiving end of a [`Channel`]. Dropping the last one ends the senders' waits.
///
/// ```no_run
/// use core::time::Duration;
/// use rt0::sync::{Receiver, RecvError, RecvTimeoutError, TryRecvError};
/// use rt0::time::Instant;
///
/// fn consume(receiver: &Receiver<'_, u32, 4>) -> Result<u32, RecvError> {
///     match receiver.try_recv() {
///         Ok(value) => return Ok(value),
///         Err(TryRecvError::Disconnected) => return Err(RecvError),
///         Err(TryRecvError::Empty) => {}
///     }
///     match receiver.recv_timeout(Duration::from_millis(10)) {
///         Ok(value) => return Ok(value),
///         Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
///         Err(RecvTimeoutError::Timeout) => {}
///     }
///     match receiver.recv_until(Instant::now() + Duration::from_secs(1)) {
///         Ok(value) => Ok(value),
///         Err(_) => receiver.recv(), // As long as it takes.
///     }
/// }
/// ```
pub struct Receiver<'a, T, const N: usize> {
    /// Not a reference: the last end of an owned channel frees it.
    pub(super) channel: NonNull<Channel<T, N>>,
    pub(super) borrows: PhantomData<&'a Channel<T, N>>,
}

// SAFETY: an end uses the channel by a shared reference; the last end of an owned channel drops its
// values.
unsafe impl<T: Send, const N: usize> Send for Receiver<'_, T, N> {}
// SAFETY: an end uses the channel by a shared reference; the last end of an owned channel drops its
// values.
unsafe impl<T: Send, const N: usize> Sync for Receiver<'_, T, N> {}

assert_impl_all!(Receiver<'static, u8, 1>: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);
assert_not_impl_any!(Receiver<'static, *const u8, 1>: Send, Sync);

impl<T, const N: usize> Receiver<'_, T, N> {
    fn channel(&self) -> &Channel<T, N> {
        // SAFETY: the channel is borrowed, or owned by ends that include this one.
        unsafe { self.channel.as_ref() }
    }

    /// The number of values in the queue now.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn len(&self) -> usize {
        self.channel().len()
    }

    /// Whether the queue is empty now.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn is_empty(&self) -> bool {
        self.channel().is_empty()
    }

    /// Whether the queue is full now.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn is_full(&self) -> bool {
        self.channel().is_full()
    }

    /// The number of values that the queue can hold.
    ///
    /// In handlers: yes.
    pub const fn capacity(&self) -> usize {
        N
    }

    /// Whether the other receiver belongs to the same channel.
    ///
    /// In handlers: yes.
    pub fn same_channel(&self, other: &Receiver<'_, T, N>) -> bool {
        self.channel == other.channel
    }

    /// Takes the oldest value; waits while there is none. Fails if there is neither a value nor a
    /// sender.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.channel().pop(Limit::NONE).map_err(|_| RecvError)
    }

    /// Takes the oldest value if there is one.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.channel().pop(Limit::Now).map_err(|error| match error {
            RecvTimeoutError::Timeout => TryRecvError::Empty,
            RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
        })
    }

    /// [`recv`](Receiver::recv) for at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        match self.channel().pop(Limit::Now) {
            Err(RecvTimeoutError::Timeout) => self.channel().pop(Limit::Deadline(base::deadline_of(timeout))),
            done => done,
        }
    }

    /// [`recv`](Receiver::recv) until `deadline` at the latest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn recv_until(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.channel().pop(Limit::Deadline(Some(deadline)))
    }

    /// Receives values until there is neither a value nor a sender.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn iter(&self) -> Iter<'_, T, N> {
        Iter { receiver: self }
    }

    /// Receives values until the queue is empty.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn try_iter(&self) -> TryIter<'_, T, N> {
        TryIter { receiver: self }
    }
}

impl<T, const N: usize> Clone for Receiver<'_, T, N> {
    fn clone(&self) -> Self {
        count_one_more(&mut self.channel().head.state.lock().receivers);
        Receiver { channel: self.channel, borrows: PhantomData }
    }
}

impl<T, const N: usize> Drop for Receiver<'_, T, N> {
    fn drop(&mut self) {
        let head = &self.channel().head;
        let mut state = head.state.lock();
        state.receivers -= 1;
        if state.receivers == 0 {
            head.emptied.notify_all();
            if state.owned {
                state = self.channel().drop_values(state);
            }
        }
        let frees = state.is_unused();
        drop(state);
        if frees {
            // SAFETY: 1. It is owned, and this is the last end.
            unsafe { Channel::free(self.channel) };
        }
    }
}

impl<T, const N: usize> fmt::Debug for Receiver<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// See [`Receiver::iter`].
///
/// ```
/// use rt0::sync::{Channel, IntoIter, Iter, TryIter};
///
/// let channel = Channel::<u32, 4>::new();
/// let (sender, receiver) = channel.split();
/// for value in 1..=4 {
///     sender.send(value).unwrap();
/// }
/// let mut waits: Iter<'_, u32, 4> = receiver.iter(); // Until all senders are dropped.
/// assert_eq!(waits.next(), Some(1));
/// let mut ready: TryIter<'_, u32, 4> = receiver.try_iter(); // Until it is empty.
/// assert_eq!(ready.next(), Some(2));
/// drop(sender);
/// let owned: IntoIter<'_, u32, 4> = receiver.into_iter();
/// assert_eq!(owned.sum::<u32>(), 3 + 4);
/// ```
#[derive(Debug)]
pub struct Iter<'a, T, const N: usize> {
    receiver: &'a Receiver<'a, T, N>,
}

/// See [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T, const N: usize> {
    receiver: &'a Receiver<'a, T, N>,
}

impl<T, const N: usize> Iterator for Iter<'_, T, N> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T, const N: usize> Iterator for TryIter<'_, T, N> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// See [`Receiver::into_iter`](IntoIterator::into_iter).
#[derive(Debug)]
pub struct IntoIter<'a, T, const N: usize> {
    receiver: Receiver<'a, T, N>,
}

impl<T, const N: usize> Iterator for IntoIter<'_, T, N> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<'a, T, const N: usize> IntoIterator for Receiver<'a, T, N> {
    type Item = T;
    type IntoIter = IntoIter<'a, T, N>;

    fn into_iter(self) -> IntoIter<'a, T, N> {
        IntoIter { receiver: self }
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a Receiver<'_, T, N> {
    type Item = T;
    type IntoIter = Iter<'a, T, N>;

    fn into_iter(self) -> Iter<'a, T, N> {
        self.iter()
    }
}
