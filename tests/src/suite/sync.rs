//! Mutex, RwLock and Condvar: their guarantees, alone and under load.

mod ordered;

use core::cell::Cell;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{self, Action, Signal};
use rt0::sync::{
    Condvar, MappedMutexGuard, MappedRwLockReadGuard, MappedRwLockWriteGuard, Mutex, MutexGuard, ReentrantLock, RwLock,
    RwLockReadGuard, RwLockWriteGuard,
};
use rt0::test::Expect;
use rt0::thread::{self, JoinHandle, spawn};
use rt0::time::Instant;
use rt0::{Errno, sys};
use rt0_tests::seccomp::{Verdict, filter};
use rt0_tests::{often, prints, wait_until};

const TICK: Duration = Duration::from_millis(20);

rt0::test_module! {
    fast_paths_whose_machine_code_is_looked_at_do_what_the_locks_promise,
    a_mutex_is_locked_until_its_guard_is_dropped,
    the_owner_of_a_mutex_gets_its_value_without_locking,
    a_mutex_takes_a_new_value_and_gives_out_the_old,
    what_is_called_with_a_locked_value_returns_through_the_lock,
    a_kernel_that_does_not_say_how_many_processors_there_are_gets_locks_that_work,
    a_guard_of_a_part_keeps_the_whole_mutex_locked,
    a_mutex_prints_its_value_or_that_it_is_locked,
    one_thread_at_a_time_has_a_mutex,
    a_mutex_that_stays_locked_is_waited_for_as_long_as_it_was_said_and_no_longer,
    a_timeout_beyond_the_clock_waits_for_the_mutex,
    a_thread_that_locks_a_mutex_again_waits_for_itself,
    a_panic_while_a_lock_is_held_ends_the_process_with_101 => Expect::panic("while it is held"),
    a_waiter_is_not_starved_by_threads_that_never_stop_locking,
    waits_that_end_early_take_no_wake_from_others,
    a_mutex_may_be_unmapped_by_its_next_owner,
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
    a_reentrant_lock_is_its_threads_until_the_last_guard,
    threads_count_under_a_reentrant_lock,
    more_readers_than_a_lock_counts_wait_for_one_to_leave,
    a_notification_wakes_one_in_the_order_they_came,
    notify_all_wakes_all_waiters_and_no_later_one,
    a_wait_gives_the_mutex_up_and_has_it_again_after,
    a_wait_without_a_wake_times_out_and_not_early,
    a_notified_wait_with_a_deadline_did_not_time_out,
    one_condition_serves_several_mutexes,
    no_notification_is_lost_between_two_threads,
    timeouts_that_race_with_notifications_lose_none,
    a_mutex_works_under_a_storm_of_signals,
    a_rwlock_works_under_a_storm_of_signals,
    a_condition_works_under_a_storm_of_signals,
    signals_do_not_end_a_wait,
}

// All of them.

fn fast_paths_whose_machine_code_is_looked_at_do_what_the_locks_promise() {
    static LOCKS: ordered::Locks = ordered::Locks::new();
    ordered::call_all(&LOCKS);
}

// Mutex.

fn a_mutex_is_locked_until_its_guard_is_dropped() {
    let mutex = Mutex::new(1);
    let guard = mutex.lock();
    assert!(mutex.try_lock().is_none());
    drop(guard);
    *mutex.try_lock().unwrap() += 1;
    assert_eq!(*mutex.lock(), 2);
    core::mem::forget(mutex.lock());
    assert!(mutex.try_lock().is_none(), "a guard that is forgotten keeps it locked");
}

fn the_owner_of_a_mutex_gets_its_value_without_locking() {
    let mut mutex = Mutex::from(Dropped);
    mutex.get_mut().touch();
    assert_eq!(DROPS.load(Relaxed), 0);
    drop(mutex.into_inner());
    assert_eq!(DROPS.load(Relaxed), 1);
    drop(Mutex::new(Dropped));
    assert_eq!(DROPS.load(Relaxed), 2);
    assert_eq!(*Mutex::<u8>::default().lock(), 0);
    let unsized_one: &Mutex<[u8]> = &Mutex::new([1, 2, 3]);
    unsized_one.lock()[1] = 7;
    assert_eq!(&*unsized_one.lock(), &[1, 7, 3]);
}

fn a_mutex_takes_a_new_value_and_gives_out_the_old() {
    let mutex = Mutex::new(Some(Dropped));
    drop(mutex.replace(None));
    assert_eq!(DROPS.load(Relaxed), 1);
    mutex.set(Some(Dropped));
    mutex.set(None);
    assert_eq!(DROPS.load(Relaxed), 2);
    assert!(mutex.lock().is_none());
    assert_eq!(Mutex::new([1, 2]).get_cloned(), [1, 2]);
}

fn what_is_called_with_a_locked_value_returns_through_the_lock() {
    let (mutex, lock) = (Mutex::new(1), RwLock::new(1));
    let double = |value: &mut i32| core::mem::replace(value, 2 * *value);
    assert_eq!((mutex.with_mut(double), mutex.with_mut(double), mutex.get_cloned()), (1, 2, 4));
    assert_eq!((lock.with_mut(double), lock.with(|value| value + 5)), (1, 7));
    assert!(mutex.with_mut(|_| mutex.try_lock().is_none()));
    assert!(lock.with(|_| lock.try_write().is_none() && lock.try_read().is_some()));
}

