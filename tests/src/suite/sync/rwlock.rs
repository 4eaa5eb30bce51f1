//! RwLock.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;

use rt0::sync::{MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rt0::thread::{self, spawn};
use rt0::time::Instant;
use rt0_tests::{prints, wait_until};

use super::{TICK, in_a_storm, join};

rt0::test_module! {
    readers_share_a_lock_and_a_writer_has_it_alone,
    the_owner_of_a_rwlock_gets_its_value_without_locking_and_prints_it,
    a_rwlock_takes_a_new_value_and_gives_out_the_old,
    guards_of_parts_keep_a_rwlock_as_the_guard_of_the_whole_did,
    a_guard_for_reading_is_one_for_what_lives_less_long,
    readers_never_see_a_writers_work_half_done,
    timeouts_of_a_rwlock_do_what_they_say,
    a_writer_that_waits_is_not_overtaken_by_readers,
    readers_that_wait_get_in_when_the_writer_gives_up,
    a_writer_is_not_starved_by_readers_nor_a_reader_by_writers,
    a_writer_that_becomes_a_reader_lets_readers_in_and_no_writer,
    a_thread_may_read_twice_and_waits_for_itself_when_it_writes,
    a_thread_reads_again_while_a_writer_waits_for_it,
    more_readers_than_a_lock_counts_wait_for_one_to_leave,
    a_rwlock_works_under_a_storm_of_signals,
}

fn readers_share_a_lock_and_a_writer_has_it_alone() {
    let lock = RwLock::new(1);
    let (a, b) = (lock.read(), lock.try_read().unwrap());
    assert_eq!(*a + *b, 2);
    assert!(lock.try_write().is_none());
    drop(a);
    assert!(lock.try_write().is_none());
    drop(b);
    let mut writer = lock.write();
    *writer += 1;
    assert!(lock.try_read().is_none() && lock.try_write().is_none());
    drop(writer);
    assert_eq!(*lock.try_write().unwrap(), 2);
    assert_eq!(*lock.read(), 2);
}

fn the_owner_of_a_rwlock_gets_its_value_without_locking_and_prints_it() {
    let mut lock = RwLock::from(4);
    *lock.get_mut() += 1;
    assert!(prints(format_args!("{lock:?}"), "RwLock { data: 5, .. }"));
    let reader = lock.read();
    assert!(prints(format_args!("{lock:?} {reader:?} {reader}"), "RwLock { data: 5, .. } 5 5"));
    drop(reader);
    let writer = lock.write();
    assert!(prints(format_args!("{lock:?} {writer:?} {writer}"), "RwLock { data: <locked>, .. } 5 5"));
    drop(writer);
    assert_eq!(lock.into_inner(), 5);
    assert_eq!(*RwLock::<u8>::default().read(), 0);
    let unsized_one: &RwLock<[u8]> = &RwLock::new([1, 2, 3]);
    unsized_one.write()[0] = 9;
    assert_eq!(unsized_one.read().len(), 3);
}

fn a_rwlock_takes_a_new_value_and_gives_out_the_old() {
    let lock = RwLock::new(1);
    assert_eq!((lock.replace(2), lock.get_cloned()), (1, 2));
    lock.set(3);
    assert_eq!(lock.into_inner(), 3);
}

fn guards_of_parts_keep_a_rwlock_as_the_guard_of_the_whole_did() {
    let lock = RwLock::new((1, 2));
    let reader = RwLockReadGuard::map(lock.read(), |pair| &pair.1);
    let reader = MappedRwLockReadGuard::filter_map(reader, |_| None::<&u8>).unwrap_err();
    assert!(*reader == 2 && lock.try_read().is_some() && lock.try_write().is_none());
    drop(reader);
    let writer = RwLockWriteGuard::filter_map(lock.write(), |_| None::<&mut u8>).unwrap_err();
    let mut writer = RwLockWriteGuard::map(writer, |pair| &mut pair.0);
    *writer += 4;
    assert!(lock.try_read().is_none());
    drop(MappedRwLockWriteGuard::map(writer, |first| first));
    assert_eq!(*lock.try_write().unwrap(), (5, 2));
}

fn a_guard_for_reading_is_one_for_what_lives_less_long() {
    fn same<'a>(guard: RwLockReadGuard<'_, &'a i32>, other: &'a i32) -> bool {
        **guard == *other
    }
    fn same_part<'a>(guard: MappedRwLockReadGuard<'_, &'a i32>, other: &'a i32) -> bool {
        **guard == *other
    }
    static LOCK: RwLock<&'static i32> = RwLock::new(&5);
    let five = core::hint::black_box(5);
    assert!(same(LOCK.read(), &five));
    assert!(same_part(RwLockReadGuard::map(LOCK.read(), |number| number), &five));
}

fn readers_never_see_a_writers_work_half_done() {
    static LOCK: RwLock<[usize; 2]> = RwLock::new([0; 2]);
    let write = || {
        for _ in 0..3_000 {
            let mut both = LOCK.write();
            both[0] += 1;
            both[1] += 1;
        }
    };
    let read = || {
        for _ in 0..3_000 {
            let both = LOCK.read();
            assert_eq!(both[0], both[1]);
        }
    };
    let readers = [(); 4].map(|()| spawn(read).unwrap());
    join([(); 3].map(|()| spawn(write).unwrap()));
    join(readers);
    assert_eq!(*LOCK.read(), [9_000; 2]);
}

