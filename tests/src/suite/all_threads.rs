//! One system call on every thread.

use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use core::time::Duration;

use linux_raw_sys::{general as k, prctl};
use rt0::all_threads::{self, Error, FilterStep};
use rt0::signal::{Action, How, SigSet, Signal, mask, sigaction};
use rt0::test::Expect;
use rt0::thread::{Builder, JoinHandle, spawn};
use rt0::{Env, Errno, futex, println, sys, thread};
use rt0_tests::files::{empty, own_mounts};
use rt0_tests::seccomp::{Verdict, filter, filter_calls, need_filters};
use rt0_tests::{emulated, in_raw_child, mappings, often, skip, slow, stress_time, wait_until};

const KEEPCAPS: [usize; 2] = [prctl::PR_SET_KEEPCAPS as usize, prctl::PR_GET_KEEPCAPS as usize];

/// A flag that the kernel keeps per thread; it needs no rights and has no effect here.
fn set_flag_on_all(value: usize) -> all_threads::Result<usize> {
    // SAFETY: 1. It touches no memory.
    unsafe { all_threads::syscall(k::__NR_prctl as usize, [KEEPCAPS[0], value, 0, 0, 0, 0]) }
}

fn flag() -> usize {
    // SAFETY: 1. It only asks.
    unsafe { sys::syscall(k::__NR_prctl as usize, [KEEPCAPS[1], 0, 0, 0, 0, 0]) }.unwrap()
}

/// A counter in the kernel: an eventfd(2).
fn counter() -> usize {
    // SAFETY: 1. A new descriptor.
    unsafe { sys::syscall(k::__NR_eventfd2 as usize, [0, k::O_NONBLOCK as usize, 0, 0, 0, 0]) }.unwrap()
}

/// Makes every thread increment the counter: this shows that each thread makes the call once.
fn count_all(counter: usize) -> all_threads::Result<usize> {
    static ONE: u64 = 1;
    // SAFETY: 1. The kernel reads the number.
    unsafe { all_threads::syscall(k::__NR_write as usize, [counter, (&raw const ONE).expose_provenance(), 8, 0, 0, 0]) }
}

fn counted(counter: usize) -> u64 {
    let mut number = [0; 8];
    assert_eq!(sys::read(rt0_tests::numbered(counter as i32), &mut number), Ok(8));
    u64::from_ne_bytes(number)
}

fn pipe() -> [i32; 2] {
    let mut fds = [0i32; 2];
    // SAFETY: 1. The kernel writes the two numbers.
    unsafe { sys::syscall(k::__NR_pipe2 as usize, [(&raw mut fds).expose_provenance(), 0, 0, 0, 0, 0]) }.unwrap();
    fds
}

/// The number of tasks that the kernel lists for this process.
fn tasks() -> usize {
    let folder = sys::open(c"/proc/self/task", k::O_RDONLY | k::O_DIRECTORY, 0).unwrap();
    let mut names = [0u8; 4096];
    let args = [folder.as_raw_fd() as usize, names.as_mut_ptr().expose_provenance(), names.len(), 0, 0, 0];
    // SAFETY: 1. The kernel writes the entries.
    let filled = unsafe { sys::syscall(k::__NR_getdents64 as usize, args) }.unwrap();
    let (mut entries, mut at) = (0, 0);
    while at < filled {
        at += usize::from(u16::from_ne_bytes([names[at + 16], names[at + 17]])); // d_reclen
        entries += 1;
    }
    entries - 2
}

/// How often this thread slept voluntarily in `f`: this reveals a wait in steps of a millisecond,
/// however slow the machine is.
fn naps_of(f: impl FnOnce()) -> usize {
    let naps = || {
        let mut usage = [0usize; 64]; // struct rusage; `ru_nvcsw` is its last but one field.
        let at = (&raw mut usage).expose_provenance();
        // SAFETY: 1. The kernel writes the structure.
        unsafe { sys::syscall(k::__NR_getrusage as usize, [k::RUSAGE_THREAD as usize, at, 0, 0, 0, 0]) }.unwrap();
        usage[core::mem::offset_of!(k::rusage, ru_nvcsw) / size_of::<usize>()]
    };
    let before = naps();
    f();
    naps() - before
}

