//! Once, OnceLock and LazyLock: what each promises.

use core::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use rt0::sync::{LazyLock, Once, OnceLock};
use rt0::test::Expect;
use rt0::thread::{self, JoinHandle, spawn};
use rt0::time::Instant;
use rt0_tests::{prints, wait_until};

const TICK: Duration = Duration::from_millis(20);

rt0::test_module! {
    a_value_that_cannot_be_made_yet_is_made_by_a_later_call,
    a_closure_runs_once_and_all_calls_return_after_it,
    the_forms_that_ask_about_panics_find_none,
    a_wait_for_a_once_starts_nothing,
    a_timeout_beyond_the_clock_waits_for_a_once,
    a_closure_that_calls_its_own_once_waits_for_itself,
    a_closure_may_use_another_once,
    a_once_lock_is_set_once,
    a_once_lock_is_its_owners_to_change,
    a_once_lock_drops_its_value_once,
    a_once_lock_may_refer_to_what_is_dropped_before_it,
    one_thread_makes_the_value_and_all_get_the_same,
    a_wait_for_a_once_lock_gets_the_value_that_another_thread_sets,
    a_set_that_comes_second_waits_for_the_first,
    once_values_print_themselves,
    a_lazy_value_is_made_when_it_is_first_used,
    a_lazy_value_is_its_owners_to_look_at_and_to_change,
    a_lazy_value_takes_a_closure_that_owns_what_it_needs,
    a_lazy_value_that_uses_itself_waits_for_itself,
    a_panic_in_a_once_ends_the_process_with_101 => Expect::panic("no value to be had"),
}

fn a_value_that_cannot_be_made_yet_is_made_by_a_later_call() {
    static VALUE: OnceLock<u32> = OnceLock::new();
    static WAITS: AtomicU32 = AtomicU32::new(0);
    let waiter = spawn(|| *VALUE.wait()).unwrap();
    assert_eq!(VALUE.get_or_try_init(|| Err::<u32, _>("not yet")), Err("not yet"));
    assert_eq!(VALUE.get(), None);
    // One runs and fails late; the others wait, and the next of them succeeds.
    let late = || {
        VALUE
            .get_or_try_init(|| {
                thread::sleep(TICK);
                match WAITS.fetch_add(1, Relaxed) {
                    0 => Err(()),
                    nth => Ok(nth),
                }
            })
            .is_ok()
    };
    let made = join([(); 4].map(|()| spawn(late).unwrap()));
    assert_eq!(made.iter().filter(|made| **made).count(), 3);
    assert_eq!((waiter.join(), WAITS.load(Relaxed)), (1, 2));
    assert_eq!(VALUE.get_or_try_init(|| Err::<u32, _>(())), Ok(&1));
}

fn a_closure_runs_once_and_all_calls_return_after_it() {
    static ONCE: Once = Once::new();
    static RUNS: AtomicU32 = AtomicU32::new(0);
    static VALUE: AtomicU32 = AtomicU32::new(0);
    let call = || {
        ONCE.call_once(|| {
            RUNS.fetch_add(1, Relaxed);
            thread::sleep(TICK);
            VALUE.store(7, Relaxed);
        });
        assert!(ONCE.is_completed());
        VALUE.load(Relaxed)
    };
    assert!(!ONCE.is_completed());
    assert_eq!(join([(); 8].map(|()| spawn(call).unwrap())), [7; 8]);
    ONCE.call_once(|| unreachable!("a second time"));
    assert_eq!(RUNS.load(Relaxed), 1);
}

fn the_forms_that_ask_about_panics_find_none() {
    static ONCE: Once = Once::new();
    let waiter = spawn(|| ONCE.wait_force()).unwrap();
    let mut runs = 0;
    for _ in 0..2 {
        ONCE.call_once_force(|state| {
            runs += 1;
            assert!(!state.is_poisoned() && prints(format_args!("{state:?}"), "OnceState { poisoned: false }"));
        });
    }
    assert_eq!(runs, 1);
    waiter.join();
}

fn a_wait_for_a_once_starts_nothing() {
    static ONCE: Once = Once::new();
    let waiters = [(); 4].map(|()| spawn(|| ONCE.wait()).unwrap());
    let start = Instant::now();
    assert!(!ONCE.wait_timeout(TICK) && start.elapsed() >= TICK);
    assert!(!ONCE.wait_timeout(Duration::ZERO) && !ONCE.wait_until(start));
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    ONCE.call_once(|| ());
    join(waiters);
    ONCE.wait();
    assert!(ONCE.wait_timeout(Duration::ZERO) && ONCE.wait_timeout(Duration::MAX) && ONCE.wait_until(start));
}

