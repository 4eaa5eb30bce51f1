//! A wait group: threads wait until it has no members.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A wait ends once the group has been empty:* the member that empties it begins the next round
//!    in the same atomic step. A waiter waits for the end of the round in which it came, so members
//!    that enter later do not keep it.
//! 2. *No lost wake-ups:* a waiter sets WAITED in an atomic step that sees a member. The step that
//!    ends the round clears WAITED, and then all waiters are woken.
//! 3. *No access after the last member left:* from then on a thread passes the address to the
//!    kernel only.

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::assert_impl_all;

use crate::futex::base::{self, ANY, AtomicU32, const_fn};
use crate::time::Instant;

/// Counts members, and lets threads wait until there is none: crossbeam's `WaitGroup`, in a
/// `static` or borrowed.
///
/// ```no_run
/// use rt0::sync::WaitGroup;
/// use rt0::thread;
///
/// static JOBS: WaitGroup = WaitGroup::new();
/// for number in 0..4 {
///     let job = JOBS.enter();
///     thread::spawn(move || {
///         rt0::println!("job {number}");
///         drop(job);
///     })?;
/// }
/// JOBS.wait(); // All four have printed. Some threads may still be ending.
/// # Ok::<(), rt0::Errno>(())
/// ```
pub struct WaitGroup {
    /// ```text
    /// │ round: 8 bits │ WAITED │ members: 23 bits │
    /// ```
    /// The round wraps: a waiter that misses exactly 256 rounds waits for one more.
    state: AtomicU32,
}

const MEMBERS: u32 = WAITED - 1;
/// A thread may sleep until the round ends.
const WAITED: u32 = 1 << 23;
const ROUND: u32 = 1 << 24;

fn round(state: u32) -> u32 {
    state / ROUND
}

// A panic ends the process, so no thread sees a half-done change.
impl UnwindSafe for WaitGroup {}
impl RefUnwindSafe for WaitGroup {}

assert_impl_all!(WaitGroup: Send, Sync, UnwindSafe, RefUnwindSafe);
assert_impl_all!(WaitGroupGuard<'static>: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);

impl WaitGroup {
    /// The most members that there can be at once: 2^23 - 1.
    pub const MAX: u32 = MEMBERS;

    const_fn! {
        /// A group without members.
        ///
        /// In handlers: yes.
        #[must_use]
        pub const fn new() -> WaitGroup {
            WaitGroup { state: AtomicU32::new(0) }
        }
    }

    /// Adds a member, which leaves when the guard is dropped.
    ///
    /// In handlers: yes.
    ///
    /// # Panics
    ///
    /// If there are [`WaitGroup::MAX`] members.
    pub fn enter(&self) -> WaitGroupGuard<'_> {
        let enter = |state: u32| (state & MEMBERS < MEMBERS).then_some(state + 1);
        // Relaxed: a waiter learns of the member by the caller, or need not.
        self.state.fetch_update(Relaxed, Relaxed, enter).expect("a wait group of more than 2^23 - 1 members");
        WaitGroupGuard { group: self }
    }

    /// Waits until all members have left that are there now. It may wait for some that enter
    /// meanwhile, but not once there was none. What each member did before it left happens before
    /// this returns.
    ///
    /// In handlers: no, it waits.
    pub fn wait(&self) {
        self.wait_within(|| None);
    }

    /// [`wait`](WaitGroup::wait) for at most `timeout`; whether all have left.
    ///
    /// In handlers: no, it waits.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_within(|| base::deadline_of(timeout))
    }

    /// [`wait`](WaitGroup::wait) until `deadline` at the latest; whether all have left.
    ///
    /// In handlers: no, it waits.
    #[must_use]
    pub fn wait_until(&self, deadline: Instant) -> bool {
        self.wait_within(|| Some(deadline))
    }

    /// The number of members now.
    ///
    /// In handlers: yes.
    pub fn members(&self) -> u32 {
        self.state.load(Relaxed) & MEMBERS
    }

    fn wait_within(&self, deadline: impl FnOnce() -> Option<Instant>) -> bool {
        // Acquire, here and below, pairs with the release in `leave`, of each member: all changes
        // of the state are read-modify-write.
        let first = self.state.load(Acquire);
        let is_over = |state: u32| state & MEMBERS == 0 || round(state) != round(first);
        if base::spin_until(|| is_over(self.state.load(Acquire))) {
            return true;
        }
        let (deadline, mut late) = (deadline(), false);
        loop {
            let state = self.state.load(Acquire);
            if is_over(state) || late {
                return is_over(state);
            }
            let marked = state | WAITED;
            if state == marked || self.state.compare_exchange(state, marked, Relaxed, Relaxed).is_ok() {
                late = base::wait(&self.state, marked, deadline, ANY);
            }
        }
    }

    /// Removes a member. The group may be freed once that was the last (3).
    pub(super) fn leave(&self) {
        let word = &raw const self.state;
        let left = |state: u32| match state & MEMBERS {
            1 => Some((state & !(MEMBERS | WAITED)).wrapping_add(ROUND)),
            _ => Some(state - 1),
        };
        // Release: what the member did comes before the end of a wait.
        let before = self.state.fetch_update(Release, Relaxed, left);
        if before.is_ok_and(|before| before & (MEMBERS | WAITED) == WAITED | 1) {
            base::wake(word, i32::MAX as u32, ANY);
        }
    }

    /// Whether a thread may sleep, for models.
    #[cfg(all(loom, test))]
    pub(super) fn is_waited_for(&self) -> bool {
        self.state.load(Relaxed) & WAITED != 0
    }
}

impl Default for WaitGroup {
    fn default() -> WaitGroup {
        WaitGroup::new()
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroup").field("members", &self.members()).finish()
    }
}

/// A member of a [`WaitGroup`], which leaves on drop, on any thread. A clone is one more member.
///
/// ```
/// use rt0::sync::{WaitGroup, WaitGroupGuard};
///
/// static CONNECTIONS: WaitGroup = WaitGroup::new();
///
/// let member: WaitGroupGuard<'static> = CONNECTIONS.enter();
/// let another = member.clone();
/// assert_eq!(CONNECTIONS.members(), 2);
/// drop((member, another));
/// CONNECTIONS.wait(); // Returns at once.
/// ```
#[must_use = "if unused, the member leaves at once"]
#[derive(Debug)]
pub struct WaitGroupGuard<'a> {
    group: &'a WaitGroup,
}

impl Clone for WaitGroupGuard<'_> {
    /// # Panics
    ///
    /// If there are [`WaitGroup::MAX`] members.
    fn clone(&self) -> Self {
        self.group.enter()
    }
}

impl Drop for WaitGroupGuard<'_> {
    fn drop(&mut self) {
        self.group.leave();
    }
}