/// Threads that sleep until they are released.
struct Sleepers<const N: usize> {
    threads: [JoinHandle<usize>; N],
}

static LET_GO: AtomicU32 = AtomicU32::new(0);

impl<const N: usize> Sleepers<N> {
    fn start() -> Sleepers<N> {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let before = RUNNING.load(Relaxed);
        LET_GO.store(0, Relaxed);
        let threads = core::array::from_fn(|_| {
            Builder::new()
                .stack_size(0)
                .spawn(|| {
                    RUNNING.fetch_add(1, Relaxed);
                    while LET_GO.load(Acquire) == 0 {
                        let _ = futex::wait(&LET_GO, 0);
                    }
                    flag()
                })
                .unwrap()
        });
        wait_until("all to run", || RUNNING.load(Relaxed) == before + N);
        Sleepers { threads }
    }

    /// Each thread's flag at its end.
    fn end(self) -> [usize; N] {
        LET_GO.store(1, Release);
        futex::wake_all(&LET_GO);
        self.threads.map(|thread| thread.join())
    }
}

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

fn skip_without(errno: Errno, reason: &str) {
    if [Errno::ENOSYS, Errno::EINVAL].contains(&errno) {
        skip(reason);
    }
}

rt0::test_module! {
    alone_it_is_a_plain_call,
    every_thread_makes_the_call_once,
    hundreds_of_threads_make_the_call_once => Expect::success().alone(),
    each_thread_that_is_there_has_what_was_set,
    a_refused_call_reaches_no_other_thread,
    a_call_that_only_the_caller_is_refused_reaches_no_other_thread,
    a_thread_that_waits_in_read_makes_the_call_and_goes_on_waiting,
    it_works_from_another_thread_than_main,
    it_works_where_the_program_blocks_every_signal,
    callers_at_once_take_turns,
    threads_that_start_and_end_meanwhile_have_what_was_set,
    callers_spawners_and_a_storm_of_signals_at_once_lose_nothing => Expect::success().alone(),
    everything_at_once_loses_nothing_and_leaves_nothing => Expect::success().alone(),
    a_thread_with_another_result_is_named,
    a_result_that_differs_by_nature_is_a_mismatch_of_each,
    of_two_that_mark_and_look_one_sees_the_other,
    without_membarrier_a_heavy_fence_interrupts_each_thread,
    or_abort_ends_a_process_whose_threads_differ =>
        Expect::signal(6)
            .stderr("rt0: fatal: a system call on all threads left them different: thread "),
    or_abort_hands_on_what_the_kernel_refused,
    a_thread_that_dies_of_the_call_is_not_waited_for,
    a_thread_that_was_killed_has_no_result_to_join =>
        Expect::panic("a thread ended without a result"),
    a_thread_of_the_kernels_own_is_no_thread_of_the_program,
    a_thread_that_rt0_did_not_start_is_reported_at_once =>
        Expect::success().native("qemu-user makes no such thread"),
    only_a_thread_that_is_alone_in_its_process_may_unshare_it,
    where_unshare_is_refused_a_call_alone_is_made_all_the_same,
    without_proc_the_threads_of_the_list_make_the_call,
    where_33_cannot_be_caught_it_is_not_supported,
    where_33_cannot_be_sent_it_is_not_supported,
    a_full_queue_of_signals_is_eagain_and_no_thread_makes_the_call,
    a_signal_33_from_other_code_changes_nothing,
    a_change_of_the_mask_is_the_callers_alone,
    credentials_are_the_processs,
    ids_at_the_end_of_their_range_are_ids,
    no_new_privs_and_filters_are_the_processs,
    a_thread_with_a_filter_of_its_own_stands_in_the_way_of_one_for_all,
    landlock_is_the_processs,
}

fn alone_it_is_a_plain_call() {
    assert_eq!(set_flag_on_all(1).unwrap(), 0);
    assert_eq!(flag(), 1);
    // SAFETY: 1. It only asks.
    assert_eq!(unsafe { all_threads::syscall(k::__NR_getpid as usize, [0; 6]) }.unwrap(), sys::getpid() as usize);
}

