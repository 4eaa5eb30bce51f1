//! The sending end of a channel.

use core::fmt;
use core::marker::PhantomData;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::NonNull;
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::{Channel, Limit, SendError, SendTimeoutError, TrySendError, count_one_more};
use crate::futex::base;
use crate::time::Instant;

/// The sending end of a [`Channel`]. Dropping the last one ends the receivers' waits.
///
/// ```no_run
/// use core::time::Duration;
/// use rt0::sync::{SendError, SendTimeoutError, Sender, TrySendError};
/// use rt0::time::Instant;
///
/// fn offer(sender: &Sender<'_, u32, 4>) -> Result<(), SendError<u32>> {
///     match sender.try_send(1) {
///         Ok(()) => {}
///         Err(TrySendError::Full(value)) => assert_eq!(value, 1),
///         Err(TrySendError::Disconnected(value)) => return Err(SendError(value)),
///     }
///     match sender.send_timeout(2, Duration::from_millis(10)) {
///         Err(SendTimeoutError::Timeout(value)) => assert_eq!(value, 2),
///         done => done.map_err(|error| SendError(error.into_inner()))?,
///     }
///     let deadline = Instant::now() + Duration::from_secs(1);
///     if !sender.is_full() && sender.send_until(3, deadline).is_ok() {
///         return Ok(());
///     }
///     sender.send(4) // As long as it takes.
/// }
/// ```
pub struct Sender<'a, T, const N: usize> {
    /// Not a reference: the last end of an owned channel frees it.
    pub(super) channel: NonNull<Channel<T, N>>,
    pub(super) borrows: PhantomData<&'a Channel<T, N>>,
}

// SAFETY: an end uses the channel by a shared reference; the last end of an owned channel drops its
// values.
unsafe impl<T: Send, const N: usize> Send for Sender<'_, T, N> {}
// SAFETY: an end uses the channel by a shared reference.
unsafe impl<T: Send, const N: usize> Sync for Sender<'_, T, N> {}

assert_impl_all!(Sender<'static, u8, 1>: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);
assert_not_impl_any!(Sender<'static, *const u8, 1>: Send, Sync);

impl<T, const N: usize> Sender<'_, T, N> {
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

    /// Whether the other sender belongs to the same channel.
    ///
    /// ```
    /// use rt0::sync::Channel;
    ///
    /// let channels = [const { Channel::<u32, 1>::new() }; 2];
    /// let [(sender, _), (other, _)] = channels.each_ref().map(|channel| channel.split());
    /// assert!(sender.same_channel(&sender.clone()) && !sender.same_channel(&other));
    /// ```
    ///
    /// In handlers: yes.
    pub fn same_channel(&self, other: &Sender<'_, T, N>) -> bool {
        self.channel == other.channel
    }

    /// Sends a value; waits while the queue is full. Fails if there is no receiver. Success does
    /// not mean that the value will be received.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.channel().push(value, Limit::NONE).map_err(|error| SendError(error.into_inner()))
    }

    /// Sends a value if the queue has room.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.channel().push(value, Limit::Now).map_err(|error| match error {
            SendTimeoutError::Timeout(value) => TrySendError::Full(value),
            SendTimeoutError::Disconnected(value) => TrySendError::Disconnected(value),
        })
    }

    /// [`send`](Sender::send) for at most `timeout`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        match self.channel().push(value, Limit::Now) {
            Err(SendTimeoutError::Timeout(value)) => {
                self.channel().push(value, Limit::Deadline(base::deadline_of(timeout)))
            }
            done => done,
        }
    }

    /// [`send`](Sender::send) until `deadline` at the latest.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn send_until(&self, value: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.channel().push(value, Limit::Deadline(Some(deadline)))
    }
}

impl<T, const N: usize> Clone for Sender<'_, T, N> {
    fn clone(&self) -> Self {
        count_one_more(&mut self.channel().head.state.lock().senders);
        Sender { channel: self.channel, borrows: PhantomData }
    }
}

impl<T, const N: usize> Drop for Sender<'_, T, N> {
    fn drop(&mut self) {
        let head = &self.channel().head;
        let mut state = head.state.lock();
        state.senders -= 1;
        if state.senders == 0 {
            head.filled.notify_all();
        }
        let frees = state.is_unused();
        drop(state);
        if frees {
            // SAFETY: 1. It is owned, and this is the last end.
            unsafe { Channel::free(self.channel) };
        }
    }
}

impl<T, const N: usize> fmt::Debug for Sender<'_, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}
