//! ReentrantLock.

use core::cell::Cell;

use rt0::sync::ReentrantLock;
use rt0::thread::spawn;
use rt0::time::Instant;
use rt0_tests::{often, prints};

use super::{TICK, join};

rt0::test_module! {
    a_reentrant_lock_is_its_threads_until_the_last_guard,
    threads_count_under_a_reentrant_lock,
}

fn a_reentrant_lock_is_its_threads_until_the_last_guard() {
    static LOCK: ReentrantLock<Cell<u32>> = ReentrantLock::new(Cell::new(0));
    let (first, second) = (LOCK.lock(), LOCK.try_lock().unwrap());
    first.set(second.get() + 1);
    assert!(prints(format_args!("{LOCK:?}"), "ReentrantLock { data: Cell { value: 1 }, .. }"));
    let other = || spawn(|| LOCK.try_lock_for(TICK).map(|guard| guard.get())).unwrap().join();
    assert_eq!(other(), None);
    drop(first);
    assert_eq!(other(), None);
    let waiter = spawn(|| LOCK.lock().replace(7)).unwrap();
    second.set(2);
    drop(second);
    assert_eq!(waiter.join(), 2);
    assert_eq!(other(), Some(7));
    let (waited, start) = (spawn(|| core::mem::forget(LOCK.lock())).unwrap(), Instant::now());
    waited.join();
    assert!(LOCK.try_lock().is_none(), "a guard that is forgotten keeps it locked");
    assert!(LOCK.try_lock_until(start + TICK).is_none() && start.elapsed() >= TICK);
}

fn threads_count_under_a_reentrant_lock() {
    static LOCK: ReentrantLock<Cell<u32>> = ReentrantLock::new(Cell::new(0));
    let rounds = often(20_000) as u32;
    let count = move || {
        for _ in 0..rounds {
            let outer = LOCK.lock();
            let seen = outer.get();
            LOCK.lock().set(seen + 1);
            assert_eq!(outer.get(), seen + 1);
        }
    };
    join([(); 3].map(|()| spawn(count).unwrap()));
    assert_eq!(LOCK.lock().get(), 3 * rounds);
}
