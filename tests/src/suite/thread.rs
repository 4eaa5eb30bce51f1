//! Threads: start, end, result, memory, names, parking.

mod handle;
mod stack;

use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{self, Action, How, SigSet, Signal};
use rt0::test::Expect;
use rt0::thread::{self, Builder, spawn};
use rt0::time::Instant;
use rt0::{Errno, sys};
use rt0_tests::{
    assert_mappings, emulated, mappings, often, thousands, vm_size_kib, wait_for_mappings_to_go, wait_until,
};

const TICK: Duration = Duration::from_millis(20);

/// Counts its drops.
struct Dropped(&'static AtomicUsize);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

rt0::test_module! {
    a_thread_starts_with_the_signals_blocked_that_its_builder_says,
    join_returns_what_the_closure_returned,
    join_before_the_end_waits_for_it,
    join_after_the_end_returns_at_once,
    join_sees_all_that_the_thread_wrote,
    closure_and_result_are_dropped_once_when_joined,
    the_result_is_dropped_once_when_detached_before_and_after_the_end,
    a_handle_dropped_just_as_the_thread_ends_loses_nothing,
    thousands_of_joined_threads_leave_nothing => Expect::success().alone(),
    thousands_of_detached_threads_leave_nothing => Expect::success().alone(),
    many_threads_run_at_once,
    threads_start_threads,
    a_process_limit_makes_spawn_fail_with_eagain_and_leaves_nothing => Expect::success().alone(),
    a_limit_on_memory_makes_spawn_fail_with_enomem,
    threads_start_and_end_under_a_storm_of_signals,
    the_signal_mask_is_inherited_from_the_spawning_thread,
    mains_end_is_the_processs => Expect::exit(3),
    a_panic_in_a_thread_ends_the_process_with_101 => Expect::panic("thread 'worker' panicked at "),
    a_thread_that_joins_itself_panics => Expect::panic("a thread cannot join itself"),
    stack::*,
    handle::*,
}

fn a_thread_starts_with_the_signals_blocked_that_its_builder_says() {
    let set = |signals: &[Signal]| signals.iter().copied().collect::<SigSet>();
    let blocked = || signal::mask(How::Block, &SigSet::empty());
    signal::mask(How::Block, &set(&[Signal::SIGUSR1]));
    assert!(spawn(blocked).unwrap().join().contains(Signal::SIGUSR1));
    let own = set(&[Signal::SIGUSR2, Signal::SIGTERM]);
    let found = Builder::new().signal_mask(own).spawn(blocked).unwrap().join();
    assert_eq!(found.as_bytes(), own.as_bytes());
    assert!(blocked().contains(Signal::SIGUSR1) && !blocked().contains(Signal::SIGUSR2), "the parent's stay");
}

fn join_returns_what_the_closure_returned() {
    let text = "moved in";
    assert_eq!(spawn(move || (text.len(), [7u8; 100])).unwrap().join(), (8, [7; 100]));
    spawn(|| ()).unwrap().join();
}

fn join_before_the_end_waits_for_it() {
    static GO: AtomicBool = AtomicBool::new(false);
    static DONE: AtomicBool = AtomicBool::new(false);
    let handle = spawn(|| {
        wait_until("leave to go on", || GO.load(Relaxed));
        thread::sleep(TICK);
        DONE.store(true, Relaxed);
    })
    .unwrap();
    assert!(!handle.is_finished());
    GO.store(true, Relaxed);
    handle.join();
    assert!(DONE.load(Relaxed));
}

fn join_after_the_end_returns_at_once() {
    let handle = spawn(|| 5).unwrap();
    wait_until("the thread to finish", || handle.is_finished());
    thread::sleep(TICK);
    assert_eq!(handle.join(), 5);
}

fn join_sees_all_that_the_thread_wrote() {
    static DATA: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
    for round in 1..=often(1000) {
        spawn(move || DATA.iter().for_each(|word| word.store(round, Relaxed))).unwrap().join();
        assert!(DATA.iter().all(|word| word.load(Relaxed) == round));
    }
}

fn closure_and_result_are_dropped_once_when_joined() {
    static CLOSURES: AtomicUsize = AtomicUsize::new(0);
    static RESULTS: AtomicUsize = AtomicUsize::new(0);
    let captured = Dropped(&CLOSURES);
    let result = spawn(move || {
        let _captured = &captured;
        Dropped(&RESULTS)
    })
    .unwrap()
    .join();
    assert_eq!((CLOSURES.load(Relaxed), RESULTS.load(Relaxed)), (1, 0));
    drop(result);
    assert_eq!(RESULTS.load(Relaxed), 1);
}

fn the_result_is_dropped_once_when_detached_before_and_after_the_end() {
    static RESULTS: AtomicUsize = AtomicUsize::new(0);
    drop(
        spawn(|| {
            thread::sleep(TICK);
            Dropped(&RESULTS)
        })
        .unwrap(),
    );
    wait_until("the detached thread's result to be dropped", || RESULTS.load(Relaxed) == 1);
    let handle = spawn(|| Dropped(&RESULTS)).unwrap();
    wait_until("the thread to finish", || handle.is_finished());
    thread::sleep(TICK);
    assert_eq!(RESULTS.load(Relaxed), 1);
    drop(handle);
    assert_eq!(RESULTS.load(Relaxed), 2);
}

fn a_handle_dropped_just_as_the_thread_ends_loses_nothing() {
    static RESULTS: AtomicUsize = AtomicUsize::new(0);
    let rounds = often(300);
    let before = mappings();
    for round in 0..rounds {
        let handle = spawn(|| Dropped(&RESULTS)).unwrap();
        for _ in 0..round % 50 {
            thread::yield_now();
        }
        drop(handle);
    }
    wait_until("every result to be dropped", || RESULTS.load(Relaxed) == rounds);
    // The first spawn leaves the main thread's signal stack, its guard, and a page that is
    // wiped on fork.
    wait_for_mappings_to_go(before + 3);
}

fn thousands_of_joined_threads_leave_nothing() {
    flat(|| {
        for _ in 0..thousands() {
            spawn(|| ()).unwrap().join();
        }
    });
}

fn thousands_of_detached_threads_leave_nothing() {
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    flat(|| {
        let count = thousands();
        for started in 1..=count {
            drop(spawn(|| ENDED.fetch_add(1, Relaxed)).unwrap());
            // At most 64 at a time.
            wait_until("threads to end", || ENDED.load(Relaxed) + 64 >= started);
        }
        wait_until("every thread to end", || ENDED.load(Relaxed) == count);
    });
}

fn many_threads_run_at_once() {
    static RUNNING: AtomicU32 = AtomicU32::new(0);
    static GO: AtomicU32 = AtomicU32::new(0);
    let threads = [(); 64].map(|()| {
        Builder::new()
            .stack_size(64 << 10)
            .spawn(|| {
                RUNNING.fetch_add(1, Relaxed);
                while GO.load(Acquire) == 0 {
                    let _ = rt0::futex::wait(&GO, 0);
                }
                sys::gettid()
            })
            .unwrap()
    });
    wait_until("all to run", || RUNNING.load(Relaxed) == 64);
    GO.store(1, Release);
    rt0::futex::wake_all(&GO);
    let mut tids = threads.map(|thread| thread.join());
    tids.sort_unstable();
    assert!(tids.is_sorted_by(|a, b| a < b), "each has its own tid");
}

fn threads_start_threads() {
    fn chain(depth: usize) -> usize {
        if depth == 0 { 0 } else { 1 + spawn(move || chain(depth - 1)).unwrap().join() }
    }
    assert_eq!(chain(50), 50);
}

fn a_process_limit_makes_spawn_fail_with_eagain_and_leaves_nothing() {
    static CLOSURES: AtomicUsize = AtomicUsize::new(0);
    // The limit does not apply to root. If the call is refused, the process is not root.
    const NOBODY: usize = 54321;
    // SAFETY: 1. It only changes this process's ids.
    let _ = unsafe { sys::syscall(k::__NR_setresuid as usize, [NOBODY, NOBODY, NOBODY, 0, 0, 0]) };
    spawn(|| ()).unwrap().join(); // The first one's setup stays.
    set_process_limit(0);
    let refused = || {
        let captured = Dropped(&CLOSURES);
        let start = Instant::now();
        assert_eq!(spawn(move || drop(captured)).err(), Some(Errno::EAGAIN));
        assert!(start.elapsed() >= Duration::from_millis(200), "it tried again for {:?}", start.elapsed());
    };
    refused(); // So does an emulator's setup for its first failure.
    let before = mappings();
    (0..4).for_each(|_| refused());
    assert_eq!(CLOSURES.load(Relaxed), 5);
    // Four leaked threads would be eight more mappings.
    assert_mappings(0..=before);
    set_process_limit(1000);
    spawn(|| ()).unwrap().join();
}

fn a_limit_on_memory_makes_spawn_fail_with_enomem() {
    static CLOSURES: AtomicUsize = AtomicUsize::new(0);
    let first = spawn(sys::gettid).unwrap().join(); // The first one's setup stays.
    // qemu-i386 frees a page of its own after the program has seen the thread's end.
    let args = [sys::getpid() as usize, first as usize, 0, 0, 0, 0];
    // SAFETY: 1. Signal 0 only asks.
    let is_gone = || unsafe { sys::syscall(k::__NR_tgkill as usize, args) } == Err(Errno::ESRCH);
    wait_until("the first one to be gone", is_gone);
    let before = mappings();
    for size in [usize::MAX, usize::MAX - 100_000, usize::MAX - (64 << 20)] {
        let captured = Dropped(&CLOSURES);
        assert_eq!(Builder::new().stack_size(size).spawn(move || drop(captured)).err(), Some(Errno::ENOMEM));
    }
    assert_eq!(CLOSURES.load(Relaxed), 3);
    assert_mappings(before..=before);
}

fn threads_start_and_end_under_a_storm_of_signals() {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: i32) {
        // A handler may rely on a thread with a block, a stack and a thread pointer.
        let this = thread::current();
        core::hint::black_box(&this);
        HANDLED.fetch_add(1, Relaxed);
    }
    // SAFETY: 1. The handler only touches atomics.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(count)) }.unwrap();
    let before = mappings();
    let pid = sys::getpid();
    let storm = spawn(move || {
        while !STOP.load(Relaxed) {
            // To the process: any thread that does not block it takes it.
            let args = [pid as usize, Signal::SIGUSR1.raw() as usize, 0, 0, 0, 0];
            // SAFETY: 1. Its handler is installed.
            unsafe { sys::syscall(k::__NR_kill as usize, args) }.unwrap();
            thread::yield_now();
        }
    })
    .unwrap();
    let rounds = often(1000);
    for round in 0..rounds {
        let handle = spawn(move || {
            thread::yield_now();
            ENDED.fetch_add(1, Relaxed);
            round
        })
        .unwrap();
        if round % 2 == 0 {
            assert_eq!(handle.join(), round);
        }
    }
    wait_until("every thread to end", || ENDED.load(Relaxed) == rounds);
    wait_until("a signal", || HANDLED.load(Relaxed) > 0);
    STOP.store(true, Relaxed);
    storm.join();
    wait_for_mappings_to_go(before + 2);
}

