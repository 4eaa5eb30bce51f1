//! One-time initialisation: [`Once`], [`OnceLock`] and [`LazyLock`].

mod lazy;
mod lock;

use core::convert::Infallible;
use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::assert_impl_all;

use crate::futex::base::{self, ANY, AtomicU32, const_fn};
use crate::time::Instant;
pub use lazy::LazyLock;
pub use lock::OnceLock;

/// Runs a closure once, however many threads call it, as std's, without poisoning. A closure that
/// panics ends the process with status 101, so the `_force` forms do the same as the others. A
/// closure that waits for its own [`Once`] waits forever.
///
/// ```
/// use rt0::sync::Once;
///
/// static SET_UP: Once = Once::new();
///
/// SET_UP.call_once(|| rt0::println!("once"));
/// SET_UP.call_once(|| unreachable!());
/// assert!(SET_UP.is_completed());
/// ```
pub struct Once {
    /// `NEW ── the first caller runs the closure ──▶ RUNNING ── it returned ──▶ DONE`; from RUNNING
    /// back to NEW if the closure fails. NEW and RUNNING may be combined with SLEEPERS: threads
    /// sleep on this word until it changes.
    state: AtomicU32,
}

const NEW: u32 = 0;
const RUNNING: u32 = 1;
const DONE: u32 = 2;
const SLEEPERS: u32 = 4;

assert_impl_all!(Once: Send, Sync, UnwindSafe, RefUnwindSafe);

impl Once {
    const_fn! {
        /// A `Once` that has not run.
        ///
        /// In handlers: yes.
        #[must_use]
        pub const fn new() -> Once {
            Once { state: AtomicU32::new(NEW) }
        }
    }

    /// Calls `f` if this `Once` has called nothing yet. On return the closure that was called has
    /// returned, and its effects are visible.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        if !self.is_completed() {
            let Ok(()) = self.call(|| {
                f();
                Ok::<(), Infallible>(())
            });
        }
    }

    /// [`call_once`](Once::call_once), for code that asks whether an earlier closure panicked: none
    /// did.
    ///
    /// In handlers: no, it takes a lock that the interrupted code may hold.
    #[inline]
    pub fn call_once_force<F: FnOnce(&OnceState)>(&self, f: F) {
        self.call_once(|| f(&OnceState(())));
    }

    /// Whether the closure has returned.
    ///
    /// In handlers: yes.
    #[inline]
    pub fn is_completed(&self) -> bool {
        // Acquire pairs with the release in `call`.
        self.state.load(Acquire) == DONE
    }

    /// Waits until the closure has returned; does not call one.
    ///
    /// In handlers: no, it waits.
    pub fn wait(&self) {
        self.wait_with(None);
    }

    /// The same as [`wait`](Once::wait): there is no poisoning.
    ///
    /// In handlers: no, it waits.
    pub fn wait_force(&self) {
        self.wait();
    }

    /// [`wait`](Once::wait) for at most `timeout`; returns whether the closure has returned.
    ///
    /// In handlers: no, it waits.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.is_completed() || self.wait_with(base::deadline_of(timeout))
    }

    /// [`wait`](Once::wait) until `deadline` at the latest; returns whether the closure has
    /// returned.
    ///
    /// In handlers: no, it waits.
    pub fn wait_until(&self, deadline: Instant) -> bool {
        self.wait_with(Some(deadline))
    }

    /// Runs `f` if no closure has succeeded. If `f` fails, the next caller runs its own closure.
    #[cold]
    fn call<E>(&self, f: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let begin = |state| (state & !SLEEPERS == NEW).then_some(state | RUNNING);
        // Acquire pairs with the release of a closure that failed.
        while self.state.fetch_update(Acquire, Relaxed, begin).is_err() {
            if self.wait_while_running() {
                return Ok(());
            }
        }
        let result = f();
        // Release: a thread that finds DONE, or NEW again, sees what the closure did.
        let after = if result.is_ok() { DONE } else { NEW };
        if self.state.swap(after, Release) & SLEEPERS != 0 {
            base::wake(&raw const self.state, i32::MAX as u32, ANY);
        }
        result
    }

    /// Waits until no closure runs; returns whether one has succeeded.
    fn wait_while_running(&self) -> bool {
        let is_running = |state: u32| state & !SLEEPERS == RUNNING;
        base::spin_until(|| !is_running(self.state.load(Relaxed)));
        loop {
            // Acquire pairs with the release in `call`.
            let state = self.state.load(Acquire);
            if !is_running(state) {
                return state == DONE;
            }
            self.sleep(state, None);
        }
    }

    fn wait_with(&self, deadline: Option<Instant>) -> bool {
        base::spin_until(|| self.is_completed());
        let mut late = false;
        loop {
            // Acquire pairs with the release in `call`.
            let state = self.state.load(Acquire);
            if state == DONE || late {
                return state == DONE;
            }
            late = self.sleep(state, deadline);
        }
    }

    /// Sleeps while the state is `state`; returns whether the deadline has passed.
    fn sleep(&self, state: u32, deadline: Option<Instant>) -> bool {
        let awaited = state | SLEEPERS;
        (state == awaited || self.state.compare_exchange(state, awaited, Relaxed, Relaxed).is_ok())
            && base::wait(&self.state, awaited, deadline, ANY)
    }
}

impl Default for Once {
    fn default() -> Once {
        Once::new()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

/// The argument of the closure of [`Once::call_once_force`].
///
/// ```
/// use rt0::sync::{Once, OnceState};
///
/// static SET_UP: Once = Once::new();
///
/// SET_UP.call_once_force(|state: &OnceState| assert!(!state.is_poisoned()));
/// SET_UP.wait_force(); // Returns at once: the closure has returned.
/// ```
pub struct OnceState(());

impl OnceState {
    /// Whether an earlier closure panicked: always false, because a panic ends the process.
    ///
    /// In handlers: yes.
    pub fn is_poisoned(&self) -> bool {
        false
    }
}

impl fmt::Debug for OnceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceState").field("poisoned", &self.is_poisoned()).finish()
    }
}