fn a_kernel_that_does_not_say_how_many_processors_there_are_gets_locks_that_work() {
    static COUNT: Mutex<u32> = Mutex::new(0);
    filter(&[k::__NR_sched_getaffinity], Verdict::Refuse(Errno::EINVAL), Verdict::Allow);
    let threads = [(); 4].map(|()| {
        spawn(|| {
            for _ in 0..1000 {
                let mut count = COUNT.lock();
                *count += 1;
                if count.is_multiple_of(100) {
                    thread::yield_now();
                }
            }
        })
        .unwrap()
    });
    join(threads);
    assert_eq!(*COUNT.lock(), 4000);
}

fn a_guard_of_a_part_keeps_the_whole_mutex_locked() {
    let mutex = Mutex::new([Some(1), None]);
    let guard = MutexGuard::filter_map(mutex.lock(), |pair| pair[1].as_mut()).unwrap_err();
    let part = MutexGuard::map(guard, |pair| &mut pair[0]);
    let mut number = MappedMutexGuard::filter_map(part, |first| first.as_mut()).unwrap();
    *number += 1;
    assert!(mutex.try_lock().is_none());
    assert!(prints(format_args!("{number:?} {number}"), "2 2"));
    let number = MappedMutexGuard::filter_map(number, |_| None::<&mut u8>).unwrap_err();
    let (number, error) = MappedMutexGuard::try_map_or_err(number, |_| Err::<&mut u8, _>("no")).unwrap_err();
    assert_eq!((*number, error), (2, "no"));
    drop(MappedMutexGuard::map::<u8, _>(number, |number| number));
    assert_eq!(mutex.try_lock().map(|pair| *pair), Some([Some(2), None]));
}

fn a_mutex_prints_its_value_or_that_it_is_locked() {
    let mutex = Mutex::new(5);
    assert!(prints(format_args!("{mutex:?}"), "Mutex { data: 5, .. }"));
    let guard = mutex.lock();
    assert!(prints(format_args!("{mutex:?} {guard:?} {guard}"), "Mutex { data: <locked>, .. } 5 5"));
}

fn one_thread_at_a_time_has_a_mutex() {
    static COUNT: Mutex<[usize; 2]> = Mutex::new([0; 2]);
    let count = || {
        for _ in 0..10_000 {
            let mut both = COUNT.lock();
            both[0] += 1;
            both[1] += 1;
            assert_eq!(both[0], both[1]);
        }
    };
    join([(); 8].map(|()| spawn(count).unwrap()));
    assert_eq!(COUNT.lock()[0], 80_000);
}

fn a_mutex_that_stays_locked_is_waited_for_as_long_as_it_was_said_and_no_longer() {
    let mutex = Mutex::new(());
    let guard = mutex.lock();
    let start = Instant::now();
    assert!(mutex.try_lock_for(Duration::ZERO).is_none());
    assert!(mutex.try_lock_until(start).is_none());
    assert!(mutex.try_lock_until(start.checked_sub(Duration::from_secs(1 << 40)).unwrap()).is_none());
    let start = Instant::now();
    assert!(mutex.try_lock_for(TICK).is_none());
    assert!(start.elapsed() >= TICK);
    let deadline = Instant::now() + TICK;
    assert!(mutex.try_lock_until(deadline).is_none());
    assert!(Instant::now() >= deadline);
    drop(guard);
    for timeout in [Duration::ZERO, TICK, Duration::MAX] {
        assert!(mutex.try_lock_for(timeout).is_some());
    }
}

fn a_timeout_beyond_the_clock_waits_for_the_mutex() {
    static MUTEX: Mutex<()> = Mutex::new(());
    let guard = MUTEX.lock();
    let waiter = spawn(|| MUTEX.try_lock_for(Duration::MAX).is_some()).unwrap();
    thread::sleep(TICK);
    assert!(!waiter.is_finished());
    drop(guard);
    assert!(waiter.join());
}

fn a_thread_that_locks_a_mutex_again_waits_for_itself() {
    static MUTEX: Mutex<()> = Mutex::new(());
    let thread = spawn(|| {
        let _guard = MUTEX.lock();
        assert!(MUTEX.try_lock_for(TICK).is_none());
        let _again = MUTEX.lock();
    });
    thread::sleep(4 * TICK);
    assert!(!thread.unwrap().is_finished());
}

fn a_panic_while_a_lock_is_held_ends_the_process_with_101() {
    static MUTEX: Mutex<u8> = Mutex::new(0);
    static LOCK: RwLock<u8> = RwLock::new(0);
    let _guards = (MUTEX.lock(), LOCK.write());
    let waiter = spawn(|| *MUTEX.lock() + *LOCK.read()).unwrap();
    thread::sleep(TICK);
    assert!(waiter.is_finished(), "while it is held");
}

