//! The types by which a program refers to a thread: [`JoinHandle`], [`Thread`], [`ThreadId`].

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::num::NonZeroUsize;
use core::ops::Range;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use static_assertions::{assert_impl_all, assert_not_impl_any};

use super::block::{Block, release, this_block};
use crate::errno::{Errno, Result};

/// A thread's identity: no other thread of the process has it, before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(NonZeroUsize);

impl ThreadId {
    /// The number of the next thread to start. The main thread's is 0, so it need not be written.
    /// No number is given twice: `EAGAIN` when all were used, on a 32-bit machine after four
    /// billion threads.
    pub(super) fn next_number() -> Result<usize> {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        // Relaxed: the number is the only state.
        let next = |last| (last < usize::MAX - 1).then_some(last + 1);
        LAST.fetch_update(Relaxed, Relaxed, next).map_or(Err(Errno::EAGAIN), |last| Ok(last + 1))
    }

    pub(super) fn of_number(number: usize) -> ThreadId {
        ThreadId(NonZeroUsize::MIN.saturating_add(number))
    }
}

/// Owns a running thread: [`join`](JoinHandle::join) it for its result, or drop it to let it run on
/// its own.
pub struct JoinHandle<T> {
    /// Dropped after the result, which lies in the mapping that it keeps.
    thread: Thread,
    result: *mut T,
    owns: PhantomData<T>,
}

// SAFETY: besides atomics the handle gives out only the result, and `spawn` asks that a `T` may be
// sent.
unsafe impl<T> Send for JoinHandle<T> {}
// SAFETY: by reference the handle gives out atomics, and no `T`.
unsafe impl<T> Sync for JoinHandle<T> {}
// The result lies in the thread's mapping, and moves out when it is joined.
impl<T> Unpin for JoinHandle<T> {}

assert_impl_all!(JoinHandle<*const u8>: Send, Sync);
assert_impl_all!(JoinHandle<core::marker::PhantomPinned>: Unpin);

impl<T> JoinHandle<T> {
    /// # Safety
    ///
    /// 1. The caller passes a reference to `block` on to the handle.
    /// 2. The thread writes a `T` to `result`, which lies in the mapping that the reference keeps.
    pub(super) unsafe fn new(block: NonNull<Block>, result: *mut T) -> JoinHandle<T> {
        JoinHandle { thread: Thread { block }, result, owns: PhantomData }
    }

    /// Waits for the thread to end and returns what its closure returned. What the thread did
    /// happens before this returns.
    ///
    /// A panic in the thread ends the process, so there is no error to return.
    ///
    /// In handlers: no, it waits.
    ///
    /// # Panics
    ///
    /// - When called by the thread itself, which would wait for ever.
    /// - When the thread ended without a result: by an exit(2) of the program's own, killed by a
    ///   seccomp filter, or because this process was forked by another thread. So does the end of a
    ///   [`scope`](super::scope()).
    #[track_caller]
    pub fn join(self) -> T {
        assert!(self.thread.block != this_block(), "a thread cannot join itself");
        let this = ManuallyDrop::new(self);
        let self_block = this.thread.block();
        self_block.wait_for_end();
        if !self_block.lifecycle.is_finished() {
            ended_without_result();
        }
        // SAFETY: the thread has written the result and ended. The handle owns the result, because
        // the thread is not detached: only dropping the handle detaches it.
        let result = unsafe { this.result.read() };
        // SAFETY: 1. The handle's reference. The handle is forgotten, so it is released once.
        unsafe { release(this.thread.block) };
        result
    }

    /// Whether the closure has returned, so that [`join`](JoinHandle::join) will not wait long.
    ///
    /// In handlers: yes.
    pub fn is_finished(&self) -> bool {
        self.thread.block().lifecycle.is_finished()
    }

    /// The thread.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }
}

/// The end of a join, and of a scope, if a thread ended without returning from its closure.
#[cold]
#[track_caller]
pub(super) fn ended_without_result() -> ! {
    panic!("a thread ended without a result, by exit(2), a filter or a fork")
}

impl<T> Drop for JoinHandle<T> {
    /// Detaches the thread.
    fn drop(&mut self) {
        if self.thread.block().lifecycle.detach() {
            // SAFETY: the thread has written it. `join`, which takes it, forgets the handle.
            unsafe { self.result.drop_in_place() };
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("thread", self.thread()).finish_non_exhaustive()
    }
}

/// A reference to a thread. It keeps the thread's mapping, also after the thread ended.
pub struct Thread {
    block: NonNull<Block>,
}

// SAFETY: it accesses only atomics of the block, and fields that never change.
unsafe impl Send for Thread {}
// SAFETY: by reference it accesses the same.
unsafe impl Sync for Thread {}

// The block's cells are accessed by the thread itself or while holding the list's lock, and a panic
// ends the process.
impl UnwindSafe for Thread {}
impl RefUnwindSafe for Thread {}

assert_impl_all!(Thread: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);
assert_not_impl_any!(Thread: Copy);

impl Thread {
    /// # Safety
    ///
    /// 1. A reference keeps the block during the call.
    pub(super) unsafe fn of(block: NonNull<Block>) -> Thread {
        // SAFETY: the caller guarantees that the block is kept (1).
        unsafe { block.as_ref() }.lifecycle.retain();
        Thread { block }
    }

    pub(super) fn block(&self) -> &Block {
        // SAFETY: this value's reference keeps the block.
        unsafe { self.block.as_ref() }
    }

    /// Its identity.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        ThreadId::of_number(self.block().number)
    }

    /// Its name, if it was given one; `main` for the main thread.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.block().name()
    }

    /// The addresses of its stack, for a collector that scans it or a check for overflows; the
    /// guard lies right below them. `None` for the main thread, whose stack the kernel makes and
    /// grows.
    ///
    /// The stack stays mapped as long as this handle, also after the thread's end.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn stack(&self) -> Option<Range<usize>> {
        let block = self.block();
        (!block.is_main()).then(|| block.stack.clone())
    }

    /// Lets the thread's current or next [`park`](super::park) return. Several calls before that
    /// count as one. What the caller did happens before that park returns.
    ///
    /// In handlers: yes. It may interrupt any function of rt0.
    pub fn unpark(&self) {
        self.block().parker.unpark();
    }
}

impl Clone for Thread {
    fn clone(&self) -> Thread {
        // SAFETY: 1. This value's reference keeps the block.
        unsafe { Thread::of(self.block) }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: 1. This value's reference. It is dropped, so it does not access the block again.
        unsafe { release(self.block) };
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}