fn every_thread_makes_the_call_once() {
    let counter = counter();
    let sleepers = Sleepers::<10>::start();
    for _ in 0..100 {
        assert_eq!(count_all(counter).unwrap(), 8);
        assert_eq!(counted(counter), 11);
    }
    set_flag_on_all(1).unwrap();
    assert_eq!(sleepers.end(), [1; 10]);
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

/// Threads start and end between the calls, and each live thread has the value that the last
/// call set.
fn each_thread_that_is_there_has_what_was_set() {
    const THREADS: usize = 11;
    static ROUND: AtomicU32 = AtomicU32::new(0);
    static LOOKING: AtomicU32 = AtomicU32::new(0);
    /// The number of threads that will answer the next round.
    static STAYING: AtomicU32 = AtomicU32::new(0);
    static ANSWERS: AtomicU32 = AtomicU32::new(0);
    static RIGHT: AtomicU32 = AtomicU32::new(0);
    fn answer_each_round(mine: usize) {
        let mut seen = ROUND.load(Acquire);
        STAYING.fetch_add(1, Relaxed);
        LOOKING.fetch_add(1, Release);
        loop {
            let round = ROUND.load(Acquire);
            if round == seen {
                let _ = futex::wait(&ROUND, round);
                continue;
            }
            seen = round;
            let is_last = round as usize == 2 * THREADS || mine % 5 == 4 && round as usize > 2 * mine + 2;
            STAYING.fetch_sub(is_last as u32, Relaxed);
            RIGHT.fetch_add((flag() == (round & 1) as usize) as u32, Relaxed);
            ANSWERS.fetch_add(1, Release);
            if is_last {
                return;
            }
        }
    }
    let mut threads = [const { None }; THREADS];
    for (launch, thread) in threads.iter_mut().enumerate() {
        *thread = Some(spawn(move || answer_each_round(launch)).unwrap());
        wait_until("the thread to look", || LOOKING.load(Acquire) as usize > launch);
        for value in [1, 0] {
            set_flag_on_all(value).unwrap();
            let staying = STAYING.load(Relaxed);
            RIGHT.store(0, Relaxed);
            ANSWERS.store(0, Relaxed);
            assert_eq!(ROUND.fetch_add(1, Release) & 1, 1 - value as u32);
            futex::wake_all(&ROUND);
            wait_until("every thread to answer", || ANSWERS.load(Acquire) == staying);
            assert_eq!(RIGHT.load(Relaxed), staying, "all read {value}");
        }
    }
    threads.into_iter().flatten().for_each(|thread| thread.join());
}

fn a_refused_call_reaches_no_other_thread() {
    let counter = counter();
    let sleepers = Sleepers::<3>::start();
    let bad = [counter, 8, 8, 0, 0, 0];
    // SAFETY: 1. Refused.
    let refused = unsafe { all_threads::syscall(k::__NR_write as usize, bad) };
    assert!(matches!(refused, Err(Error::Refused(Errno::EFAULT))), "{refused:?}");
    assert!(matches!(set_flag_on_all(2), Err(Error::Refused(Errno::EINVAL))));
    assert_eq!(sleepers.end(), [0; 3]);
}

fn a_call_that_only_the_caller_is_refused_reaches_no_other_thread() {
    let sleepers = Sleepers::<3>::start();
    let refused = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_prctl], 0x5_0000 | Errno::EXDEV.raw() as u32) {
            skip_without(errno, "no seccomp filters here");
        }
        set_flag_on_all(1)
    });
    let refused = refused.unwrap().join();
    assert!(matches!(refused, Err(Error::Refused(Errno::EXDEV))), "{refused:?}");
    assert_eq!(sleepers.end(), [0; 3]);
}

fn a_thread_that_waits_in_read_makes_the_call_and_goes_on_waiting() {
    let fds = pipe();
    static TID: AtomicU32 = AtomicU32::new(0);
    let reader = spawn(move || {
        TID.store(sys::gettid(), Relaxed);
        (sys::read(rt0_tests::numbered(fds[0]), &mut [0; 1]), flag())
    })
    .unwrap();
    wait_until("the reader", || TID.load(Relaxed) != 0);
    thread::sleep(Duration::from_millis(20));
    for _ in 0..100 {
        set_flag_on_all(1).unwrap();
    }
    assert!(!reader.is_finished());
    // SAFETY: 1. The test's own.
    unsafe { sys::syscall(k::__NR_close as usize, [fds[1] as usize, 0, 0, 0, 0, 0]) }.unwrap();
    assert_eq!(reader.join(), (Ok(0), 1));
}

