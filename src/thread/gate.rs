//! Access to the list of threads: either any number of threads start and end, or one thread goes
//! through the list while none starts or ends.
//!
//! ```text
//!     spawn, exit   enter ── latch, a few stores ── clone(2) ── leave   any number of them at once
//!     all_threads   close ── all that it does ───────────────── open    one, no thread is inside
//! ```
//!
//! Properties, and how they are achieved:
//!
//! 1. *No thread is inside a closed gate:* a thread that enters counts itself and sees the gate
//!    open in one atomic step. One that closes it waits until all counted threads have left.
//! 2. *No starvation:* a thread that wants to close the gate, or finds it closed, draws a ticket,
//!    and tickets are served in order. So callers that close the gate one after another delay a
//!    thread only by those before it in the queue. A thread that closes the gate waits only for the
//!    threads that are inside at that time.
//! 3. *No lost wake-ups:* the kernel compares a word as it puts the caller to sleep, and the word
//!    is changed before a wake. Atomic exchanges of one word show whether a wake is needed: either
//!    the waiter's exchange comes first and the waker sees it, or it comes second and the waiter
//!    sees the change that it would wait for.
//! 4. *Changes made while holding the latch or the closed gate are visible to every later holder:*
//!    each entry acquires what earlier exits released, on the gate's word and on the latch's.
//! 5. *A killed thread blocks no other:* a filter can kill a thread alone, in any system call. A
//!    thread notes in its [`Held`] what it holds here, with all signals blocked and without a
//!    system call between the note and the step that takes or releases it. So the note of a killed
//!    thread is exact. All waits are in steps of a tenth of a second. After one without change the
//!    waiter goes through the list and releases what ended threads held ([`Gate::give_back`]), each
//!    once, because it holds the latch. A wake that a killed thread did not reach costs the sleeper
//!    one such step.
//!
//! A forked child starts with a new gate and latch (`list.rs`).
//!
//! It uses atomics and the futex only, so that `models` runs this code as it is.

use core::cell::Cell;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::futex::base::{self, ANY, AtomicU32, const_fn};

/// What a thread holds of the gate, and other threads may wait for. Written by the thread itself;
/// after the thread ended, read by another one under the latch.
pub(super) struct Held {
    inside: Cell<bool>,
    /// Whether it has a ticket, and its number. A number before the turn is one already served.
    ticket: Cell<(bool, u32)>,
}

impl Held {
    pub(super) const fn new() -> Held {
        Held { inside: Cell::new(false), ticket: Cell::new(NO_TICKET) }
    }

    /// Whether the thread is inside or has a ticket.
    pub(super) fn is_something(&self) -> bool {
        self.inside.get() || self.ticket.get().0
    }

    /// Notes that the thread holds nothing: in a forked child, for its own thread.
    pub(super) fn forget(&self) {
        self.inside.set(false);
        self.ticket.set(NO_TICKET);
    }
}

const NO_TICKET: (bool, u32) = (false, 0);

pub(super) struct Gate {
    /// ```text
    /// │ CLOSED │ how many are inside … 31 bits │
    /// ```
    state: AtomicU32,
    queue: Queue,
}

const CLOSED: u32 = 1 << 31;

/// A function with a parameter `held` expects the calling thread's.
impl Gate {
    const_fn! {
        pub(super) const fn new() -> Gate {
            Gate { state: AtomicU32::new(0), queue: Queue { next: AtomicU32::new(0), turn: AtomicU32::new(0) } }
        }
    }

    /// Enters if the gate is open; returns whether it did. All signals are blocked.
    pub(super) fn try_enter(&self, held: &Held) -> bool {
        let enter = |state| (state & CLOSED == 0).then_some(state + 1);
        // Acquire pairs with the release in `open`.
        let entered = self.state.fetch_update(Acquire, Relaxed, enter).is_ok();
        if entered {
            held.inside.set(true);
        }
        entered
    }

    /// Draws a ticket, for [`wait_for_turn`](Gate::wait_for_turn). All signals are blocked.
    pub(super) fn draw(&self, held: &Held) {
        held.ticket.set((true, self.queue.draw()));
    }

    /// Draws a ticket only if its turn comes at once, that is, if no other thread has one. Returns
    /// whether it did. All signals are blocked.
    pub(super) fn try_draw(&self, held: &Held) -> bool {
        let turn = self.queue.turn.load(Acquire);
        // The turn is never ahead of `next`. So if `next` still equals the turn that was loaded, it
        // is still the turn. Acquire as in `Queue::draw`.
        let drawn = self.queue.next.compare_exchange(turn, turn.wrapping_add(1), Acquire, Relaxed).is_ok();
        if drawn {
            held.ticket.set((true, turn));
        }
        drawn
    }

    /// Waits until the turn of the caller's ticket comes. `look` is called after each step without
    /// change (5).
    pub(super) fn wait_for_turn(&self, held: &Held, look: impl Fn()) {
        self.queue.wait_for_turn(held.ticket.get().1, look);
    }

