//! Condvar.

use core::time::Duration;

use rt0::sync::{Condvar, Mutex};
use rt0::thread::{self, spawn};
use rt0::time::Instant;
use rt0_tests::{prints, wait_until};

use super::{TICK, in_a_storm, join};

rt0::test_module! {
    a_notification_wakes_one_in_the_order_they_came,
    notify_all_wakes_all_waiters_and_no_later_one,
    a_wait_gives_the_mutex_up_and_has_it_again_after,
    a_wait_without_a_wake_times_out_and_not_early,
    a_notified_wait_with_a_deadline_did_not_time_out,
    one_condition_serves_several_mutexes,
    no_notification_is_lost_between_two_threads,
    timeouts_that_race_with_notifications_lose_none,
    a_condition_works_under_a_storm_of_signals,
    signals_do_not_end_a_wait,
}

fn a_notification_wakes_one_in_the_order_they_came() {
    static LOCK: Mutex<(u32, u32)> = Mutex::new((0, 0)); // Waiting, and woken.
    static CHANGED: Condvar = Condvar::new();
    let waiters = [0, 1, 2, 3].map(|place| {
        let handle = spawn(move || {
            let mut state = LOCK.lock();
            state.0 += 1;
            let mut state = CHANGED.wait(state);
            assert_eq!(state.1, place, "out of order");
            state.1 += 1;
        });
        wait_until("the waiter to wait", || LOCK.lock().0 == place + 1);
        handle.unwrap()
    });
    for woken in 1..=4 {
        if woken % 2 == 0 {
            let _guard = LOCK.lock();
            CHANGED.notify_one();
        } else {
            CHANGED.notify_one();
        }
        wait_until("one to wake", || LOCK.lock().1 == woken);
        thread::sleep(Duration::from_millis(2));
        assert_eq!(LOCK.lock().1, woken, "no more than one");
    }
    join(waiters);
}

fn notify_all_wakes_all_waiters_and_no_later_one() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    static CHANGED: Condvar = Condvar::new();
    let wait = || {
        let mut count = LOCK.lock();
        *count += 1;
        *CHANGED.wait(count) -= 1;
    };
    CHANGED.notify_all();
    for held in [false, true] {
        let waiters = [(); 8].map(|()| spawn(wait).unwrap());
        wait_until("all to wait", || *LOCK.lock() == 8);
        let guard = held.then(|| LOCK.lock());
        CHANGED.notify_all();
        drop(guard);
        join(waiters);
    }
    let late = spawn(wait).unwrap();
    wait_until("the late one to wait", || *LOCK.lock() == 1);
    thread::sleep(TICK);
    assert!(!late.is_finished());
    CHANGED.notify_one();
    late.join();
}

fn a_wait_gives_the_mutex_up_and_has_it_again_after() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    static CHANGED: Condvar = Condvar::new();
    let waiter = spawn(|| {
        let count = CHANGED.wait_while(LOCK.lock(), |count| *count == 0);
        assert!(LOCK.try_lock().is_none());
        *count
    });
    wait_until("the mutex to be free", || LOCK.try_lock().is_some());
    *LOCK.lock() = 3;
    CHANGED.notify_one();
    assert_eq!(waiter.unwrap().join(), 3);
    assert_eq!(*CHANGED.wait_while(LOCK.lock(), |count| *count == 0), 3, "nothing to wait for");
}

fn a_wait_without_a_wake_times_out_and_not_early() {
    let (lock, changed) = (Mutex::new(1), Condvar::new());
    let start = Instant::now();
    let (guard, result) = changed.wait_timeout(lock.lock(), TICK);
    assert!(result.timed_out() && start.elapsed() >= TICK);
    assert!(lock.try_lock().is_none(), "the mutex is ours again");
    let (guard, result) = changed.wait_timeout(guard, Duration::ZERO);
    assert!(result.timed_out());
    let (guard, result) = changed.wait_until(guard, start);
    assert!(result.timed_out());
    let (guard, result) = changed.wait_timeout_while(guard, TICK, |one| *one == 1);
    assert!(result.timed_out());
    let (guard, result) = changed.wait_timeout_while(guard, Duration::ZERO, |one| *one == 2);
    assert!(!result.timed_out());
    assert!(prints(format_args!("{changed:?} {guard:?} {result:?}"), "Condvar { .. } 1 WaitTimeoutResult(false)"));
}

