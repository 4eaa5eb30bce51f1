//! Interrupting one thread.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, How, SigSet, Signal, mask, sigaction};
use rt0::test::Expect;
use rt0::thread::{Thread, spawn};
use rt0::time::Instant;
use rt0::{Errno, all_threads, sys, thread};
use rt0_tests::files::pipe;
use rt0_tests::{mappings, often, wait_for_mappings_to_go, wait_until};

/// Interrupts until `done`, as documented.
fn until(done: impl Fn() -> bool, thread: &Thread) {
    wait_until("the thread to look", || {
        let _ = thread.interrupt();
        done()
    });
}

rt0::test_module! {
    a_thread_that_waits_in_a_call_comes_back,
    a_thread_that_computes_looks_soon,
    a_thread_can_interrupt_itself,
    the_main_thread_can_be_interrupted,
    a_signal_to_a_thread_that_rt0_did_not_make_is_no_interrupt_of_its_makers =>
        Expect::success().native("qemu-user makes no such thread"),
    interrupts_that_are_not_delivered_are_one,
    a_thread_that_blocks_every_signal_is_interrupted_all_the_same,
    a_thread_that_ended_is_esrch,
    a_thread_that_ended_by_a_call_of_its_own_is_esrch_too,
    a_signal_can_be_sent_to_a_thread,
    rt0s_own_waits_go_on,
    a_flag_is_looked_at_within_bounds,
    threads_that_end_while_they_are_interrupted_lose_nothing,
    interrupts_and_calls_on_all_threads_do_not_mix,
    a_full_queue_of_signals_is_eagain,
}

fn a_thread_that_waits_in_a_call_comes_back() {
    let [read, _write] = pipe();
    let reader = spawn(move || sys::read(rt0_tests::numbered(read), &mut [0; 1])).unwrap();
    until(|| reader.is_finished(), reader.thread());
    assert_eq!(reader.join(), Err(Errno::EINTR));
}

fn a_thread_that_computes_looks_soon() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    static RUNNING: AtomicBool = AtomicBool::new(false);
    let computing = spawn(|| {
        let mut rounds = 0u64;
        RUNNING.store(true, Relaxed);
        while !ASKED.load(Relaxed) {
            rounds += 1;
        }
        rounds
    })
    .unwrap();
    let thread = computing.thread();
    wait_until("the thread", || RUNNING.load(Relaxed));
    let generation = thread.interrupt().unwrap();
    wait_until("the interrupt", || thread.has_seen(generation));
    ASKED.store(true, Relaxed);
    computing.join();
}

fn a_thread_can_interrupt_itself() {
    let this = thread::current();
    for _ in 0..100 {
        let generation = this.interrupt().unwrap();
        assert!(this.has_seen(generation), "a signal to oneself is handled before the call returns");
    }
}

fn the_main_thread_can_be_interrupted() {
    let main = thread::current();
    let [read, _write] = pipe();
    static BACK: AtomicBool = AtomicBool::new(false);
    let other = spawn(move || until(|| BACK.load(Relaxed), &main));
    assert_eq!(sys::read(rt0_tests::numbered(read), &mut [0; 1]), Err(Errno::EINTR));
    BACK.store(true, Relaxed);
    other.unwrap().join();
}

/// It has its creator's thread pointer, and so its creator's block.
fn a_signal_to_a_thread_that_rt0_did_not_make_is_no_interrupt_of_its_makers() {
    /// All signals of the machine, in the order of the kernel's calls.
    fn set_mask(how: u32) {
        let set = [!0u8; size_of::<k::kernel_sigset_t>()];
        let args = [how as usize, (&raw const set).expose_provenance(), 0, size_of_val(&set), 0, 0];
        // SAFETY: 1. The kernel reads the set.
        unsafe { sys::syscall(k::__NR_rt_sigprocmask as usize, args) }.unwrap();
    }
    // SAFETY: 1. It touches nothing. Afterwards both signals have handlers.
    unsafe { all_threads::syscall(k::__NR_getppid as usize, [0; 6]) }.unwrap();
    let this = thread::current();
    set_mask(k::SIG_BLOCK);
    let generation = this.interrupt().unwrap();
    rt0_tests::in_raw_child(k::CLONE_VM | k::CLONE_SIGHAND | k::CLONE_THREAD | k::CLONE_VFORK, || {
        set_mask(k::SIG_UNBLOCK);
        for signal in [k::SIGRTMIN, k::SIGRTMIN + 1] {
            sys::tgkill(sys::getpid(), sys::gettid(), signal).unwrap();
        }
    });
    assert!(!this.has_seen(generation));
    set_mask(k::SIG_UNBLOCK);
    assert!(this.has_seen(generation));
}