fn the_signal_mask_is_inherited_from_the_spawning_thread() {
    let set: signal::SigSet = [Signal::SIGUSR2].into_iter().collect();
    let before = signal::mask(signal::How::Block, &set);
    assert!(!before.contains(Signal::SIGUSR2));
    let inherited = || signal::mask(signal::How::Block, &signal::SigSet::empty());
    let blocked = spawn(inherited).unwrap().join();
    assert!(blocked.contains(Signal::SIGUSR2) && !blocked.contains(Signal::SIGUSR1), "{blocked:?}");
    signal::mask(signal::How::Set, &before);
    let open = spawn(inherited).unwrap().join();
    assert!(!open.contains(Signal::SIGUSR2), "{open:?}");
}

fn mains_end_is_the_processs() {
    drop(
        spawn(|| {
            loop {
                thread::park()
            }
        })
        .unwrap(),
    );
    sys::exit_group(3)
}

fn a_panic_in_a_thread_ends_the_process_with_101() {
    Builder::new().name("worker").spawn(|| panic!("boom")).unwrap().join();
    loop {
        thread::park();
    }
}

fn a_thread_that_joins_itself_panics() {
    static HANDLE: rt0::sync::Mutex<Option<thread::JoinHandle<()>>> = rt0::sync::Mutex::new(None);
    let mut slot = HANDLE.lock();
    *slot = Some(
        spawn(|| {
            let handle = HANDLE.lock().take();
            handle.unwrap().join()
        })
        .unwrap(),
    );
    drop(slot);
    loop {
        thread::park();
    }
}

/// Runs `work` twice, and checks that the second time allocates nothing more.
fn flat(work: fn()) {
    let warm = |count| {
        for _ in 0..count {
            spawn(|| ()).unwrap().join();
        }
    };
    warm(100);
    let (maps, size) = (mappings(), vm_size_kib());
    work();
    wait_for_mappings_to_go(maps + 2);
    if !emulated() {
        // The memory of two threads.
        wait_until("VmSize to be flat", || vm_size_kib() <= size + 2 * 2052);
    }
}

/// RLIMIT_NPROC's soft limit.
fn set_process_limit(soft: u64) {
    let prlimit = |new: usize, old: usize| {
        // SAFETY: 1. The kernel reads or writes the two words that it is given.
        unsafe { sys::syscall(k::__NR_prlimit64 as usize, [0, k::RLIMIT_NPROC as usize, new, old, 0, 0]) }.unwrap();
    };
    let mut now = [0u64; 2];
    prlimit(0, (&raw mut now).expose_provenance());
    let new = [soft.min(now[1]), now[1]];
    prlimit((&raw const new).expose_provenance(), 0);
}