fn a_notified_wait_with_a_deadline_did_not_time_out() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    static CHANGED: Condvar = Condvar::new();
    for timeout in [Duration::from_secs(100), Duration::MAX] {
        *LOCK.lock() = 0;
        let waiter = spawn(move || {
            let mut count = LOCK.lock();
            *count += 1;
            CHANGED.wait_timeout(count, timeout).1.timed_out()
        });
        wait_until("it to wait", || *LOCK.lock() == 1);
        CHANGED.notify_one();
        assert!(!waiter.unwrap().join());
    }
}

fn one_condition_serves_several_mutexes() {
    static LOCKS: [Mutex<u32>; 2] = [const { Mutex::new(0) }; 2];
    static CHANGED: Condvar = Condvar::new();
    let wait = |which: usize| {
        spawn(move || {
            let mut count = LOCKS[which].lock();
            *count = 1;
            *CHANGED.wait(count) = 2;
        })
        .unwrap()
    };
    let waiters = [wait(0), wait(1)];
    wait_until("both to wait", || LOCKS.iter().all(|lock| *lock.lock() == 1));
    let guard = LOCKS[0].lock();
    CHANGED.notify_all();
    wait_until("the other to go on", || *LOCKS[1].lock() == 2);
    assert_eq!(*guard, 1);
    drop(guard);
    join(waiters);
    assert_eq!(*LOCKS[0].lock(), 2);
}

fn no_notification_is_lost_between_two_threads() {
    ping_pong();
}

fn timeouts_that_race_with_notifications_lose_none() {
    // A queue of one: each side waits with a timeout that often has just expired, and waits
    // again.
    static SLOT: Mutex<Option<u32>> = Mutex::new(None);
    static CHANGED: Condvar = Condvar::new();
    const ROUNDS: u32 = 3_000;
    let consumer = spawn(|| {
        for round in 0..ROUNDS {
            let mut slot = SLOT.lock();
            while slot.is_none() {
                (slot, _) = CHANGED.wait_timeout(slot, Duration::from_micros((round % 100).into()));
            }
            assert_eq!(slot.take(), Some(round));
            CHANGED.notify_one();
        }
    });
    for round in 0..ROUNDS {
        let mut slot = CHANGED.wait_while(SLOT.lock(), |slot| slot.is_some());
        *slot = Some(round);
        CHANGED.notify_one();
    }
    consumer.unwrap().join();
}

fn a_condition_works_under_a_storm_of_signals() {
    in_a_storm(ping_pong);
}

fn signals_do_not_end_a_wait() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    static CHANGED: Condvar = Condvar::new();
    in_a_storm(|| {
        let waiter = spawn(|| drop(CHANGED.wait(LOCK.lock()))).unwrap();
        let start = Instant::now();
        let (guard, result) = CHANGED.wait_timeout(LOCK.lock(), 4 * TICK);
        assert!(result.timed_out() && start.elapsed() >= 4 * TICK);
        drop(guard);
        assert!(!waiter.is_finished());
        CHANGED.notify_one();
        waiter.join();
    });
}

/// Two threads take turns through one mutex and two conditions.
fn ping_pong() {
    static TURN: Mutex<u32> = Mutex::new(0);
    static CHANGED: [Condvar; 2] = [const { Condvar::new() }; 2];
    const ROUNDS: u32 = 1_000;
    *TURN.lock() = 0;
    let play = |me: u32| {
        move || {
            for _ in 0..ROUNDS {
                let mut turn = CHANGED[me as usize].wait_while(TURN.lock(), |turn| *turn % 2 != me);
                *turn += 1;
                CHANGED[1 - me as usize].notify_one();
            }
        }
    };
    join([spawn(play(0)).unwrap(), spawn(play(1)).unwrap()]);
    assert_eq!(*TURN.lock(), 2 * ROUNDS);
}
