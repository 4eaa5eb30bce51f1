//! Waiting for a token.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A token lets one park go.* Whoever returns with it has cleared TOKEN by a compare-exchange.
//! 2. *No wake is lost.* Who parks counts itself before it sleeps, in the word that it sleeps on;
//!    `unpark` sets TOKEN in one step with seeing the count. So either the sleep finds the word
//!    changed, or the wake finds the sleeper. Who is woken and finds the token taken sleeps again;
//!    who gives up leaves by an exchange that sees no token, and takes one that is there.
//! 3. *`unpark` touches nothing once the token is there.* Only the kernel gets the address.
//! 4. *What came before an unpark comes before the return of the park that takes its token*, also
//!    where the token was there already: release in `unpark`, acquire wherever TOKEN is cleared.

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use static_assertions::assert_impl_all;

use crate::futex::base::{self, ANY, AtomicU32, const_fn};
use crate::time::Instant;

/// One token: [`park`](Parker::park) waits for it and takes it, [`unpark`](Parker::unpark) puts it
/// there. What parks and unparks a thread, as a value of its own. Several threads may park; a token
/// lets one of them go.
pub struct Parker {
    /// ```text
    /// │ how many park … 31 bits │ TOKEN │
    /// ```
    state: AtomicU32,
}

const TOKEN: u32 = 1;
const SLEEPER: u32 = 2;

assert_impl_all!(Parker: Send, Sync);

impl Parker {
    const_fn! {
        /// Without a token.
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

    /// [`park`](Parker::park), for at most `timeout`; whether there was a token.
    ///
    /// In handlers: no, it waits.
    pub fn park_timeout(&self, timeout: Duration) -> bool {
        self.take() || self.park_with(base::deadline_of(timeout))
    }

    /// [`park`](Parker::park), until `deadline` at the latest; whether there was a token.
    ///
    /// In handlers: no, it waits.
    pub fn park_until(&self, deadline: Instant) -> bool {
        self.park_with(Some(deadline))
    }

    /// Puts the token there, if it is not; what the caller did before comes before that park's
    /// return.
    ///
    /// In handlers: yes. It may interrupt any function of the same parker.
    pub fn unpark(&self) {
        // Release, also when the token is there already: the park that takes it sees what came
        // before each unpark.
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

    /// [`park`](Parker::park), with or without a deadline; whether there was a token.
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
            // Acquire pairs with the release in `unpark`. Leaving without a token must see that
            // there is none: its wake may have been ours.
            match self.state.compare_exchange(state, (state & !TOKEN) - SLEEPER, Acquire, Relaxed) {
                Ok(_) => return taken,
                Err(changed) => state = changed,
            }
        }
    }

    /// Takes the token if it is there.
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
