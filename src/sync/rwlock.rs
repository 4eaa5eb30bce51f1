//! A value that many threads may read at a time, or one may change.
//!
//! Readers and writers alternate. A writer announces itself, which makes readers that come from then on wait, and waits for
//! those that are there to leave. When it is done, or gives up, the readers that wait are let in: each moves in when it
//! wakes, and the next writer, which may announce itself meanwhile, waits for them all to come and go. Writers queue for the
//! announcement in a mutex.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::raw_mutex::RawMutex;
use crate::futex::base::{self, ANY, AtomicU32, const_fn};
use crate::time::Instant;

/// Many readers or one writer, as std's without poisoning; a reader waits for at most one writer, and a writer not for
/// readers that came after it.
///
/// Locking it again on a thread that has it is a deadlock; reading again, one if a writer came between. More than
/// [`RwLock::READERS`] at a time wait for one of them to leave.
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    value: UnsafeCell<T>,
}

// SAFETY: the lock moves the value between threads.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: writers move it, and readers share it.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

assert_impl_all!(RwLock<u8>: Send, Sync);
assert_not_impl_any!(RwLock<core::cell::Cell<u8>>: Sync);

impl RwLock<()> {
    /// How many can have a lock for reading at the same time.
    pub const READERS: u32 = MOST;
}

impl<T> RwLock<T> {
    const_fn! {
        /// An unlocked one.
        pub const fn new(value: T) -> RwLock<T> {
            RwLock { raw: RawRwLock::new(), value: UnsafeCell::new(value) }
        }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until no writer has the lock or waits for readers to leave, and takes it for reading.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.raw.read(|| None);
        self.reader()
    }

    /// Takes the lock for reading, if no writer has it or waits for readers to leave.
    #[inline]
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.try_read().then(|| self.reader())
    }

    /// [`read`](RwLock::read), if that takes at most `timeout`.
    pub fn try_read_for(&self, timeout: Duration) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.read(|| base::deadline_of(timeout)).then(|| self.reader())
    }

    /// [`read`](RwLock::read), if that is possible before `deadline`.
    pub fn try_read_until(&self, deadline: Instant) -> Option<RwLockReadGuard<'_, T>> {
        self.raw.read(|| Some(deadline)).then(|| self.reader())
    }

    /// Waits until nobody else has the lock, and takes it for writing.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.raw.write(|| None);
        self.writer()
    }

    /// Takes the lock for writing, if nobody has it or waits for it.
    #[inline]
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.try_write().then(|| self.writer())
    }

    /// [`write`](RwLock::write), if that takes at most `timeout`.
    pub fn try_write_for(&self, timeout: Duration) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.write(|| base::deadline_of(timeout)).then(|| self.writer())
    }

    /// [`write`](RwLock::write), if that is possible before `deadline`.
    pub fn try_write_until(&self, deadline: Instant) -> Option<RwLockWriteGuard<'_, T>> {
        self.raw.write(|| Some(deadline)).then(|| self.writer())
    }

    /// The value, without locking: nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// For who has just locked it.
    #[inline]
    fn reader(&self) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard { lock: self, not_send: PhantomData }
    }

    /// For who has just locked it.
    #[inline]
    fn writer(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard { lock: self, not_send: PhantomData }
    }
}

/// The lock without the value.
pub(super) struct RawRwLock {
    /// ```text
    /// │ readers that wait … 14 bits │ readers that are in … 14 bits │ QUEUE │ SLEEPERS │ OPEN │ WRITER │
    /// ```
    /// Also what all sleep on.
    state: AtomicU32,
    /// Where writers queue; who has it will be the next writer.
    writers: RawMutex,
}

/// A writer has the lock, or waits for readers to leave.
const WRITER: u32 = 1;
/// Readers that wait are let in; more do not join them.
const OPEN: u32 = 2;
/// Somebody sleeps.
const SLEEPERS: u32 = 4;
/// The next writer waits: others may not take a short cut.
const QUEUE: u32 = 8;
/// A reader that is in.
const READER: u32 = 1 << 4;
/// A reader that waits to be let in.
const WAITING: u32 = 1 << 18;
/// How many readers are counted. One more, a writer that becomes a reader, still has room.
const MOST: u32 = (1 << 14) - 2;

