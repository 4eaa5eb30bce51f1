//! Condvar.

use super::*;

#[derive(Default)]
struct Flag {
    up: Mutex<u32>,
    changed: Condvar,
}

#[test]
fn loom_a_notification_under_the_lock_reaches_the_waiter() {
    model(6, || {
        let flag = Arc::new(Flag::default());
        let waiter = spawn(&flag, |flag| drop(flag.changed.wait_while(flag.up.lock(), |up| *up == 0)));
        *flag.up.lock() = 1;
        flag.changed.notify_one();
        waiter.join().unwrap();
    });
}

#[test]
fn loom_a_notification_while_the_lock_is_held_makes_the_waiter_one_of_the_lock() {
    model(1, || {
        let flag = Arc::new(Flag::default());
        let waiter = spawn(&flag, |flag| drop(flag.changed.wait_while(flag.up.lock(), |up| *up == 0)));
        let_others_go_first();
        let mut up = flag.up.lock();
        *up = 1;
        flag.changed.notify_one();
        let other = spawn(&flag, |flag| drop(flag.up.lock()));
        drop(up);
        waiter.join().unwrap();
        other.join().unwrap();
        assert_eq!(flag.up.try_lock().map(|up| *up), Some(1));
    });
}

#[test]
fn loom_a_notification_for_all_reaches_all() {
    model(1, || {
        let flag = Arc::new(Flag::default());
        let waiters =
            [(); 2].map(|()| spawn(&flag, |flag| drop(flag.changed.wait_while(flag.up.lock(), |up| *up == 0))));
        let_others_go_first();
        let mut up = flag.up.lock();
        *up = 1;
        flag.changed.notify_all();
        drop(up);
        join(waiters);
    });
}

#[test]
fn loom_a_notification_is_not_lost_to_a_signal() {
    model(2, || {
        let flag = Arc::new(Flag::default());
        let waiter = spawn(&flag, |flag| drop(flag.changed.wait_while(flag.up.lock(), |up| *up == 0)));
        let_others_go_first();
        let mut up = flag.up.lock();
        *up = 1;
        flag.changed.notify_all();
        interrupt();
        drop(up);
        waiter.join().unwrap();
        assert_eq!(flag.up.try_lock().map(|up| *up), Some(1));
    });
}

#[test]
fn loom_a_notification_is_not_lost_to_an_unlock_meanwhile() {
    model(2, || {
        let flag = Arc::new(Flag::default());
        let waiter = spawn(&flag, |flag| drop(flag.changed.wait_while(flag.up.lock(), |up| *up == 0)));
        let_others_go_first();
        *flag.up.lock() = 1;
        let locker = spawn(&flag, |flag| {
            let up = flag.up.lock();
            let_others_go_first();
            drop(up);
        });
        let_others_go_first();
        flag.changed.notify_one();
        locker.join().unwrap();
        waiter.join().unwrap();
    });
}

#[test]
fn loom_a_wait_that_times_out_takes_no_notification_along() {
    model(1, || {
        let flag = Arc::new(Flag::default());
        let timed = spawn(&flag, |flag| {
            let mut up = flag.up.lock();
            *up += 1;
            flag.changed.wait_until(up, some_time()).1.timed_out()
        });
        let patient = spawn(&flag, |flag| {
            let mut up = flag.up.lock();
            *up += 1;
            drop(flag.changed.wait_while(up, |up| *up < 3));
        });
        let_others_go_first();
        let both_wait = {
            let mut up = flag.up.lock();
            *up += 1;
            *up == 3
        };
        expire();
        flag.changed.notify_one();
        let timed_out = timed.join().unwrap();
        // One notification: if the timed waiter did not get it, the patient one does, if it was
        // waiting.
        if !(both_wait && timed_out) {
            *flag.up.lock() += 3;
            flag.changed.notify_one();
        }
        patient.join().unwrap();
    });
}
