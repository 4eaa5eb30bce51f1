//! The list's gate and its latch.

use std::sync::Arc;

use loom::thread;

use crate::futex::fake_kernel::{Watched, interrupt, model};
use crate::thread::gate::{Gate, Held};
use crate::thread::latch::Latch;

type Guarded = (Gate, Latch, Watched, Watched);

/// The latch, for a thread that does not end in it.
fn with_latch<T>(latch: &Latch, f: impl FnOnce() -> T) -> T {
    let mut word = 1;
    latch.lock(&raw mut word, |_| false);
    let done = f();
    latch.wake(latch.unlock());
    done
}

/// Starts a thread, or ends.
fn pass((gate, latch, links, _): &Guarded) {
    let held = Held::new();
    if !gate.try_enter(&held) {
        gate.draw(&held);
        gate.wait_for_turn(&held, || ());
        gate.enter_in_turn(&held);
    }
    with_latch(latch, || links.add(1));
    gate.wake_closer(gate.leave(&held));
}

/// Makes a call on all threads.
fn close((gate, _, links, request): &Guarded) {
    let held = Held::new();
    gate.draw(&held);
    gate.wait_for_turn(&held, || ());
    gate.close(|| ());
    links.add(1);
    request.add(1);
    gate.open(&held);
}

/// Makes a dump: closes the gate if no other thread closes it, and gives up at the first wait.
fn try_close((gate, _, links, request): &Guarded) {
    let held = Held::new();
    if gate.try_draw(&held) {
        if gate.close_while(|| false) {
            links.add(1);
            request.add(1);
        }
        gate.open(&held);
    }
}

/// Two other threads do `first` and `second` while the model's own thread does `third`.
fn at_the_gate(first: fn(&Guarded), second: fn(&Guarded), third: fn(&Guarded)) -> (u32, u32) {
    let guarded = Arc::new((Gate::new(), Latch::new(), Watched::default(), Watched::default()));
    let others = [first, second].map(|act| {
        let guarded = guarded.clone();
        thread::spawn(move || act(&guarded))
    });
    interrupt();
    third(&guarded);
    for other in others {
        other.join().unwrap();
    }
    (guarded.2.get(), guarded.3.get())
}

#[test]
fn loom_no_thread_is_inside_a_closed_gate_and_each_gets_through() {
    model(3, || assert_eq!(at_the_gate(pass, pass, close), (3, 1)));
}

#[test]
fn loom_a_dump_closes_the_gate_alone_or_not_at_all() {
    model(3, || {
        let (links, requests) = at_the_gate(pass, try_close, close);
        assert!(links == 1 + requests && (1..=2).contains(&requests));
    });
}

#[test]
fn loom_two_threads_close_the_gate_one_after_the_other() {
    model(3, || assert_eq!(at_the_gate(close, pass, close), (3, 2)));
}

#[test]
fn loom_a_thread_that_finds_the_gate_closed_waits_for_one_thread_only() {
    model(8, || {
        let shared = Arc::new((Gate::new(), Watched::default()));
        let held = Held::new();
        shared.0.draw(&held);
        shared.0.close(|| ());
        let late = {
            let shared = shared.clone();
            thread::spawn(move || {
                let held = Held::new();
                let at_once = shared.0.try_enter(&held);
                if !at_once {
                    shared.0.draw(&held);
                    shared.0.wait_for_turn(&held, || ());
                    shared.0.enter_in_turn(&held);
                }
                assert_eq!(shared.1.get(), 1);
                shared.0.wake_closer(shared.0.leave(&held));
            })
        };
        shared.1.add(1);
        shared.0.open(&held);
        assert!(shared.0.try_enter(&held), "no thread has closed it");
        shared.0.wake_closer(shared.0.leave(&held));
        late.join().unwrap();
    });
}

#[test]
fn loom_the_latch_is_one_threads_at_a_time() {
    model(3, || {
        let shared = Arc::new((Latch::new(), Watched::default()));
        let others: [_; 2] = core::array::from_fn(|_| {
            let shared = shared.clone();
            thread::spawn(move || with_latch(&shared.0, || shared.1.add(1)))
        });
        with_latch(&shared.0, || shared.1.add(1));
        interrupt();
        for thread in others {
            thread.join().unwrap();
        }
        assert_eq!(with_latch(&shared.0, || shared.1.get()), 3);
    });
}

/// One thread does `last` and is killed; two others close the gate and pass it. The model's own
/// thread releases what the killed one held, each thing once.
fn killed_after(last: fn(&Gate, &Held)) {
    model(3, move || {
        let guarded = Arc::new((Gate::new(), Latch::new(), Watched::default(), Watched::default()));
        let held = Held::new();
        last(&guarded.0, &held);
        let others = [close, pass].map(|act| {
            let guarded = guarded.clone();
            thread::spawn(move || act(&guarded))
        });
        while guarded.0.is_awaited(&held) {
            if !guarded.0.give_back(&held) {
                thread::yield_now(); // Its turn is yet to come.
            }
        }
        assert!(!guarded.0.give_back(&held), "given back once");
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!((guarded.2.get(), guarded.3.get()), (2, 1));
        close(&guarded);
    });
}

#[test]
fn loom_a_thread_killed_inside_the_gate_keeps_no_other_out() {
    killed_after(|gate, held| assert!(gate.try_enter(held)));
}

#[test]
fn loom_a_thread_killed_with_a_ticket_keeps_no_other_out() {
    killed_after(Gate::draw);
}

#[test]
fn loom_a_thread_killed_with_the_gate_closed_keeps_no_other_out() {
    killed_after(|gate, held| {
        gate.draw(held);
        gate.wait_for_turn(held, || ());
        gate.close(|| ());
    });
}