/// The kinds of sleepers: who wakes when the writer is done, and the writer that waits for readers to leave.
const FOLLOWERS: u32 = 1;
const LEADER: u32 = 2;

fn inside(state: u32) -> u32 {
    state % WAITING / READER
}

fn waiting(state: u32) -> u32 {
    state / WAITING
}

fn has_room(state: u32) -> bool {
    inside(state) + waiting(state) < MOST
}

impl RawRwLock {
    const_fn! {
        const fn new() -> RawRwLock {
            RawRwLock { state: AtomicU32::new(0), writers: RawMutex::new() }
        }
    }

    #[inline]
    fn read(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        let state = self.state.load(Relaxed);
        // Acquire, wherever the lock is taken, pairs with the release in `end_write` (and, to write, in `end_read`).
        (state & WRITER == 0
            && has_room(state)
            && self.state.compare_exchange(state, state + READER, Acquire, Relaxed).is_ok())
            || self.read_contended(deadline())
    }

    #[inline]
    fn try_read(&self) -> bool {
        let enter = |state| (state & WRITER == 0 && has_room(state)).then_some(state + READER);
        self.state.fetch_update(Acquire, Relaxed, enter).is_ok()
    }

    #[inline]
    fn end_read(&self) {
        let word = &raw const self.state;
        // Release: what was read is not changed before.
        let state = self.state.fetch_sub(READER, Release);
        if state & SLEEPERS != 0 {
            left_with_sleepers(state, word);
        }
    }

    #[cold]
    fn read_contended(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        loop {
            if self.try_read() {
                return true;
            }
            let state = self.state.load(Relaxed);
            let may_enter = state & WRITER == 0 && has_room(state);
            if state & (WRITER | OPEN) == WRITER && has_room(state) {
                if self.state.compare_exchange(state, state + WAITING, Relaxed, Relaxed).is_ok() {
                    return self.wait_to_be_let_in(deadline);
                }
            } else if late {
                return false;
            } else if !may_enter {
                // Not even counted: there is no room, or others are just being let in.
                late = self.sleep(state, deadline, FOLLOWERS);
            }
        }
    }

    /// Waits until the readers that wait are let in, and moves in; false if the deadline came before.
    fn wait_to_be_let_in(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        base::poll(|| self.state.load(Relaxed) & OPEN != 0);
        loop {
            let state = self.state.load(Relaxed);
            if state & OPEN != 0 {
                let last = waiting(state) == 1;
                let moved = state - WAITING + READER - if last { OPEN } else { 0 };
                if self.state.compare_exchange(state, moved, Acquire, Relaxed).is_ok() {
                    if last && state & SLEEPERS != 0 {
                        base::wake(&raw const self.state, i32::MAX as u32, FOLLOWERS); // Who could not join may now.
                    }
                    return true;
                }
            } else if !late {
                late = self.sleep(state, deadline, FOLLOWERS);
            } else if self.state.compare_exchange(state, state - WAITING, Relaxed, Relaxed).is_ok() {
                return false;
            }
        }
    }

    #[inline]
    fn write(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        self.try_write() || self.write_contended(deadline())
    }

    #[inline]
    fn try_write(&self) -> bool {
        let state = self.state.load(Relaxed);
        // SLEEPERS may be left over from readers that found no room.
        state & !SLEEPERS == 0 && self.state.compare_exchange(state, state | WRITER, Acquire, Relaxed).is_ok()
    }

    #[inline]
    fn end_write(&self) {
        let word = &raw const self.state;
        // Release: what was written is seen by those who take the lock from here on.
        if self.state.compare_exchange(WRITER, 0, Release, Relaxed).is_err() {
            let state = self.state.fetch_update(Release, Relaxed, |state| Some(without_writer(state)));
            wake_followers(state, word);
        }
    }

    /// From a writer to a reader, with no writer between.
    fn downgrade(&self) {
        let state = self.state.fetch_update(Release, Relaxed, |state| Some(without_writer(state) + READER));
        wake_followers(state, &self.state);
    }

    #[cold]
    fn write_contended(&self, deadline: Option<Instant>) -> bool {
        if base::poll(|| self.try_write()) {
            return true;
        }
        if !self.writers.lock_until(|| deadline) {
            return false;
        }
        let announced = self.announce(deadline);
        self.writers.unlock();
        announced && self.wait_for_readers(deadline)
    }

