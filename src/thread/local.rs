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

use core::cell::{Cell, RefCell, UnsafeCell};
use core::fmt;
use core::mem::{MaybeUninit, needs_drop};
use core::ptr::{NonNull, null};

use super::this_block;
use crate::tls;

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

/// A value of which each thread has its own, declared by [`thread_local!`](crate::thread_local!):
/// std's type of that name.
///
/// # When a thread ends
///
/// After its closure has returned and its result is where it belongs, a thread destroys the values
/// that it used and that have a destructor, in the reverse order of their first use (of the end of
/// their initialiser, where there is one). A destructor may use other values: one that is made by
/// that is destroyed too, next. A value that is being destroyed, or was, cannot be used again:
/// [`try_with`](LocalKey::try_with) is an [`AccessError`], all other methods panic. Joining a
/// thread waits for its destructors, and so does the end of a [`scope`](super::scope()).
///
/// The main thread destroys its values when `main` returns, before the process ends; other threads
/// may be running. Nothing is destroyed where the process ends otherwise: by a panic,
/// [`exit_group`](crate::sys::exit_group) or a signal. Values without a destructor stay until the
/// thread is gone.
///
/// An initialiser that uses its own key calls itself without end, or the value that was made last
/// stays.
///
/// # In signal handlers
///
/// A handler may use a key with a `const` initialiser and without a destructor, as it may use any
/// variable of the thread it runs on: what it interrupted may be in the middle of an access. Other
/// keys it must leave alone, unless it knows that the thread has used them before and has not ended
/// its closure.
pub struct LocalKey<T: 'static> {
    /// The calling thread's value; null if it was destroyed. A value that is not there yet becomes
    /// what is given, if anything is, which is taken then.
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
        // SAFETY: `new`, 1.; a thread destroys nothing before it has come back from here.
        unsafe { (self.find)(None).as_ref() }.map(f).ok_or(AccessError)
    }

    /// Puts `value` there: by making it the thread's first, or else by `replace`.
    #[track_caller]
    fn put(&'static self, value: T, replace: impl FnOnce(&T, T)) {
        let mut given = Some(value);
        // SAFETY: as in `try_with`.
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

/// What each thread's copy starts as. Of the static itself only the address is used, and the linker
/// copies its bytes into the image.
#[doc(hidden)]
#[derive(Debug)]
#[repr(transparent)]
// A cell, so that all of them are in writable sections, as sections of one name must be.
pub struct Image<S>(UnsafeCell<S>);

// SAFETY: no code accesses its content.
unsafe impl<S> Sync for Image<S> {}

impl<S: 'static> Image<S> {
    /// Of this value.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    pub const fn new(start: S) -> Image<S> {
        Image(UnsafeCell::new(start))
    }

    /// The calling thread's copy.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline(always)]
    pub fn copy(&'static self) -> *const S {
        tls::copy_of_this_thread(self.0.get())
    }
}

/// A value that is not there from the start, or that has a destructor.
///
/// ```text
/// EMPTY ── first use: initialiser ──▶ ALIVE ── the thread ends ──▶ GONE   a value that is made
/// READY ── first use ───────────────▶ ALIVE ── the thread ends ──▶ GONE   a constant
/// ```
#[doc(hidden)]
#[repr(C)] // The entry leads to the slot.
pub struct Slot<T> {
    entry: Entry,
    state: Cell<u8>,
    value: UnsafeCell<MaybeUninit<T>>,
}

const EMPTY: u8 = 0; // As in a section of zeros.
const READY: u8 = 1;
const ALIVE: u8 = 2;
const GONE: u8 = 3;