fn it_works_from_another_thread_than_main() {
    let counter = counter();
    let sleepers = Sleepers::<5>::start();
    spawn(move || {
        set_flag_on_all(1).unwrap();
        assert_eq!(count_all(counter).unwrap(), 8);
        assert_eq!((counted(counter), flag()), (7, 1));
    })
    .unwrap()
    .join();
    assert_eq!(flag(), 1);
    assert_eq!(sleepers.end(), [1; 5]);
}

fn it_works_where_the_program_blocks_every_signal() {
    let counter = counter();
    let before = mask(How::Set, &SigSet::full());
    let sleepers = Sleepers::<5>::start();
    assert_eq!(count_all(counter).unwrap(), 8);
    assert_eq!(counted(counter), 6);
    assert!(mask(How::Set, &before).contains(Signal::SIGTERM));
    sleepers.end();
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
    wait_until("every mapping to be gone", || mappings() <= before + 2);
}

fn a_thread_with_another_result_is_named() {
    static TID: AtomicU32 = AtomicU32::new(0);
    let sleepers = Sleepers::<3>::start();
    static END: AtomicBool = AtomicBool::new(false);
    let other = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_prctl], 0x5_0000 | Errno::EXDEV.raw() as u32) {
            skip_without(errno, "no seccomp filters here");
        }
        TID.store(sys::gettid(), Relaxed);
        wait_until("the end", || END.load(Relaxed));
    })
    .unwrap();
    wait_until("the filter", || TID.load(Relaxed) != 0);
    let Err(Error::Diverged(divergence)) = set_flag_on_all(1) else { panic!("no divergence") };
    let mismatch = divergence.mismatches().next().unwrap();
    assert_eq!((mismatch.tid, mismatch.expected, mismatch.got), (TID.load(Relaxed), 0, Err(Errno::EXDEV)));
    assert_eq!((divergence.mismatch_count(), divergence.unlisted_count()), (1, 0));
    END.store(true, Relaxed);
    other.join();
    assert_eq!(sleepers.end(), [1; 3], "all others made it");
    assert!(set_flag_on_all(0).is_ok());
}

fn a_result_that_differs_by_nature_is_a_mismatch_of_each() {
    let sleepers = Sleepers::<20>::start();
    // SAFETY: 1. It only asks.
    let Err(Error::Diverged(divergence)) = (unsafe { all_threads::syscall(k::__NR_gettid as usize, [0; 6]) }) else {
        panic!("no divergence")
    };
    assert_eq!((divergence.mismatch_count(), divergence.mismatches().count()), (20, 4));
    assert!(divergence.mismatches().all(|one| one.got == Ok(one.tid as usize)));
    sleepers.end();
}

/// The store-buffer test: each thread stores its word and loads the other's. With a light fence
/// on the one side and a heavy one on the other, not both find the old value.
fn of_two_that_mark_and_look_one_sees_the_other() {
    static ROUND: AtomicU32 = AtomicU32::new(0);
    static WORDS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    let rounds = often(4_000) as u32;
    let light = spawn(move || {
        for round in 1..=rounds {
            while ROUND.load(Acquire) != round {
                core::hint::spin_loop();
                if slow() || round % 64 == 0 {
                    thread::yield_now();
                }
            }
            WORDS[0].store(round, Relaxed);
            all_threads::light_fence();
            SEEN.store(WORDS[1].load(Relaxed), Relaxed);
            DONE.store(round, Release);
        }
    })
    .unwrap();
    for round in 1..=rounds {
        ROUND.store(round, Release);
        WORDS[1].store(round, Relaxed);
        all_threads::heavy_fence().unwrap();
        let seen = WORDS[0].load(Relaxed);
        wait_until("the other's look", || DONE.load(Acquire) == round);
        assert!(seen == round || SEEN.load(Relaxed) == round, "round {round}: both saw the old value");
    }
    light.join();
}

