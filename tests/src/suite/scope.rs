//! Threads that borrow. Several of these are what std's own tests of `thread::scope` ask for.

use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::Signal;
use rt0::test::Expect;
use rt0::thread::{Builder, Scope, ScopedJoinHandle, scope, spawn};
use rt0::time::Instant;
use rt0::{Errno, all_threads, sys, thread};
use rt0_tests::{mappings, often, wait_for_mappings_to_go, wait_until};

const TICK: Duration = Duration::from_millis(20);

/// exit(2), bypassing rt0.
fn end_this_thread() {
    // SAFETY: 1. No other thread borrows from this thread's stack.
    let _ = unsafe { sys::syscall(k::__NR_exit as usize, [0; 6]) };
}

rt0::test_module! {
    threads_borrow_what_outlives_the_scope_and_give_it_back,
    a_scope_without_threads_returns_what_the_closure_returned,
    the_scope_waits_for_threads_that_were_not_joined,
    threads_of_a_scope_start_threads_in_it,
    a_result_that_is_not_taken_is_dropped_before_the_scope_ends_and_may_start_a_thread,
    what_a_thread_only_names_is_borrowed_too,
    a_handle_may_go_to_another_thread_of_the_scope,
    a_handle_knows_its_thread_and_whether_it_has_finished,
    results_are_dropped_once_however_the_handle_goes,
    a_refused_spawn_is_an_error_and_the_scope_ends,
    a_scope_takes_no_unpark_and_leaves_none,
    scopes_nest_and_run_on_any_thread,
    many_scopes_that_end_just_as_their_threads_do_lose_nothing,
    a_panic_in_a_thread_of_a_scope_ends_the_process_with_101 =>
        Expect::panic("thread 'scoped' panicked at "),
    a_scope_ends_with_101_when_a_thread_ended_by_a_call_of_its_own =>
        Expect::panic("a thread ended without a result"),
    a_thread_that_a_call_on_all_threads_finds_ended_is_not_waited_for_either =>
        Expect::panic("a thread ended without a result"),
    a_scope_that_waits_long_looks_for_lost_threads_and_finds_none,
    a_panic_in_the_scopes_closure_ends_the_process_with_101 => Expect::panic("panicked at "),
}

fn threads_borrow_what_outlives_the_scope_and_give_it_back() {
    let words = ["one", "three"];
    let (mut first, mut second) = (0, 0);
    let sum = scope(|s| {
        s.spawn(|| first = words[0].len()).unwrap();
        let handle = s.spawn(|| {
            second = words[1].len();
            &words[1]
        });
        handle.unwrap().join().len() + words.len()
    });
    assert_eq!((first, second, sum), (3, 5, 7));
}

fn a_scope_without_threads_returns_what_the_closure_returned() {
    assert_eq!(scope(|_| 5), 5);
}

fn the_scope_waits_for_threads_that_were_not_joined() {
    let ended = AtomicUsize::new(0);
    scope(|s| {
        for round in 0..8 {
            let ended = &ended;
            let handle = s.spawn(move || {
                thread::sleep(TICK * (round % 3));
                ended.fetch_add(1, Relaxed);
            });
            handle.unwrap();
        }
    });
    assert_eq!(ended.load(Relaxed), 8);
}

fn threads_of_a_scope_start_threads_in_it() {
    fn tree<'scope>(s: &'scope Scope<'scope, '_>, depth: u32, ended: &'scope AtomicUsize) {
        if depth > 0 {
            (0..2).for_each(|_| drop(s.spawn(move || tree(s, depth - 1, ended)).unwrap()));
        }
        ended.fetch_add(1, Relaxed);
    }
    let ended = AtomicUsize::new(0);
    scope(|s| tree(s, 5, &ended));
    assert_eq!(ended.load(Relaxed), 63);
}

fn a_result_that_is_not_taken_is_dropped_before_the_scope_ends_and_may_start_a_thread() {
    struct StartsOne<'scope, 'env>(&'scope Scope<'scope, 'env>, &'env AtomicBool);
    impl Drop for StartsOne<'_, '_> {
        fn drop(&mut self) {
            thread::sleep(TICK);
            let ended = self.1;
            let last = self.0.spawn(move || {
                thread::sleep(TICK);
                ended.store(true, Relaxed);
            });
            last.unwrap();
        }
    }
    let ended = &AtomicBool::new(false);
    scope(|s| {
        s.spawn(move || {
            thread::sleep(TICK);
            StartsOne(s, ended)
        })
        .unwrap();
    });
    assert!(ended.load(Relaxed));
}

fn what_a_thread_only_names_is_borrowed_too() {
    #[allow(clippy::match_single_binding)] // This test checks that it compiles.
    fn names(x: &u8) {
        scope(|s| {
            s.spawn(|| match x {
                _ => (),
            })
            .unwrap();
        });
    }
    names(&42);
}

fn a_handle_may_go_to_another_thread_of_the_scope() {
    let numbers = [1, 2, 3];
    let sum = scope(|s| {
        let first: ScopedJoinHandle<'_, i32> = s.spawn(|| numbers.iter().sum()).unwrap();
        s.spawn(move || first.join() + 1).unwrap().join()
    });
    assert_eq!(sum, 7);
}

