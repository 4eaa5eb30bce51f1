//! Parker.

use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use rt0::sync::Parker;
use rt0::thread::{self, spawn};
use rt0::time::Instant;
use rt0_tests::wait_until;

use super::{TICK, join};

rt0::test_module! {
    a_token_that_is_there_is_taken_at_once_and_there_is_only_one,
    an_unpark_lets_a_parked_thread_go,
    one_token_lets_one_of_several_parked_threads_go,
}

fn a_token_that_is_there_is_taken_at_once_and_there_is_only_one() {
    let parker = Parker::new();
    parker.unpark();
    parker.unpark();
    parker.park();
    let start = Instant::now();
    assert!(!parker.park_timeout(TICK) && start.elapsed() >= TICK);
    assert!(!parker.park_timeout(Duration::ZERO) && !parker.park_until(start));
    parker.unpark();
    assert!(parker.park_until(start), "a token before the time is looked at");
    parker.unpark();
    assert!(parker.park_timeout(Duration::MAX));
}

fn an_unpark_lets_a_parked_thread_go() {
    static PARKER: Parker = Parker::new();
    static PARKED: AtomicU32 = AtomicU32::new(0);
    let thread = spawn(|| {
        for _ in 0..1_000 {
            PARKER.park();
            PARKED.fetch_add(1, Release);
        }
    });
    for round in 1..=1_000 {
        PARKER.unpark();
        wait_until("the parked thread", || PARKED.load(Acquire) >= round);
    }
    thread.unwrap().join();
}

fn one_token_lets_one_of_several_parked_threads_go() {
    static PARKER: Parker = Parker::new();
    static GONE: AtomicU32 = AtomicU32::new(0);
    let threads = [(); 4].map(|()| {
        spawn(|| {
            PARKER.park();
            GONE.fetch_add(1, Relaxed);
        })
        .unwrap()
    });
    for gone in 1..=4 {
        thread::sleep(TICK);
        PARKER.unpark();
        wait_until("one to go", || GONE.load(Relaxed) == gone);
        thread::sleep(Duration::from_millis(2));
        assert_eq!(GONE.load(Relaxed), gone);
    }
    join(threads);
}
