//! One-time initialisation: [`Once`], [`OnceLock`] and [`LazyLock`].

use core::cell::{Cell, UnsafeCell};
use core::convert::Infallible;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use crate::futex::base::{self, ANY, AtomicU32, const_fn};
use crate::time::Instant;

/// Runs a closure once, however many threads call it, as std's, without poisoning. A closure that
/// panics ends the process with status 101, so the `_force` forms do the same as the others. A
/// closure that waits for its own [`Once`] waits forever.
///
/// ```
/// use rt0::sync::Once;
///
/// static SET_UP: Once = Once::new();
///
/// SET_UP.call_once(|| rt0::println!("once"));
/// SET_UP.call_once(|| unreachable!());
/// assert!(SET_UP.is_completed());
/// ```
pub struct Once {
    /// `NEW ── the first caller runs the closure ──▶ RUNNING ── it returned ──▶ DONE`; from RUNNING
    /// back to NEW if the closure fails. NEW and RUNNING may be combined with SLEEPERS: threads
    /// sleep on this word until it changes.
    state: AtomicU32,
}

const NEW: u32 = 0;
const RUNNING: u32 = 1;
const DONE: u32 = 2;
const SLEEPERS: u32 = 4;

assert_impl_all!(Once: Send, Sync, UnwindSafe, RefUnwindSafe);

impl Once {
    const_fn! {
        /// A `Once` that has not run.
        ///
        /// In handlers: yes.
        #[must_use]
        pub const fn new() -> Once {
            Once { state: AtomicU32::new(NEW) }
        }
    }

    /// Calls `f` if this `Once` has called nothing yet. On return the closure that was called has
    /// returned, and its effects are visible.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        if !self.is_completed() {
            let Ok(()) = self.call(|| {
                f();
                Ok::<(), Infallible>(())
            });
        }
    }

    /// [`call_once`](Once::call_once), for code that asks whether an earlier closure panicked: none
    /// did.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn call_once_force<F: FnOnce(&OnceState)>(&self, f: F) {
        self.call_once(|| f(&OnceState(())));
    }

    /// Whether the closure has returned.
    ///
    /// In handlers: yes.
    #[inline]
    pub fn is_completed(&self) -> bool {
        // Acquire pairs with the release in `call`.
        self.state.load(Acquire) == DONE
    }

    /// Waits until the closure has returned; does not call one.
    ///
    /// In handlers: no, it waits.
    pub fn wait(&self) {
        self.wait_with(None);
    }

    /// The same as [`wait`](Once::wait): there is no poisoning.
    ///
    /// In handlers: no, it waits.
    pub fn wait_force(&self) {
        self.wait();
    }

    /// [`wait`](Once::wait) for at most `timeout`; returns whether the closure has returned.
    ///
    /// In handlers: no, it waits.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.is_completed() || self.wait_with(base::deadline_of(timeout))
    }

    /// [`wait`](Once::wait) until `deadline` at the latest; returns whether the closure has
    /// returned.
    ///
    /// In handlers: no, it waits.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        self.wait_with(Some(deadline))
    }

    /// Runs `f` if no closure has succeeded. If `f` fails, the next caller runs its own closure.
    #[cold]
    fn call<E>(&self, f: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let begin = |state| (state & !SLEEPERS == NEW).then_some(state | RUNNING);
        // Acquire pairs with the release of a closure that failed.
        while self.state.fetch_update(Acquire, Relaxed, begin).is_err() {
            if self.wait_while_running() {
                return Ok(());
            }
        }
        let result = f();
        // Release: a thread that finds DONE, or NEW again, sees what the closure did.
        let after = if result.is_ok() { DONE } else { NEW };
        if self.state.swap(after, Release) & SLEEPERS != 0 {
            base::wake(&raw const self.state, i32::MAX as u32, ANY);
        }
        result
    }

    /// Waits until no closure runs; returns whether one has succeeded.
    fn wait_while_running(&self) -> bool {
        let is_running = |state: u32| state & !SLEEPERS == RUNNING;
        base::spin_until(|| !is_running(self.state.load(Relaxed)));
        loop {
            // Acquire pairs with the release in `call`.
            let state = self.state.load(Acquire);
            if !is_running(state) {
                return state == DONE;
            }
            self.sleep(state, None);
        }
    }

    fn wait_with(&self, deadline: Option<Instant>) -> bool {
        base::spin_until(|| self.is_completed());
        let mut late = false;
        loop {
            // Acquire pairs with the release in `call`.
            let state = self.state.load(Acquire);
            if state == DONE || late {
                return state == DONE;
            }
            late = self.sleep(state, deadline);
        }
    }

    /// Sleeps while the state is `state`; returns whether the deadline has passed.
    fn sleep(&self, state: u32, deadline: Option<Instant>) -> bool {
        let awaited = state | SLEEPERS;
        (state == awaited || self.state.compare_exchange(state, awaited, Relaxed, Relaxed).is_ok())
            && base::wait(&self.state, awaited, deadline, ANY)
    }
}

