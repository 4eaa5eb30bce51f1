//! Calls of many threads, while others start and end.

use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, Signal, sigaction};
use rt0::test::Expect;
use rt0::thread::{self, Builder, JoinHandle, spawn};
use rt0::{Env, Errno, all_threads, println, sys};
use rt0_tests::files::pipe;
use rt0_tests::{mappings, often, slow, stress_time, wait_for_mappings_to_go, wait_until};

use super::{Sleepers, count_all, counted, counter, flag, set_flag_on_all};

/// Starts short-lived threads until `stop` is set; each calls `f`.
fn storm(stop: &'static AtomicBool, f: fn()) -> JoinHandle<usize> {
    spawn(move || {
        let mut started = 0;
        while !stop.load(Relaxed) {
            let threads = [(); 3].map(|()| Builder::new().stack_size(0).spawn(f).unwrap());
            started += threads.len();
            let [first, second, third] = threads;
            drop(first);
            second.join();
            third.join();
        }
        started
    })
    .unwrap()
}

rt0::test_module! {
    hundreds_of_threads_make_the_call_once => Expect::success().alone(),
    callers_at_once_take_turns,
    threads_that_start_and_end_meanwhile_have_what_was_set,
    callers_spawners_and_a_storm_of_signals_at_once_lose_nothing => Expect::success().alone(),
    everything_at_once_loses_nothing_and_leaves_nothing => Expect::success().alone(),
}

fn hundreds_of_threads_make_the_call_once() {
    fn all<const N: usize>() {
        let counter = counter();
        let sleepers = Sleepers::<N>::start();
        for value in [1, 0, 1] {
            assert_eq!(count_all(counter).unwrap(), 8);
            assert_eq!(counted(counter), N as u64 + 1);
            set_flag_on_all(value).unwrap();
        }
        assert_eq!(sleepers.end(), [1; N]);
    }
    if slow() { all::<100>() } else { all::<1000>() }
}

fn callers_at_once_take_turns() {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    const CALLERS: usize = 4;
    static READY: AtomicUsize = AtomicUsize::new(0);
    static DONE: AtomicUsize = AtomicUsize::new(0);
    COUNTER.store(counter(), Relaxed);
    let sleepers = Sleepers::<4>::start();
    let calls = often(400);
    let callers = [(); CALLERS].map(|()| {
        spawn(move || {
            READY.fetch_add(1, Relaxed);
            wait_until("all callers", || READY.load(Relaxed) == CALLERS);
            for _ in 0..calls {
                count_all(COUNTER.load(Relaxed)).unwrap();
            }
            DONE.fetch_add(1, Relaxed);
            wait_until("all callers", || DONE.load(Relaxed) == CALLERS);
        })
        .unwrap()
    });
    callers.into_iter().for_each(|caller| caller.join());
    assert_eq!(counted(COUNTER.load(Relaxed)), (CALLERS * calls * (1 + CALLERS + 4)) as u64);
    sleepers.end();
}

fn threads_that_start_and_end_meanwhile_have_what_was_set() {
    static STOP: AtomicBool = AtomicBool::new(false);
    /// Odd during a call; otherwise the next bit is the value that was set.
    static TURN: AtomicUsize = AtomicUsize::new(0);
    static LOOKED: AtomicUsize = AtomicUsize::new(0);
    fn look() {
        let before = TURN.load(SeqCst);
        let flag = flag();
        if before.is_multiple_of(2) && TURN.load(SeqCst) == before {
            assert_eq!(flag, before / 2 % 2, "turn {before}");
            LOOKED.fetch_add(1, Relaxed);
        }
    }
    let storms = [storm(&STOP, look), storm(&STOP, look)];
    for turn in 1..=often(500) {
        TURN.store(2 * turn - 1, SeqCst);
        set_flag_on_all(turn % 2).unwrap();
        TURN.store(2 * turn, SeqCst);
        thread::yield_now();
    }
    wait_until("a look between two calls", || LOOKED.load(Relaxed) > 0);
    STOP.store(true, Relaxed);
    let started: usize = storms.into_iter().map(|storm| storm.join()).sum();
    assert!(started > 0);
}

