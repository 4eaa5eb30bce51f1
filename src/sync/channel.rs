//! A channel: passes values between threads.

mod error;
mod receiver;
mod sender;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::NonNull;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::condvar::Condvar;
use super::mutex::{Mutex, MutexGuard};
use crate::futex::base::const_fn;
use crate::mapping::{self, Mapping, Pages};
use crate::time::Instant;
pub use error::{RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError};
pub use receiver::{IntoIter, Iter, Receiver, TryIter};
pub use sender::Sender;

/// A queue of at most `N` values between threads, in the order they were sent, with std's names.
/// Each value goes to one receiver.
///
/// The channel itself is often a `static`; [`split`](Channel::split) returns its two ends.
/// [`channel`] returns ends that own the channel. Sending fails while there is no receiver.
/// Receiving fails while there is no sender and the queue is empty. Values stay in the queue until
/// a receiver takes them or the channel is dropped.
///
/// Each send and each receive, including the `try_` forms, holds a mutex while it copies the value.
///
/// ```no_run
/// use rt0::sync::Channel;
/// use rt0::thread;
///
/// let mut channel = Channel::<u32, 8>::new();
/// let (sender, receiver) = channel.split();
/// thread::scope(|scope| {
///     scope.spawn(move || (0..100).for_each(|n| sender.send(n).unwrap()))?;
///     assert_eq!(receiver.into_iter().sum::<u32>(), 4950); // Ends with the last sender.
///     Ok::<(), rt0::Errno>(())
/// })?;
/// # Ok::<(), rt0::Errno>(())
/// ```
pub struct Channel<T, const N: usize> {
    head: Head,
    /// The slot `first` and the `len - 1` slots after it, which wrap around, hold the values; the
    /// others are uninitialised. Accessed only under the lock of `head.state`.
    slots: UnsafeCell<[MaybeUninit<T>; N]>,
}

/// The channel without its values.
struct Head {
    state: Mutex<State>,
    /// Notified when a value arrives, or when the last sender is dropped.
    filled: Condvar,
    /// Notified when a value leaves, or when the last receiver is dropped.
    emptied: Condvar,
}

struct State {
    /// Below the capacity.
    first: usize,
    /// At most the capacity.
    len: usize,
    senders: usize,
    receivers: usize,
    /// Whether the channel lies in its own mapping, which the last end unmaps.
    owned: bool,
}

// SAFETY: the slots are accessed only under the lock, and each value moves from one thread to
// another.
unsafe impl<T: Send, const N: usize> Sync for Channel<T, N> {}
impl<T, const N: usize> UnwindSafe for Channel<T, N> {}
impl<T, const N: usize> RefUnwindSafe for Channel<T, N> {}

assert_impl_all!(Channel<core::cell::Cell<u8>, 1>: Send, Sync, UnwindSafe, RefUnwindSafe);
assert_not_impl_any!(Channel<*const u8, 1>: Send, Sync);

/// A channel for `N` values in its own mapping, and its two ends, which own it, as those of std's
/// `sync_channel`: they can be stored and sent anywhere. The last receiver to be dropped drops the
/// values that are left, and the last end unmaps the channel.
///
/// Errors are those of [`Mapping::new`].
///
/// ```no_run
/// # struct Job;
/// let (sender, receiver) = rt0::sync::channel::<Job, 64>()?;
/// let worker = rt0::thread::spawn(move || receiver.into_iter().for_each(|job| drop(job)))?;
/// sender.send(Job)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// In handlers: no.
pub fn channel<T: 'static, const N: usize>() -> crate::errno::Result<(Sender<'static, T, N>, Receiver<'static, T, N>)> {
    const { assert!(align_of::<Channel<T, N>>() <= 4096, "more aligned than a page") };
    let place = Pages.allocate(size_of::<Channel<T, N>>())?.cast::<MaybeUninit<Channel<T, N>>>();
    // SAFETY: the pages are owned, aligned and large enough.
    let channel = Channel::new_in(unsafe { &mut *place.as_ptr() });
    channel.head.state.get_mut().owned = true;
    Ok(channel.split())
}

