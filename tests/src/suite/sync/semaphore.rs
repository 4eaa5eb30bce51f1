//! Semaphore.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use rt0::sync::Semaphore;
use rt0::test::Expect;
use rt0::thread::{self, spawn};
use rt0::time::Instant;
use rt0::{Errno, sys};
use rt0_tests::{wait_until, wait_until_asleep};

use super::{TICK, join};

rt0::test_module! {
    a_semaphore_counts_its_permits,
    no_more_threads_than_permits_are_inside,
    a_semaphore_that_stays_empty_times_out_and_not_early,
    permits_go_to_the_thread_that_has_waited_longest,
    many_permits_at_once_serve_all_waiters_and_the_rest_stays,
    too_many_permits_are_eoverflow_and_change_nothing,
    a_guard_that_would_overflow_its_semaphore_panics =>
        Expect::panic("a semaphore of more than 2^31 - 1 permits"),
    a_semaphore_of_too_many_permits_panics =>
        Expect::panic("a semaphore of more than 2^31 - 1 permits"),
    a_wait_that_times_out_takes_no_permit,
}

fn a_semaphore_counts_its_permits() {
    let semaphore = Semaphore::new(2);
    semaphore.acquire();
    let guard = semaphore.access();
    assert!(!semaphore.try_acquire() && !semaphore.try_acquire_for(Duration::ZERO));
    assert_eq!(semaphore.available(), 0);
    drop(guard);
    assert!(semaphore.try_acquire());
    semaphore.release(3).unwrap();
    assert_eq!(semaphore.available(), 3);
    semaphore.release(0).unwrap();
    assert!(semaphore.try_acquire_for(Duration::MAX) && semaphore.try_acquire_until(Instant::now()));
    assert_eq!(semaphore.available(), 1);
}

fn no_more_threads_than_permits_are_inside() {
    static SEMAPHORE: Semaphore = Semaphore::new(3);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    let enter = || {
        for _ in 0..2_000 {
            let _permit = SEMAPHORE.access();
            assert!(INSIDE.fetch_add(1, Relaxed) < 3);
            INSIDE.fetch_sub(1, Relaxed);
        }
    };
    join([(); 8].map(|()| spawn(enter).unwrap()));
    assert_eq!(SEMAPHORE.available(), 3);
}

fn a_semaphore_that_stays_empty_times_out_and_not_early() {
    let semaphore = Semaphore::new(0);
    let start = Instant::now();
    assert!(!semaphore.try_acquire_for(TICK));
    assert!(start.elapsed() >= TICK);
    assert!(!semaphore.try_acquire_until(start));
    semaphore.release(1).unwrap();
    assert!(semaphore.try_acquire(), "a thread that timed out is not served");
}

fn permits_go_to_the_thread_that_has_waited_longest() {
    static SEMAPHORE: Semaphore = Semaphore::new(0);
    static TID: AtomicU32 = AtomicU32::new(0);
    static SERVED: AtomicU32 = AtomicU32::new(0);
    let waiters = [0, 1, 2, 3].map(|place| {
        let handle = spawn(move || {
            TID.store(sys::gettid(), Relaxed);
            SEMAPHORE.acquire();
            assert_eq!(SERVED.fetch_add(1, Relaxed), place);
        });
        wait_until("it to start", || TID.load(Relaxed) != 0);
        wait_until_asleep(TID.swap(0, Relaxed));
        handle.unwrap()
    });
    for served in 1..=4 {
        SEMAPHORE.release(1).unwrap();
        wait_until("the next", || SERVED.load(Relaxed) == served);
    }
    join(waiters);
}

fn many_permits_at_once_serve_all_waiters_and_the_rest_stays() {
    static SEMAPHORE: Semaphore = Semaphore::new(0);
    let waiters = [(); 4].map(|()| spawn(|| SEMAPHORE.acquire()).unwrap());
    thread::sleep(TICK);
    SEMAPHORE.release(6).unwrap();
    join(waiters);
    assert_eq!(SEMAPHORE.available(), 2);
}

fn too_many_permits_are_eoverflow_and_change_nothing() {
    let semaphore = Semaphore::new(Semaphore::MAX);
    assert_eq!(semaphore.release(1), Err(Errno::EOVERFLOW));
    semaphore.acquire();
    assert_eq!(semaphore.release(2), Err(Errno::EOVERFLOW));
    assert_eq!(semaphore.release(u32::MAX), Err(Errno::EOVERFLOW));
    assert_eq!(semaphore.available(), Semaphore::MAX - 1);
    assert_eq!(semaphore.release(1), Ok(()));
}

fn a_guard_that_would_overflow_its_semaphore_panics() {
    let semaphore = Semaphore::new(Semaphore::MAX);
    let guard = semaphore.access();
    semaphore.release(1).unwrap();
    drop(guard);
}

fn a_semaphore_of_too_many_permits_panics() {
    Semaphore::new(core::hint::black_box(u32::MAX));
}

fn a_wait_that_times_out_takes_no_permit() {
    static SEMAPHORE: Semaphore = Semaphore::new(2);
    let patient = || {
        for _ in 0..3_000 {
            drop(SEMAPHORE.access());
        }
    };
    let hasty = || {
        for round in 0..3_000 {
            if SEMAPHORE.try_acquire_for(Duration::from_micros(round % 40)) {
                thread::yield_now();
                SEMAPHORE.release(1).unwrap();
            }
        }
    };
    let hasty = [(); 3].map(|()| spawn(hasty).unwrap());
    join([(); 3].map(|()| spawn(patient).unwrap()));
    join(hasty);
    assert_eq!(SEMAPHORE.available(), 2);
}
