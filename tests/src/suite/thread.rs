//! Threads: start, end, result, memory, names, parking.

use core::hint::black_box;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, How, SigSet, Signal};
use rt0::sync::Parker;
use rt0::test::Expect;
use rt0::thread::{Builder, Thread, spawn};
use rt0::time::Instant;
use rt0::{Errno, signal, sys, thread};
use rt0_tests::{emulated, mappings, often, read_file, thousands, vm_size_kib, wait_until};

const TICK: Duration = Duration::from_millis(20);

/// Counts its drops.
struct Dropped(&'static AtomicUsize);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

rt0::test_module! {
    a_thread_says_where_its_stack_is,
    the_threads_that_run_are_found,
    the_threads_that_run_are_found_while_threads_come_and_go,
    a_thread_starts_with_the_signals_blocked_that_its_builder_says,
    join_returns_what_the_closure_returned,
    a_thread_has_an_id_of_its_own,
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
    a_stack_of_no_size_is_large_enough_to_run,
    a_stack_of_hardly_any_size_runs_a_closure_and_a_handler,
    a_small_stack_has_room_for_a_large_closure_and_a_large_result,
    a_stack_has_the_size_that_was_asked_for,
    overflowing_a_stack_meets_the_guard_page => Expect::signal(11),
    overaligned_closures_and_results_are_aligned,
    names_are_kept_whole_and_the_kernel_gets_15_bytes,
    a_name_with_a_nul_is_einval,
    ids_are_unique_and_current_is_the_same_thread,
    a_handle_lends_its_thread,
    a_closure_that_borrows_can_be_started_unchecked,
    no_thread_is_ever_panicking,
    a_thread_value_outlives_its_thread,
    unpark_before_park_is_not_lost,
    unpark_wakes_a_parked_thread,
    park_timeouts_of_zero_and_for_ever_do_what_they_say,
    sleep_is_not_early_also_when_signals_interrupt_it,
    threads_start_and_end_under_a_storm_of_signals,
    the_signal_mask_is_inherited_from_the_spawning_thread,
    mains_end_is_the_processs => Expect::exit(3),
    a_panic_in_a_thread_ends_the_process_with_101 => Expect::panic("thread 'worker' panicked at "),
    a_thread_that_joins_itself_panics => Expect::panic("a thread cannot join itself"),
}

fn a_thread_says_where_its_stack_is() {
    assert_eq!(thread::current().stack(), None, "the main thread's is the kernel's to grow");
    let other = Builder::new().stack_size(100 << 10).spawn(|| {
        let local = 0u8;
        let stack = thread::current().stack().unwrap();
        assert!(stack.contains(&(&raw const local).addr()) && stack.len() >= 100 << 10);
        // All of it can be read, and nothing below is part of it.
        for address in stack.clone().step_by(4096) {
            // SAFETY: it is this thread's stack, and below the frames nothing is written
            // meanwhile.
            black_box(unsafe { core::ptr::with_exposed_provenance::<u8>(address).read_volatile() });
        }
        stack
    });
    let other = other.unwrap();
    let (handle, stack) = (other.thread().clone(), other.thread().stack());
    assert_eq!(Some(other.join()), stack);
    assert_eq!(handle.stack(), stack, "also after its end");
}

fn the_threads_that_run_are_found() {
    let ids = |threads: &[Option<Thread>]| threads.iter().flatten().map(Thread::id).fold(0, |n, _| n + 1);
    let mut threads = [const { None }; 4];
    assert_eq!((thread::running(&mut []), thread::running(&mut threads), ids(&threads)), (1, 1, 1));
    assert_eq!(threads[0].as_ref().map(Thread::id), Some(thread::current_id()));
    static STOP: Parker = Parker::new();
    let named = Builder::new().name("found").spawn(|| STOP.park()).unwrap();
    assert_eq!((thread::running(&mut threads), ids(&threads)), (2, 2));
    let found = threads.iter().flatten().find(|thread| thread.name() == Some("found")).unwrap();
    assert_eq!(found.id(), named.thread().id());
    let mut first = [None];
    assert_eq!((thread::running(&mut first), ids(&first)), (2, 1), "as many as fit");
    STOP.unpark();
    named.join();
    assert_eq!((thread::running(&mut threads), ids(&threads)), (1, 1), "the others' places are empty");
}

fn the_threads_that_run_are_found_while_threads_come_and_go() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let churn = [(); 2].map(|()| {
        spawn(|| {
            while !STOP.load(Relaxed) {
                spawn(thread::yield_now).unwrap().join();
            }
        })
        .unwrap()
    });
    let mut threads = [const { None }; 8];
    for _ in 0..often(500) {
        let count = thread::running(&mut threads);
        assert!((3..=5).contains(&count) && threads.iter().flatten().count() == count, "{count}");
    }
    STOP.store(true, Relaxed);
    churn.into_iter().for_each(|thread| thread.join());
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

fn a_thread_has_an_id_of_its_own() {
    let (tid, pid) = spawn(|| (sys::gettid(), sys::getpid())).unwrap().join();
    assert_ne!(tid, sys::gettid());
    assert_eq!(pid, sys::getpid());
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
    wait_until("every mapping to be gone", || mappings() <= before + 3);
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
    // Four leaked threads would be eight more mappings. An emulator's cached stacks appear
    // among the program's mappings.
    let after = mappings();
    assert!(after <= before + if emulated() { 4 } else { 0 }, "{before} mappings, then {after}");
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
    assert_eq!(mappings(), before);
}

fn a_stack_of_no_size_is_large_enough_to_run() {
    let work = || [1u8; 1000].iter().map(|n| *n as u32).sum::<u32>();
    assert_eq!(Builder::new().stack_size(0).spawn(work).unwrap().join(), 1000);
}

fn a_stack_of_hardly_any_size_runs_a_closure_and_a_handler() {
    #[inline(never)]
    fn use_stack() -> usize {
        core::hint::black_box([1u8; 2 << 10]).iter().map(|n| *n as usize).sum()
    }
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handle(_: i32) {
        HANDLED.fetch_add(use_stack(), Relaxed);
    }
    // SAFETY: 1. It writes an atomic.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(handle)) }.unwrap();
    for size in [0, 1, 4095, 4096, 4097, 8 << 10, (16 << 10) - 1, 16 << 10, (16 << 10) + 1, 64 << 10] {
        HANDLED.store(0, Relaxed);
        let thread = Builder::new().name("small").stack_size(size).spawn(move || {
            let used = use_stack();
            signal::raise(Signal::SIGUSR1).unwrap();
            used
        });
        assert_eq!((thread.unwrap().join(), HANDLED.load(Relaxed)), (2 << 10, 2 << 10), "a stack of {size}");
    }
}

fn a_small_stack_has_room_for_a_large_closure_and_a_large_result() {
    let captured = core::hint::black_box([3u8; 60_000]);
    let thread = Builder::new().stack_size(0).spawn(move || captured);
    assert!(thread.unwrap().join().iter().all(|n| *n == 3));
}

fn a_stack_has_the_size_that_was_asked_for() {
    fn use_stack(kib: usize) -> usize {
        let frame = core::hint::black_box([1u8; 1024]);
        if kib == 0 { 0 } else { use_stack(kib - 1) + frame[kib % 1024] as usize }
    }
    // An eighth of the stack, because unoptimised frames hold more than their array.
    assert_eq!(Builder::new().stack_size(32 << 20).spawn(|| use_stack(4 << 10)).unwrap().join(), 4 << 10);
}

fn overflowing_a_stack_meets_the_guard_page() {
    #[allow(unconditional_recursion)]
    fn forever(n: usize) -> usize {
        let frame = core::hint::black_box([n as u8; 256]);
        forever(core::hint::black_box(n + 1)) + frame[n % 256] as usize
    }
    // Otherwise the stack of a thread right below would be overwritten.
    let _neighbours = [(); 4].map(|()| spawn(thread::park).unwrap());
    spawn(|| forever(0)).unwrap().join();
}

fn overaligned_closures_and_results_are_aligned() {
    #[repr(align(256))]
    struct Aligned(u8);
    // More than a page. (Not 64 KiB: for such locals LLVM clears the stack pointer on MIPS.)
    #[repr(align(16384))]
    struct Huge(u8);
    fn is_aligned<T>(value: &T) -> bool {
        core::hint::black_box(&raw const *value).addr().is_multiple_of(align_of::<T>())
    }
    let (aligned, huge) = (Aligned(1), Huge(2));
    let result = Builder::new().stack_size(1 << 20).spawn(move || {
        assert!(is_aligned(&aligned) && is_aligned(&huge));
        Aligned(aligned.0 + huge.0)
    });
    let result = result.unwrap().join();
    assert!(is_aligned(&result));
    assert_eq!(result.0, 3);
}

fn names_are_kept_whole_and_the_kernel_gets_15_bytes() {
    let name_of_kernel = || {
        let mut buf = [0; 64];
        let comm = read_file(c"/proc/thread-self/comm", &mut buf).unwrap();
        let mut kept = [0; 16];
        kept[..comm.len().min(16)].copy_from_slice(&comm[..comm.len().min(16)]);
        (thread::current(), kept)
    };
    for (name, kernel) in [
        ("worker", &b"worker\n"[..]),
        ("a name longer than the kernel keeps", b"a name longer t\n"),
        ("cut between ä and ö", b"cut between \xc3\xa4 \n"),
        ("", b"\n"),
    ] {
        let (this, comm) = Builder::new().name(name).spawn(name_of_kernel).unwrap().join();
        assert_eq!(this.name(), Some(name));
        assert_eq!(&comm[..kernel.len()], kernel, "{name}");
    }
}

fn a_name_with_a_nul_is_einval() {
    assert_eq!(Builder::new().name("a\0b").spawn(|| ()).err(), Some(Errno::EINVAL));
}

fn ids_are_unique_and_current_is_the_same_thread() {
    let handle = spawn(|| (thread::current().id(), thread::current().name().is_none())).unwrap();
    let id = handle.thread().id();
    assert_eq!(handle.join(), (id, true));
    assert_ne!(id, thread::current().id());
    assert_eq!(thread::current().id(), thread::current().id());
}

fn a_handle_lends_its_thread() {
    let handle = Builder::new().name("lent").spawn(thread::park).unwrap();
    let lent: &Thread = handle.thread();
    assert_eq!((lent.name(), lent.id()), (Some("lent"), handle.thread().id()));
    lent.unpark();
    handle.join();
}

fn a_closure_that_borrows_can_be_started_unchecked() {
    let (numbers, mut sum) = ([1, 2, 3], 0);
    // SAFETY: 1. It is joined at once.
    let handle = unsafe { Builder::new().spawn_unchecked(|| sum = numbers.iter().sum()) };
    handle.unwrap().join();
    assert_eq!(sum, 6);
}

fn no_thread_is_ever_panicking() {
    assert!(!thread::panicking() && !spawn(thread::panicking).unwrap().join());
}

fn a_thread_value_outlives_its_thread() {
    spawn(|| ()).unwrap().join(); // The first one's setup stays.
    let before = mappings();
    let handle = Builder::new().name("gone").spawn(|| ()).unwrap();
    let kept: Thread = handle.thread().clone();
    let copy = kept.clone();
    handle.join();
    copy.unpark();
    assert_eq!(copy.name(), Some("gone"));
    drop(kept);
    assert_eq!(copy.name(), Some("gone"));
    drop(copy);
    assert!(mappings() <= before + 1);
}

fn unpark_before_park_is_not_lost() {
    thread::current().unpark();
    thread::current().unpark();
    thread::park();
    let start = Instant::now();
    thread::park_timeout(TICK);
    assert!(start.elapsed() >= TICK, "two unparks are one token");
}

fn unpark_wakes_a_parked_thread() {
    static WOKEN: AtomicUsize = AtomicUsize::new(0);
    let handle = spawn(|| {
        for _ in 0..500 {
            thread::park();
            WOKEN.fetch_add(1, Release);
        }
    })
    .unwrap();
    for round in 1..=500 {
        handle.thread().unpark();
        wait_until("the parked thread", || WOKEN.load(Acquire) >= round);
    }
    handle.join();
}

fn park_timeouts_of_zero_and_for_ever_do_what_they_say() {
    thread::park_timeout(Duration::ZERO);
    let parked = spawn(|| thread::park_timeout(Duration::MAX)).unwrap();
    thread::sleep(TICK);
    assert!(!parked.is_finished());
    parked.thread().unpark();
    parked.join();
}

fn sleep_is_not_early_also_when_signals_interrupt_it() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: 1. The handler does nothing.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(nothing)) }.unwrap();
    let (pid, tid) = (sys::getpid(), sys::gettid());
    static STOP: AtomicBool = AtomicBool::new(false);
    let storm = spawn(move || {
        while !STOP.load(Relaxed) {
            sys::tgkill(pid, tid, Signal::SIGUSR1.raw()).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
    });
    let start = Instant::now();
    thread::sleep(Duration::from_millis(100));
    assert!(start.elapsed() >= Duration::from_millis(100));
    STOP.store(true, Relaxed);
    storm.unwrap().join();
    thread::sleep(Duration::ZERO);
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
    wait_until("every mapping to be gone", || mappings() <= before + 2);
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
    wait_until("every mapping to be gone", || mappings() <= maps + 2);
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
