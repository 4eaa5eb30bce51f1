//! The locks on the host, small enough for Miri, which looks at each access of memory: `cargo
//! +nightly miri test -p rt0 --lib sync::tests`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use super::*;

const TIMES: u32 = if cfg!(miri) { 20 } else { 2_000 };

/// Runs this on several threads at once.
fn on_threads(count: usize, run: impl Fn() + Sync) {
    thread::scope(|scope| (0..count).for_each(|_| drop(scope.spawn(&run))));
}

#[test]
fn threads_count_under_a_mutex() {
    let mutex = Mutex::new([0; 2]);
    on_threads(3, || {
        for _ in 0..TIMES {
            let mut both = mutex.lock();
            both[0] += 1;
            *MutexGuard::map(both, |both| &mut both[1]) += 1;
        }
    });
    assert_eq!(mutex.into_inner(), [3 * TIMES; 2]);
}

#[test]
fn readers_and_writers_take_turns() {
    let lock = RwLock::new([0; 2]);
    on_threads(3, || {
        for _ in 0..TIMES {
            let mut both = lock.write();
            both[0] += 1;
            *RwLockWriteGuard::map(both, |both| &mut both[1]) += 1;
            let both = lock.read();
            let first = both[0];
            assert_eq!(*RwLockReadGuard::map(both, |both| &both[1]), first);
            let both = RwLockWriteGuard::downgrade(lock.write());
            assert_eq!(both[0], both[1]);
        }
    });
    assert_eq!(lock.into_inner(), [3 * TIMES; 2]);
}

#[test]
fn three_threads_pass_a_turn_around() {
    let (turn, changed) = (Mutex::new(0), Condvar::new());
    let places = AtomicU32::new(0);
    on_threads(3, || {
        let me = places.fetch_add(1, Relaxed);
        for _ in 0..TIMES {
            let mut turn = changed.wait_while(turn.lock(), |turn| *turn % 3 != me);
            *turn += 1;
            if me == 0 {
                drop(turn);
            }
            changed.notify_all();
        }
    });
    assert_eq!(turn.into_inner(), 3 * TIMES);
}

#[test]
fn values_are_made_once() {
    for _ in 0..TIMES / 10 {
        let lazy = LazyLock::new(|| vec![String::from("one"), String::from("two")]);
        let once = OnceLock::new();
        on_threads(3, || {
            assert_eq!(lazy[1], "two");
            assert_eq!(once.get_or_init(|| String::from("set")), "set");
        });
        assert_eq!(once.into_inner().as_deref(), Some("set"));
    }
}

#[test]
fn values_go_through_a_channel_whole() {
    let channel = Channel::<String, 2>::new();
    let (sender, receiver) = channel.split();
    let received = thread::scope(|scope| {
        for _ in 0..2 {
            let sender = sender.clone();
            scope.spawn(move || (0..TIMES).for_each(|number| sender.send(number.to_string()).unwrap()));
        }
        drop(sender);
        receiver.into_iter().map(|text| text.parse::<u32>().unwrap()).sum::<u32>()
    });
    assert_eq!(received, TIMES * (TIMES - 1));
}

#[test]
fn permits_and_barriers_keep_count() {
    let (semaphore, barrier, parker) = (Semaphore::new(2), Barrier::new(3), Parker::new());
    let inside = AtomicU32::new(0);
    on_threads(3, || {
        for _ in 0..TIMES {
            let permit = semaphore.access();
            assert!(inside.fetch_add(1, Relaxed) < 2);
            inside.fetch_sub(1, Relaxed);
            drop(permit);
        }
        for _ in 0..TIMES {
            if barrier.wait().is_leader() {
                parker.unpark();
                parker.park();
            }
        }
    });
    assert_eq!(semaphore.available(), 2);
}

#[test]
fn a_barriers_rounds_wrap() {
    let barrier = Barrier::in_round(u32::MAX - 2);
    let led = AtomicU32::new(0);
    on_threads(2, || {
        for _ in 0..6 {
            led.fetch_add(barrier.wait().is_leader().into(), Relaxed);
        }
    });
    assert_eq!(led.into_inner(), 6, "each round has one leader");
}

#[test]
fn a_mutexs_wake_sequence_wraps() {
    let mutex = raw_mutex::RawMutex::at_wake_seq(u32::MAX - 2);
    let turns = AtomicU32::new(0);
    while turns.load(Relaxed) < 8 && !cfg!(miri) {
        mutex.lock();
        thread::scope(|scope| {
            scope.spawn(|| {
                mutex.lock(); // It sleeps: the lock is released only after it joined the waiters.
                mutex.unlock();
            });
            while !mutex.is_waited_for() {
                thread::yield_now();
            }
            mutex.unlock();
        });
        turns.fetch_add(1, Relaxed);
    }
    assert!(mutex.wake_seq_now() < u32::MAX - 2 || cfg!(miri), "each unlock with a waiter increments it");
}
