//! Access to the list of threads: many threads that start and end at once, or one that goes through
//! it while no other does.
//!
//! ```text
//!     spawn, exit   enter ── latch, a few stores ── clone(2) ── leave   any number of them at once
//!     all_threads   close ── all that it does ───────────────── open    one, no thread is inside
//! ```
//!
//! What holds, and how:
//!
//! 1. *No thread is inside a closed gate:* a thread that enters counts itself and sees the gate
//!    open in one atomic step. One that closes it waits until all counted threads have left.
//! 2. *No starvation:* a thread that wants to close the gate, or finds it closed, draws a ticket,
//!    and tickets are served in order. So callers that close the gate one after another delay a
//!    thread only by those before it in the queue. A thread that closes it waits only for those
//!    inside at that time.
//! 3. *No lost wake-ups:* the kernel compares a word as it puts the caller to sleep, and the word
//!    is changed before a wake. Exchanges of one word show whether a wake is needed: either the
//!    waiter's comes first and is seen, or it comes second and sees what it would wait for.
//! 4. *Changes made while holding the latch or the closed gate are visible to every later holder:*
//!    each way in acquires what earlier ways out released, on the gate's word and on the latch's.
//! 5. *A killed thread blocks no other:* a filter can kill a thread alone, in any system call. A
//!    thread notes in its [`Held`] what it holds here, with all signals blocked and without a
//!    system call between the note and the step that takes or releases it. So the note of a killed
//!    thread is exact. All waits are in steps of a tenth of a second. After one without change the
//!    waiter goes through the list and releases what ended threads held ([`Gate::give_back`]), each
//!    once, because it holds the latch. A wake that a killed thread did not reach costs the sleeper
//!    one such step.
//! 6. *The latch of a killed holder goes to a waiter:* the latch names its holder. A waiter that
//!    found no change for a step asks whether the kernel has cleared the holder's tid word, without
//!    a load of its own. If the latch has not changed hands after that, the holder was in the list.
//!    So the word was there, and the answer is about the holder. The list is consistent whenever a
//!    thread that holds the latch makes a system call.
//!
//! A forked child starts with a new gate and latch (`list.rs`).
//!
//! It uses atomics and the futex only, so that `models` runs this code as it is.

use core::cell::Cell;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::futex::base::{self, ANY, AtomicPtr, AtomicU32, const_fn};

/// What a thread holds on which others may come to wait. Written by the thread itself; read by
/// another once the thread is gone, under the latch.
pub(super) struct Held {
    inside: Cell<bool>,
    /// Whether it has drawn one in the gate's queue, and which. One before the turn means nothing.
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

    /// Nothing: for the thread itself, in a forked child.
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

/// The functions that take a [`Held`] take the calling thread's, and are called with all signals
/// blocked where they say so.
impl Gate {
    const_fn! {
        pub(super) const fn new() -> Gate {
            Gate { state: AtomicU32::new(0), queue: Queue { next: AtomicU32::new(0), turn: AtomicU32::new(0) } }
        }
    }

    /// Whether it was open; then the caller is inside. All signals are blocked.
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

    /// Draws a ticket that is served at once, if no other thread has one: whether it did. All
    /// signals are blocked.
    pub(super) fn try_draw(&self, held: &Held) -> bool {
        let turn = self.queue.turn.load(Acquire);
        // A turn ends after the tickets up to it were drawn, so if this succeeds the turn is still
        // the one above. Acquire as in `draw`.
        let drawn = self.queue.next.compare_exchange(turn, turn.wrapping_add(1), Acquire, Relaxed).is_ok();
        if drawn {
            held.ticket.set((true, turn));
        }
        drawn
    }

    /// Waits until the caller's ticket is served. `look` is called after each step without change
    /// (5).
    pub(super) fn wait_for_turn(&self, held: &Held, look: impl Fn()) {
        self.queue.wait_for_turn(held.ticket.get().1, look);
    }

    /// Enters, by the ticket that is served. All signals are blocked.
    pub(super) fn enter_in_turn(&self, held: &Held) {
        // A thread that has closed it keeps the turn, so it is open.
        self.state.fetch_add(1, Acquire);
        held.inside.set(true);
        self.queue.next_turn();
        held.ticket.set(NO_TICKET);
        self.queue.wake_next();
    }

    /// Leaves. All signals are blocked. The caller calls [`woken`](Gate::woken) with the result
    /// when it holds nothing any more.
    #[must_use]
    pub(super) fn leave(&self, held: &Held) -> bool {
        held.inside.set(false);
        // Release pairs with the acquires in `close`.
        self.state.fetch_sub(1, Release) == CLOSED | 1
    }

