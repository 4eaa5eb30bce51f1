//! Waiting for a token.
//!
//! Properties, and how they are achieved:
//!
//! 1. *One park per token:* a park that returns with the token has cleared TOKEN by a
//!    compare-exchange.
//! 2. *No lost wake-ups:* a park counts itself in the state word before it sleeps on that word.
//!    `unpark` sets TOKEN and reads the count in one atomic step. So either the sleep finds the
//!    word changed, or the wake finds the sleeper. A thread that is woken and finds the token taken
//!    sleeps again. A thread that times out leaves by an exchange that sees no token, else it takes
//!    the token.
//! 3. *No access after TOKEN is set:* from then on `unpark` passes the address to the kernel only.
//! 4. *An unpark happens before the park that takes its token*, even if the token was there
//!    already: release in `unpark`, acquire at each step that clears TOKEN.

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::assert_impl_all;

use crate::futex::base::{self, ANY, AtomicU32, const_fn};
use crate::time::Instant;

/// A token: [`park`](Parker::park) waits for it and takes it, [`unpark`](Parker::unpark) makes it
/// available. The mechanism of `thread::park` and `unpark`, as a separate value. Several threads
/// may park; each token lets one of them return.
///
/// ```
/// use rt0::sync::Parker;
///
/// let parker = Parker::new();
/// parker.unpark();
/// parker.park(); // Returns at once: it takes what `unpark` left.
/// ```
pub struct Parker {
    /// ```text
    /// │ number of parked threads … 31 bits │ TOKEN │
    /// ```
    state: AtomicU32,
}

const TOKEN: u32 = 1;
const SLEEPER: u32 = 2;

assert_impl_all!(Parker: Send, Sync);

impl Parker {
    const_fn! {
        /// A parker without a token.
        ///
        /// In handlers: yes.
        pub const fn new() -> Parker {
            Parker { state: AtomicU32::new(0) }
        }
    }

    /// Waits until there is a token, and takes it.
    ///
    /// In handlers: no, it waits.
    pub fn park(&self) {
        self.park_with(None);
    }

    /// [`park`](Parker::park) for at most `timeout`; returns whether it took a token.
    ///
    /// In handlers: no, it waits.
    pub fn park_timeout(&self, timeout: Duration) -> bool {
        self.take() || self.park_with(base::deadline_of(timeout))
    }

    /// [`park`](Parker::park) until `deadline` at the latest; returns whether it took a token.
    ///
    /// ```no_run
    /// use rt0::sync::Parker;
    /// use rt0::time::{Duration, Instant};
    ///
    /// static PARKER: Parker = Parker::new();
    ///
    /// let got_token = PARKER.park_until(Instant::now() + Duration::from_secs(1));
    /// ```
    ///
    /// In handlers: no, it waits.
    pub fn park_until(&self, deadline: Instant) -> bool {
        self.park_with(Some(deadline))
    }

    /// Makes the token available, if it is not. What the caller did before happens before the
    /// return of the park that takes the token.
    ///
    /// In handlers: yes. It may interrupt any function of the same parker.
    pub fn unpark(&self) {
        // Release, even if the token is there: the park that takes it sees what came before each
        // unpark.
        let put = self.state.fetch_or(TOKEN, Release);
        if put & TOKEN == 0 && put >= SLEEPER {
            base::wake(&raw const self.state, 1, ANY);
        }
    }

    /// Whether there is no token, for models.
    #[cfg(all(loom, test))]
    pub(crate) fn is_empty(&self) -> bool {
        self.state.load(Acquire) & TOKEN == 0
    }

    /// [`park`](Parker::park) with an optional deadline; returns whether it took a token.
    pub(crate) fn park_with(&self, deadline: Option<Instant>) -> bool {
        if self.take() {
            return true;
        }
        let mut state = self.state.fetch_add(SLEEPER, Relaxed) + SLEEPER;
        let mut late = false;
        loop {
            let taken = state & TOKEN != 0;
            if !taken && !late {
                late = base::wait(&self.state, state, deadline, ANY);
                state = self.state.load(Relaxed);
                continue;
            }
            // Acquire pairs with the release in `unpark`. A thread that leaves without a token must
            // see that there is none: the wake may have been meant for it.
            match self.state.compare_exchange(state, (state & !TOKEN) - SLEEPER, Acquire, Relaxed) {
                Ok(_) => return taken,
                Err(changed) => state = changed,
            }
        }
    }

    /// Takes the token if it is there; returns whether it was.
    fn take(&self) -> bool {
        let state = self.state.load(Relaxed);
        // Acquire pairs with the release in `unpark`.
        state & TOKEN != 0 && self.state.compare_exchange(state, state & !TOKEN, Acquire, Relaxed).is_ok()
    }
}

impl Default for Parker {
    fn default() -> Parker {
        Parker::new()
    }
}

impl fmt::Debug for Parker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parker").finish_non_exhaustive()
    }
}
