//! fork(2) in a process of several threads: by `thread::fork`, and bypassing rt0.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, Signal, raise, sigaction};
use rt0::test::Expect;
use rt0::thread::{Builder, Fork, Thread, fork, scope, spawn};
use rt0::time::Instant;
use rt0::{Env, Errno, all_threads, profile, random, sys, thread};
use rt0_tests::{Ended, slow, stress_time, wait_a_minute_for, wait_until};

/// A call on all threads with the same result on each.
fn call_on_all() {
    // SAFETY: 1. It touches nothing.
    let parent = unsafe { all_threads::syscall(k::__NR_getppid as usize, [0; 6]) };
    assert_eq!(parent.expect("a call on all threads"), sys::getppid() as usize);
}

fn interrupt(thread: &Thread) {
    let generation = thread.interrupt().expect("the thread is there");
    wait_until("an interrupt", || thread.has_seen(generation));
}

/// Uses everything in rt0 that involves threads, in a child.
fn everything_works() {
    let this = thread::current();
    interrupt(&this);
    this.signal(Signal::SIGCONT).expect("this thread is there");
    call_on_all();
    let other = spawn(thread::park).unwrap();
    interrupt(other.thread());
    call_on_all();
    other.thread().unpark();
    other.join();
    let mut sum = [0; 2];
    scope(|scope| {
        for part in &mut sum {
            scope.spawn(|| *part = 1).unwrap();
        }
    });
    assert_eq!(sum, [1, 1]);
    random::fill(&mut [0; 16]).unwrap();
    match profile::start(1000) {
        Ok(()) => {
            profile::stop();
            let _ = profile::drain(|sample| assert_ne!(sample.tid, sys::getppid(), "a thread of the child")).unwrap();
        }
        // Emulators may have no timers.
        Err(errno) => assert!(slow() && errno != Errno::EBUSY, "{errno}"),
    }
}

/// Runs `work` in a child of rt0's fork, or of one that bypasses rt0. The child must exit with 0.
fn child(past_rt0: bool, work: impl FnOnce()) {
    let pid = if past_rt0 {
        rt0_tests::fork().expect("fork")
    } else {
        // SAFETY: 1. The child does not depend on the other threads. 2. It writes nothing.
        match unsafe { fork() }.expect("fork") {
            Fork::Child => 0,
            Fork::Parent { child } => child,
        }
    };
    if pid == 0 {
        work();
        sys::exit_group(0);
    }
    assert_eq!(wait_a_minute_for(pid), Ended::Exit(0));
}

const BOTH: [bool; 2] = [true, false];

rt0::test_module! {
    a_child_of_a_process_with_one_thread_has_all,
    a_child_of_the_main_thread_has_no_ghosts,
    a_child_of_another_thread_has_that_one,
    a_child_that_interrupts_first_of_all_gets_the_signal,
    children_have_children_that_have_children,
    a_join_of_a_thread_that_vanished_panics,
    the_end_of_a_scope_whose_thread_vanished_is_a_panic,
    the_end_of_a_closure_in_a_child_ends_the_process_with_0,
    a_profile_does_not_go_on_in_a_child,
    a_handler_that_forks_in_raise_signals_only_its_own_process,
    children_of_a_storm_have_all =>
        Expect::success()
            .native("qemu-user's own locks hang in a child that is forked while other threads work")
            .alone(),
}

fn a_child_of_a_process_with_one_thread_has_all() {
    BOTH.into_iter().for_each(|past| child(past, everything_works));
    everything_works();
}

fn a_child_of_the_main_thread_has_no_ghosts() {
    let other = spawn(thread::park).unwrap();
    for past in BOTH {
        child(past, || {
            everything_works();
            assert_eq!(other.thread().interrupt(), Err(Errno::ESRCH));
            assert_eq!(other.thread().signal(Signal::SIGCONT), Err(Errno::ESRCH));
        });
    }
    other.thread().unpark();
    other.join();
}

fn a_child_of_another_thread_has_that_one() {
    let main = thread::current();
    spawn(move || {
        for past in BOTH {
            child(past, || {
                everything_works();
                assert_eq!(main.interrupt(), Err(Errno::ESRCH));
            });
        }
    })
    .unwrap()
    .join();
    everything_works();
}

fn a_child_that_interrupts_first_of_all_gets_the_signal() {
    let other = spawn(thread::park).unwrap();
    interrupt(&thread::current());
    let ten_times = || (0..10).for_each(|_| interrupt(&thread::current()));
    BOTH.into_iter().for_each(|past| child(past, ten_times));
    other.thread().unpark();
    other.join();
}

fn children_have_children_that_have_children() {
    fn level(deep: usize) {
        let other = spawn(thread::park).unwrap();
        for past in BOTH {
            child(past, || {
                everything_works();
                if deep > 0 {
                    level(deep - 1);
                }
            });
        }
        other.thread().unpark();
        other.join();
    }
    level(if slow() { 1 } else { 3 });
}

fn a_join_of_a_thread_that_vanished_panics() {
    let finished = spawn(|| 7).unwrap();
    wait_until("the thread", || finished.is_finished());
    child(false, move || assert_eq!(finished.join(), 7, "the result was there"));
    let vanished = spawn(thread::park).unwrap();
    for past in BOTH {
        let pid = if past {
            rt0_tests::fork().unwrap()
        } else {
            // SAFETY: 1. The child only joins. 2. It repeats no effect of the parent.
            match unsafe { fork() }.unwrap() {
                Fork::Child => 0,
                Fork::Parent { child } => child,
            }
        };
        if pid == 0 {
            // SAFETY: 1. The child's own; the parent's handle stays.
            unsafe { core::ptr::read(&vanished) }.join();
            sys::exit_group(0);
        }
        assert_eq!(wait_a_minute_for(pid), Ended::Exit(101));
    }
    vanished.thread().unpark();
    vanished.join();
}

