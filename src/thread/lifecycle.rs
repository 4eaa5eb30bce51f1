//! A thread's state as other threads see it: whether it runs, how many owners its memory has, and
//! which side owns its result.
//!
//! It uses atomics and the futex only, so that `models` runs this code as it is.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
#[cfg(not(all(loom, test)))]
use core::sync::atomic::fence;
#[cfg(all(loom, test))]
use loom::sync::atomic::fence;

#[cfg(not(all(loom, test)))]
use linux_raw_sys::general as k;

use crate::errno::Errno;
use crate::futex::base::{AtomicU32, const_fn};
use crate::sys;

pub(super) struct Lifecycle {
    /// [`NOT_CLONED`] until clone(2); then the kernel's: the thread's id from before it runs until
    /// after it ended, then 0. The main thread's is 0 before it first needs the list of threads.
    tid: AtomicU32,
    /// The number of owners of the mapping: the thread itself, its handle, and each `Thread`; less
    /// [`UNCOUNTED`], so that it starts as zero.
    refs: AtomicU32,
    /// ```text
    /// JOINABLE ── closure returned ──▶ FINISHED   the handle takes or drops the result
    ///     └────── handle dropped ────▶ DETACHED   the thread drops the result
    /// ```
    state: AtomicU32,
}

/// The thread's own reference and its handle's (or, for the main thread, one that never goes).
const UNCOUNTED: u32 = 2;

/// In the tid word of a thread that is in the list and not cloned: above every id there is
/// (`PID_MAX_LIMIT`, 2^22).
const NOT_CLONED: u32 = 1 << 30;

const JOINABLE: u32 = 0;
const FINISHED: u32 = 1;
const DETACHED: u32 = 2;

impl Lifecycle {
    /// Where the tid word lies.
    pub(super) const TID: usize = memoffset::offset_of!(Lifecycle, tid);

    const_fn! {
        /// Of a thread not yet started: zeros.
        pub(super) const fn new() -> Lifecycle {
            Lifecycle { tid: AtomicU32::new(0), refs: AtomicU32::new(0), state: AtomicU32::new(JOINABLE) }
        }
    }

    /// The word that the kernel writes.
    pub(super) fn tid_word(&self) -> *mut u32 {
        (&raw const self.tid).cast_mut().cast()
    }

    /// The thread is about to be cloned.
    pub(super) fn mark_not_cloned(&self) {
        // Relaxed: read while holding the latch, or after the kernel wrote to it.
        self.tid.store(NOT_CLONED, Relaxed);
    }

    /// Whether its parent never cloned it. The thread has left the list, or the gate is closed.
    pub(super) fn was_never_cloned(&self) -> bool {
        self.tid.load(Relaxed) == NOT_CLONED
    }

    /// Notes that the thread, which was never cloned, will not run on its stack.
    pub(super) fn mark_ended(&self) {
        self.tid.store(0, Relaxed);
    }

    /// Stores the calling thread's id where clone(2) did not: of the main thread, and in a forked
    /// child.
    pub(super) fn set_tid(&self, tid: u32) {
        self.tid.store(tid, Relaxed);
    }

    /// The kernel's number for the thread; 0 once it has ended.
    pub(super) fn tid(&self) -> u32 {
        // Acquire pairs with the kernel's clear, which is ordered after all that the thread did.
        self.tid.load(Acquire)
    }

    /// Waits until the kernel has cleared the tid word: then the thread no longer runs on its
    /// stack. Or until `is_over` returns true: it is called before each sleep, and a sleep lasts at
    /// most a minute.
    pub(super) fn wait_for_end(&self, is_over: impl Fn() -> bool) {
        loop {
            let tid = self.tid();
            if tid == 0 || is_over() {
                return;
            }
            wait_for_kernel(&self.tid, tid);
        }
    }

    /// Called by the thread, after its closure has returned and the result is written. Returns
    /// whether the handle owns the result; otherwise the thread does.
    pub(super) fn finish(&self) -> bool {
        // Release: the result is written before the state says so. Pairs with the acquires in
        // `detach` and `is_finished`.
        self.state.compare_exchange(JOINABLE, FINISHED, Release, Relaxed).is_ok()
    }

    /// Called when the handle is dropped without a join. Returns whether the result is written; if
    /// so, the handle owns it.
    pub(super) fn detach(&self) -> bool {
        // Acquire pairs with the release in `finish`.
        self.state.compare_exchange(JOINABLE, DETACHED, Relaxed, Acquire).is_err()
    }

    /// Whether the closure has returned, and the result is the handle's.
    pub(super) fn is_finished(&self) -> bool {
        // Acquire pairs with the release in `finish`.
        self.state.load(Acquire) == FINISHED
    }

    /// Adds an owner of the mapping. The caller is one already.
    pub(super) fn retain(&self) {
        // Relaxed: the caller's own reference keeps the count above 0.
        if self.refs.fetch_add(1, Relaxed).wrapping_add(UNCOUNTED) > i32::MAX as u32 {
            sys::die("counting a thread's handles", Errno::EOVERFLOW);
        }
    }

    /// Removes an owner. Returns whether that was the last one, which has to free the mapping.
    pub(super) fn release(&self) -> bool {
        // Release: what this owner did with the memory happens before the last owner frees it.
        if self.refs.fetch_sub(1, Release).wrapping_add(UNCOUNTED) != 1 {
            return false;
        }
        fence(Acquire); // Pairs with every other release.
        true
    }
}

/// Sleeps while `tid` holds `expected`, for a minute at most; the kernel's wake is a shared one.
/// EAGAIN, EINTR and a spurious Ok all mean: look again.
#[cfg(not(all(loom, test)))]
fn wait_for_kernel(tid: &AtomicU32, expected: u32) {
    // The sleep is bounded because a handler may fork just before it: in the child no kernel clears
    // the word. The clock is read by the system call, so that a program that only joins does not
    // link the vDSO parser.
    let now = sys::clock_gettime(k::CLOCK_MONOTONIC as i32).ok();
    let deadline = now.map(|now| sys::Timespec { tv_sec: now.tv_sec + 60, ..now });
    let _ = crate::futex::wait_till(tid, true, expected, deadline.as_ref(), sys::FUTEX_ANY);
}

#[cfg(all(loom, test))]
fn wait_for_kernel(tid: &AtomicU32, expected: u32) {
    crate::futex::base::wait(tid, expected, None, crate::futex::base::ANY);
}

/// The kernel's part, for models.
#[cfg(all(loom, test))]
impl Lifecycle {
    pub(super) fn kernel_starts(&self, tid: u32) {
        self.tid.store(tid, Relaxed);
    }

    pub(super) fn kernel_clears(&self) {
        let word = &raw const self.tid;
        // An exchange: loom does not order a store with the compare of the waiter's kernel.
        self.tid.swap(0, Release);
        // The wake does not read the memory, which may be unmapped or another thread's by now.
        crate::futex::base::wake(word, u32::MAX, crate::futex::base::ANY);
    }
}