    /// Becomes the writer, when there is none. By who has `writers`.
    fn announce(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        // Not an exchange, which readers that come and go could make fail for ever. Relaxed: `wait_for_readers` comes next.
        while self.state.fetch_or(WRITER, Relaxed) & WRITER != 0 {
            if late {
                self.state.fetch_and(!QUEUE, Relaxed);
                return false;
            }
            let state = self.state.load(Relaxed);
            if state & WRITER != 0
                && (state & QUEUE != 0 || self.state.compare_exchange(state, state | QUEUE, Relaxed, Relaxed).is_ok())
            {
                late = self.sleep(state | QUEUE, deadline, FOLLOWERS);
            }
        }
        self.state.fetch_and(!QUEUE, Relaxed);
        true
    }

    /// By the writer: waits until all readers have left. If the deadline comes first, it is no longer the writer.
    fn wait_for_readers(&self, deadline: Option<Instant>) -> bool {
        let mut late = false;
        let empty = |state: u32| inside(state) == 0 && state & OPEN == 0;
        base::poll(|| empty(self.state.load(Acquire)));
        loop {
            let state = self.state.load(Acquire);
            if empty(state) {
                return true;
            }
            if late {
                self.end_write();
                return false;
            }
            late = self.sleep(state, deadline, LEADER);
        }
    }

    /// Sleeps while the state is as given, but for SLEEPERS; true says that the deadline has passed.
    fn sleep(&self, state: u32, deadline: Option<Instant>, kind: u32) -> bool {
        let marked = state | SLEEPERS;
        (state == marked || self.state.compare_exchange(state, marked, Relaxed, Relaxed).is_ok())
            && base::wait(&self.state, marked, deadline, kind)
    }
}

/// The state after a writer: readers that wait are let in.
fn without_writer(state: u32) -> u32 {
    (state & !(WRITER | SLEEPERS)) | if waiting(state) > 0 { OPEN } else { 0 }
}

/// After the writer in this state. The lock may be gone.
#[cold]
fn wake_followers(state: Result<u32, u32>, word: *const AtomicU32) {
    if state.is_ok_and(|state| state & SLEEPERS != 0) {
        base::wake(word, i32::MAX as u32, FOLLOWERS);
    }
}

/// After a reader left this state. The lock may be gone: a writer that has seen the last reader leave may have freed it.
#[cold]
fn left_with_sleepers(state: u32, word: *const AtomicU32) {
    if state & WRITER != 0 && inside(state) == 1 {
        base::wake(word, 1, LEADER);
    }
    if !has_room(state) {
        base::wake(word, i32::MAX as u32, ANY);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(guard) => f.debug_struct("RwLock").field("data", &&*guard).finish(),
            None => f.debug_struct("RwLock").field("data", &format_args!("<locked>")).finish(),
        }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> RwLock<T> {
        RwLock::new(value)
    }
}

/// A [`RwLock`] locked for reading; unlocks when dropped.
#[must_use = "if unused, the lock is unlocked at once"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    not_send: PhantomData<*const ()>,
}

/// A [`RwLock`] locked for writing; unlocks when dropped.
#[must_use = "if unused, the lock is unlocked at once"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    not_send: PhantomData<*const ()>,
}

// SAFETY: by reference the guards give out what `&T` does.
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

assert_not_impl_any!(RwLockReadGuard<'static, u8>: Send, Clone);
assert_not_impl_any!(RwLockWriteGuard<'static, u8>: Send, Clone);
assert_impl_all!(RwLockReadGuard<'static, u8>: Sync);
assert_impl_all!(RwLockWriteGuard<'static, u8>: Sync);

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// From now on for reading only; nobody else writes between.
    pub fn downgrade(this: RwLockWriteGuard<'a, T>) -> RwLockReadGuard<'a, T> {
        let lock = ManuallyDrop::new(this).lock;
        lock.raw.downgrade();
        lock.reader()
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held, so nobody writes.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, by nobody else.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.raw.end_read();
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.raw.end_write();
    }
}

macro_rules! formats {
    ($($guard:ident)*) => {$(
        impl<T: ?Sized + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }

        impl<T: ?Sized + fmt::Display> fmt::Display for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&**self, f)
            }
        }
    )*};
}
formats!(RwLockReadGuard RwLockWriteGuard);