    /// Enters, when the turn of the caller's ticket has come. All signals are blocked.
    pub(super) fn enter_in_turn(&self, held: &Held) {
        // It is open: a thread that closes the gate keeps the turn until it opens it.
        self.state.fetch_add(1, Acquire);
        held.inside.set(true);
        self.queue.next_turn();
        held.ticket.set(NO_TICKET);
        self.queue.wake_next();
    }

    /// Leaves. All signals are blocked. The caller passes the result to
    /// [`wake_closer`](Gate::wake_closer) once it holds nothing any more.
    #[must_use]
    pub(super) fn leave(&self, held: &Held) -> bool {
        held.inside.set(false);
        // Release pairs with the acquires in `close`.
        self.state.fetch_sub(1, Release) == CLOSED | 1
    }

    /// Wakes the thread that closes the gate, if the last one inside has left.
    pub(super) fn wake_closer(&self, is_last: bool) {
        if is_last {
            base::wake(&self.state, 1, ANY);
        }
    }

    /// Closes the gate, when the turn of the caller's ticket has come, and waits until no thread is
    /// inside. `look` is called after each step without change (5).
    pub(super) fn close(&self, look: impl Fn()) {
        let closed = self.close_while(|| {
            look();
            true
        });
        debug_assert!(closed);
    }

    /// [`close`](Gate::close) for a caller that waits only while `look` returns true. Returns
    /// whether no thread is inside. In either case the caller must [`open`](Gate::open) the gate.
    #[inline(always)]
    pub(super) fn close_while(&self, look: impl Fn() -> bool) -> bool {
        let mut state = self.state.fetch_or(CLOSED, Acquire) | CLOSED;
        while state != CLOSED {
            if base::wait_a_while(&self.state, state, ANY) && !look() {
                return false;
            }
            state = self.state.load(Acquire);
        }
        true
    }

    /// Opens the gate and passes the turn on.
    pub(super) fn open(&self, held: &Held) {
        self.state.fetch_and(!CLOSED, Release);
        // The turn is passed on before the note of the ticket is deleted. A reserved signal may
        // come in between, and this thread may be killed in its handler; a thread that had the turn
        // and no noted ticket would stop the queue.
        self.queue.next_turn();
        held.ticket.set(NO_TICKET);
        self.queue.wake_next();
    }

    /// Whether a thread that ended still holds something: it is counted as inside, or its turn has
    /// not come.
    pub(super) fn is_awaited(&self, gone: &Held) -> bool {
        // Numbers wrap around; half of them are in the past.
        let to_come = |number: u32| number.wrapping_sub(self.queue.turn.load(Relaxed)) as i32 >= 0;
        let (has_ticket, number) = gone.ticket.get();
        gone.inside.get() || has_ticket && to_come(number)
    }

    /// Releases what a thread that ended holds, except a ticket whose turn has not come. Returns
    /// whether it released something. The caller holds the latch.
    pub(super) fn give_back(&self, gone: &Held) -> bool {
        let mut something = false;
        if gone.inside.get() {
            self.wake_closer(self.leave(gone));
            something = true;
        }
        // Acquire: what it did in its turn happens before what is done in the next.
        if gone.ticket.get() == (true, self.queue.turn.load(Acquire)) {
            self.open(gone); // Only the thread with the turn closes the gate.
            something = true;
        }
        something
    }

    /// Resets it, in a forked child.
    pub(super) fn renew(&self) {
        for word in [&self.state, &self.queue.next, &self.queue.turn] {
            word.store(0, Relaxed);
        }
    }
}

struct Queue {
    /// The ticket that the next caller draws.
    next: AtomicU32,
    /// The ticket whose turn it is. If it equals `next`, no thread has a ticket.
    turn: AtomicU32,
}

impl Queue {
    fn draw(&self) -> u32 {
        // Acquire pairs with the release in `wake_next`: a thread that draws after that exchange
        // sees the new turn (3).
        self.next.fetch_add(1, Acquire)
    }

    fn wait_for_turn(&self, number: u32, look: impl Fn()) {
        loop {
            let turn = self.turn.load(Acquire);
            if turn == number {
                return;
            }
            if base::wait_a_while(&self.turn, turn, bit_of(number)) {
                look();
            }
        }
    }

    fn next_turn(&self) {
        self.turn.fetch_add(1, Release);
    }

    /// Wakes the thread whose turn has come, if there is one.
    fn wake_next(&self) {
        let turn = self.turn.load(Relaxed);
        // An exchange, so that it comes before or after each draw (3).
        if self.next.fetch_add(0, AcqRel) != turn {
            // Few waiters share this bit, and the one whose turn has come is among them.
            base::wake(&self.turn, u32::MAX, bit_of(turn));
        }
    }
}

/// The futex bitset of a ticket.
fn bit_of(number: u32) -> u32 {
    1 << (number % 32)
}

#[cfg(all(test, not(loom)))]
mod tests;
