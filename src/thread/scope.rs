//! Threads that may borrow, because the scope that they run in ends after them.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A scope ends after the last use of what its threads borrow:* a thread is counted and put
//!    into the list of threads in one step, before it is cloned. It uncounts itself when its
//!    closure has returned, its result has an owner and its thread-locals are destroyed.
//! 2. *The wake at the end is not lost:* the waiter sets WAITED in one atomic step with reading the
//!    count. The last thread to leave sees it in one step with uncounting itself, and wakes.
//! 3. *A thread that has left accesses nothing of the scope:* only the kernel gets the address.
//! 4. *A failed spawn is not waited for:* it uncounts what it counted.
//! 5. *A thread that ended without leaving is not waited for:* by an exit(2) of the program's own,
//!    killed by a filter, or in a fork. Nothing signals such an end, so a scope that waits looks
//!    through the list of threads now and then. That uncounts threads whose tid word the kernel has
//!    cleared. If more threads are counted than are in the list and name the scope, the others are
//!    lost.
//! 6. *A thread that is there is not taken for lost:* a thread names the scope ([`CountedBy`]) from
//!    before it is counted until after it is uncounted. It is counted inside the gate, which is
//!    closed for the look. It is uncounted with all signals blocked and without a system call, so
//!    it cannot end in between. Release and acquire on the name order the two for the look.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::assert_impl_all;

use super::start;
use super::{Block, Builder, JoinHandle, List, Thread};
use crate::errno::Result;
use crate::futex::base::{self, ANY, AtomicPtr, AtomicU32, const_fn};
use crate::signal;

/// Calls `f` with a [`Scope`], and returns when `f` and every thread that was started in the scope
/// are done: their closures have returned, their results were dropped or taken, the destructors of
/// their thread-locals have run. So these threads may borrow whatever outlives the call.
///
/// ```no_run
/// use rt0::thread;
///
/// let (mut sum, words) = (0, ["one", "two"]);
/// thread::scope(|scope| {
///     let first = scope.spawn(|| words[0].len())?; // Borrows `words`.
///     scope.spawn(|| sum += words[1].len())?; // Borrows `sum` too, and is waited for at the end.
///     Ok::<_, rt0::Errno>(first.join())
/// })?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// A panic, in `f` or in a thread, ends the process with status 101, as any other.
///
/// In handlers: no.
///
/// # Panics
///
/// When a thread of the scope ended without a result, by exit(2) in a call of the program's own or
/// killed by a seccomp filter: after all others have ended, and up to a minute later.
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    /// In `drop`, so that nothing that ends `f` comes past it.
    struct Wait<'a>(&'a Running);
    impl Drop for Wait<'_> {
        fn drop(&mut self) {
            assert!(self.0.wait_for_all(), "a scoped thread ended without a result");
        }
    }
    let scope = Scope { running: Running::new(), scope: PhantomData, env: PhantomData };
    let _wait = Wait(&scope.running);
    f(&scope)
}

/// Starts threads that may borrow: see [`scope`].
///
/// `'scope` is the life of the scope, in which threads may be started and run: from before `f` is
/// called until all have ended. `'env` is the life of what they may borrow, and at least as long.
pub struct Scope<'scope, 'env: 'scope> {
    running: Running,
    /// Neither may be taken for a shorter or a longer one: a thread could then borrow from another
    /// thread's closure.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

assert_impl_all!(Scope<'static, 'static>: Send, Sync);

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Starts a thread that calls `f`, with [`Builder`]'s defaults. Errors: those of
    /// [`spawn`](super::spawn()).
    ///
    /// Any thread that has the scope may call it, the scope's own threads too. If the handle is
    /// dropped, the scope's end waits for the thread.
    ///
    /// In handlers: no.
    pub fn spawn<F, T>(&'scope self, f: F) -> Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        Builder::new().spawn_scoped(self, f)
    }
}

impl Builder<'_> {
    /// Starts a thread in a scope; see [`Scope::spawn`].
    ///
    /// In handlers: no.
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        // SAFETY: 1. `run` is for these types. 2. The scope ends after the thread has left it, and
        // the handle does not outlive the scope. 3. The caller opened the scope or is counted.
        let handle = unsafe { self.launch(f, run::<F, T>, &raw const scope.running, None) }?;
        Ok(ScopedJoinHandle { handle, scope: PhantomData })
    }
}