fn interrupts_that_are_not_delivered_are_one() {
    static STEP: AtomicU32 = AtomicU32::new(0);
    static HANDLED: AtomicU32 = AtomicU32::new(0);
    /// The program's handler runs with all of the program's signals blocked, but not rt0's.
    extern "C" fn count(_: i32) {
        HANDLED.fetch_add(1, Relaxed);
    }
    // SAFETY: 1. The handler touches an atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(count)) }.unwrap();
    let busy = spawn(|| {
        while STEP.load(Relaxed) == 0 {
            thread::yield_now();
        }
    })
    .unwrap();
    let thread = busy.thread();
    let mut last = thread.interrupt().unwrap();
    for _ in 0..1000 {
        last = thread.interrupt().unwrap();
    }
    wait_until("the last of them", || thread.has_seen(last));
    STEP.store(1, Relaxed);
    busy.join();
    assert_eq!(HANDLED.load(Relaxed), 0);
}

fn a_thread_that_blocks_every_signal_is_interrupted_all_the_same() {
    let [read, _write] = pipe();
    let reader = spawn(move || {
        mask(How::Set, &SigSet::full());
        sys::read(rt0_tests::numbered(read), &mut [0; 1])
    })
    .unwrap();
    until(|| reader.is_finished(), reader.thread());
    assert_eq!(reader.join(), Err(Errno::EINTR));
}

fn a_thread_that_ended_is_esrch() {
    let ended = spawn(|| ()).unwrap();
    let thread = ended.thread().clone();
    ended.join();
    assert_eq!(thread.interrupt().err(), Some(Errno::ESRCH));
    assert_eq!(thread.signal(Signal::SIGTERM), Err(Errno::ESRCH));
}

fn a_thread_that_ended_by_a_call_of_its_own_is_esrch_too() {
    static BLOCKED: AtomicBool = AtomicBool::new(false);
    static ASKED: AtomicBool = AtomicBool::new(false);
    let ended = spawn(|| {
        // Bypassing rt0: an interrupt is pending when the thread ends.
        let all = k::kernel_sigset_t { sig: [!0; _] };
        let set = (&raw const all).expose_provenance();
        let block = [k::SIG_BLOCK as usize, set, 0, size_of_val(&all), 0, 0];
        // SAFETY: 1. The kernel reads the set.
        unsafe { sys::syscall(k::__NR_rt_sigprocmask as usize, block) }.unwrap();
        BLOCKED.store(true, Relaxed);
        wait_until("an interrupt", || ASKED.load(Relaxed));
        // SAFETY: 1. No other thread borrows from this thread's stack.
        let _ = unsafe { sys::syscall(k::__NR_exit as usize, [0; 6]) };
    })
    .unwrap();
    let thread = ended.thread().clone();
    wait_until("it to be deaf", || BLOCKED.load(Relaxed));
    let generation = thread.interrupt().unwrap();
    ASKED.store(true, Relaxed);
    wait_until("its end", || thread.interrupt().err() == Some(Errno::ESRCH));
    assert_eq!(thread.signal(Signal::SIGTERM), Err(Errno::ESRCH));
    assert!(!thread.has_seen(generation));
}

fn a_signal_can_be_sent_to_a_thread() {
    static TID: AtomicU32 = AtomicU32::new(0);
    static END: AtomicBool = AtomicBool::new(false);
    extern "C" fn note(_: i32) {
        TID.store(sys::gettid(), Relaxed);
    }
    // SAFETY: 1. The handler touches an atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(note)) }.unwrap();
    let other = spawn(|| {
        wait_until("the end", || END.load(Relaxed));
        sys::gettid()
    })
    .unwrap();
    other.thread().signal(Signal::SIGUSR1).unwrap();
    wait_until("its handler", || TID.load(Relaxed) != 0);
    END.store(true, Relaxed);
    assert_eq!(other.join(), TID.load(Relaxed));
    thread::current().signal(Signal::SIGUSR1).unwrap();
    assert_eq!(TID.load(Relaxed), sys::gettid());
}