fn the_end_of_a_scope_whose_thread_vanished_is_a_panic() {
    static STOP: AtomicBool = AtomicBool::new(false);
    for past in BOTH {
        STOP.store(false, Relaxed);
        let mut pid = 0;
        let mut is_child = false;
        scope(|scope| {
            scope.spawn(|| wait_until("the other", || STOP.load(Relaxed))).unwrap();
            pid = if past {
                rt0_tests::fork().unwrap()
            } else {
                // SAFETY: 1. The child ends its scope. 2. It repeats no effect of the parent.
                match unsafe { fork() }.unwrap() {
                    Fork::Child => 0,
                    Fork::Parent { child } => child,
                }
            };
            is_child = pid == 0;
            if is_child {
                everything_works();
            } else {
                STOP.store(true, Relaxed);
            }
        });
        assert!(!is_child, "the scope of the child ended without a panic");
        assert_eq!(wait_a_minute_for(pid), Ended::Exit(101));
    }
}

fn the_end_of_a_closure_in_a_child_ends_the_process_with_0() {
    for past in BOTH {
        let pid = spawn(move || {
            if past {
                rt0_tests::fork().unwrap()
            } else {
                // SAFETY: 1. The child returns. 2. It repeats no effect of the parent.
                match unsafe { fork() }.unwrap() {
                    Fork::Child => 0,
                    Fork::Parent { child } => child,
                }
            }
        })
        .unwrap()
        .join();
        assert!(pid != 0, "the child has no thread that joins");
        assert_eq!(wait_a_minute_for(pid), Ended::Exit(0));
    }
}

fn a_profile_does_not_go_on_in_a_child() {
    let other = spawn(thread::park).unwrap();
    if profile::start(1000).is_err() {
        rt0_tests::skip("no timers here");
    }
    for past in BOTH {
        child(past, || {
            let drained = profile::drain(|_| panic!("a sample of the parent's")).unwrap();
            assert_eq!((drained.samples, drained.lost), (0, 0));
            everything_works();
        });
    }
    profile::stop();
    let _ = profile::drain(|_| ()).unwrap();
    other.thread().unpark();
    other.join();
}

fn a_handler_that_forks_in_raise_signals_only_its_own_process() {
    static CHILDREN: AtomicUsize = AtomicUsize::new(0);
    static RAISED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn forks(_: i32) {
        // As soon as another process holds it there is one child.
        if CHILDREN.load(Relaxed) == 0 {
            let pid = rt0_tests::fork().unwrap();
            CHILDREN.store(if pid == 0 { usize::MAX } else { pid as usize }, Relaxed);
        }
    }
    extern "C" fn count(_: i32) {
        RAISED.fetch_add(1, Relaxed);
    }
    // SAFETY: 1. It forks and touches an atomic.
    unsafe { sigaction(Signal::SIGALRM, Action::call(forks)) }.unwrap();
    // SAFETY: 1. It touches an atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(count)) }.unwrap();
    rt0_tests::alarm_every(Duration::from_micros(300));
    for _ in 0..rt0_tests::often(40) {
        CHILDREN.store(0, Relaxed);
        loop {
            let before = RAISED.load(Relaxed);
            raise(Signal::SIGUSR1).unwrap();
            assert_eq!(RAISED.load(Relaxed), before + 1, "handled when it returns, once, in the process that raised");
            match CHILDREN.load(Relaxed) {
                0 => {}
                usize::MAX => sys::exit_group(0),
                pid => {
                    assert_eq!(wait_a_minute_for(pid as u32), Ended::Exit(0));
                    break;
                }
            }
        }
    }
    rt0_tests::alarm_every(Duration::ZERO);
}

/// Whatever the other threads are doing. (Children of qemu-user 10 were seen to wait for locks
/// of its C library that other threads held at the fork.)
fn children_of_a_storm_have_all(env: Env) {
    static STOP: AtomicBool = AtomicBool::new(false);
    let main = thread::current();
    let storm = [0, 1, 2].map(|what| {
        let main = main.clone();
        Builder::new()
            .stack_size(0)
            .spawn(move || {
                while !STOP.load(Relaxed) {
                    match what {
                        0 => {
                            let short = Builder::new().stack_size(0).spawn(thread::yield_now).unwrap();
                            let _ = short.thread().interrupt();
                            short.join();
                        }
                        1 => call_on_all(),
                        _ => {
                            let _ = main.interrupt();
                            if profile::start(1000).is_ok() {
                                profile::stop();
                            }
                        }
                    }
                }
            })
            .unwrap()
    });
    let end = Instant::now().checked_add(stress_time(env)).unwrap();
    let mut children = 0;
    while Instant::now() < end || children < 4 {
        child(children % 2 == 0, everything_works);
        spawn(move || child(children % 4 < 2, everything_works)).unwrap().join();
        children += 1;
    }
    STOP.store(true, Relaxed);
    storm.into_iter().for_each(|thread| thread.join());
    everything_works();
}
