//! RwLock.

use super::*;
use crate::sync::RwLockUpgradableReadGuard;
use crate::sync::raw_rwlock::RawRwLock;

#[test]
fn loom_a_writer_excludes_readers_while_signals_come() {
    model(2, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let readers = [(); 2].map(|()| spawn(&lock, |lock| lock.read().get()));
        lock.write().add(1);
        interrupt();
        assert!(join(readers).into_iter().all(|read| read <= 1));
        assert_eq!(lock.read().get(), 1);
    });
}

#[test]
fn loom_writers_exclude_each_other_and_pass_their_turn_on() {
    model(2, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let writers = [(); 2].map(|()| spawn(&lock, |lock| lock.write().add(1)));
        lock.read().get();
        join(writers);
        assert_eq!(lock.try_write().expect("no thread is left").add(1), 3);
    });
}

#[test]
fn loom_a_reader_that_gives_up_leaves_nothing() {
    model(6, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let reader = spawn(&lock, |lock| lock.try_read_until(some_time()).map(|guard| guard.get()).is_some());
        let guard = lock.write();
        expire();
        guard.add(1);
        drop(guard);
        reader.join().unwrap();
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn loom_a_writer_that_gives_up_lets_readers_in() {
    model(2, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guard = lock.read();
        let writer = spawn(&lock, |lock| lock.try_write_until(some_time()).map(|guard| guard.add(1)).is_some());
        let reader = spawn(&lock, |lock| lock.read().get());
        expire();
        drop(guard);
        let written = writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(lock.try_write().expect("no thread is left").add(0), u32::from(written));
    });
}

#[test]
fn loom_a_reader_that_was_let_in_knows_it_also_when_the_next_writer_gives_up() {
    model(2, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guard = lock.write();
        let reader = spawn(&lock, |lock| lock.read().get());
        let writer = spawn(&lock, |lock| lock.try_write_until(some_time()).map(|guard| guard.add(1)).is_some());
        drop(guard);
        expire();
        writer.join().unwrap();
        lock.write().add(1);
        reader.join().unwrap();
    });
}

#[test]
fn loom_a_writer_becomes_a_reader_without_another_between() {
    model(6, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let other = spawn(&lock, |lock| lock.write().add(10));
        let guard = lock.write();
        let before = guard.add(1);
        let guard = crate::sync::RwLockWriteGuard::downgrade(guard);
        assert_eq!(guard.get(), before);
        drop(guard);
        other.join().unwrap();
        assert_eq!(lock.read().get(), 11);
    });
}

#[test]
fn loom_a_reader_sees_what_a_writer_did_that_became_a_reader() {
    model(3, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guard = lock.write();
        let reader = spawn(&lock, |lock| lock.read().get());
        guard.add(1);
        let guard = crate::sync::RwLockWriteGuard::downgrade(guard);
        assert_eq!(reader.join().unwrap(), 1, "which is still there");
        drop(guard);
    });
}

#[test]
fn loom_a_writer_that_gives_up_its_place_leaves_nothing() {
    model(3, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guard = lock.write();
        let writer = spawn(&lock, |lock| lock.try_write_until(some_time()).map(|guard| guard.add(1)).is_some());
        let_others_go_first();
        expire();
        drop(guard);
        let written = writer.join().unwrap();
        assert_eq!(lock.try_write().expect("no thread is left").add(0), u32::from(written));
    });
}

#[test]
fn loom_a_lock_full_of_readers_lets_the_next_in_when_one_leaves() {
    model(3, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guards = [lock.read(), lock.read()];
        let late = spawn(&lock, |lock| lock.read().get());
        let [first, second] = guards;
        drop(first);
        late.join().unwrap();
        drop(second);
        assert_eq!(lock.try_write().expect("no thread is left").add(1), 1);
    });
}

