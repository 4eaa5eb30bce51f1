//! Semaphore.

use super::*;

#[test]
fn loom_one_permit_excludes_while_signals_come() {
    model(4, || {
        let one = Arc::new((Semaphore::new(1), Watched::default()));
        let add = |(semaphore, value): &(Semaphore, Watched)| {
            let _permit = semaphore.access();
            value.add(1);
        };
        let threads = [spawn(&one, add), spawn(&one, add)];
        interrupt();
        join(threads);
        assert_eq!((one.0.available(), one.1.get()), (1, 2));
    });
}

#[test]
fn loom_a_thread_that_times_out_takes_no_permit_along() {
    model(1, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let timed = spawn(&semaphore, |semaphore| semaphore.try_acquire_until(some_time()));
        let patient = spawn(&semaphore, |semaphore| semaphore.acquire());
        expire();
        semaphore.release(2).unwrap();
        patient.join().unwrap();
        let acquired = timed.join().unwrap();
        assert_eq!(semaphore.available(), 1 - u32::from(acquired));
    });
}

/// A release in a signal handler that interrupts the holder of the queue's lock: it returns at
/// once, and the holder serves the queue when it continues.
#[test]
fn loom_a_release_while_the_queue_is_locked_waits_for_no_thread() {
    model(1, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let waiters = [(); 2].map(|()| spawn(&semaphore, |semaphore| semaphore.acquire()));
        let locked = semaphore.lock();
        semaphore.release(1).unwrap();
        semaphore.release(1).unwrap();
        drop(locked);
        join(waiters);
        assert_eq!(semaphore.available(), 0);
    });
}

#[test]
fn loom_releases_at_once_serve_all_that_wait() {
    model(1, || {
        let semaphore = Arc::new((Semaphore::new(0), [Watched::default(), Watched::default()]));
        let waiters = [(); 2].map(|()| spawn(&semaphore, |(semaphore, _)| semaphore.acquire()));
        let releaser = spawn(&semaphore, move |(semaphore, values)| {
            values[0].add(1);
            semaphore.release(1).unwrap();
        });
        semaphore.1[1].add(1);
        semaphore.0.release(1).unwrap();
        join(waiters);
        releaser.join().unwrap();
        assert!(!semaphore.0.try_acquire());
        assert_eq!((semaphore.1[0].get(), semaphore.1[1].get()), (1, 1));
    });
}

#[test]
fn loom_a_newcomer_does_not_overtake_a_thread_that_waits() {
    model(3, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let waiter = spawn(&semaphore, |semaphore| semaphore.acquire());
        let_others_go_first();
        let waits = !semaphore.is_queue_empty();
        let releaser = spawn(&semaphore, |semaphore| semaphore.release(1).unwrap());
        assert!(!(waits && semaphore.try_acquire()), "the permit is for the thread that waits");
        releaser.join().unwrap();
        if !waits {
            semaphore.release(1).unwrap(); // The newcomer may have taken the first permit.
        }
        waiter.join().unwrap();
    });
}

/// A thread that times out leaves nothing behind: no QUEUE without a queue, and no permit in it.
#[test]
fn loom_a_release_beside_a_timeout_is_taken_or_there() {
    model(3, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let timed = spawn(&semaphore, |semaphore| semaphore.try_acquire_until(some_time()));
        let releaser = spawn(&semaphore, |semaphore| semaphore.release(1).unwrap());
        expire();
        let acquired = timed.join().unwrap();
        releaser.join().unwrap();
        assert_eq!(semaphore.available(), 1 - u32::from(acquired));
    });
}