fn timeouts_of_a_rwlock_do_what_they_say() {
    let lock = RwLock::new(());
    let long_ago = Instant::now().checked_sub(Duration::from_secs(1 << 40)).unwrap();
    let writer = lock.write();
    let start = Instant::now();
    assert!(lock.try_read_for(TICK).is_none() && lock.try_write_for(TICK).is_none());
    assert!(start.elapsed() >= 2 * TICK);
    assert!(lock.try_read_for(Duration::ZERO).is_none() && lock.try_write_for(Duration::ZERO).is_none());
    assert!(lock.try_read_until(long_ago).is_none() && lock.try_write_until(long_ago).is_none());
    drop(writer);
    let reader = lock.read();
    assert!(lock.try_write_for(TICK).is_none() && lock.try_write_until(Instant::now() + TICK).is_none());
    assert!(lock.try_read_until(long_ago).is_some(), "a writer that gave up is not waited for");
    drop(reader);
    assert!(lock.try_write_until(long_ago).is_some() && lock.try_write_for(Duration::MAX).is_some());
    assert!(lock.try_read_for(Duration::MAX).is_some());
}

fn a_writer_that_waits_is_not_overtaken_by_readers() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    let reader = LOCK.read();
    let writer = spawn(|| *LOCK.write() = 1).unwrap();
    wait_until("the writer to wait", || LOCK.try_read().is_none());
    let late = spawn(|| *LOCK.read()).unwrap();
    thread::sleep(TICK);
    assert!(!late.is_finished());
    drop(reader);
    writer.join();
    assert_eq!(late.join(), 1);
}

fn readers_that_wait_get_in_when_the_writer_gives_up() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    let reader = LOCK.read();
    let writer = spawn(|| LOCK.try_write_for(4 * TICK).is_some()).unwrap();
    wait_until("the writer to wait", || LOCK.try_read().is_none() || writer.is_finished());
    let late = spawn(|| *LOCK.read()).unwrap();
    assert_eq!(late.join(), 0);
    assert!(!writer.join());
    drop(reader);
    assert!(LOCK.try_write().is_some());
}

fn a_writer_is_not_starved_by_readers_nor_a_reader_by_writers() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    let read = || {
        while !DONE.load(Relaxed) {
            let guard = LOCK.read();
            (0..20).for_each(|_| core::hint::spin_loop());
            drop(guard);
        }
    };
    let write = || {
        while !DONE.load(Relaxed) {
            *LOCK.write() += 1;
        }
    };
    let readers = [(); 3].map(|()| spawn(read).unwrap());
    (0..100).for_each(|_| *LOCK.write() += 1);
    let writers = [(); 3].map(|()| spawn(write).unwrap());
    (0..100).for_each(|_| drop(LOCK.read()));
    DONE.store(true, Relaxed);
    join(readers);
    join(writers);
}

fn a_writer_that_becomes_a_reader_lets_readers_in_and_no_writer() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    let mut guard = LOCK.write();
    let reader = spawn(|| *LOCK.read()).unwrap();
    let writer = spawn(|| *LOCK.write() += 1).unwrap();
    thread::sleep(TICK);
    *guard = 7;
    let guard = RwLockWriteGuard::downgrade(guard);
    thread::sleep(TICK);
    assert!(!writer.is_finished());
    assert_eq!(*guard, 7);
    drop(guard);
    writer.join();
    assert!([7, 8].contains(&reader.join()));
    assert_eq!(*LOCK.read(), 8);
}

fn a_thread_may_read_twice_and_waits_for_itself_when_it_writes() {
    static LOCK: RwLock<()> = RwLock::new(());
    let thread = spawn(|| {
        let _reader = LOCK.read();
        drop(LOCK.read());
        assert!(LOCK.try_write_for(TICK).is_none());
        let _writer = LOCK.write();
    });
    thread::sleep(4 * TICK);
    assert!(!thread.unwrap().is_finished());
}

fn a_thread_reads_again_while_a_writer_waits_for_it() {
    static LOCK: RwLock<u32> = RwLock::new(0);
    assert!(!LOCK.is_locked());
    let outer = LOCK.read();
    let writer = spawn(|| *LOCK.write() += 1).unwrap();
    wait_until("the writer to wait", || LOCK.try_read().is_none());
    assert_eq!(*LOCK.read_recursive(), 0);
    assert!(LOCK.try_read_recursive().is_some());
    assert!(LOCK.is_locked() && !LOCK.is_locked_exclusive() && !writer.is_finished());
    drop(outer);
    writer.join();
    let guard = LOCK.write();
    assert!(LOCK.is_locked_exclusive() && LOCK.try_read_recursive().is_none());
    let reader = spawn(|| *LOCK.read_recursive()).unwrap();
    drop(guard);
    assert_eq!(reader.join(), 1, "a recursive reader waits for a writer that has the lock");
}

fn more_readers_than_a_lock_counts_wait_for_one_to_leave() {
    static LOCK: RwLock<()> = RwLock::new(());
    for _ in 1..RwLock::READERS {
        core::mem::forget(LOCK.read());
    }
    let last = LOCK.read();
    assert!(LOCK.try_read().is_none() && LOCK.try_read_for(TICK).is_none());
    let late = spawn(|| drop(LOCK.read())).unwrap();
    thread::sleep(TICK);
    assert!(!late.is_finished());
    drop(last);
    late.join();
}

fn a_rwlock_works_under_a_storm_of_signals() {
    static LOCK: RwLock<[u32; 2]> = RwLock::new([0; 2]);
    in_a_storm(|| {
        let work = || {
            for _ in 0..1_000 {
                {
                    let mut both = LOCK.write();
                    both[0] += 1;
                    thread::yield_now();
                    both[1] += 1;
                }
                let both = LOCK.read();
                assert_eq!(both[0], both[1]);
                drop(both);
                drop(LOCK.try_write_for(Duration::from_micros(20)));
            }
        };
        join([(); 4].map(|()| spawn(work).unwrap()));
        assert_eq!(*LOCK.read(), [4_000; 2]);
    });
}