#[test]
fn loom_a_reader_that_comes_while_others_are_let_in_gets_in_too() {
    model(1, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guard = lock.write();
        let reader = spawn(&lock, |lock| lock.read().get());
        let_others_go_first();
        drop(guard);
        let writer = spawn(&lock, |lock| lock.write().add(1));
        assert!(lock.read().get() <= 1);
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn loom_no_reader_overtakes_a_writer_that_was_there_before() {
    model(1, || {
        let lock = Arc::new((RawRwLock::new(), Watched::default()));
        lock.0.write(|| None);
        let reader = spawn(&lock, |(raw, value)| {
            raw.read(|| None);
            value.get();
            raw.end_read();
        });
        let_others_go_first();
        lock.0.end_write();
        let writer = spawn(&lock, |(raw, value)| {
            raw.write(|| None);
            value.add(1);
            raw.end_write();
        });
        let_others_go_first();
        let (raw, value) = &*lock;
        let after_a_writer = raw.has_writer();
        raw.read(|| None);
        assert!(value.get() == 1 || !after_a_writer);
        raw.end_read();
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn loom_a_reader_reads_again_while_a_writer_waits_for_it() {
    model(4, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let writer = spawn(&lock, |lock| lock.write().add(1));
        let guard = lock.read();
        let before = guard.get();
        assert_eq!(lock.read_recursive().get(), before);
        drop(guard);
        writer.join().unwrap();
        assert_eq!(lock.try_write().expect("no other thread is left").add(0), 1);
    });
}

#[test]
fn loom_recursive_readers_wait_for_a_writer_that_has_the_lock() {
    model(2, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let readers = [(); 2].map(|()| spawn(&lock, |lock| lock.read_recursive().get()));
        lock.write().add(1);
        assert!(join(readers).into_iter().all(|read| read <= 1));
        assert_eq!(lock.try_write().expect("no other thread is left").add(0), 1);
    });
}

#[test]
fn loom_an_upgraded_reader_writes_what_it_read_while_others_write() {
    model(2, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let writer = spawn(&lock, |lock| lock.write().add(10));
        let upgrader = spawn(&lock, |lock| {
            let guard = lock.upgradable_read();
            let before = guard.get();
            let guard = RwLockUpgradableReadGuard::upgrade(guard);
            assert_eq!(guard.add(1), before + 1, "no other thread wrote in between");
        });
        lock.read().get();
        writer.join().unwrap();
        upgrader.join().unwrap();
        assert_eq!(lock.try_write().expect("no thread is left").add(0), 11);
    });
}

#[test]
fn loom_upgradable_readers_exclude_each_other_and_no_reader() {
    model(2, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let upgraders = [(); 2].map(|()| {
            spawn(&lock, |lock| {
                let guard = lock.upgradable_read();
                let before = guard.get();
                assert_eq!(RwLockUpgradableReadGuard::upgrade(guard).add(1), before + 1);
            })
        });
        assert!(lock.read().get() <= 2);
        join(upgraders);
        assert_eq!(lock.try_write().expect("no thread is left").add(0), 2);
    });
}

#[test]
fn loom_an_upgrade_that_gives_up_lets_readers_in_and_keeps_the_right() {
    model(2, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guard = lock.upgradable_read();
        let first = lock.read();
        let reader = spawn(&lock, |lock| lock.read().get());
        let writer = spawn(&lock, |lock| lock.write().add(10));
        expire();
        let guard = RwLockUpgradableReadGuard::try_upgrade_until(guard, some_time());
        let Err(guard) = guard else { panic!("a reader is there") };
        assert_eq!(guard.get(), first.get());
        drop(first);
        reader.join().unwrap();
        assert_eq!(RwLockUpgradableReadGuard::upgrade(guard).add(1), 1);
        writer.join().unwrap();
        assert_eq!(lock.try_write().expect("no thread is left").add(0), 11);
    });
}

#[test]
fn loom_a_thread_that_waits_for_the_right_in_vain_leaves_nothing() {
    model(3, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guard = lock.write();
        let upgrader = spawn(&lock, |lock| lock.try_upgradable_read_until(some_time()).map(|guard| guard.get()));
        expire();
        guard.add(1);
        drop(guard);
        assert!(upgrader.join().unwrap().is_none_or(|read| read == 1));
        assert_eq!(lock.try_write().expect("no thread is left").add(1), 2);
    });
}

#[test]
fn loom_the_right_passes_on_when_it_is_given_up() {
    model(3, || {
        let lock = Arc::new(RwLock::new(Watched::default()));
        let guard = lock.upgradable_read();
        let other = spawn(&lock, |lock| {
            let guard = lock.upgradable_read();
            match RwLockUpgradableReadGuard::try_upgrade(guard) {
                Ok(guard) => guard.add(1),
                Err(guard) => guard.get(),
            }
        });
        let guard = RwLockUpgradableReadGuard::downgrade(guard);
        let before = guard.get();
        assert_eq!(before, guard.get());
        drop(guard);
        other.join().unwrap();
        assert!(lock.try_upgradable_read().is_some());
    });
}