    /// Wakes the thread that closes the gate, if the last one inside has left.
    pub(super) fn woken(&self, is_last: bool) {
        if is_last {
            base::wake(&self.state, 1, ANY);
        }
    }

    /// Closes it, by the ticket that is served, and waits until no thread is inside. `look` is
    /// called after each step without change (5).
    pub(super) fn close(&self, look: impl Fn()) {
        let closed = self.close_while(|| {
            look();
            true
        });
        debug_assert!(closed);
    }

    /// [`close`](Gate::close) for a caller that waits only as long as `look` says so: whether no
    /// thread is inside. In either case the caller [`open`](Gate::open)s it.
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

    pub(super) fn open(&self, held: &Held) {
        self.state.fetch_and(!CLOSED, Release);
        // The turn goes before the ticket, so that there is no moment at which this thread can be
        // killed with the turn and without a ticket: a reserved signal may come in between.
        self.queue.next_turn();
        held.ticket.set(NO_TICKET);
        self.queue.wake_next();
    }

    /// Whether a thread that is gone holds something that it will be served later.
    pub(super) fn is_awaited(&self, gone: &Held) -> bool {
        // Numbers wrap around; half of them are the past.
        let to_come = |number: u32| number.wrapping_sub(self.queue.turn.load(Relaxed)) as i32 >= 0;
        let (has_ticket, number) = gone.ticket.get();
        gone.inside.get() || has_ticket && to_come(number)
    }

    /// Gives back what a thread that is gone holds, as far as its turn has come; whether that was
    /// something. The caller has the latch.
    pub(super) fn give_back(&self, gone: &Held) -> bool {
        let mut something = false;
        if gone.inside.get() {
            self.woken(self.leave(gone));
            something = true;
        }
        // Acquire: what it did in its turn comes before what is done in the next.
        if gone.ticket.get() == (true, self.queue.turn.load(Acquire)) {
            self.open(gone); // If it had not closed it, no other has either.
            something = true;
        }
        something
    }

    /// As new, in a forked child.
    pub(super) fn renew(&self) {
        for word in [&self.state, &self.queue.next, &self.queue.turn] {
            word.store(0, Relaxed);
        }
    }
}

struct Queue {
    /// The ticket that the next caller draws.
    next: AtomicU32,
    /// The ticket that has its turn; no thread has one when that is the next's.
    turn: AtomicU32,
}

impl Queue {
    fn draw(&self) -> u32 {
        // Acquire pairs with the release of `next_turn`: a thread that draws after that looked sees
        // the turn that it made (3).
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
        // An exchange, so that it is before or after each ticket drawn (3).
        if self.next.fetch_add(0, AcqRel) != turn {
            // Few waiters have the same bit, and the next one is among them.
            base::wake(&self.turn, u32::MAX, bit_of(turn));
        }
    }
}

/// The futex bitset of a ticket.
fn bit_of(number: u32) -> u32 {
    1 << (number % 32)
}

/// Mutual exclusion for a few instructions, which no signal interrupts: so a thread that finds it
/// taken waits for a processor at most. It is not fair, for a queue would stand still whenever the
/// first in it has no processor.
pub(super) struct Latch {
    /// ```text
    /// │ how often it was taken … 30 bits │ WAITED_FOR │ TAKEN │
    /// ```
    state: AtomicU32,
    /// The tid word of the thread that has it.
    holder: AtomicPtr<u32>,
}

const TAKEN: u32 = 1;
/// A thread may be asleep.
const WAITED_FOR: u32 = 2;
/// One more time that it was taken.
const TIME: u32 = 4;

impl Latch {
    const_fn! {
        pub(super) const fn new() -> Latch {
            Latch { state: AtomicU32::new(0), holder: AtomicPtr::new(null_mut()) }
        }
    }

    /// Takes it, for the thread whose tid word is at `holder`. All signals are blocked. After a
    /// step without change `is_gone` says whether the present holder's tid word is clear (6).
    pub(super) fn lock(&self, holder: *mut u32, is_gone: impl Fn(*mut u32) -> bool) {
        let mut waited = 0;
        loop {
            // Acquire: a holder's name that is seen after this is not of one before.
            let seen = self.state.load(Acquire);
            if seen & TAKEN == 0 {
                if self.replace(seen, seen.wrapping_add(TIME) | TAKEN | waited) {
                    break;
                }
                continue;
            }
            if seen & WAITED_FOR == 0 && !self.replace(seen, seen | WAITED_FOR) {
                continue;
            }
            let seen = seen | WAITED_FOR;
            waited = WAITED_FOR;
            if base::wait_a_while(&self.state, seen, ANY) && self.take_from_gone(seen, &is_gone) {
                break;
            }
        }
        self.holder.store(holder, Relaxed);
    }