impl<T, const N: usize> Channel<T, N> {
    const_fn! {
        /// An empty channel without ends. A capacity of 0 does not compile.
        ///
        /// In handlers: yes.
        pub const fn new() -> Channel<T, N> {
            const { assert!(N > 0, "a channel needs room for a value") };
            Channel { head: Head::new(), slots: UnsafeCell::new([const { MaybeUninit::uninit() }; N]) }
        }
    }

    /// [`new`](Channel::new) in place, for example in `Box::new_uninit`: the channel is not moved
    /// over the stack, which may be too small. The returned reference shows that the channel is
    /// initialised.
    ///
    /// ```
    /// use core::mem::MaybeUninit;
    /// use rt0::sync::Channel;
    ///
    /// let mut place = MaybeUninit::<Channel<[u8; 4096], 16>>::uninit(); // Or in a static.
    /// let channel = Channel::new_in(&mut place);
    /// assert!(channel.is_empty());
    /// # // The ends are not split off, so nothing has to be dropped.
    /// ```
    ///
    /// In handlers: yes.
    pub fn new_in(place: &mut MaybeUninit<Channel<T, N>>) -> &mut Channel<T, N> {
        const { assert!(N > 0, "a channel needs room for a value") };
        // SAFETY: the field lies in `place`.
        let head = unsafe { &raw mut (*place.as_mut_ptr()).head };
        // SAFETY: the reference gives exclusive access.
        unsafe { head.write(Head::new()) };
        // SAFETY: the slots need no initialisation: they hold no values.
        unsafe { place.assume_init_mut() }
    }

    /// The number of values in the queue now.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn len(&self) -> usize {
        self.head.state.lock().len
    }

    /// Whether the queue is empty now.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the queue is full now.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn is_full(&self) -> bool {
        self.len() == N
    }

    /// The number of values that the queue can hold.
    ///
    /// In handlers: yes.
    pub const fn capacity(&self) -> usize {
        N
    }

    /// Drops the values of an owned channel that has lost its last receiver. No receiver can take
    /// them any more, and a value may be an end of another channel, whose drop a thread waits for.
    fn drop_values<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        count_one_more(&mut state.senders); // Keeps the channel meanwhile.
        // SAFETY: 1. `state` is the lock's guard.
        while let Some(value) = unsafe { self.take_first(&mut state) } {
            drop(state);
            drop(value); // Without the lock: its destructor may use the channel.
            state = self.head.state.lock();
        }
        state.senders -= 1;
        state
    }

    /// Frees an owned channel.
    ///
    /// # Safety
    ///
    /// 1. It came from [`channel`], and its last end is being dropped.
    #[cold]
    unsafe fn free(channel: NonNull<Channel<T, N>>) {
        // SAFETY: 1. No other code refers to it.
        unsafe { channel.drop_in_place() };
        let len = size_of::<Channel<T, N>>().next_multiple_of(mapping::page_size());
        // SAFETY: 1. These are the pages that `channel` mapped.
        drop(unsafe { Mapping::from_raw(NonNull::slice_from_raw_parts(channel.cast(), len)) });
    }

    /// A new sender and a new receiver. Each can be cloned, and `split` can be called again.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn split(&self) -> (Sender<'_, T, N>, Receiver<'_, T, N>) {
        let mut state = self.head.state.lock();
        count_one_more(&mut state.senders);
        count_one_more(&mut state.receivers);
        let (channel, borrows) = (NonNull::from(self), PhantomData);
        (Sender { channel, borrows }, Receiver { channel, borrows })
    }

    /// Adds a value to the queue; waits within `limit` for room.
    fn push(&self, value: T, limit: Limit) -> Result<(), SendTimeoutError<T>> {
        let head = &self.head;
        let mut state = head.state.lock();
        let mut late = false;
        loop {
            if state.receivers == 0 {
                return Err(SendTimeoutError::Disconnected(value));
            }
            if state.len < N {
                // SAFETY: 1. `state` is the lock's guard.
                unsafe { self.slot(state.first, state.len) }.write(value);
                state.len += 1;
                head.filled.notify_one();
                return Ok(());
            }
            if late {
                return Err(SendTimeoutError::Timeout(value));
            }
            (state, late) = limit.wait(&head.emptied, state);
        }
    }

    /// Takes a value from the queue; waits within `limit` for one.
    fn pop(&self, limit: Limit) -> Result<T, RecvTimeoutError> {
        let head = &self.head;
        let mut state = head.state.lock();
        let mut late = false;
        loop {
            // SAFETY: 1. `state` is the lock's guard.
            if let Some(value) = unsafe { self.take_first(&mut state) } {
                head.emptied.notify_one();
                return Ok(value);
            }
            if state.senders == 0 {
                return Err(RecvTimeoutError::Disconnected);
            }
            if late {
                return Err(RecvTimeoutError::Timeout);
            }
            (state, late) = limit.wait(&head.filled, state);
        }
    }
}

