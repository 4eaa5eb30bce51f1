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
        shared.0.wake_closer(shared.0.leave(&held));
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
