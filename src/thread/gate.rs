//! Who may touch the list of threads: many who come and go at once, or one who goes through it while nobody does.
//!
//! ```text
//!     spawn, exit   enter ── the latch, for a few stores ── clone(2) ── leave      any number of them at once
//!     all_threads   close ── all that it does ───────────────────────── open       one, and nobody is inside
//! ```
//!
//! What holds, and how:
//!
//! 1. *Nobody is inside while it is closed.* Who enters counts himself and sees it open in one step; who closes it waits
//!    until all that are counted have left.
//! 2. *Everybody comes to his turn.* Who wants to close it, and who finds it closed, draws a number; numbers are served in
//!    order. So callers that close it one after another keep nobody out for longer than those before him in the queue, and
//!    whoever closes it waits only for those who are inside by then.
//! 3. *Nobody sleeps in vain.* A word is compared by the kernel as it puts the caller to sleep, and changed before a wake.
//!    Whether a wake is needed is seen by exchanges of one word: either the waiter's comes first and is seen, or it
//!    comes second and sees what it would wait for.
//! 4. *What is done under the latch or while it is closed is seen by whoever comes to either later.* Each way in acquires
//!    what the ways out before it released, on the gate's word and on the latch's.
//!
//! After a fork(2) in a process of several threads, those who were inside then never leave in the child: it cannot close the
//! gate. Who had the latch, or had closed the gate, keeps it there: then the child cannot start threads either.
//!
//! Atomics and the futex only, so that `models` runs this very code.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::futex::base::{self, ANY, AtomicU32, const_fn};

pub(super) struct Gate {
    /// ```text
    /// │ CLOSED │ how many are inside … 31 bits │
    /// ```
    state: AtomicU32,
    queue: Queue,
}

const CLOSED: u32 = 1 << 31;

impl Gate {
    const_fn! {
        pub(super) const fn new() -> Gate {
            Gate { state: AtomicU32::new(0), queue: Queue { next: AtomicU32::new(0), turn: AtomicU32::new(0) } }
        }
    }

    /// Whether it was open; then the caller is inside.
    pub(super) fn try_enter(&self) -> bool {
        let enter = |state| (state & CLOSED == 0).then_some(state + 1);
        // Acquire pairs with the release in `open`.
        self.state.fetch_update(Acquire, Relaxed, enter).is_ok()
    }

    /// Waits for its turn, and is inside.
    pub(super) fn enter_in_turn(&self) {
        self.queue.wait_for_turn();
        // Whoever closes it has the turn for as long, so it is open.
        self.state.fetch_add(1, Acquire);
        self.queue.next_turn();
    }

    pub(super) fn leave(&self) {
        // Release pairs with the acquires in `close`.
        if self.state.fetch_sub(1, Release) == CLOSED | 1 {
            base::wake(&self.state, 1, ANY);
        }
    }

    /// Waits for its turn, and until nobody is inside.
    pub(super) fn close(&self) {
        self.queue.wait_for_turn();
        let mut state = self.state.fetch_or(CLOSED, Acquire) | CLOSED;
        while state != CLOSED {
            base::wait(&self.state, state, None, ANY);
            state = self.state.load(Acquire);
        }
    }

    pub(super) fn open(&self) {
        self.state.fetch_and(!CLOSED, Release);
        self.queue.next_turn();
    }
}

struct Queue {
    /// The number that the next who asks gets.
    next: AtomicU32,
    /// The number that has its turn; nobody has one when that is the next's.
    turn: AtomicU32,
}

impl Queue {
    fn wait_for_turn(&self) {
        // Acquire pairs with the release of `next_turn`: who draws after it looked sees the turn that it made (3).
        let number = self.next.fetch_add(1, Acquire);
        loop {
            let turn = self.turn.load(Acquire);
            if turn == number {
                return;
            }
            base::wait(&self.turn, turn, None, kind(number));
        }
    }

    fn next_turn(&self) {
        let turn = self.turn.fetch_add(1, Release).wrapping_add(1);
        // An exchange, so that it is before or after each number drawn (3).
        if self.next.fetch_add(0, AcqRel) != turn {
            base::wake(&self.turn, u32::MAX, kind(turn)); // Few have the same kind, and one of them is it.
        }
    }
}

/// By what a sleeper is told from most others.
fn kind(number: u32) -> u32 {
    1 << (number % 32)
}

/// Mutual exclusion for a few instructions, which no signal interrupts: so whoever finds it taken waits for a processor
/// at most. It is not fair, for a queue would stand still whenever the first in it has no processor.
pub(super) struct Latch {
    state: AtomicU32,
}

const FREE: u32 = 0;
const TAKEN: u32 = 1;
/// Somebody may be asleep.
const WAITED_FOR: u32 = 2;

impl Latch {
    const_fn! {
        pub(super) const fn new() -> Latch {
            Latch { state: AtomicU32::new(FREE) }
        }
    }

    /// Calls `f` while nobody else is in such a call.
    pub(super) fn with<T>(&self, f: impl FnOnce() -> T) -> T {
        // Acquire, here and below, pairs with the release.
        if self.state.compare_exchange(FREE, TAKEN, Acquire, Relaxed).is_err() {
            while self.state.swap(WAITED_FOR, Acquire) != FREE {
                base::wait(&self.state, WAITED_FOR, None, ANY);
            }
        }
        let done = f();
        if self.state.swap(FREE, Release) == WAITED_FOR {
            base::wake(&self.state, 1, ANY);
        }
        done
    }
}
