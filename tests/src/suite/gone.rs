//! Threads that vanish in the middle of an operation: by the program's own exit(2), or killed by a
//! system call filter. No other thread waits for them.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Signal, raise};
use rt0::test::Expect;
use rt0::thread::{scope, spawn};
use rt0::{all_threads, profile, signal, sys, thread};
use rt0_tests::seccomp::{FUTEX, filter_calls};
use rt0_tests::{is_gone, mappings, skip, wait_for_mappings_to_go, wait_until, wait_until_asleep};

/// `SECCOMP_RET_KILL_THREAD`.
const KILL: u32 = 0;

/// A call on all threads with the same result on each.
fn call_on_all() -> all_threads::Result<usize> {
    // SAFETY: 1. It touches nothing.
    unsafe { all_threads::syscall(k::__NR_getppid as usize, [0; 6]) }
}

/// Uses everything that would wait for a thread that vanished.
fn nothing_waits() {
    call_on_all().expect("a call on all threads");
    assert_eq!(spawn(|| 5).unwrap().join(), 5);
    let mut done = false;
    scope(|scope| {
        scope
            .spawn(|| {
                // A scope looks for vanished threads after 100 ms.
                thread::sleep(Duration::from_millis(150));
                done = true;
            })
            .unwrap();
    });
    assert!(done);
    profile::start(100).unwrap();
    profile::stop();
    let _ = profile::drain(|_| ()).unwrap();
    call_on_all().expect("a call on all threads");
}

fn exit_thread() -> ! {
    loop {
        // SAFETY: 1. Nothing on this thread's stack is borrowed.
        let _ = unsafe { sys::syscall(k::__NR_exit as usize, [0; 6]) };
    }
}

/// Starts a thread that a filter kills in one of these calls, which `act` makes, and waits until
/// the thread is gone.
fn lose_a_thread_in(calls: &'static [u32], act: impl FnOnce() + Send + 'static) {
    static TID: AtomicU32 = AtomicU32::new(0);
    static NO_FILTERS: AtomicBool = AtomicBool::new(false);
    TID.store(0, Relaxed);
    rt0_tests::seccomp::need_filters();
    let doomed = spawn(move || {
        let tid = sys::gettid();
        match filter_calls(calls, KILL) {
            Ok(()) => {
                TID.store(tid, Relaxed);
                act();
            }
            Err(_) => NO_FILTERS.store(true, Relaxed),
        }
    })
    .unwrap();
    wait_until("a thread to be killed", || {
        if NO_FILTERS.load(Relaxed) {
            skip("no filters on system calls here");
        }
        TID.load(Relaxed) != 0 && is_gone(TID.load(Relaxed))
    });
    assert!(!doomed.is_finished());
}

rt0::test_module! {
    a_main_thread_that_ended_by_itself_is_not_waited_for,
    the_main_threads_id_is_kept_and_its_end_is_seen,
    a_thread_killed_in_clone_keeps_no_other_out_and_its_child_leaves_nothing,
    a_thread_killed_while_it_signals_another_is_not_waited_for_by_that,
    a_caller_killed_before_it_asks_keeps_no_other_out,
    a_caller_killed_while_threads_answer_keeps_no_other_out,
    a_thread_killed_with_the_lists_latch_keeps_no_other_out,
    a_wait_that_never_ends_can_be_ended_by_sigterm => Expect::signal(15),
}

fn a_main_thread_that_ended_by_itself_is_not_waited_for() {
    let main = thread::current();
    spawn(move || {
        // Not by /proc/self/stat: qemu-user emulates the file, and crashes there without a main
        // thread.
        wait_until("the main thread to end", || main.signal(Signal::SIGCONT) == Err(rt0::Errno::ESRCH));
        nothing_waits();
        sys::exit_group(0);
    })
    .unwrap();
    exit_thread();
}

fn the_main_threads_id_is_kept_and_its_end_is_seen() {
    let main = thread::current();
    main.signal(Signal::SIGCONT).expect("before there is another thread");
    spawn(move || {
        wait_until("the main thread to end", || main.signal(Signal::SIGCONT) == Err(rt0::Errno::ESRCH));
        sys::exit_group(0);
    })
    .unwrap();
    exit_thread();
}

fn a_thread_killed_in_clone_keeps_no_other_out_and_its_child_leaves_nothing() {
    // There are as many rings as threads were profiled at the same time: a scope's thread may
    // still be ending.
    let parked = [(); 2].map(|()| spawn(thread::park).unwrap());
    nothing_waits();
    for thread in parked {
        thread.thread().unpark();
        thread.join();
    }
    nothing_waits();
    let before = mappings();
    lose_a_thread_in(&[k::__NR_clone], || {
        let _ = spawn(|| ());
    });
    nothing_waits();
    // The killed thread's mapping goes too.
    wait_for_mappings_to_go(before);
}