/// Calls the closure, passes on its result, and leaves the scope as the last thing that can use a
/// borrow.
///
/// # Safety
///
/// 1. `this.launch` holds an `F` and has room for a `T`. Nothing else takes the `F`.
/// 2. `this.scope` counts this thread.
unsafe fn run<F: FnOnce() -> T, T>(this: &Block) {
    // SAFETY: 1. are the same.
    unsafe { start::run::<F, T>(this) };
    this.destructors.run(); // The scope waits for these too.
    leave(this);
}

/// Uncounts the calling thread in its scope, if it has one. The thread does nothing of the
/// program's any more.
#[inline(always)] // As small as one function where a scope is the only caller.
pub(super) fn leave(this: &Block) {
    let running = this.scope.get();
    if running.is_null() {
        return;
    }
    // A handler could end the thread between the steps that follow (6).
    signal::block_everything();
    // SAFETY: 1. It counts this thread, and this is the only place where the thread uncounts
    // itself.
    if unsafe { this.scope.leave(running) } {
        // The word may be gone by now, or be another: a thread that waits on that looks again.
        base::wake(running.cast::<AtomicU32>(), 1, ANY);
    }
}

/// Counts a thread that is about to be cloned in its scope, if it has one. The caller opened the
/// scope or is counted.
pub(super) fn count(thread: &Block) {
    // SAFETY: the scope does not end before its last thread, which the caller is or waits for.
    if let Some(running) = unsafe { thread.scope.get().as_ref() } {
        running.enter();
    }
}

/// Uncounts a thread that was not cloned.
pub(super) fn uncount(thread: &Block) {
    let running = thread.scope.get();
    if !running.is_null() {
        // It is not the last: the caller opened the scope or is counted.
        // SAFETY: 1. Counted by `count`.
        unsafe { Running::leave(running) };
    }
}

/// Uncounts a thread that ended while its scope counted it.
///
/// # Safety
///
/// 1. The thread has ended, and its block is there and the caller's alone.
pub(super) unsafe fn uncount_ended(ended: NonNull<Block>) {
    // SAFETY: 1. The block is there.
    let running = unsafe { ended.as_ref() }.scope.take();
    if !running.is_null() {
        // SAFETY: 1. It is counted, and does not uncount itself.
        unsafe { Running::lose(running) };
    }
}

/// The scope that counts a thread; null if there is none. Threads that look for lost ones read it.
pub(super) struct CountedBy(AtomicPtr<Running>);

impl CountedBy {
    const_fn! {
        pub(super) const fn new() -> CountedBy {
            CountedBy(AtomicPtr::new(null_mut()))
        }
    }

    /// Names the scope, before the thread is counted and linked.
    pub(super) fn set(&self, scope: *const Running) {
        // Relaxed, here and in `get` and `take`: the gate orders them.
        self.0.store(scope.cast_mut(), Relaxed);
    }

    fn get(&self) -> *const Running {
        self.0.load(Relaxed)
    }

    fn take(&self) -> *const Running {
        self.0.swap(null_mut(), Relaxed)
    }

    /// Whether it is this scope.
    pub(super) fn is(&self, scope: &Running) -> bool {
        // Acquire pairs with the release in `leave`: where the scope is no longer named, the thread
        // is seen to be uncounted (5).
        core::ptr::eq(self.0.load(Acquire), scope)
    }

    /// Uncounts the calling thread, then names no scope; whether the thread was the last one and
    /// the scope waits for it. Then the caller wakes it.
    ///
    /// # Safety
    ///
    /// 1. `running` is the scope that is named here, and counts the calling thread, once.
    pub(super) unsafe fn leave(&self, running: *const Running) -> bool {
        // SAFETY: 1. The scope counts the thread (1).
        let is_last = unsafe { Running::leave(running) };
        // Release: the thread is uncounted before. Its partner is in `is`.
        self.0.store(null_mut(), Release);
        is_last
    }
}

/// How many threads of a scope may still borrow.
///
/// ```text
/// │ WAITED │ LOST │ count … 30 bits │
/// ```
#[repr(transparent)]
pub(super) struct Running(AtomicU32);

