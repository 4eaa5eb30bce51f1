//! Parts: a module's own state of each thread, declared by that module.
//!
//! ```text
//!     the program's TLS image:   │ … │ a part │ another │   zeros; only the addresses are used
//!     each thread's TLS:         │ … │ a part │ another │   at the same distances from its block
//! ```
//!
//! A part is a static in the sections that [`thread_local!`](crate::thread_local!) uses. The linker
//! gives it a place in each thread's area, or leaves it out of a program that does not use the
//! module. So [`Block`] holds only what `thread` itself needs, and `thread` names no module that
//! knows about threads.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A part is mapped as long as its thread's block:* both lie in one mapping, or for the main
//!    thread in static memory. A reference to a part borrows the block.
//! 2. *A part starts as zeros:* it lies in a section for zeros, and the compiler refuses any other
//!    value there. A thread's area is zeroed before the thread is in the list.
//! 3. *Any thread may access it through the block:* the part's type is `Sync`.

use core::cell::UnsafeCell;

use super::block::{Block, this_block};
use crate::tls;

/// Declares a part. Its type has a `const fn new` whose value is all zeros.
macro_rules! part {
    ($(#[$attr:meta])* $vis:vis static $name:ident: $type:ty;) => {
        $(#[$attr])*
        #[unsafe(link_section = ::core::concat!(".bss.rt0_tls.part.", ::core::stringify!($name)))]
        // SAFETY: 1. The linker script puts sections with this prefix into the TLS image.
        $vis static $name: $crate::thread::Part<$type> = unsafe { $crate::thread::Part::new(<$type>::new()) };
    };
}
pub(crate) use part;

/// A part: see the [module](self). Only the static's address is used, not its content.
#[repr(transparent)]
pub(crate) struct Part<T>(UnsafeCell<T>); // A cell, so that it is in a writable section.

// SAFETY: no code accesses the value in the image.
unsafe impl<T: Sync> Sync for Part<T> {}

impl<T: Sync> Part<T> {
    /// # Safety
    ///
    /// 1. The static lies in a section that the linker script puts into the TLS image.
    pub(crate) const unsafe fn new(zeros: T) -> Part<T> {
        Part(UnsafeCell::new(zeros))
    }

    /// The part of the thread with this block.
    #[inline(always)]
    pub(crate) fn of<'a>(&'static self, block: &'a Block) -> &'a T {
        // SAFETY: properties 1 to 3; by the condition of `new`, the thread's area has room for it.
        unsafe { &*tls::copy_of(block, self.0.get()) }
    }

    /// Calls `f` with the calling thread's part. A handler may call this if it runs on a thread of
    /// rt0's.
    #[inline(always)]
    pub(crate) fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        // SAFETY: a running thread's block stays.
        f(self.of(unsafe { this_block().as_ref() }))
    }
}
