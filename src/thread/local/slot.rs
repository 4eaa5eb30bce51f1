//! The place of a thread-local value in each thread, and the destruction of the values.

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::mem::{MaybeUninit, needs_drop};
use core::ptr::{NonNull, null};

use crate::thread::this_block;
use crate::tls;

/// The initial value of each thread's copy. Only the static's address is used; the linker copies
/// its bytes into the image.
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

/// A value with a lazy initialiser or a destructor.
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

    /// Makes the value at its first use; null after it was destroyed.
    #[cold]
    fn first_use(&'static self, given: Option<&mut Option<T>>, init: impl FnOnce() -> T) -> *const T {
        match self.state.get() {
            EMPTY => {
                let value = given.and_then(Option::take).unwrap_or_else(init);
                // SAFETY: it is this thread's, and not borrowed: no `find` for it has returned yet.
                let old = unsafe { self.value.get().replace(MaybeUninit::new(value)) };
                if self.state.replace(ALIVE) == ALIVE {
                    // SAFETY: the initialiser used its own key, so there was a value, which was
                    // replaced above.
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
    #[doc(hidden)]
    #[inline]
    pub fn value_or(&'static self, given: Option<&mut Option<T>>, init: impl FnOnce() -> T) -> *const T {
        // SAFETY: the copy stays as long as the thread runs, and has only cells.
        let slot = unsafe { &*self.copy() };
        if slot.state.get() == ALIVE { slot.value() } else { slot.first_use(given, init) }
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

/// A value's entry in the list of values to destroy.
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
    slot.state.set(GONE); // First, because the destructor may use the key.
    // SAFETY: there is a value, and from here on `find` does not return it (1).
    unsafe { slot.value().cast_mut().drop_in_place() };
}

/// The values that a thread has to destroy. Accessed only by that thread.
pub(in crate::thread) struct Destructors {
    /// The value that was added last.
    first: Cell<*const Entry>,
    /// `Some` after the first was added. So a program without such values does not link the
    /// function.
    run: Cell<Option<fn(&Destructors)>>,
}

impl Destructors {
    pub(in crate::thread) const fn new() -> Destructors {
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

    /// Destroys all values, including those that are made meanwhile.
    #[inline]
    pub(in crate::thread) fn run(&self) {
        if let Some(run) = self.run.get() {
            run(self);
        }
    }
}
