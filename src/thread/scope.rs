//! Threads that may borrow, because the scope that they run in ends after them.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A scope ends after the last use of what its threads borrow:* a thread is counted and put
//!    into the list of threads in one step, before it is cloned. It uncounts itself when its
//!    closure has returned, its result has an owner and its thread-locals are destroyed.
//! 2. *The wake at the end is not lost:* the waiter sets WAITED in one atomic step with reading the
//!    count. The last thread to leave sees it in one step with uncounting itself, and wakes.
//! 3. *A thread that has left accesses nothing of the scope:* it passes the address to the kernel
//!    for a wake, and that is all.
//! 4. *A failed spawn is not waited for:* it uncounts what it counted.
//! 5. *A thread that ended without leaving is not waited for:* by an exit(2) of the program's own,
//!    killed by a filter, or in a fork. Nothing signals such an end, so a scope that waits searches
//!    the list of threads now and then. The search uncounts threads whose tid word the kernel has
//!    cleared. If more threads are counted than threads in the list name the scope, the difference
//!    is lost threads.
//! 6. *A running thread is not taken for lost:* a thread names the scope ([`CountedBy`]) from
//!    before it is counted until after it is uncounted. It is counted inside the gate, and a search
//!    closes the gate. It is uncounted with all signals blocked and without a system call, so it
//!    cannot end in between. Release and acquire on the name order the two steps for a search.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::assert_impl_all;

use super::handle::ended_without_result;
use super::start;
use super::{Block, Builder, JoinHandle, List, Thread};
use crate::errno::Result;
use crate::futex::base::{self, ANY, AtomicPtr, AtomicU32, const_fn};
use crate::signal;

/// Calls `f` with a [`Scope`]. Returns when `f` has returned and every thread that was started in
/// the scope is done: its closure has returned, its result was dropped or taken, the destructors of
/// its thread-locals have run. So these threads may borrow what outlives the call.
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
/// When a thread of the scope ended without a result, as [`JoinHandle::join`] does: by an exit(2)
/// of the program's own, killed by a seccomp filter, or because this process was forked by another
/// thread. It panics after all other threads have ended, and up to a minute later.
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    /// It waits in `drop`, so that it waits however `f` ends.
    struct Wait<'a>(&'a Running);
    impl Drop for Wait<'_> {
        fn drop(&mut self) {
            if !self.0.wait_for_all() {
                ended_without_result();
            }
        }
    }
    let scope = Scope { running: Running::new(), scope: PhantomData, env: PhantomData };
    let _wait = Wait(&scope.running);
    f(&scope)
}

/// Starts threads that may borrow: see [`scope`].
///
/// `'scope` is the lifetime of the scope, in which threads may be started and run: from before `f`
/// is called until all have ended. `'env` is the lifetime of what they may borrow, and at least as
/// long.
pub struct Scope<'scope, 'env: 'scope> {
    running: Running,
    /// Both lifetimes are invariant: with a shorter or longer one a thread could borrow from
    /// another thread's closure.
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
        // SAFETY: 1. `run` is for these types, which are `Send`. 2. The scope ends after the thread
        // has left it, and the handle does not outlive the scope. 3. The caller opened the scope or
        // is counted by it.
        let handle = unsafe { self.launch(f, run::<F, T>, &raw const scope.running, None) }?;
        Ok(ScopedJoinHandle { handle, scope: PhantomData })
    }
}

/// Calls the closure, passes on its result, and then leaves the scope. Nothing after that uses a
/// borrow.
///
/// # Safety
///
/// 1. `this.launch` holds an `F` and has room for a `T`. Nothing else takes the `F`.
/// 2. `this.scope` counts this thread.
unsafe fn run<F: FnOnce() -> T, T>(this: &Block) {
    // SAFETY: 1. The caller guarantees the same (1).
    unsafe { start::run::<F, T>(this) };
    this.destructors.run(); // The scope waits for these too.
    leave(this);
}

/// Uncounts the calling thread in its scope, if it has one. The thread runs no code of the program
/// after this.
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
        // The word may be unmapped by now, or be part of another futex. A thread that waits there
        // checks its own word again.
        base::wake(running.cast::<AtomicU32>(), 1, ANY);
    }
}

