//! A value that is set once.

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::time::Duration;

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::Once;
use crate::futex::base::const_fn;
use crate::time::Instant;

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
    /// ```
    /// use rt0::sync::OnceLock;
    ///
    /// static NUMBER: OnceLock<u32> = OnceLock::new();
    ///
    /// assert!(NUMBER.get_or_try_init(|| "x".parse()).is_err()); // The next caller may succeed.
    /// assert_eq!(NUMBER.get_or_try_init(|| "7".parse()), Ok(&7));
    /// ```
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
