//! Barrier.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rt0::sync::Barrier;
use rt0::sys;
use rt0::thread::spawn;
use rt0_tests::{wait_until, wait_until_asleep};

use super::join;

rt0::test_module! {
    no_thread_passes_a_barrier_before_all_have_come,
    a_barrier_waits_for_the_last,
    a_barrier_of_0_or_1_lets_each_thread_pass_and_lead,
    more_threads_than_a_barrier_is_for_make_more_rounds,
}

fn no_thread_passes_a_barrier_before_all_have_come() {
    static BARRIER: Barrier = Barrier::new(4);
    static ARRIVED: AtomicU32 = AtomicU32::new(0);
    let meet = || {
        let mut led = 0;
        for round in 1..=500 {
            ARRIVED.fetch_add(1, Relaxed);
            led += u32::from(BARRIER.wait().is_leader());
            assert!(ARRIVED.load(Relaxed) >= 4 * round);
            led += u32::from(BARRIER.wait().is_leader());
            assert!(ARRIVED.load(Relaxed) <= 4 * (round + 1));
        }
        led
    };
    assert_eq!(join([(); 4].map(|()| spawn(meet).unwrap())).iter().sum::<u32>(), 1000, "one leads each round");
}

fn a_barrier_waits_for_the_last() {
    static BARRIER: Barrier = Barrier::new(3);
    static TIDS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    let others = TIDS.each_ref().map(|tid| {
        spawn(move || {
            tid.store(sys::gettid(), Relaxed);
            BARRIER.wait().is_leader()
        })
        .unwrap()
    });
    for tid in &TIDS {
        wait_until("it to start", || tid.load(Relaxed) != 0);
        wait_until_asleep(tid.load(Relaxed));
    }
    assert!(others.iter().all(|other| !other.is_finished()));
    assert!(BARRIER.wait().is_leader(), "the last to come leads");
    assert_eq!(join(others), [false; 2]);
}

fn a_barrier_of_0_or_1_lets_each_thread_pass_and_lead() {
    for threads in [0, 1] {
        let barrier = Barrier::new(threads);
        assert!(barrier.wait().is_leader() && barrier.wait().is_leader());
    }
}

fn more_threads_than_a_barrier_is_for_make_more_rounds() {
    static BARRIER: Barrier = Barrier::new(2);
    static TICKETS: AtomicU32 = AtomicU32::new(0);
    let meet = || {
        let mut led = 0;
        while TICKETS.fetch_add(1, Relaxed) < 2_000 {
            led += u32::from(BARRIER.wait().is_leader());
        }
        led
    };
    assert_eq!(join([(); 6].map(|()| spawn(meet).unwrap())).iter().sum::<u32>(), 1_000);
}