/// Counts a thread that is about to be cloned in its scope, if it has one. The caller opened the
/// scope or is counted.
pub(super) fn count(thread: &Block) {
    // SAFETY: the scope does not end before its last thread. The caller is one of its threads, or
    // the thread that will wait for them.
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
/// 1. The thread has ended. Its block is still mapped, and only the caller accesses its cells.
pub(super) unsafe fn uncount_ended(ended: NonNull<Block>) {
    // SAFETY: the block is still mapped (1).
    let running = unsafe { ended.as_ref() }.scope.take();
    if !running.is_null() {
        // SAFETY: 1. The thread is counted, and it ended before it uncounted itself.
        unsafe { Running::lose(running) };
    }
}

/// The scope that counts a thread; null if there is none. A search for lost threads reads it.
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
        // Acquire pairs with the release in `leave`: a search that finds the scope no longer named
        // also sees that the thread is uncounted (6).
        core::ptr::eq(self.0.load(Acquire), scope)
    }

    /// Uncounts the calling thread, then names no scope. Returns whether the thread was the last
    /// one and the scope waits; then the caller wakes it.
    ///
    /// # Safety
    ///
    /// 1. `running` is the scope that is named here, and counts the calling thread, once.
    pub(super) unsafe fn leave(&self, running: *const Running) -> bool {
        // SAFETY: 1. The scope counts the thread (1).
        let is_last = unsafe { Running::leave(running) };
        // Release: the thread was uncounted before. Pairs with the acquire in `is`.
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

    /// Counts one thread more. The caller opened the scope or is counted itself.
    pub(super) fn enter(&self) {
        // Relaxed: the thread is cloned after this. The count does not overflow: the kernel has at
        // most 2^22 threads.
        self.0.fetch_add(1, Relaxed);
    }

    /// Counts one thread less. Returns whether it was the last one and the scope waits; then the
    /// caller wakes it.
    ///
    /// # Safety
    ///
    /// 1. The thread is counted, once. (So the scope has not ended.)
    pub(super) unsafe fn leave(running: *const Running) -> bool {
        // SAFETY: the scope does not end before the thread is uncounted below (1).
        let word = unsafe { &raw const (*running).0 };
        // Release: what the thread did happens before the scope's end.
        // SAFETY: the scope does not end before this (1).
        let before = unsafe { (*word).fetch_sub(1, Release) };
        before & !LOST == WAITED | 1
    }

    /// Counts one thread less, which ended without a result.
    ///
    /// # Safety
    ///
    /// 1. The thread is counted, once. (So the scope has not ended.)
    pub(super) unsafe fn lose(running: *const Running) {
        // SAFETY: the scope does not end before the thread is uncounted below (1).
        // Relaxed: `leave` changes the same word after this, with release.
        unsafe { &(*running).0 }.fetch_or(LOST, Relaxed);
        // SAFETY: 1. The caller guarantees the same (1).
        if unsafe { Running::leave(running) } {
            base::wake(running.cast::<AtomicU32>(), 1, ANY);
        }
    }

    /// Counts threads as lost until the count is `listed`, the number of threads in the list that
    /// name this scope. The list has been closed since they were counted.
    pub(super) fn lose_all_but(&self, listed: usize) {
        // Relaxed: if a thread was not among `listed` because it left, `CountedBy::is` has ordered
        // its uncounting before this load. So a running thread is not taken for lost.
        let counted = self.0.load(Relaxed) & COUNT;
        for _ in listed..counted as usize {
            // SAFETY: 1. It is the count of a thread that does not exist, so nothing else takes it.
            unsafe { Running::lose(self) };
        }
    }

    /// Waits until no thread is counted. Returns whether none was lost.
    #[must_use]
    pub(super) fn wait_for_all(&self) -> bool {
        // Acquire, here and below: pairs with the releases of all threads in `leave`.
        if self.0.load(Acquire) == 0 {
            return true;
        }
        let mut patience = FIRST_LOOK;
        let mut seen = self.0.fetch_or(WAITED, Acquire) | WAITED;
        while seen & COUNT != 0 {
            if base::wait(&self.0, seen, base::deadline_of(patience), ANY) {
                find_lost_threads(self);
                patience = (2 * patience).min(LAST_LOOK);
            }
            seen = self.0.load(Acquire);
        }
        seen & LOST == 0
    }
}

/// Uncounts threads that ended without leaving their scope: of all scopes, the ones in the list; of
/// this scope, also those that are not in the list any more.
#[cold]
fn find_lost_threads(scope: &Running) {
    List::with(|list| {
        list.remove_ended();
        let listed = list.count(|block| block.scope.is(scope));
        scope.lose_all_but(listed);
    });
}

/// How long a scope waits before it first searches for threads that ended without leaving. The time
/// doubles with each search, up to [`LAST_LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(60);

/// Owns a thread in a scope: [`join`](ScopedJoinHandle::join) it for its result, or drop it and let
/// the scope wait.
///
/// ```no_run
/// use rt0::thread::{self, ScopedJoinHandle};
///
/// let numbers = [1, 2, 3];
/// let sum = thread::scope(|scope| {
///     let handle: ScopedJoinHandle<'_, u32> = scope.spawn(|| numbers.iter().sum())?;
///     Ok::<_, rt0::Errno>(handle.join())
/// })?;
/// # Ok::<(), rt0::Errno>(())
/// ```
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<T>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the thread to end and returns what its closure returned; see [`JoinHandle::join`].
    ///
    /// In handlers: no, it waits.
    ///
    /// # Panics
    ///
    /// As [`JoinHandle::join`].
    #[track_caller]
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