fn a_handle_knows_its_thread_and_whether_it_has_finished() {
    let go = AtomicBool::new(false);
    scope(|s| {
        let body = || {
            while !go.load(SeqCst) {
                thread::park_timeout(TICK);
            }
        };
        let handle = Builder::new().name("scoped").stack_size(64 << 10).spawn_scoped(s, body).unwrap();
        assert_eq!(handle.thread().name(), Some("scoped"));
        assert!(!handle.is_finished());
        go.store(true, SeqCst);
        handle.thread().unpark();
        wait_until("the thread to finish", || handle.is_finished());
        handle.join();
    });
}

fn results_are_dropped_once_however_the_handle_goes() {
    struct Counted<'a>(&'a AtomicUsize);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let (joined, dropped, late, forgotten) = Default::default();
    scope(|s| {
        drop(s.spawn(|| Counted(&joined)).unwrap().join());
        drop(s.spawn(|| Counted(&dropped)).unwrap());
        let handle = s.spawn(|| Counted(&late)).unwrap();
        wait_until("the thread to finish", || handle.is_finished());
        drop(handle);
        core::mem::forget(s.spawn(|| Counted(&forgotten)).unwrap());
    });
    let counts = [joined, dropped, late, forgotten].map(AtomicUsize::into_inner);
    assert_eq!(counts, [1, 1, 1, 0]);
}

fn a_refused_spawn_is_an_error_and_the_scope_ends() {
    let dropped = AtomicUsize::new(0);
    struct Closure<'a>(&'a AtomicUsize);
    impl Drop for Closure<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    scope(|s| {
        let captured = Closure(&dropped);
        let refused = Builder::new().name("a\0b").spawn_scoped(s, move || drop(captured));
        assert_eq!(refused.err(), Some(Errno::EINVAL));
        let captured = Closure(&dropped);
        let refused = Builder::new().stack_size(usize::MAX).spawn_scoped(s, move || drop(captured));
        assert_eq!(refused.err(), Some(Errno::ENOMEM));
    });
    assert_eq!(dropped.into_inner(), 2);
}

fn a_scope_takes_no_unpark_and_leaves_none() {
    thread::current().unpark();
    scope(|s| drop(s.spawn(|| thread::sleep(TICK)).unwrap()));
    thread::park();
    let start = Instant::now();
    thread::park_timeout(TICK);
    assert!(start.elapsed() >= TICK);
}

fn scopes_nest_and_run_on_any_thread() {
    let outer = AtomicUsize::new(0);
    scope(|s| {
        for _ in 0..3 {
            let body = || {
                let inner = AtomicUsize::new(0);
                scope(|s| (0..3).for_each(|_| drop(s.spawn(|| inner.fetch_add(1, Relaxed)).unwrap())));
                outer.fetch_add(inner.into_inner(), Relaxed);
            };
            s.spawn(body).unwrap();
        }
    });
    assert_eq!(outer.into_inner(), 9);
    spawn(|| scope(|s| drop(s.spawn(|| ()).unwrap()))).unwrap().join();
}

fn many_scopes_that_end_just_as_their_threads_do_lose_nothing() {
    spawn(|| ()).unwrap().join(); // The first one's setup stays.
    let before = mappings();
    for round in 0..often(200) {
        let sum = AtomicUsize::new(0);
        scope(|s| {
            for number in 1..=4 {
                let sum = &sum;
                drop(s.spawn(move || sum.fetch_add(number, Relaxed)).unwrap());
            }
            (0..round % 20).for_each(|_| thread::yield_now());
        });
        assert_eq!(sum.into_inner(), 10);
    }
    wait_for_mappings_to_go(before + 2);
}

fn a_panic_in_a_thread_of_a_scope_ends_the_process_with_101() {
    scope(|s| {
        Builder::new().name("scoped").spawn_scoped(s, || panic!("boom")).unwrap();
        loop {
            thread::park();
        }
    })
}

fn a_scope_ends_with_101_when_a_thread_ended_by_a_call_of_its_own() {
    static OTHERS: AtomicUsize = AtomicUsize::new(0);
    scope(|s| {
        for _ in 0..3 {
            s.spawn(end_this_thread).unwrap();
        }
        let others = || {
            // The scope checks its threads meanwhile, and continues to wait.
            thread::sleep(10 * TICK);
            OTHERS.fetch_add(1, Relaxed);
        };
        s.spawn(others).unwrap();
        s.spawn(others).unwrap();
    });
}

fn a_thread_that_a_call_on_all_threads_finds_ended_is_not_waited_for_either() {
    scope(|s| {
        let lost = s.spawn(end_this_thread).unwrap();
        wait_until("the thread to end", || lost.thread().signal(Signal::SIGURG).is_err());
        // Some emulators cannot do this; then the scope checks its threads without it.
        // SAFETY: 1. It only asks.
        let _ = unsafe { all_threads::syscall(k::__NR_getpid as usize, [0; 6]) };
    });
}

fn a_scope_that_waits_long_looks_for_lost_threads_and_finds_none() {
    let ended = AtomicUsize::new(0);
    scope(|s| {
        let body = || {
            thread::sleep(20 * TICK);
            ended.fetch_add(1, Relaxed);
        };
        s.spawn(body).unwrap();
        // Not of this scope, and dead: the scope must ignore it.
        drop(spawn(end_this_thread).unwrap());
    });
    assert_eq!(ended.into_inner(), 1);
}

fn a_panic_in_the_scopes_closure_ends_the_process_with_101() {
    let go = AtomicBool::new(false);
    scope(|s| {
        s.spawn(|| {
            while !go.load(Relaxed) {
                thread::park();
            }
        })
        .unwrap();
        panic!("boom");
    })
}