fn a_timeout_beyond_the_clock_waits_for_a_once() {
    static ONCE: Once = Once::new();
    let waiter = spawn(|| ONCE.wait_timeout(Duration::MAX)).unwrap();
    thread::sleep(TICK);
    assert!(!waiter.is_finished());
    ONCE.call_once(|| ());
    assert!(waiter.join());
}

fn a_closure_that_calls_its_own_once_waits_for_itself() {
    static ONCE: Once = Once::new();
    static ENTERED: AtomicU32 = AtomicU32::new(0);
    let thread = spawn(|| {
        ONCE.call_once(|| {
            ENTERED.store(1, Relaxed);
            ONCE.call_once(|| ENTERED.store(2, Relaxed));
        });
    });
    wait_until("the closure to begin", || ENTERED.load(Relaxed) == 1);
    thread::sleep(2 * TICK);
    assert!(!thread.unwrap().is_finished() && ENTERED.load(Relaxed) == 1);
}

fn a_closure_may_use_another_once() {
    static OUTER: Once = Once::new();
    static INNER: Once = Once::new();
    OUTER.call_once(|| INNER.call_once(|| ()));
    assert!(OUTER.is_completed() && INNER.is_completed());
}

fn a_once_lock_is_set_once() {
    let lock = OnceLock::new();
    assert_eq!((lock.get(), lock.clone().get()), (None, None));
    assert_eq!(lock.set(1), Ok(()));
    assert_eq!(lock.set(2), Err(2));
    assert_eq!((lock.get(), lock.get_or_init(|| unreachable!())), (Some(&1), &1));
    assert_eq!(lock.clone(), OnceLock::from(1));
    assert_ne!(lock, OnceLock::new());
}

fn a_once_lock_is_its_owners_to_change() {
    let mut lock = OnceLock::default();
    assert_eq!(lock.get_mut(), None);
    assert_eq!(lock.take(), None);
    lock.get_or_init(|| 3);
    *lock.get_mut().unwrap() += 1;
    assert_eq!(lock.take(), Some(4));
    assert_eq!(lock.get(), None);
    assert_eq!(lock.set(5), Ok(()), "after a take it can be set again");
    assert_eq!(lock.into_inner(), Some(5));
    assert_eq!(OnceLock::<u8>::new().into_inner(), None);
}

fn a_once_lock_drops_its_value_once() {
    let lock = OnceLock::new();
    drop(OnceLock::<Dropped>::new());
    lock.get_or_init(|| Dropped);
    assert_eq!(DROPS.load(Relaxed), 0);
    drop(lock.set(Dropped));
    assert_eq!(DROPS.load(Relaxed), 1, "the one that was given back");
    drop(lock);
    assert_eq!(DROPS.load(Relaxed), 2);
    drop(OnceLock::from(Dropped).into_inner());
    assert_eq!(DROPS.load(Relaxed), 3);
}

fn a_once_lock_may_refer_to_what_is_dropped_before_it() {
    let lock = OnceLock::new();
    let value = Dropped;
    assert!(lock.set(&value).is_ok());
}

fn one_thread_makes_the_value_and_all_get_the_same() {
    static LOCK: OnceLock<[u32; 4]> = OnceLock::new();
    static MADE: AtomicU32 = AtomicU32::new(0);
    let get = |me: u32| {
        move || {
            let value = LOCK.get_or_init(|| {
                MADE.fetch_add(1, Relaxed);
                thread::yield_now();
                [me; 4]
            });
            assert!(value.iter().all(|part| *part == value[0]));
            (&raw const *value).addr()
        }
    };
    let addresses = join([0, 1, 2, 3, 4, 5, 6, 7].map(|me| spawn(get(me)).unwrap()));
    assert!(addresses.iter().all(|address| *address == addresses[0]));
    assert_eq!(MADE.load(Relaxed), 1);
}