impl Default for Once {
    fn default() -> Once {
        Once::new()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

/// The argument of the closure of [`Once::call_once_force`].
pub struct OnceState(());

impl OnceState {
    /// Whether an earlier closure panicked: always false, because a panic ends the process.
    ///
    /// In handlers: yes.
    pub fn is_poisoned(&self) -> bool {
        false
    }
}

impl fmt::Debug for OnceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceState").field("poisoned", &self.is_poisoned()).finish()
    }
}

/// A value that is set once, as std's. A function that panics while it makes the value ends the
/// process with status 101. A function that waits for the value it makes waits forever.
///
/// ```
/// use rt0::sync::OnceLock;
///
/// static NAME: OnceLock<&str> = OnceLock::new();
///
/// assert_eq!(NAME.get(), None);
/// assert_eq!(*NAME.get_or_init(|| "first"), "first");
/// assert_eq!(NAME.set("second"), Err("second"));
/// ```
pub struct OnceLock<T> {
    once: Once,
    /// Written by the thread that runs `once`, before it is done; afterwards only read. (An
    /// `Option`, although `once` knows whether it is set, so that there is no `impl Drop`: then the
    /// value may refer to things that are dropped before it, as in std.)
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value moves with the lock.
unsafe impl<T: Send> Send for OnceLock<T> {}
// SAFETY: threads share the value, and one may set it and another take or drop it.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}
impl<T: UnwindSafe + RefUnwindSafe> RefUnwindSafe for OnceLock<T> {}

assert_impl_all!(OnceLock<u8>: Send, Sync, UnwindSafe, RefUnwindSafe);
assert_not_impl_any!(OnceLock<Cell<u8>>: Sync);
assert_not_impl_any!(OnceLock<*const u8>: Send, Sync);

impl<T> OnceLock<T> {
    const_fn! {
        /// A lock without a value.
        ///
        /// In handlers: yes.
        #[must_use]
        pub const fn new() -> OnceLock<T> {
            OnceLock { once: Once::new(), value: UnsafeCell::new(None) }
        }
    }

