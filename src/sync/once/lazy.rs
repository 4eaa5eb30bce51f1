//! A value that is made at its first use.

use core::cell::Cell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::panic::{RefUnwindSafe, UnwindSafe};

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::OnceLock;
use crate::futex::base::const_fn;

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
    /// ```
    /// use rt0::sync::LazyLock;
    ///
    /// let mut table = LazyLock::new(|| [0; 4]);
    /// LazyLock::force_mut(&mut table)[0] = 1;
    /// assert_eq!(LazyLock::force(&table)[0], 1);
    /// ```
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
