//! Mutex.

use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::sync::{MappedMutexGuard, Mutex, MutexGuard, RwLock};
use rt0::test::Expect;
use rt0::thread::{self, spawn};
use rt0::time::Instant;
use rt0::{Errno, sys};
use rt0_tests::prints;
use rt0_tests::seccomp::{Verdict, filter};

use super::{TICK, in_a_storm, join};

rt0::test_module! {
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
    a_mutex_works_under_a_storm_of_signals,
}

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