fn without_membarrier_a_heavy_fence_interrupts_each_thread() {
    filter(&[k::__NR_membarrier], Verdict::Refuse(Errno::ENOSYS), Verdict::Allow);
    static STOP: AtomicBool = AtomicBool::new(false);
    let others = [(); 2].map(|()| {
        spawn(|| {
            while !STOP.load(Relaxed) {
                core::hint::spin_loop()
            }
        })
        .unwrap()
    });
    (0..often(100)).for_each(|_| all_threads::heavy_fence().unwrap());
    STOP.store(true, Relaxed);
    others.into_iter().for_each(|other| other.join());
}

fn or_abort_ends_a_process_whose_threads_differ() {
    let _sleepers = Sleepers::<1>::start();
    // SAFETY: 1. It only asks.
    let refused = unsafe { all_threads::syscall(k::__NR_gettid as usize, [0; 6]) }.map_err(Error::errno_or_abort);
    panic!("it went on: {refused:?}");
}

fn or_abort_hands_on_what_the_kernel_refused() {
    assert_eq!(set_flag_on_all(2).map_err(Error::errno_or_abort), Err(Errno::EINVAL));
}

/// A filter kills the thread in its handler.
fn a_thread_that_dies_of_the_call_is_not_waited_for() {
    static READY: AtomicBool = AtomicBool::new(false);
    let sleepers = Sleepers::<2>::start();
    let doomed = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_prctl], 0) {
            skip_without(errno, "no seccomp filters here");
        }
        READY.store(true, Relaxed);
        loop {
            thread::sleep(Duration::from_millis(10));
        }
    })
    .unwrap();
    wait_until("the filter", || READY.load(Relaxed));
    let Err(Error::Diverged(divergence)) = set_flag_on_all(1) else { panic!("no divergence") };
    assert_eq!(divergence.mismatch_count(), 1);
    assert_eq!(divergence.mismatches().next().unwrap().got, Err(Errno::ESRCH));
    drop::<JoinHandle<()>>(doomed);
    let before = mappings();
    set_flag_on_all(1).unwrap();
    assert!(mappings() < before, "its memory is given back");
    assert_eq!(sleepers.end(), [1; 2]);
}

fn a_thread_that_was_killed_has_no_result_to_join() {
    let doomed = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_getppid], 0) {
            skip_without(errno, "no seccomp filters here");
        }
        // SAFETY: 1. The filter kills this thread.
        let _ = unsafe { sys::syscall(k::__NR_getppid as usize, [0; 6]) };
    });
    doomed.unwrap().join();
}