fn callers_spawners_and_a_storm_of_signals_at_once_lose_nothing() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: i32) {
        HANDLED.fetch_add(1, Relaxed);
    }
    // SAFETY: 1. The handler touches an atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(count)) }.unwrap();
    let to_process = [sys::getpid() as usize, Signal::SIGUSR1.raw() as usize, 0, 0, 0, 0];
    let signals = spawn(move || {
        while !STOP.load(Relaxed) {
            // SAFETY: 1. Its handler is installed.
            unsafe { sys::syscall(k::__NR_kill as usize, to_process) }.unwrap();
            thread::sleep(Duration::from_micros(100));
        }
    })
    .unwrap();
    let storms = [storm(&STOP, || ()), storm(&STOP, || ())];
    let other_caller = spawn(|| {
        while !STOP.load(Relaxed) {
            // SAFETY: 1. It only asks.
            unsafe { all_threads::syscall(k::__NR_getpid as usize, [0; 6]) }.unwrap();
        }
    })
    .unwrap();
    let mut turn = 0;
    while turn < often(100) || HANDLED.load(Relaxed) == 0 {
        set_flag_on_all(turn % 2).unwrap();
        turn += 1;
    }
    STOP.store(true, Relaxed);
    other_caller.join();
    signals.join();
    storms.into_iter().for_each(|storm| assert!(storm.join() > 0));
}

fn everything_at_once_loses_nothing_and_leaves_nothing(env: Env) {
    static STOP: AtomicBool = AtomicBool::new(false);
    static TURNS: AtomicUsize = AtomicUsize::new(0);
    static INTERRUPTED: AtomicUsize = AtomicUsize::new(0);
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: i32) {
        HANDLED.fetch_add(1, Relaxed);
    }
    // SAFETY: 1. The handler touches an atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(count)) }.unwrap();
    spawn(|| ()).unwrap().join();
    let before = mappings();
    COUNTER.store(counter(), Relaxed);
    let [read, write] = pipe();
    // They wait in a call that interrupts end, but calls on all threads do not.
    let readers = [(); 3].map(|()| {
        spawn(move || {
            while sys::read(rt0_tests::numbered(read), &mut [0; 1]) == Err(Errno::EINTR) {
                INTERRUPTED.fetch_add(1, Relaxed);
            }
        })
        .unwrap()
    });
    let targets = readers.each_ref().map(|reader| reader.thread().clone());
    let interrupting = spawn(move || {
        while !STOP.load(Relaxed) {
            for target in &targets {
                let generation = target.interrupt().unwrap();
                target.signal(Signal::SIGUSR1).unwrap();
                wait_until("an interrupt", || target.has_seen(generation));
            }
        }
    })
    .unwrap();
    let callers = [1, 2].map(|_| {
        spawn(move || {
            while !STOP.load(Relaxed) {
                count_all(COUNTER.load(Relaxed)).unwrap();
                TURNS.fetch_add(1, Relaxed);
                sys::read(rt0_tests::numbered(COUNTER.load(Relaxed) as i32), &mut [0; 8]).ok();
            }
        })
        .unwrap()
    });
    let spawning = [1, 2].map(|_| {
        spawn(|| {
            while !STOP.load(Relaxed) {
                let short = Builder::new().stack_size(0).spawn(thread::yield_now).unwrap();
                let _ = short.thread().interrupt();
                if STARTED.fetch_add(1, Relaxed).is_multiple_of(2) {
                    short.join();
                }
            }
        })
        .unwrap()
    });
    thread::sleep(stress_time(env));
    let counts = [&TURNS, &INTERRUPTED, &HANDLED, &STARTED];
    wait_until("all to have happened", || counts.iter().all(|count| count.load(Relaxed) > 0));
    STOP.store(true, Relaxed);
    callers.into_iter().chain(spawning).chain([interrupting]).for_each(|thread| thread.join());
    sys::write(rt0_tests::numbered(write), b"xyz").unwrap();
    readers.into_iter().for_each(|reader| reader.join());
    println!("calls, interrupts, signals, threads: {counts:?}");
    assert_eq!(count_all(COUNTER.load(Relaxed)).unwrap(), 8);
    wait_for_mappings_to_go(before + 2);
}