fn rt0s_own_waits_go_on() {
    static UP: AtomicBool = AtomicBool::new(false);
    let sleeper = spawn(|| {
        UP.store(true, Relaxed);
        let start = Instant::now();
        thread::sleep(Duration::from_millis(100));
        thread::park_timeout(Duration::from_millis(100));
        start.elapsed()
    })
    .unwrap();
    wait_until("the sleeper", || UP.load(Relaxed));
    while !sleeper.is_finished() {
        let _ = sleeper.thread().interrupt();
        thread::sleep(Duration::from_millis(1));
    }
    assert!(sleeper.join() >= Duration::from_millis(200));
}

/// Go's tests allow 100 ms for the same.
fn a_flag_is_looked_at_within_bounds() {
    static FLAG: AtomicU32 = AtomicU32::new(0);
    static SEEN: AtomicU32 = AtomicU32::new(0);
    let [read, _write] = pipe();
    let waiter = spawn(move || {
        let mut buf = [0; 1];
        loop {
            let flag = FLAG.load(Relaxed);
            SEEN.store(flag, Relaxed);
            if flag == u32::MAX {
                return;
            }
            assert_eq!(sys::read(rt0_tests::numbered(read), &mut buf), Err(Errno::EINTR));
        }
    })
    .unwrap();
    let thread = waiter.thread();
    for round in (1..=200).chain([u32::MAX]) {
        FLAG.store(round, Relaxed);
        until(|| SEEN.load(Relaxed) == round, thread);
    }
    waiter.join();
}

/// Rare even natively: the signal reaches a thread just as it ends.
fn threads_that_end_while_they_are_interrupted_lose_nothing() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    spawn(|| ()).unwrap().join();
    let before = mappings();
    let mut round = 0;
    while round < often(300) || SENT.load(Relaxed) == 0 {
        round += 1;
        let ending = spawn(move || {
            for _ in 0..round % 7 + round / 100 {
                thread::yield_now();
            }
        })
        .unwrap();
        let thread = ending.thread().clone();
        let interrupting = spawn(move || {
            while thread.interrupt().is_ok() {
                SENT.fetch_add(1, Relaxed);
            }
        })
        .unwrap();
        ending.join();
        interrupting.join();
    }
    wait_for_mappings_to_go(before + 2);
}

fn interrupts_and_calls_on_all_threads_do_not_mix() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let [read, write] = pipe();
    let interrupted = spawn(move || {
        let mut count = 0u32;
        while sys::read(rt0_tests::numbered(read), &mut [0; 1]) == Err(Errno::EINTR) {
            count += 1;
        }
        count
    })
    .unwrap();
    let thread = interrupted.thread().clone();
    let storm = spawn(move || {
        while !STOP.load(Relaxed) {
            thread.interrupt().unwrap();
            thread::yield_now();
        }
    })
    .unwrap();
    for _ in 0..200 {
        // SAFETY: 1. It only asks.
        unsafe { all_threads::syscall(k::__NR_getpid as usize, [0; 6]) }.unwrap();
    }
    STOP.store(true, Relaxed);
    storm.join();
    sys::write(rt0_tests::numbered(write), b"x").unwrap();
    assert!(interrupted.join() > 0);
}

fn a_full_queue_of_signals_is_eagain() {
    let none = [0u64; 2];
    let limit = [0, k::RLIMIT_SIGPENDING as usize, (&raw const none).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel reads the limits.
    unsafe { sys::syscall(k::__NR_prlimit64 as usize, limit) }.unwrap();
    assert_eq!(thread::current().interrupt().err(), Some(Errno::EAGAIN));
    assert_eq!(thread::current().interrupt().err(), Some(Errno::EAGAIN), "the first left nothing behind");
}