fn a_thread_of_the_kernels_own_is_no_thread_of_the_program() {
    #[repr(C)]
    struct Params([u32; 30]); // struct io_uring_params
    let mut params = Params([0; 30]);
    params.0[2] = 2; // flags: IORING_SETUP_SQPOLL, a kernel thread in this process.
    let ring = [4, (&raw mut params).expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel fills in the parameters.
    if let Err(errno) = unsafe { sys::syscall(k::__NR_io_uring_setup as usize, ring) } {
        if errno == Errno::EPERM {
            skip("io_uring is forbidden here");
        }
        skip_without(errno, "no io_uring here");
        panic!("{errno}");
    }
    wait_until("the kernel's thread", || tasks() == 2);
    let sleepers = Sleepers::<2>::start();
    assert!(naps_of(|| (0..10).for_each(|turn| assert_eq!(set_flag_on_all(turn % 2).unwrap(), 0))) < 500);
    assert_eq!(sleepers.end(), [1; 2]);
}

/// The child of a clone(2) that bypasses rt0 and shares everything. Its parent waits until it
/// ends, as with vfork(2), so the parent is a thread that the child does not know and that
/// answers nothing.
fn a_thread_that_rt0_did_not_start_is_reported_at_once() {
    spawn(|| ()).unwrap().join();
    static PARENT: AtomicU32 = AtomicU32::new(0);
    PARENT.store(sys::gettid(), Relaxed);
    let flags = k::CLONE_VM | k::CLONE_SIGHAND | k::CLONE_THREAD | k::CLONE_VFORK;
    in_raw_child(flags, || {
        let naps = naps_of(|| {
            let Err(Error::Diverged(divergence)) = set_flag_on_all(1) else { panic!("no divergence") };
            assert_eq!((divergence.mismatch_count(), divergence.unlisted()), (0, &[PARENT.load(Relaxed)][..]));
        });
        assert!(naps < 50, "{naps}");
    });
}

/// A call on all threads uses this to see that the caller is the only thread.
fn only_a_thread_that_is_alone_in_its_process_may_unshare_it() {
    // SAFETY: 1. It changes nothing.
    let unshare = || unsafe { sys::syscall(k::__NR_unshare as usize, [k::CLONE_THREAD as usize, 0, 0, 0, 0, 0]) };
    // An emulator has its own threads.
    if !emulated() {
        unshare().unwrap();
    }
    let sleepers = Sleepers::<1>::start();
    assert_eq!(unshare(), Err(Errno::EINVAL));
    sleepers.end();
    set_flag_on_all(1).unwrap();
}

fn where_unshare_is_refused_a_call_alone_is_made_all_the_same() {
    if let Err(errno) = filter_calls(&[k::__NR_unshare], 0x5_0000 | Errno::EPERM.raw() as u32) {
        skip_without(errno, "no seccomp filters here");
    }
    set_flag_on_all(1).unwrap();
    assert_eq!(flag(), 1);
}

/// Then only rt0's own list says which threads there are.
fn without_proc_the_threads_of_the_list_make_the_call() {
    own_mounts();
    empty(c"/proc");
    let counter = counter();
    let sleepers = Sleepers::<3>::start();
    assert_eq!(count_all(counter).unwrap(), 8);
    assert_eq!(counted(counter), 4);
    set_flag_on_all(1).unwrap();
    assert_eq!(sleepers.end(), [1; 3]);
}

fn where_33_cannot_be_caught_it_is_not_supported() {
    let sleepers = Sleepers::<1>::start();
    if let Err(errno) = filter_calls(&[k::__NR_rt_sigaction], 0x5_0000 | Errno::EINVAL.raw() as u32) {
        skip_without(errno, "no seccomp filters here");
    }
    assert!(matches!(set_flag_on_all(1), Err(Error::Refused(Errno::EOPNOTSUPP))));
    assert_eq!((flag(), sleepers.end()), (0, [0]));
}

fn where_33_cannot_be_sent_it_is_not_supported() {
    let sleepers = Sleepers::<1>::start();
    if let Err(errno) = filter_calls(&[k::__NR_tgkill], 0x5_0000 | Errno::EINVAL.raw() as u32) {
        skip_without(errno, "no seccomp filters here");
    }
    assert!(matches!(set_flag_on_all(1), Err(Error::Refused(Errno::EOPNOTSUPP))));
    assert_eq!((flag(), sleepers.end()), (0, [0]));
}

fn a_full_queue_of_signals_is_eagain_and_no_thread_makes_the_call() {
    let sleepers = Sleepers::<2>::start();
    set_flag_on_all(0).unwrap();
    let none = [0u64; 2];
    let limit = [0, k::RLIMIT_SIGPENDING as usize, (&raw const none).expose_provenance(), 0, 0, 0];
    // SAFETY: 1. The kernel reads the limits.
    unsafe { sys::syscall(k::__NR_prlimit64 as usize, limit) }.unwrap();
    assert!(matches!(set_flag_on_all(1), Err(Error::Refused(Errno::EAGAIN))));
    assert_eq!((flag(), sleepers.end()), (0, [0, 0]));
}

fn a_signal_33_from_other_code_changes_nothing() {
    let counter = counter();
    let sleepers = Sleepers::<2>::start();
    count_all(counter).unwrap();
    for _ in 0..10 {
        sys::tgkill(sys::getpid(), sys::gettid(), 33).unwrap();
    }
    assert_eq!(counted(counter), 3);
    sleepers.end();
}

/// The return from a handler restores the mask.
fn a_change_of_the_mask_is_the_callers_alone() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static CALLED: AtomicBool = AtomicBool::new(false);
    let other = spawn(|| {
        SEEN.store(1, Relaxed);
        wait_until("the call", || CALLED.load(Relaxed));
        mask(How::Block, &SigSet::empty()).contains(Signal::SIGUSR1)
    })
    .unwrap();
    wait_until("the thread", || SEEN.load(Relaxed) == 1);
    let set = [0xffu8; 16];
    let size = size_of::<k::kernel_sigset_t>();
    let args = [k::SIG_BLOCK as usize, (&raw const set).expose_provenance(), 0, size, 0, 0];
    // SAFETY: 1. The kernel reads the set.
    unsafe { all_threads::syscall(k::__NR_rt_sigprocmask as usize, args) }.unwrap();
    CALLED.store(true, Relaxed);
    assert!(!other.join());
}