    /// Whether its holder is gone and the caller has it now.
    #[cold]
    fn take_from_gone(&self, seen: u32, is_gone: impl Fn(*mut u32) -> bool) -> bool {
        let holder = self.holder.load(Relaxed);
        // The order matters: that it has not changed hands is seen after the look at the word (6).
        // The name is taken away by one waiter, which is the one to have the latch.
        let is_mine = !holder.is_null()
            && is_gone(holder)
            && self.state.load(Acquire) == seen
            && self.holder.compare_exchange(holder, null_mut(), Relaxed, Relaxed).is_ok();
        if is_mine {
            self.state.fetch_add(TIME, Acquire);
        }
        is_mine
    }

    fn replace(&self, seen: u32, new: u32) -> bool {
        // Acquire pairs with the release in `unlock`.
        self.state.compare_exchange(seen, new, Acquire, Relaxed).is_ok()
    }

    /// Gives it back; whether a thread is to be woken, by [`wake`](Latch::wake).
    #[must_use]
    pub(super) fn unlock(&self) -> bool {
        self.holder.store(null_mut(), Relaxed);
        self.state.fetch_and(!(TAKEN | WAITED_FOR), Release) & WAITED_FOR != 0
    }

    pub(super) fn wake(&self, is_waited_for: bool) {
        if is_waited_for {
            base::wake(&self.state, 1, ANY);
        }
    }

    /// As new, in a forked child.
    pub(super) fn renew(&self) {
        self.holder.store(null_mut(), Relaxed);
        self.state.store(0, Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    /// Tickets wrap after 2^32; here after a few.
    #[test]
    fn threads_pass_and_close_the_gate_where_tickets_wrap() {
        const TIMES: usize = 200;
        struct Shared(Gate, std::cell::UnsafeCell<usize>);
        // SAFETY: the count is changed only while the gate is closed, by the thread that closed it.
        unsafe impl Sync for Shared {}
        let first = AtomicU32::new(u32::MAX - 50);
        let queue = Queue { next: AtomicU32::new(u32::MAX - 50), turn: first };
        let shared = Shared(Gate { state: AtomicU32::new(0), queue }, 0.into());
        let close = |shared: &Shared| {
            let held = Held::new();
            shared.0.draw(&held);
            shared.0.wait_for_turn(&held, || ());
            shared.0.close(|| ());
            // SAFETY: closed by this thread.
            unsafe { *shared.1.get() += 1 };
            shared.0.open(&held);
        };
        let pass = |shared: &Shared| {
            let held = Held::new();
            if !shared.0.try_enter(&held) {
                shared.0.draw(&held);
                shared.0.wait_for_turn(&held, || ());
                shared.0.enter_in_turn(&held);
            }
            shared.0.woken(shared.0.leave(&held));
        };
        thread::scope(|scope| {
            let shared = &shared;
            scope.spawn(move || (0..TIMES).for_each(|_| close(shared)));
            scope.spawn(move || (0..TIMES).for_each(|_| close(shared)));
            scope.spawn(move || (0..TIMES).for_each(|_| pass(shared)));
        });
        assert_eq!(shared.1.into_inner(), 2 * TIMES);
        let turn = shared.0.queue.turn.into_inner();
        assert_eq!(turn, shared.0.queue.next.into_inner());
        assert!(turn < u32::MAX - 50, "the tickets have wrapped");
    }

    /// A ticket is served, or still to come, also across the wrap.
    #[test]
    fn a_ticket_of_a_thread_that_is_gone_is_known_where_tickets_wrap() {
        let queue = Queue { next: AtomicU32::new(u32::MAX), turn: AtomicU32::new(u32::MAX) };
        let gate = Gate { state: AtomicU32::new(0), queue };
        let (first, second) = (Held::new(), Held::new());
        gate.draw(&first);
        gate.draw(&second);
        assert!(gate.is_awaited(&first) && gate.is_awaited(&second));
        assert!(!gate.give_back(&second), "its turn is yet to come");
        assert!(gate.give_back(&first) && !gate.is_awaited(&first));
        assert!(gate.give_back(&second) && !gate.is_awaited(&second));
    }
}
