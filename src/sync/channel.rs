//! A channel: passes values between threads.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::NonNull;
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::condvar::Condvar;
use super::mutex::{Mutex, MutexGuard};
use crate::futex::base::{self, const_fn};
use crate::mapping::{self, Mapping, Pages};
use crate::time::Instant;

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

// SAFETY: an end uses the channel by a shared reference; the last end of an owned channel drops its
// values.
unsafe impl<T: Send, const N: usize> Send for Sender<'_, T, N> {}
// SAFETY: an end uses the channel by a shared reference.
unsafe impl<T: Send, const N: usize> Sync for Sender<'_, T, N> {}
// SAFETY: an end uses the channel by a shared reference; the last end of an owned channel drops its
// values.
unsafe impl<T: Send, const N: usize> Send for Receiver<'_, T, N> {}
// SAFETY: an end uses the channel by a shared reference; the last end of an owned channel drops its
// values.
unsafe impl<T: Send, const N: usize> Sync for Receiver<'_, T, N> {}

assert_impl_all!(Channel<core::cell::Cell<u8>, 1>: Send, Sync, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Sender<'static, u8, 1>: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Receiver<'static, u8, 1>: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);
assert_not_impl_any!(Channel<*const u8, 1>: Send, Sync);
assert_not_impl_any!(Sender<'static, *const u8, 1>: Send, Sync);
assert_not_impl_any!(Receiver<'static, *const u8, 1>: Send, Sync);

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

    /// Drops the values of an owned channel that has lost its last receiver. No other will come,
    /// and a value may be what another thread waits for, such as an end of another channel.
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

/// The sending end of a [`Channel`]. Dropping the last one ends the receivers' waits.
pub struct Sender<'a, T, const N: usize> {
    /// Not a reference: the last end of an owned channel frees it.
    channel: NonNull<Channel<T, N>>,
    borrows: PhantomData<&'a Channel<T, N>>,
}

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

/// The receiving end of a [`Channel`]. Dropping the last one ends the senders' waits.
pub struct Receiver<'a, T, const N: usize> {
    /// Not a reference: the last end of an owned channel frees it.
    channel: NonNull<Channel<T, N>>,
    borrows: PhantomData<&'a Channel<T, N>>,
}

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

/// There is no receiver; the value is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// Why a value was not sent at once; the value is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The queue has no room.
    Full(T),
    /// There is no receiver.
    Disconnected(T),
}

/// Why a value was not sent in time; the value is returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// The queue had no room in time.
    Timeout(T),
    /// There is no receiver.
    Disconnected(T),
}

/// There is no value and no sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

/// Why nothing was received at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is no value now.
    Empty,
    /// There is no value and no sender.
    Disconnected,
}

/// Why nothing was received in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// No value came in time.
    Timeout,
    /// There is no value and no sender.
    Disconnected,
}

impl<T> SendTimeoutError<T> {
    /// The value.
    ///
    /// In handlers: yes.
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(value) | SendTimeoutError::Disconnected(value) => value,
        }
    }
}

impl<T> From<SendError<T>> for TrySendError<T> {
    fn from(SendError(value): SendError<T>) -> TrySendError<T> {
        TrySendError::Disconnected(value)
    }
}

impl From<RecvError> for TryRecvError {
    fn from(RecvError: RecvError) -> TryRecvError {
        TryRecvError::Disconnected
    }
}

impl From<RecvError> for RecvTimeoutError {
    fn from(RecvError: RecvError) -> RecvTimeoutError {
        RecvTimeoutError::Disconnected
    }
}

/// The messages are std's.
macro_rules! messages {
    ($([$($generics:tt)*] $name:ty { $($kind:pat => $message:literal,)* })*) => {$(
        impl<$($generics)*> fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($kind => $message,)* })
            }
        }

        impl<$($generics)*> core::error::Error for $name {}
    )*};
}
messages! {
    [T] SendError<T> {
        SendError(_) => "sending on a closed channel",
    }
    [T] TrySendError<T> {
        TrySendError::Full(_) => "sending on a full channel",
        TrySendError::Disconnected(_) => "sending on a closed channel",
    }
    [T] SendTimeoutError<T> {
        SendTimeoutError::Timeout(_) => "timed out waiting on channel",
        SendTimeoutError::Disconnected(_) => "sending on a closed channel",
    }
    [] RecvError {
        RecvError => "receiving on a closed channel",
    }
    [] TryRecvError {
        TryRecvError::Empty => "receiving on an empty channel",
        TryRecvError::Disconnected => "receiving on a closed channel",
    }
    [] RecvTimeoutError {
        RecvTimeoutError::Timeout => "timed out waiting on channel",
        RecvTimeoutError::Disconnected => "channel is empty and sending half is closed",
    }
}

/// Omits the value, which need not implement Debug.
macro_rules! debug {
    ($($name:ident { $($kind:pat => $text:literal,)* })*) => {$(
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($kind => $text,)* })
            }
        }
    )*};
}
debug! {
    SendError {
        SendError(_) => "SendError { .. }",
    }
    TrySendError {
        TrySendError::Full(_) => "TrySendError::Full(..)",
        TrySendError::Disconnected(_) => "TrySendError::Disconnected(..)",
    }
    SendTimeoutError {
        SendTimeoutError::Timeout(_) => "SendTimeoutError::Timeout(..)",
        SendTimeoutError::Disconnected(_) => "SendTimeoutError::Disconnected(..)",
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