fn credentials_are_the_processs() {
    const NOBODY: u32 = 54321;
    fn ids(nr: u32) -> Option<[u32; 3]> {
        let mut ids = [0u32; 3];
        let at = ids.each_mut().map(|id| (id as *mut u32).expose_provenance());
        // SAFETY: 1. The kernel writes the three.
        unsafe { sys::syscall(nr as usize, [at[0], at[1], at[2], 0, 0, 0]) }.ok()?;
        Some(ids)
    }
    static STEP: AtomicU32 = AtomicU32::new(0);
    static RIGHT: AtomicU32 = AtomicU32::new(0);
    // SAFETY: 1. It only asks.
    if unsafe { sys::syscall(k::__NR_geteuid as usize, [0; 6]) } != Ok(0) {
        skip("only root can change its ids");
    }
    let threads = [(); 4].map(|()| {
        spawn(|| {
            wait_until("the change", || STEP.load(Acquire) == 1);
            // The 16-bit calls would truncate larger ids.
            let user = ids(k::__NR_getresuid).unwrap();
            let group = ids(k::__NR_getresgid).unwrap();
            RIGHT.fetch_add((user == [NOBODY; 3] && group == [NOBODY + 1; 3]) as u32, Relaxed);
        })
        .unwrap()
    });
    if let Err(error) = all_threads::setgroups(&[1, NOBODY]) {
        assert!(matches!(error, Error::Refused(Errno::EPERM)), "{error}");
        skip("a namespace without setgroups");
    }
    all_threads::setresgid(NOBODY + 1, NOBODY + 1, u32::MAX).unwrap();
    all_threads::setgid(NOBODY + 1).unwrap();
    all_threads::setresuid(u32::MAX, u32::MAX, u32::MAX).unwrap();
    all_threads::setuid(NOBODY).unwrap();
    STEP.store(1, Release);
    threads.into_iter().for_each(|thread| thread.join());
    assert_eq!(RIGHT.load(Relaxed), 4);
    assert!(matches!(all_threads::setuid(0), Err(Error::Refused(Errno::EPERM))));
    assert!(matches!(all_threads::setgroups(&[]), Err(Error::Refused(Errno::EPERM))));
}

/// The 4095 largest ids look like errors on 32-bit machines.
fn ids_at_the_end_of_their_range_are_ids() {
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    use k::{__NR_getegid as GETEGID, __NR_geteuid as GETEUID, __NR_setfsuid as SETFSUID};
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    use k::{__NR_getegid32 as GETEGID, __NR_geteuid32 as GETEUID, __NR_setfsuid32 as SETFSUID};
    // SAFETY: 1. It only asks, or sets the ids for opening files.
    let call = |nr: u32, id: u32| unsafe { sys::syscall(nr as usize, [id as usize, 0, 0, 0, 0, 0]) };
    if call(GETEUID, 0) != Ok(0) {
        skip("only root can change its ids");
    }
    let last = u32::MAX - 1;
    match all_threads::setresgid(last, last, last) {
        Err(Error::Refused(Errno::EINVAL)) => skip("a namespace without this group"),
        done => done.unwrap(),
    }
    all_threads::setresuid(0, last, 0).unwrap();
    if emulated() && usize::BITS == 64 && call(GETEUID, 0) == Err(Errno::ENOENT) {
        skip("qemu-user extends an id of 32 bits by its sign");
    }
    assert_eq!((call(GETEUID, 0), call(GETEGID, 0)), (Ok(last as usize), Ok(last as usize)));
    // The previous id: the same on each thread, so the calls agree.
    let _other = spawn(thread::park).unwrap();
    // SAFETY: 1. It touches no memory.
    let on_all = |nr: u32, id: u32| unsafe { all_threads::syscall(nr as usize, [id as usize, 0, 0, 0, 0, 0]) };
    assert_eq!(on_all(GETEUID, 0).unwrap(), last as usize);
    assert_eq!(on_all(SETFSUID, 0).unwrap(), last as usize);
    assert_eq!(on_all(SETFSUID, u32::MAX).unwrap(), 0);
}