fn a_wait_for_a_once_lock_gets_the_value_that_another_thread_sets() {
    static LOCK: OnceLock<u32> = OnceLock::new();
    assert_eq!(LOCK.wait_timeout(TICK), None);
    assert_eq!((LOCK.wait_timeout(Duration::ZERO), LOCK.wait_until(Instant::now())), (None, None));
    let waiters = [(); 4].map(|()| spawn(|| *LOCK.wait()).unwrap());
    thread::sleep(TICK);
    LOCK.set(9).unwrap();
    assert_eq!(join(waiters), [9; 4]);
    assert_eq!((LOCK.wait(), LOCK.wait_timeout(Duration::MAX)), (&9, Some(&9)));
}

fn a_set_that_comes_second_waits_for_the_first() {
    static LOCK: OnceLock<u32> = OnceLock::new();
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    static LOOKED: AtomicU32 = AtomicU32::new(0);
    let first = spawn(|| {
        LOCK.get_or_init(|| {
            BEGUN.store(1, Release);
            wait_until("a look", || LOOKED.load(Relaxed) == 1);
            thread::sleep(TICK);
            1
        });
    });
    wait_until("the first to begin", || BEGUN.load(Acquire) == 1);
    assert_eq!(LOCK.get(), None, "not there while it is made");
    LOOKED.store(1, Relaxed);
    assert_eq!(LOCK.set(2), Err(2));
    assert_eq!(LOCK.get(), Some(&1));
    first.unwrap().join();
}

fn once_values_print_themselves() {
    let lock = OnceLock::new();
    let lazy = LazyLock::new(|| 6);
    rt0::println!("{lock:?} {lazy:?} {:?}", Once::new());
    lock.set(5).unwrap();
    assert_eq!(*lazy, 6);
    rt0::println!("{lock:?} {lazy:?}");
    assert!(prints(format_args!("{lock:?} {lazy:?}"), "OnceLock(5) LazyLock(6)"));
    assert!(prints(format_args!("{:?}", OnceLock::<u8>::new()), "OnceLock(<uninit>)"));
    assert!(prints(format_args!("{:?}", LazyLock::<u8>::new(|| 1)), "LazyLock(<uninit>)"));
}

fn a_lazy_value_is_made_when_it_is_first_used() {
    static MADE: AtomicU32 = AtomicU32::new(0);
    static LAZY: LazyLock<u32> = LazyLock::new(|| MADE.fetch_add(1, Relaxed) + 41);
    assert_eq!(MADE.load(Relaxed), 0);
    assert_eq!(join([(); 4].map(|()| spawn(|| *LAZY + 1).unwrap())), [42; 4]);
    assert_eq!((*LazyLock::force(&LAZY), MADE.load(Relaxed)), (41, 1));
    assert_eq!(*LazyLock::<u8>::default(), 0);
}

fn a_lazy_value_is_its_owners_to_look_at_and_to_change() {
    let mut lazy = LazyLock::new(|| 1);
    assert!(LazyLock::get(&lazy).is_none() && LazyLock::get_mut(&mut lazy).is_none());
    *LazyLock::force_mut(&mut lazy) += 1;
    *lazy += 1;
    *LazyLock::get_mut(&mut lazy).unwrap() += 1;
    assert_eq!((LazyLock::get(&lazy), *lazy), (Some(&4), 4));
}

fn a_lazy_value_takes_a_closure_that_owns_what_it_needs() {
    let dropped = Dropped;
    let lazy = LazyLock::new(move || dropped);
    assert_eq!(DROPS.load(Relaxed), 0);
    LazyLock::force(&lazy);
    assert_eq!(DROPS.load(Relaxed), 0);
    drop(lazy);
    assert_eq!(DROPS.load(Relaxed), 1);
    let dropped = Dropped;
    drop(LazyLock::new(move || dropped));
    assert_eq!(DROPS.load(Relaxed), 2, "also if it was never used");
}

fn a_lazy_value_that_uses_itself_waits_for_itself() {
    static LAZY: LazyLock<u32> = LazyLock::new(|| *LAZY + 1);
    let thread = spawn(|| *LAZY).unwrap();
    thread::sleep(2 * TICK);
    assert!(!thread.is_finished());
}

fn a_panic_in_a_once_ends_the_process_with_101() {
    static LAZY: LazyLock<[u8; 2]> = LazyLock::new(|| panic!("no value to be had"));
    spawn(|| LAZY[0]).unwrap().join();
}

static DROPS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Dropped;

impl Drop for Dropped {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Relaxed);
    }
}

fn join<T, const N: usize>(threads: [JoinHandle<T>; N]) -> [T; N] {
    threads.map(|thread| thread.join())
}