/// The thread that opened the scope sleeps, or is about to.
const WAITED: u32 = 1 << 31;
/// A thread ended without a result.
const LOST: u32 = 1 << 30;
const COUNT: u32 = LOST - 1;

impl Running {
    pub(super) fn new() -> Running {
        Running(AtomicU32::new(0))
    }

    /// Counts one more. The caller opened the scope or is counted itself.
    pub(super) fn enter(&self) {
        // Relaxed: the new thread comes after this anyway. Threads are fewer than the bits count:
        // the kernel has 22 for them.
        self.0.fetch_add(1, Relaxed);
    }

    /// Counts one thread less; whether it was the last, and the scope waits for it: then the caller
    /// wakes it.
    ///
    /// # Safety
    ///
    /// 1. The thread is counted, once, so the scope is still there.
    pub(super) unsafe fn leave(running: *const Running) -> bool {
        // SAFETY: 1. It is there until this is done.
        let word = unsafe { &raw const (*running).0 };
        // Release: what the thread did comes before the scope's end.
        // SAFETY: 1. It is there until this is done.
        let before = unsafe { (*word).fetch_sub(1, Release) };
        before & !LOST == WAITED | 1
    }

    /// Counts one thread less that ended without a result.
    ///
    /// # Safety
    ///
    /// 1. That of [`Running::leave`].
    pub(super) unsafe fn lose(running: *const Running) {
        // SAFETY: 1. It is there.
        // Relaxed: the count, which comes after it, orders it.
        unsafe { &(*running).0 }.fetch_or(LOST, Relaxed);
        // SAFETY: the caller guarantees 1.
        if unsafe { Running::leave(running) } {
            base::wake(running.cast::<AtomicU32>(), 1, ANY);
        }
    }

    /// Counts what is counted beyond `listed`, the number of threads in the list that name this
    /// scope, as lost. The list is closed, and was when they were counted.
    pub(super) fn lose_all_but(&self, listed: usize) {
        // Relaxed: a thread that was seen to have left is seen to be uncounted (`CountedBy::is`),
        // so no thread that is there is taken for lost.
        let counted = self.0.load(Relaxed) & COUNT;
        for _ in listed..counted as usize {
            // SAFETY: 1. The scope is there, and this count is no thread's.
            unsafe { Running::lose(self) };
        }
    }

    /// Waits until none is counted; whether all left.
    #[must_use]
    pub(super) fn wait_for_all(&self) -> bool {
        // Acquire, here and below: pairs with the release in `leave`, each of which comes down to
        // this.
        if self.0.load(Acquire) == 0 {
            return true;
        }
        let mut patience = FIRST_LOOK;
        let mut seen = self.0.fetch_or(WAITED, Acquire) | WAITED;
        while seen & COUNT != 0 {
            if base::wait(&self.0, seen, base::deadline_of(patience), ANY) {
                look_for_the_lost(self);
                patience = (2 * patience).min(LAST_LOOK);
            }
            seen = self.0.load(Acquire);
        }
        seen & LOST == 0
    }
}

/// Uncounts threads that ended without leaving, of this scope and all others; and of this one,
/// those that are not there.
#[cold]
fn look_for_the_lost(scope: &Running) {
    List::with(|list| {
        list.remove_ended();
        let listed = list.count(|block| block.scope.is(scope));
        scope.lose_all_but(listed);
    });
}

/// How long a scope waits before it looks for threads that ended without leaving; each time twice
/// as long, up to the other.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(60);

/// Owns a thread in a scope: [`join`](ScopedJoinHandle::join) it for its result, or drop it and let
/// the scope wait.
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<T>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the thread to end and returns what its closure returned; see [`JoinHandle::join`].
    ///
    /// In handlers: no, it waits.
    pub fn join(self) -> T {
        self.handle.join()
    }

    /// Whether the closure has returned; see [`JoinHandle::is_finished`].
    ///
    /// In handlers: yes.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The thread.
    ///
    /// In handlers: yes.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        self.handle.thread()
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.0.load(Relaxed) & COUNT;
        f.debug_struct("Scope").field("running", &running).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("thread", self.thread()).finish_non_exhaustive()
    }
}
