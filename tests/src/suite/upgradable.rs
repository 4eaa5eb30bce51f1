//! Upgradable readers of an RwLock: rt0's own form, and lock_api's over it.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use rt0::adapters::lock_api;
use rt0::sync::{RwLock, RwLockUpgradableReadGuard as Upgradable};
use rt0::thread;
use rt0::time::Instant;
use rt0_tests::{often, wait_until};

rt0::test_module! {
    an_upgradable_reader_excludes_writers_and_its_like_and_no_readers,
    what_was_read_is_still_so_after_the_upgrade,
    an_upgrade_waits_for_readers_and_lets_no_new_ones_in,
    an_upgrade_that_is_late_keeps_the_right_and_lets_readers_in,
    a_thread_that_waits_for_the_right_is_late_and_leaves_nothing,
    the_right_passes_to_the_thread_that_waits_for_it,
    lock_api_has_upgradable_readers,
}

const SHORT: Duration = Duration::from_millis(10);

fn an_upgradable_reader_excludes_writers_and_its_like_and_no_readers() {
    let lock = RwLock::new(1);
    let guard = lock.upgradable_read();
    assert!(lock.try_write().is_none() && lock.try_upgradable_read().is_none());
    assert_eq!((*guard, *lock.try_read().unwrap(), *lock.read()), (1, 1, 1));
    assert!(lock.is_locked() && !lock.is_locked_exclusive());
    let guard = Upgradable::downgrade(guard);
    let other = lock.try_upgradable_read().unwrap();
    assert_eq!(*guard + *other, 2);
    let other = Upgradable::try_upgrade(other).unwrap_err();
    drop(guard);
    let mut writer = Upgradable::try_upgrade(other).unwrap();
    *writer = 2;
    assert!(lock.try_read().is_none() && lock.try_upgradable_read().is_none() && lock.is_locked_exclusive());
    drop(writer);
    assert_eq!(*lock.try_write().unwrap(), 2);
    assert!(!lock.is_locked());
}

fn what_was_read_is_still_so_after_the_upgrade() {
    static LOCK: RwLock<[u32; 2]> = RwLock::new([0; 2]);
    let times = often(4000) as u32;
    let upgraders = [(); 3].map(|()| {
        thread::spawn(move || {
            for _ in 0..times {
                let guard = LOCK.upgradable_read();
                let before = guard[0];
                assert_eq!(guard[1], before);
                let mut guard = match Upgradable::try_upgrade(guard) {
                    Ok(guard) => guard,
                    Err(guard) => Upgradable::upgrade(guard),
                };
                assert_eq!(*guard, [before; 2], "no thread wrote in between");
                guard[0] += 1;
                guard[1] += 1;
            }
        })
    });
    let writer = thread::spawn(move || {
        for _ in 0..times {
            let mut guard = LOCK.write();
            guard[0] += 1;
            guard[1] += 1;
        }
    });
    let late = thread::spawn(move || {
        let mut upgraded = 0;
        for round in 0..times / 8 {
            let soon = Instant::now() + Duration::from_micros(u64::from(round % 50));
            let Some(guard) = LOCK.try_upgradable_read_until(soon) else { continue };
            let before = *guard;
            match Upgradable::try_upgrade_until(guard, soon) {
                Ok(mut guard) => {
                    assert_eq!(*guard, before);
                    *guard = before.map(|number| number + 1);
                    upgraded += 1;
                }
                Err(guard) => assert_eq!(*guard, before),
            }
        }
        upgraded
    });
    for _ in 0..times {
        let [first, second] = *LOCK.read();
        assert_eq!(first, second);
    }
    upgraders.into_iter().for_each(|thread| thread.unwrap().join());
    writer.unwrap().join();
    let upgraded = late.unwrap().join();
    assert_eq!(*LOCK.try_write().unwrap(), [4 * times + upgraded; 2]);
}

fn an_upgrade_waits_for_readers_and_lets_no_new_ones_in() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    static UPGRADED: AtomicBool = AtomicBool::new(false);
    let reader = LOCK.read();
    let upgrader = thread::spawn(|| {
        let mut guard = Upgradable::upgrade(LOCK.upgradable_read());
        UPGRADED.store(true, Relaxed);
        *guard = 1;
    });
    wait_until("the upgrade to wait", || LOCK.try_read().is_none());
    assert!(!UPGRADED.load(Relaxed));
    assert_eq!(*LOCK.read_recursive(), 0);
    drop(reader);
    upgrader.unwrap().join();
    assert_eq!(*LOCK.read(), 1);
}