impl<T, const N: usize> Channel<T, N> {
    /// The slot `offset` places after the slot `first`, wrapped around; both are at most `N`.
    ///
    /// # Safety
    ///
    /// 1. The caller holds the lock while it uses the slot, and uses no other slot meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the lock lends it")]
    unsafe fn slot(&self, first: usize, offset: usize) -> &mut MaybeUninit<T> {
        let to_end = N - first;
        // SAFETY: 1. No other thread accesses the slots.
        let slots = unsafe { &mut *self.slots.get() };
        &mut slots[if offset < to_end { first + offset } else { offset - to_end }]
    }

    /// Takes the oldest value, if there is one.
    ///
    /// # Safety
    ///
    /// 1. `state` is this channel's, and locked.
    unsafe fn take_first(&self, state: &mut State) -> Option<T> {
        if state.len == 0 {
            return None;
        }
        // SAFETY: 1. The caller holds the lock.
        let slot = unsafe { self.slot(state.first, 0) };
        state.first = if state.first + 1 == N { 0 } else { state.first + 1 };
        state.len -= 1;
        // SAFETY: it was the first of `len` values, and the slot counts as empty from here on.
        Some(unsafe { slot.assume_init_read() })
    }
}

impl<T, const N: usize> Drop for Channel<T, N> {
    fn drop(&mut self) {
        // SAFETY: 1. The borrow excludes all other users.
        while unsafe { self.take_first(&mut self.head.state.lock()) }.is_some() {}
    }
}

impl Head {
    const_fn! {
        const fn new() -> Head {
            let state = State { first: 0, len: 0, senders: 0, receivers: 0, owned: false };
            Head { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new() }
        }
    }
}

impl State {
    /// Whether the channel is owned and its last end is gone.
    fn is_unused(&self) -> bool {
        self.owned && self.senders == 0 && self.receivers == 0
    }
}

/// Counts one more end. A program that forgets enough ends (on a 32-bit machine, 2^32) panics here:
/// a wrapped count would say that there is none.
fn count_one_more(ends: &mut usize) {
    *ends = ends.checked_add(1).expect("more ends of a channel than can be counted");
}

/// How long an operation waits.
enum Limit {
    Now,
    Deadline(Option<Instant>),
}

impl Limit {
    const NONE: Limit = Limit::Deadline(None);

    /// Releases the lock, waits, and acquires the lock again; true means that the time is over.
    fn wait<'a, S>(&self, condvar: &Condvar, state: MutexGuard<'a, S>) -> (MutexGuard<'a, S>, bool) {
        match *self {
            Limit::Now => (state, true),
            Limit::Deadline(None) => (condvar.wait(state), false),
            Limit::Deadline(Some(deadline)) => {
                let (state, result) = condvar.wait_until(state, deadline);
                (state, result.timed_out())
            }
        }
    }
}

impl<T, const N: usize> Default for Channel<T, N> {
    fn default() -> Channel<T, N> {
        Channel::new()
    }
}

impl<T, const N: usize> fmt::Debug for Channel<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("capacity", &N).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_to_the_last_one_there_can_be() {
        let mut ends = usize::MAX - 1;
        count_one_more(&mut ends);
        assert_eq!(ends, usize::MAX);
        assert!(std::panic::catch_unwind(move || count_one_more(&mut ends)).is_err());
    }
}
