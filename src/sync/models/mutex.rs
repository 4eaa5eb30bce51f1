//! Mutex.

use super::*;

#[test]
fn loom_two_exclude_each_other_while_signals_come() {
    model(3, || {
        let lock = Arc::new(Mutex::new(Watched::default()));
        let add = |lock: &Mutex<Watched>| {
            lock.lock().add(1);
            lock.lock().add(1);
        };
        let threads = [spawn(&lock, add), spawn(&lock, add)];
        interrupt();
        join(threads);
        assert_eq!(lock.lock().get(), 4);
    });
}

#[test]
fn loom_a_thread_that_spins_before_it_sleeps_keeps_the_rules() {
    model_on(2, 3, || {
        let lock = Arc::new(Mutex::new(Watched::default()));
        let other = spawn(&lock, |lock| {
            lock.lock().add(1);
            lock.lock().add(1);
        });
        lock.lock().add(1);
        lock.lock().add(1);
        other.join().unwrap();
        assert_eq!(lock.lock().get(), 4);
    });
}

#[test]
fn loom_three_exclude_each_other() {
    model(2, || {
        let lock = Arc::new(Mutex::new(Watched::default()));
        let add = |lock: &Mutex<Watched>| lock.lock().add(1);
        let threads = [spawn(&lock, add), spawn(&lock, add)];
        add(&lock);
        join(threads);
        assert_eq!(lock.lock().get(), 3);
    });
}

#[test]
fn loom_a_thread_that_times_out_takes_no_wake_along() {
    model(1, || {
        let lock = Arc::new(Mutex::new(Watched::default()));
        let timed = spawn(&lock, |lock| lock.try_lock_until(some_time()).map(|guard| guard.add(1)).is_some());
        let patient = spawn(&lock, |lock| lock.lock().add(1));
        let guard = lock.lock();
        expire();
        drop(guard);
        patient.join().unwrap();
        let locked = timed.join().unwrap();
        assert_eq!(lock.lock().get(), 1 + u32::from(locked));
    });
}

#[test]
fn loom_a_thread_that_times_out_leaves_a_wake_for_a_later_waiter() {
    model(2, || {
        let lock = Arc::new(Mutex::new(()));
        expire();
        let guard = lock.lock();
        let hasty = spawn(&lock, |lock| drop(lock.try_lock_until(some_time())));
        let_others_go_first();
        drop(guard);
        // The unlock may wake the hasty thread, which then finds the lock held again at its
        // deadline.
        let guard = lock.lock();
        let patient = spawn(&lock, |lock| drop(lock.lock()));
        hasty.join().unwrap();
        drop(guard);
        patient.join().unwrap();
    });
}

#[test]
fn loom_a_waiter_is_overtaken_no_more_than_it_is_promised() {
    model(3, || {
        let lock = Arc::new(Mutex::new(false));
        let waiter = spawn(&lock, |lock| *lock.lock() = true);
        let (mut seen, mut overtakes) = (false, 0);
        for _ in 0..Mutex::OVERTAKES + 2 {
            let served = lock.lock();
            if seen && !*served {
                overtakes += 1; // It was already waiting when this thread last held the lock.
            }
            seen = served.raw().waiters() > 0;
        }
        assert!(overtakes <= Mutex::OVERTAKES, "{overtakes}");
        waiter.join().unwrap();
    });
}

#[test]
fn loom_an_unlock_is_not_fooled_by_a_waiter_that_leaves_and_comes_again() {
    model(4, || {
        let lock = Arc::new(Mutex::new(()));
        let guard = lock.lock();
        let waiter = spawn(&lock, |lock| {
            drop(lock.try_lock_until(some_time()));
            drop(lock.lock());
        });
        let_others_go_first();
        expire();
        // During this unlock the state may change back to what it was.
        drop(guard);
        waiter.join().unwrap();
    });
}

#[test]
fn loom_a_thread_that_closed_the_lock_and_times_out_opens_it_again() {
    model(3, || {
        let lock = Arc::new(Mutex::new(()));
        let guard = lock.lock();
        let hasty = spawn(&lock, |lock| drop(lock.try_lock_until(some_time())));
        let_others_go_first();
        interrupt(); // Woken in vain, it closes the lock.
        let_others_go_first();
        expire();
        drop(guard);
        hasty.join().unwrap();
        assert!(lock.try_lock().is_some());
    });
}
