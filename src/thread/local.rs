//! Values of which each thread has its own: [`thread_local!`](crate::thread_local!), on the stable
//! compiler and without an allocator.
//!
//! ```text
//!     the program's TLS image:   │ FIRST │ SECOND │ …  what each copy starts as
//!     each thread's TLS:         │ FIRST │ SECOND │ …  at the same distances from its pointer
//! ```
//!
//! A `thread_local!` puts a static, of which only the address is used, into a section of its own.
//! The linker script places these sections where the image of `#[thread_local]` variables is,
//! PT_TLS. So the place of a thread's copy is a sum: thread pointer, address in the image, and a
//! number that the linker knows (`tls::copy_of_this_thread`). Nothing is registered, nothing can be
//! full, every alignment holds, and what a program does not use is not linked. (A table that keys
//! enter when first used would cost a look at the key and one at the table for each access, and
//! have a bound.)
//!
//! A value with a destructor has a list entry beside it. The thread's block has the head of the
//! list.

mod slot;

use core::cell::{Cell, RefCell};
use core::fmt;

pub(super) use slot::Destructors;
pub use slot::{Image, Slot};

/// Declares values of which each thread has its own, as std's `thread_local!`.
///
/// ```no_run
/// use core::cell::{Cell, RefCell};
///
/// rt0::thread_local! {
///     static DEPTH: Cell<u32> = const { Cell::new(0) };
///     pub static BUFFER: RefCell<String> = RefCell::new(String::new());
/// }
///
/// DEPTH.set(DEPTH.get() + 1);
/// BUFFER.with_borrow_mut(|buffer| buffer.clear());
/// ```
///
/// An initialiser in `const { … }` is worked out by the compiler, and copied where a thread starts;
/// a large value that is not needed on each thread is better made by the other form, which a thread
/// calls when it first uses the value. An access to the first form is an addition to the thread
/// pointer; where the value has a destructor, and with the other form, also a look at a byte that
/// says how far it is. See [`LocalKey`] for what happens at a thread's end.
#[macro_export]
macro_rules! thread_local {
    () => {};
    ($(#[$attr:meta])* $vis:vis static $name:ident: $type:ty = const $init:block $(; $($rest:tt)*)?) => {
        $(#[$attr])*
        $vis const $name: $crate::thread::LocalKey<$type> = {
            const __RT0_INIT: $type = $init;
            // SAFETY: 1. Either copy is the calling thread's.
            unsafe {
                $crate::thread::LocalKey::new(if ::core::mem::needs_drop::<$type>() {
                    |_| {
                        #[unsafe(link_section = ::core::concat!(".rt0_tls.drop.", ::core::stringify!($name)))]
                        static __RT0_IMAGE: $crate::thread::local::Image<$crate::thread::local::Slot<$type>> =
                            $crate::thread::local::Image::new($crate::thread::local::Slot::ready(__RT0_INIT));
                        __RT0_IMAGE.value_or(::core::option::Option::None, || __RT0_INIT)
                    }
                } else {
                    |_| {
                        #[unsafe(link_section = ::core::concat!(".rt0_tls.", ::core::stringify!($name)))]
                        static __RT0_IMAGE: $crate::thread::local::Image<$type> =
                            $crate::thread::local::Image::new(__RT0_INIT);
                        __RT0_IMAGE.copy()
                    }
                })
            }
        };
        $($crate::thread_local!($($rest)*);)?
    };
    ($(#[$attr:meta])* $vis:vis static $name:ident: $type:ty = $init:expr $(; $($rest:tt)*)?) => {
        $(#[$attr])*
        $vis const $name: $crate::thread::LocalKey<$type> = {
            fn __rt0_init() -> $type {
                $init
            }
            // SAFETY: 1. The copy is the calling thread's.
            unsafe {
                $crate::thread::LocalKey::new(|given| {
                    // All zero, as its section's name promises the linker: a program's file has no
                    // room for it.
                    #[unsafe(link_section = ::core::concat!(".bss.rt0_tls.", ::core::stringify!($name)))]
                    static __RT0_IMAGE: $crate::thread::local::Image<$crate::thread::local::Slot<$type>> =
                        $crate::thread::local::Image::new($crate::thread::local::Slot::empty());
                    __RT0_IMAGE.value_or(given, __rt0_init)
                })
            }
        };
        $($crate::thread_local!($($rest)*);)?
    };
}

/// A value of which each thread has its own, declared by [`thread_local!`](crate::thread_local!),
/// as std's type of that name.
///
/// ```no_run
/// use core::cell::RefCell;
/// use rt0::thread::{AccessError, LocalKey};
///
/// rt0::thread_local! {
///     static BUFFER: RefCell<[u8; 64]> = const { RefCell::new([0; 64]) };
/// }
///
/// fn first(key: &'static LocalKey<RefCell<[u8; 64]>>) -> Result<u8, AccessError> {
///     key.try_with(|buffer| buffer.borrow()[0])
/// }
///
/// BUFFER.with_borrow_mut(|buffer| buffer[0] = 7);
/// assert_eq!(BUFFER.with_borrow(|buffer| buffer[0]), 7);
/// assert_eq!(BUFFER.replace([1; 64])[0], 7);
/// assert_eq!(BUFFER.with(|buffer| buffer.borrow().len()), 64);
/// ```
///
/// # When a thread ends
///
/// After its closure has returned and its result is stored, a thread destroys the values that it
/// used and that have a destructor, in the reverse order of their first use (of the end of their
/// initialiser, if it has one). A destructor may use other values; a value that it makes is
/// destroyed next. A value that is being destroyed, or was, cannot be used again:
/// [`try_with`](LocalKey::try_with) returns an [`AccessError`], all other methods panic. Joining a
/// thread waits for its destructors, and so does the end of a [`scope`](super::scope()).
///
/// The main thread destroys its values when `main` returns, before the process ends; other threads
/// may be running. If the process ends in another way, no value is destroyed: by a panic,
/// [`exit_group`](crate::sys::exit_group) or a signal. Values without a destructor stay until the
/// thread has ended.
///
/// If an initialiser uses its own key, it calls itself without end; or, if that ends, the value
/// that was made last stays.
///
/// # In signal handlers
///
/// A handler may use a key with a `const` initialiser and without a destructor. As with any
/// variable of the interrupted thread, that thread may be in the middle of an access. A handler
/// must not use another key, unless it knows that the thread has used the key before and is still
/// in its closure.
pub struct LocalKey<T: 'static> {
    /// Returns the calling thread's value; null if it was destroyed. If there is no value yet, it
    /// takes the one that is given, or else calls the initialiser.
    find: Find<T>,
}

type Find<T> = fn(Option<&mut Option<T>>) -> *const T;

/// A thread-local was used while it was being destroyed, or after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessError;

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("already destroyed")
    }
}

impl core::error::Error for AccessError {}

impl<T: 'static> LocalKey<T> {
    /// # Safety
    ///
    /// 1. What `find` returns is null or a value that stays until the calling thread destroys it.
    #[doc(hidden)]
    pub const unsafe fn new(find: Find<T>) -> LocalKey<T> {
        LocalKey { find }
    }

    /// Calls `f` with the calling thread's value, which is made now if this thread had none.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    ///
    /// # Panics
    ///
    /// When the value was destroyed, or is being.
    #[inline]
    #[track_caller]
    pub fn with<F: FnOnce(&T) -> R, R>(&'static self, f: F) -> R {
        match self.try_with(f) {
            Ok(done) => done,
            Err(AccessError) => destroyed(),
        }
    }

    /// Calls `f` with the calling thread's value, which is made now if this thread had none.
    /// [`AccessError`] when it was destroyed, or is being.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline]
    pub fn try_with<F: FnOnce(&T) -> R, R>(&'static self, f: F) -> Result<R, AccessError> {
        // SAFETY: by condition 1 of `new`; the thread destroys no value before this returns.
        unsafe { (self.find)(None).as_ref() }.map(f).ok_or(AccessError)
    }

    /// Stores `value`: as the thread's first value, or else by `replace`.
    #[track_caller]
    fn put(&'static self, value: T, replace: impl FnOnce(&T, T)) {
        let mut given = Some(value);
        // SAFETY: by condition 1 of `new`; the thread destroys no value before this returns.
        match (unsafe { (self.find)(Some(&mut given)).as_ref() }, given) {
            (None, _) => destroyed(),
            (Some(there), Some(value)) => replace(there, value),
            (Some(_), None) => (),
        }
    }
}

#[cold]
#[track_caller]
fn destroyed() -> ! {
    panic!("a thread-local was used while or after it was destroyed")
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value. If this thread had none the initialiser is not called.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    ///
    /// # Panics
    ///
    /// When the value was destroyed, or is being: so do all methods here.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.put(Cell::new(value), |cell, value| cell.set(value.into_inner()));
    }

    /// A copy of the value.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline]
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes the value and leaves `T`'s default.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline]
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Puts another value there and returns the one that was.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline]
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with the value borrowed.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    ///
    /// # Panics
    ///
    /// When the value was destroyed, or is being, and when it is borrowed already in a way that
    /// excludes this: so do all methods here.
    #[inline]
    #[track_caller]
    pub fn with_borrow<F: FnOnce(&T) -> R, R>(&'static self, f: F) -> R {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with the value borrowed mutably.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline]
    #[track_caller]
    pub fn with_borrow_mut<F: FnOnce(&mut T) -> R, R>(&'static self, f: F) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the value. If this thread had none the initialiser is not called.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.put(RefCell::new(value), |cell, value| *cell.borrow_mut() = value.into_inner());
    }

    /// Takes the value and leaves `T`'s default.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline]
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Puts another value there and returns the one that was.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline]
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}