fn a_waiter_is_not_starved_by_threads_that_never_stop_locking() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    let hammer = || {
        while !DONE.load(Relaxed) {
            *core::hint::black_box(&mut *MUTEX.lock()) += 1;
        }
    };
    let hammers = [(); 3].map(|()| spawn(hammer).unwrap());
    for _ in 0..300 {
        drop(MUTEX.lock());
        thread::sleep(Duration::from_micros(10));
    }
    DONE.store(true, Relaxed);
    join(hammers);
}

fn waits_that_end_early_take_no_wake_from_others() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    let patient = || (0..5_000).for_each(|_| *MUTEX.lock() += 1);
    let hasty = || {
        let mut got = 0;
        for round in 0..5_000 {
            if let Some(mut count) = MUTEX.try_lock_for(Duration::from_micros(round % 50)) {
                *count += 1;
                got += 1;
                // Long enough that other threads fall asleep.
                (0..200).for_each(|_| core::hint::spin_loop());
            }
        }
        got
    };
    let hasty = [(); 4].map(|()| spawn(hasty).unwrap());
    join([(); 4].map(|()| spawn(patient).unwrap()));
    let got = join(hasty).iter().sum::<u32>();
    assert_eq!(*MUTEX.lock(), 20_000 + got);
}

fn a_mutex_may_be_unmapped_by_its_next_owner() {
    #[repr(align(65536))] // As large as the largest page.
    struct Page(core::cell::UnsafeCell<[u8; 65536]>);
    // SAFETY: it contains a mutex.
    unsafe impl Sync for Page {}
    static PAGE: Page = Page(core::cell::UnsafeCell::new([0; 65536]));
    static ROUND: AtomicU32 = AtomicU32::new(0);
    static READY: AtomicU32 = AtomicU32::new(0);
    // Two owners. The last one unmaps the memory, while the other may still be in its unlock.
    fn protect(protection: u32) {
        let page = PAGE.0.get().expose_provenance();
        // SAFETY: 1. Only the mutex lies there, and its last owner no longer needs it.
        unsafe { sys::syscall(k::__NR_mprotect as usize, [page, 65536, protection as usize, 0, 0, 0]) }.unwrap();
    }
    fn let_go() {
        // SAFETY: written before the round began, and mapped until its last owner unmaps it.
        let owners = unsafe { &*PAGE.0.get().cast::<Mutex<u32>>() };
        let mut left = owners.lock();
        *left -= 1;
        let last = *left == 0;
        drop(left);
        if last {
            protect(k::PROT_NONE);
        }
    }
    let other = spawn(|| {
        for round in 1..=500 {
            while ROUND.load(Acquire) != round {
                core::hint::spin_loop();
                thread::yield_now();
            }
            let_go();
            READY.store(round, Release);
        }
    });
    for round in 1..=500 {
        protect(k::PROT_READ | k::PROT_WRITE);
        // SAFETY: large enough and aligned, and no other thread accesses it yet.
        unsafe { PAGE.0.get().cast::<Mutex<u32>>().write(Mutex::new(2)) };
        ROUND.store(round, Release);
        let_go();
        while READY.load(Acquire) != round {
            thread::yield_now();
        }
    }
    other.unwrap().join();
}

// RwLock.

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

// ReentrantLock.

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

// Condvar.

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

// Under a storm of signals, which must not end a wait or lose a wake.

fn a_mutex_works_under_a_storm_of_signals() {
    static COUNT: Mutex<u32> = Mutex::new(0);
    in_a_storm(|| {
        let count = || {
            for round in 0..2_000 {
                *COUNT.lock() += 1;
                if round % 10 == 0 {
                    let guard = COUNT.lock();
                    thread::yield_now();
                    drop(guard);
                }
                drop(COUNT.try_lock_for(Duration::from_micros(20)));
            }
        };
        join([(); 6].map(|()| spawn(count).unwrap()));
        assert_eq!(*COUNT.lock(), 12_000);
    });
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

static DROPS: AtomicUsize = AtomicUsize::new(0);

struct Dropped;

impl Dropped {
    fn touch(&mut self) {}
}

impl Drop for Dropped {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Relaxed);
    }
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

/// Runs `work` while signals without `SA_RESTART` hit the process as fast as they can be sent.
fn in_a_storm(work: impl FnOnce()) {
    extern "C" fn nothing(_: i32) {}
    static OVER: AtomicBool = AtomicBool::new(false);
    // SAFETY: 1. The handler does nothing.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(nothing)) }.unwrap();
    let storm = spawn(|| {
        while !OVER.load(Relaxed) {
            // SAFETY: 1. Its handler is installed.
            unsafe {
                let to_all = [sys::getpid() as usize, Signal::SIGUSR1.raw() as usize, 0, 0, 0, 0];
                sys::syscall(k::__NR_kill as usize, to_all)
            }
            .unwrap();
            thread::yield_now();
        }
    });
    work();
    OVER.store(true, Relaxed);
    storm.unwrap().join();
}

fn join<T, const N: usize>(threads: [JoinHandle<T>; N]) -> [T; N] {
    threads.map(|thread| thread.join())
}