impl<T: 'static> Slot<T> {
    /// Nothing yet.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    pub const fn empty() -> Slot<T> {
        Slot { entry: Entry::new(), state: Cell::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// A constant.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    pub const fn ready(value: T) -> Slot<T> {
        Slot { entry: Entry::new(), state: Cell::new(READY), value: UnsafeCell::new(MaybeUninit::new(value)) }
    }

    fn value(&self) -> *const T {
        self.value.get().cast_const().cast()
    }

    /// Takes care of the first use; null after the last.
    #[cold]
    fn first_use(&'static self, given: Option<&mut Option<T>>, init: impl FnOnce() -> T) -> *const T {
        match self.state.get() {
            EMPTY => {
                let value = given.and_then(Option::take).unwrap_or_else(init);
                // SAFETY: this thread's, and not borrowed: the first `find` for it has not returned
                // yet.
                let old = unsafe { self.value.get().replace(MaybeUninit::new(value)) };
                if self.state.replace(ALIVE) == ALIVE {
                    // SAFETY: the initialiser used its own key, so there was a value, and this has
                    // taken its place.
                    drop(unsafe { old.assume_init() });
                    return self.value();
                }
            }
            READY => self.state.set(ALIVE),
            ALIVE => return self.value(),
            _ => return null(),
        }
        if needs_drop::<T>() {
            self.entry.destroy.set(Some(destroy::<T>));
            // SAFETY: a running thread's block stays, and this part of it is this thread's alone.
            unsafe { this_block().as_ref() }.destructors.add(&self.entry);
        }
        self.value()
    }
}

impl<T: 'static> Image<Slot<T>> {
    /// The calling thread's value, made by `given` or `init` if there was none; null if it was
    /// destroyed.
    ///
    /// In handlers: no, the interrupted code may be changing the value.
    #[inline]
    pub fn value_or(&'static self, given: Option<&mut Option<T>>, init: impl FnOnce() -> T) -> *const T {
        // SAFETY: the copy stays as long as the thread can come here, and has cells only.
        let slot = unsafe { &*self.copy() };
        if slot.state.get() == ALIVE { slot.value() } else { slot.first_use(given, init) }
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

/// A value's place in the list of those to destroy.
struct Entry {
    next: Cell<*const Entry>,
    destroy: Cell<Option<unsafe fn(*const Entry)>>,
}

impl Entry {
    const fn new() -> Entry {
        Entry { next: Cell::new(null()), destroy: Cell::new(None) }
    }
}

/// # Safety
///
/// 1. `entry` is that of a `Slot<T>` of the calling thread that is ALIVE, and the value is not in
///    use.
unsafe fn destroy<T: 'static>(entry: *const Entry) {
    // SAFETY: 1. It is the slot's first field.
    let slot = unsafe { &*entry.cast::<Slot<T>>() };
    slot.state.set(GONE); // First, for the destructor may look.
    // SAFETY: 1. There is a value, and from here on `find` does not return it.
    unsafe { slot.value().cast_mut().drop_in_place() };
}

/// A block's part: what its thread has to destroy. Touched by that thread alone.
pub(super) struct Destructors {
    /// The one that was added last.
    first: Cell<*const Entry>,
    /// `Some` once there was one: so a program that has none has not the function either.
    run: Cell<Option<fn(&Destructors)>>,
}

impl Destructors {
    pub(super) const fn new() -> Destructors {
        Destructors { first: Cell::new(null()), run: Cell::new(None) }
    }

    fn add(&self, entry: &'static Entry) {
        entry.next.set(self.first.replace(entry));
        self.run.set(Some(|destructors| {
            while let Some(entry) = NonNull::new(destructors.first.get().cast_mut()) {
                // SAFETY: it was added by this thread, whose TLS is still there.
                let Entry { next, destroy } = unsafe { entry.as_ref() };
                destructors.first.set(next.get());
                if let Some(destroy) = destroy.get() {
                    // SAFETY: 1. Added when ALIVE, and once; the thread's closure has returned, or
                    // `main` has.
                    unsafe { destroy(entry.as_ptr()) };
                }
            }
        }));
    }

    /// Destroys all, also what is made meanwhile.
    #[inline]
    pub(super) fn run(&self) {
        if let Some(run) = self.run.get() {
            run(self);
        }
    }
}