fn an_upgrade_that_is_late_keeps_the_right_and_lets_readers_in() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    static READ: AtomicU32 = AtomicU32::new(0);
    let guard = LOCK.upgradable_read();
    let reader = LOCK.read();
    let guard = Upgradable::try_upgrade_until(guard, Instant::now()).unwrap_err();
    let waiting = [(); 3].map(|()| {
        thread::spawn(|| {
            let _reader = LOCK.read();
            READ.fetch_add(1, Relaxed);
        })
    });
    let guard = Upgradable::try_upgrade_for(guard, SHORT).unwrap_err();
    waiting.into_iter().for_each(|thread| thread.unwrap().join());
    assert_eq!(READ.load(Relaxed), 3);
    assert!(LOCK.try_upgradable_read().is_none() && LOCK.try_write().is_none(), "it has the right");
    drop(reader);
    *Upgradable::try_upgrade_for(guard, Duration::ZERO).unwrap() = 1;
    assert_eq!(*LOCK.try_write().unwrap(), 1);
}

fn a_thread_that_waits_for_the_right_is_late_and_leaves_nothing() {
    let lock = RwLock::new(0);
    let upgradable = lock.upgradable_read();
    thread::scope(|scope| {
        let late = scope.spawn(|| lock.try_upgradable_read_for(SHORT).is_none());
        assert!(late.unwrap().join());
    });
    drop(upgradable);
    let writer = lock.write();
    thread::scope(|scope| {
        let late = scope.spawn(|| lock.try_upgradable_read_for(SHORT).is_none());
        assert!(late.unwrap().join());
    });
    drop(writer);
    assert!(!lock.is_locked() && lock.try_write().is_some());
    drop(lock.try_upgradable_read_for(SHORT).unwrap());
    assert!(lock.try_write().is_some());
}

fn the_right_passes_to_the_thread_that_waits_for_it() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    static WAITS: AtomicBool = AtomicBool::new(false);
    for upgrades in [false, true] {
        WAITS.store(false, Relaxed);
        let guard = LOCK.upgradable_read();
        let others = [(); 2].map(|()| {
            thread::spawn(move || {
                WAITS.store(true, Relaxed);
                *Upgradable::upgrade(LOCK.upgradable_read()) += 1;
            })
        });
        wait_until("a thread", || WAITS.load(Relaxed));
        thread::sleep(SHORT); // Mostly it waits by now.
        match upgrades {
            true => *Upgradable::upgrade(guard) += 10,
            false => drop(Upgradable::downgrade(guard)),
        }
        others.into_iter().for_each(|thread| thread.unwrap().join());
    }
    assert_eq!(*LOCK.read(), 14);
}

fn lock_api_has_upgradable_readers() {
    use lock_api::{RwLock, RwLockUpgradableReadGuard as Guard};
    static LOCK: RwLock<u32> = RwLock::new(0);
    let times = often(1000) as u32;
    let threads = [(); 3].map(|()| {
        thread::spawn(move || {
            for _ in 0..times {
                let guard = LOCK.upgradable_read();
                let before = *guard;
                let mut guard = Guard::upgrade(guard);
                assert_eq!(*guard, before);
                *guard += 1;
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.unwrap().join());
    assert_eq!(*LOCK.read(), 3 * times);
    let reader = LOCK.read();
    let guard = LOCK.try_upgradable_read_for(SHORT).unwrap();
    assert!(LOCK.try_upgradable_read().is_none() && LOCK.try_upgradable_read_until(Instant::now()).is_none());
    let guard = Guard::try_upgrade(guard).unwrap_err();
    let guard = Guard::try_upgrade_for(guard, SHORT).unwrap_err();
    let guard = Guard::try_upgrade_until(guard, Instant::now()).unwrap_err();
    drop(reader);
    assert_eq!(*Guard::try_upgrade(guard).unwrap(), 3 * times);
}
