//! critical-section: one section for the whole process, also against signal handlers.
//!
//! The crate's interrupts are signal handlers here: a waker or a queue that is used under
//! [`with`](::critical_section::with) may be used in handlers too.
//!
//! 1. *Threads exclude each other:* by a lock.
//! 2. *No handler runs in its own thread's section:* all signals are blocked from before the lock
//!    is acquired until after it is released. So a handler that waits for the lock waits for
//!    another thread, which its own handlers do not interrupt. Faults are not blocked, nor are
//!    rt0's two reserved signals, whose handlers enter no section.
//! 3. *Sections nest:* the lock's owner is known by its thread pointer, and enters at once.
//!
//! An outermost section costs two system calls, to block the signals and to restore them.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ::critical_section::{Impl, RawRestoreState};

use crate::futex::base;
use crate::signal::{self, How, SigSet};
use crate::sync::RawMutex;

struct Section {
    lock: RawMutex,
    /// The thread in the section, or 0. Stored under the lock. Relaxed: a thread sees
    /// itself only if it stored that.
    owner: AtomicUsize,
    /// That thread's signal mask before the section. Accessed under the lock.
    blocked: UnsafeCell<SigSet>,
}

// SAFETY: the cell is accessed under the lock.
unsafe impl Sync for Section {}

static SECTION: Section =
    Section { lock: RawMutex::new(), owner: AtomicUsize::new(0), blocked: UnsafeCell::new(SigSet::empty()) };

::critical_section::set_impl!(Section);

// SAFETY: properties 1 to 3 of the module; the lock orders memory as the trait requires.
unsafe impl Impl for Section {
    /// Whether this is the outermost section of its thread.
    unsafe fn acquire() -> RawRestoreState {
        let me = base::current_thread();
        if SECTION.owner.load(Relaxed) == me {
            return false;
        }
        let before = signal::mask(How::Block, &SigSet::full());
        SECTION.lock.lock();
        SECTION.owner.store(me, Relaxed);
        // SAFETY: this thread holds the lock.
        unsafe { SECTION.blocked.get().write(before) };
        true
    }

    unsafe fn release(outermost: RawRestoreState) {
        if outermost {
            // SAFETY: the caller is in the section, so this thread holds the lock.
            let before = unsafe { *SECTION.blocked.get() };
            SECTION.owner.store(0, Relaxed);
            SECTION.lock.unlock();
            signal::mask(How::Set, &before);
        }
    }
}