    /// The value, if it is set.
    ///
    /// In handlers: yes.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.once.is_completed() {
            // SAFETY: a value that is set is only read.
            unsafe { &*self.value.get() }.as_ref()
        } else {
            None
        }
    }

    /// The value, if it is set.
    ///
    /// In handlers: yes.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut().as_mut()
    }

    /// Sets the value. If it is set already, or another thread sets it meanwhile, returns `value`.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("called once"));
        value.map_or(Ok(()), Err)
    }

    /// The value; if it is not set, `f` makes it. One thread calls `f`, and all others wait for it.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn get_or_init<F: FnOnce() -> T>(&self, f: F) -> &T {
        self.once.call_once(|| {
            let value = f();
            // SAFETY: `once` is not done, so no thread reads, and `once` lets only one thread
            // write.
            unsafe { *self.value.get() = Some(value) };
        });
        // SAFETY: 1. `call_once` returned, so `once` is done.
        unsafe { self.get_unchecked() }
    }

    /// As [`get_or_init`](OnceLock::get_or_init), with an `f` that may fail: then its error is
    /// returned, the value stays unset, and the next caller runs its own function. (Unstable in
    /// std.)
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn get_or_try_init<F: FnOnce() -> Result<T, E>, E>(&self, f: F) -> Result<&T, E> {
        if !self.once.is_completed() {
            self.once.call(|| {
                let value = f()?;
                // SAFETY: `once` is not done, so no thread reads, and `once` lets only one thread
                // write.
                unsafe { *self.value.get() = Some(value) };
                Ok(())
            })?;
        }
        // SAFETY: 1. The call succeeded, so `once` is done.
        Ok(unsafe { self.get_unchecked() })
    }

    /// Waits until another thread has set the value.
    ///
    /// In handlers: no, it waits.
    pub fn wait(&self) -> &T {
        self.once.wait();
        // SAFETY: 1. `wait` returned, so `once` is done.
        unsafe { self.get_unchecked() }
    }

    /// [`wait`](OnceLock::wait) for at most `timeout`.
    ///
    /// In handlers: no, it waits.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<&T> {
        self.once.wait_timeout(timeout);
        self.get()
    }

    /// [`wait`](OnceLock::wait) until `deadline` at the latest.
    ///
    /// In handlers: no, it waits.
    pub fn wait_until(&self, deadline: Instant) -> Option<&T> {
        self.once.wait_until(deadline);
        self.get()
    }

    /// Takes the value out, if it is set.
    ///
    /// In handlers: yes.
    pub fn take(&mut self) -> Option<T> {
        core::mem::take(self).into_inner()
    }

    /// The value, if it is set.
    ///
    /// In handlers: yes.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// # Safety
    ///
    /// 1. This thread has seen that `once` is done.
    unsafe fn get_unchecked(&self) -> &T {
        // SAFETY: 1. A value that is set is only read.
        let value = unsafe { &*self.value.get() };
        // SAFETY: 1. The value was written before `once` was done.
        unsafe { value.as_ref().unwrap_unchecked() }
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> OnceLock<T> {
        OnceLock::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> OnceLock<T> {
        let lock = OnceLock::new();
        lock.get_or_init(|| value);
        lock
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> OnceLock<T> {
        self.get().cloned().map_or_else(OnceLock::new, OnceLock::from)
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &OnceLock<T>) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => tuple.field(value),
            None => tuple.field(&format_args!("<uninit>")),
        };
        tuple.finish()
    }
}

/// A value that is made at its first use, as std's. A function that panics while it makes the value
/// ends the process with status 101. A function that uses the value it makes waits forever.
///
/// ```
/// use rt0::sync::LazyLock;
///
/// static SQUARES: LazyLock<[u32; 4]> = LazyLock::new(|| core::array::from_fn(|i| (i * i) as u32));
///
/// assert_eq!(SQUARES[3], 9);
/// ```
pub struct LazyLock<T, F = fn() -> T> {
    value: OnceLock<T>,
    /// Taken by the thread that makes the value.
    make: Cell<Option<F>>,
}

// SAFETY: only the one thread that makes the value accesses `make`, so `F` must be Send and need
// not be Sync.
unsafe impl<T: Send + Sync, F: Send> Sync for LazyLock<T, F> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}
impl<T: UnwindSafe + RefUnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}

assert_impl_all!(LazyLock<u8>: Send, Sync, UnwindSafe, RefUnwindSafe);
assert_not_impl_any!(LazyLock<Cell<u8>>: Sync);

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    const_fn! {
        /// A value that `make` will make.
        ///
        /// In handlers: yes.
        pub const fn new(make: F) -> LazyLock<T, F> {
            LazyLock { value: OnceLock::new(), make: Cell::new(Some(make)) }
        }
    }

    /// Makes the value if there is none yet, and returns it. Dereferencing does the same.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        this.value.get_or_init(|| match this.make.take() {
            Some(make) => make(),
            None => unreachable!("the function is taken once, with the value"),
        })
    }

    /// Makes the value if there is none yet, and returns it mutably.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    pub fn force_mut(this: &mut LazyLock<T, F>) -> &mut T {
        LazyLock::force(this);
        match this.value.get_mut() {
            Some(value) => value,
            None => unreachable!("it was just made"),
        }
    }
}

impl<T, F> LazyLock<T, F> {
    /// The value, if it has been made.
    ///
    /// In handlers: yes.
    #[inline]
    pub fn get(this: &LazyLock<T, F>) -> Option<&T> {
        this.value.get()
    }

    /// The value, if it has been made.
    ///
    /// In handlers: yes.
    pub fn get_mut(this: &mut LazyLock<T, F>) -> Option<&mut T> {
        this.value.get_mut()
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        LazyLock::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> LazyLock<T> {
        LazyLock::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("LazyLock");
        match self.value.get() {
            Some(value) => tuple.field(value),
            None => tuple.field(&format_args!("<uninit>")),
        };
        tuple.finish()
    }
}