fn a_thread_killed_while_it_signals_another_is_not_waited_for_by_that() {
    for interrupts in [false, true] {
        let target = spawn(thread::park).unwrap();
        let thread = target.thread().clone();
        let to_signal = thread.clone();
        lose_a_thread_in(&[k::__NR_tgkill], move || {
            if interrupts {
                let _ = to_signal.interrupt();
            } else {
                let _ = to_signal.signal(Signal::SIGCONT);
            }
        });
        let generation = thread.interrupt().expect("the thread is there");
        wait_until("an interrupt", || thread.has_seen(generation));
        thread.unpark();
        target.join();
        nothing_waits();
    }
}

fn a_caller_killed_before_it_asks_keeps_no_other_out() {
    lose_a_thread_in(&[k::__NR_tgkill], || {
        let _ = call_on_all();
    });
    nothing_waits();
}

fn a_caller_killed_while_threads_answer_keeps_no_other_out() {
    let target = spawn(thread::park).unwrap();
    // SAFETY: 1. It touches no memory.
    let poller = unsafe { sys::syscall(k::__NR_epoll_create1 as usize, [0; 6]) }.expect("epoll_create1");
    lose_a_thread_in(FUTEX, move || {
        // 200 ms: long enough that the caller notices that some threads have not answered.
        let mut room = [0u64; 2];
        let args = [poller, (&raw mut room).expose_provenance(), 1, 200, 0, 0];
        // SAFETY: 1. No descriptor is polled, so the kernel writes nothing.
        let _ = unsafe { all_threads::syscall(k::__NR_epoll_pwait as usize, args) };
    });
    nothing_waits();
    target.thread().unpark();
    target.join();
}

fn a_thread_killed_with_the_lists_latch_keeps_no_other_out() {
    static TID: AtomicU32 = AtomicU32::new(0);
    profile::start(100).unwrap();
    rt0_tests::seccomp::need_filters();
    let parent = spawn(|| {
        if filter_calls(&[k::__NR_timer_create], KILL).is_err() {
            return false;
        }
        // The thread sets its timer before the program's closure runs on it.
        let child = spawn(|| TID.store(1, Relaxed)).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(!child.is_finished());
        true
    })
    .unwrap();
    if !parent.join() {
        skip("no filters on system calls here");
    }
    assert_eq!(TID.load(Relaxed), 0);
    profile::stop();
    nothing_waits();
}

fn a_wait_that_never_ends_can_be_ended_by_sigterm() {
    let set = [!0u8; size_of::<k::kernel_sigset_t>()];
    let block = move || {
        let args = [k::SIG_BLOCK as usize, (&raw const set).expose_provenance(), 0, size_of_val(&set), 0, 0];
        // SAFETY: 1. The kernel reads the set.
        unsafe { sys::syscall(k::__NR_rt_sigprocmask as usize, args) }.unwrap();
    };
    if !shows_pending_signals() {
        sys::tgkill(sys::getpid(), sys::gettid(), Signal::SIGTERM.raw()).unwrap();
        skip("an emulator that does not show pending signals");
    }
    static BLOCKED: AtomicBool = AtomicBool::new(false);
    let main = sys::gettid();
    spawn(move || {
        block();
        BLOCKED.store(true, Relaxed);
        wait_until_asleep(main);
        let kill = [sys::getpid() as usize, Signal::SIGTERM.raw() as usize, 0, 0, 0, 0];
        // SAFETY: 1. A signal is no memory access.
        unsafe { sys::syscall(k::__NR_kill as usize, kill) }.unwrap();
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    })
    .unwrap();
    wait_until("the other thread", || BLOCKED.load(Relaxed));
    let _ = call_on_all();
    unreachable!("the other thread never answers");
}

/// Whether rt_sigpending(2) shows a signal that is blocked.
fn shows_pending_signals() -> bool {
    let set = signal::SigSet::from_iter([Signal::SIGUSR1]);
    let before = signal::mask(signal::How::Block, &set);
    raise(Signal::SIGUSR1).unwrap();
    let mut pending = [0u8; size_of::<k::kernel_sigset_t>()];
    let args = [(&raw mut pending).expose_provenance(), pending.len(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel writes the set.
    unsafe { sys::syscall(k::__NR_rt_sigpending as usize, args) }.unwrap();
    let ignore = signal::Action { handler: signal::Handler::Ignore, ..signal::Action::DEFAULT };
    // SAFETY: 1. No handler.
    unsafe { signal::sigaction(Signal::SIGUSR1, ignore) }.unwrap();
    signal::mask(signal::How::Set, &before);
    pending.iter().any(|byte| *byte != 0)
}