fn no_new_privs_and_filters_are_the_processs() {
    static STEP: AtomicU32 = AtomicU32::new(0);
    let threads = [(); 4].map(|()| {
        spawn(|| {
            wait_until("the filter", || STEP.load(Acquire) == 1);
            // SAFETY: 1. They only ask.
            let parent = unsafe { sys::syscall(k::__NR_getppid as usize, [0; 6]) };
            let args = [prctl::PR_GET_NO_NEW_PRIVS as usize, 0, 0, 0, 0, 0];
            // SAFETY: 1. It only asks.
            (parent, unsafe { sys::syscall(k::__NR_prctl as usize, args) })
        })
        .unwrap()
    });
    all_threads::set_no_new_privs().unwrap();
    need_filters();
    let step = |code, jf, k| FilterStep { code, jt: 0, jf, k };
    let refuse = 0x5_0000 | Errno::EXDEV.raw() as u32;
    let filter = [step(0x20, 0, 0), step(0x15, 1, k::__NR_getppid), step(6, 0, refuse), step(6, 0, 0x7fff_0000)];
    // SAFETY: 1. The filter makes getppid fail, and no code relies on getppid.
    if let Err(Error::Refused(errno)) = unsafe { all_threads::seccomp(&filter) } {
        skip_without(errno, "no seccomp filters here");
        panic!("{errno}");
    }
    STEP.store(1, Release);
    for thread in threads {
        assert_eq!(thread.join(), (Err(Errno::EXDEV), Ok(1)));
    }
    // SAFETY: 1. Refused.
    assert!(matches!(unsafe { all_threads::seccomp(&[]) }, Err(Error::Refused(Errno::EINVAL))));
}

fn a_thread_with_a_filter_of_its_own_stands_in_the_way_of_one_for_all() {
    static READY: AtomicBool = AtomicBool::new(false);
    static END: AtomicBool = AtomicBool::new(false);
    let other = spawn(|| {
        if let Err(errno) = filter_calls(&[k::__NR_getppid], 0x5_0000 | 1) {
            skip_without(errno, "no seccomp filters here");
        }
        READY.store(true, Relaxed);
        wait_until("the end", || END.load(Relaxed));
    })
    .unwrap();
    wait_until("the filter", || READY.load(Relaxed));
    all_threads::set_no_new_privs().unwrap();
    let allow = [FilterStep { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];
    // SAFETY: 1. It allows everything.
    assert!(matches!(unsafe { all_threads::seccomp(&allow) }, Err(Error::Refused(Errno::ESRCH))));
    END.store(true, Relaxed);
    other.join();
}

fn landlock_is_the_processs() {
    static STEP: AtomicU32 = AtomicU32::new(0);
    let open = || sys::open(c"/proc/self/exe", sys::flags::O_RDONLY, 0).map(drop);
    let threads = [(); 3].map(|()| {
        spawn(move || {
            wait_until("the rules", || STEP.load(Acquire) == 1);
            open()
        })
        .unwrap()
    });
    let handled: u64 = 1 << 2; // LANDLOCK_ACCESS_FS_READ_FILE: none is allowed.
    let args = [(&raw const handled).expose_provenance(), 8, 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the rights.
    let rules = match unsafe { sys::syscall(k::__NR_landlock_create_ruleset as usize, args) } {
        Ok(rules) => rules as i32,
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => skip("no Landlock here"),
        Err(errno) => panic!("{errno}"),
    };
    all_threads::set_no_new_privs().unwrap();
    all_threads::landlock_restrict_self(rt0_tests::numbered(rules), 0).unwrap();
    assert_eq!(open(), Err(Errno::EACCES));
    STEP.store(1, Release);
    threads.into_iter().for_each(|thread| assert_eq!(thread.join(), Err(Errno::EACCES)));
    assert!(matches!(
        all_threads::landlock_restrict_self(rt0_tests::numbered(-1), 0),
        Err(Error::Refused(Errno::EBADF))
    ));
}
