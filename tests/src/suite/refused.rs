//! Calls that a filter refuses, as in sandboxes: waits end, clocks work, and where nothing can
//! continue the process ends with a message.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{self, Action, SigSet, Signal, sigaction};
use rt0::sync::{Channel, Condvar, Mutex, Once, Parker, RwLock, Semaphore};
use rt0::sys::Timespec;
use rt0::test::Expect;
use rt0::thread::{self, Builder, JoinHandle, scope, spawn};
use rt0::time::{ClockId, Instant, SystemTime};
use rt0::{Errno, futex, profile, random, sys, vdso};
use rt0_tests::seccomp::{
    CLOCK_GETTIME, CLOCK_NANOSLEEP, FUTEX, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME, Verdict, filter, need_filters,
};
use rt0_tests::{Ended, fork, is_gone, stderr_of, wait_for, wait_until, wait_until_asleep};

/// All calls with a time.
const TIMED: [&[u32]; 6] = [FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, TIMER_SETTIME, PPOLL, SIGTIMEDWAIT];

/// Errors that real filters return.
const REFUSALS: [Errno; 4] = [Errno::EPERM, Errno::ENOSYS, Errno::EACCES, Errno::EINVAL];

/// Other errors that a filter may return, including ones that only the kernel can know.
const LIES: [Errno; 4] = [Errno::EIO, Errno::EAGAIN, Errno::EINTR, Errno::ETIMEDOUT];

const TICK: Duration = Duration::from_millis(20);

/// From now on a filter answers these calls of this thread with `errno`.
fn refuse(calls: &[u32], errno: Errno) {
    filter(calls, Verdict::Refuse(errno), Verdict::Allow);
}

/// Refuses several lists of calls.
fn refuse_all<const N: usize>(lists: [&[u32]; N], errno: Errno) {
    lists.into_iter().for_each(|calls| refuse(calls, errno));
}

/// Ends the process by SIGALRM if it still runs after this time: alarm(2), in the form that every
/// machine has.
fn end_after(seconds: i32) {
    let zero = || k::__kernel_old_timeval { tv_sec: 0, tv_usec: 0 };
    let value = k::__kernel_old_timeval { tv_sec: seconds as _, tv_usec: 0 };
    let timer = k::__kernel_old_itimerval { it_interval: zero(), it_value: value };
    let args = [k::ITIMER_REAL as usize, (&raw const timer).expose_provenance(), 0, 0, 0, 0];
    // SAFETY: 1. The kernel reads the times.
    unsafe { sys::syscall(k::__NR_setitimer as usize, args) }.expect("setitimer");
}

/// Runs `f` in a process of its own, which must end by itself with status 0.
fn in_child(what: &str, errno: Errno, f: impl FnOnce()) {
    need_filters();
    let pid = fork().expect("fork");
    if pid == 0 {
        end_after(60);
        f();
        sys::exit_group(0);
    }
    assert_eq!(wait_for(pid), Ended::Exit(0), "{what}, {errno}");
}

/// Runs every timed wait until its timeout, and checks the time. With `locks`, also the waits that
/// are followed by a wake.
fn timed_waits(locks: bool) {
    let ends = |what: &str, wait: &dyn Fn() -> bool| {
        let start = Instant::now();
        assert!(!wait(), "{what}: not in vain");
        assert!(start.elapsed() >= TICK, "{what}: early");
    };
    let (mutex, condvar, lock, once) = (Mutex::new(()), Condvar::new(), RwLock::new(()), Once::new());
    let (semaphore, parker, channel) = (Semaphore::new(0), Parker::new(), Channel::<u8, 1>::new());
    ends("Semaphore", &|| semaphore.try_acquire_for(TICK));
    ends("Parker", &|| parker.park_timeout(TICK));
    ends("Once", &|| once.wait_timeout(TICK));
    let (_sender, receiver) = channel.split();
    ends("Channel", &|| receiver.recv_timeout(TICK).is_ok());
    if locks {
        ends("Condvar", &|| !condvar.wait_timeout(mutex.lock(), TICK).1.timed_out());
        let held = mutex.lock();
        ends("Mutex", &|| mutex.try_lock_for(TICK).is_some());
        drop(held);
        let held = lock.write();
        ends("RwLock, to read", &|| lock.try_read_for(TICK).is_some());
        ends("RwLock, to write", &|| lock.try_write_for(TICK).is_some());
        drop(held);
    }
    ends("park_timeout", &|| {
        // It may return early, so loop.
        let end = Instant::now() + TICK;
        while Instant::now() < end {
            thread::park_timeout(end - Instant::now());
        }
        false
    });
    ends("futex", &|| {
        let word = AtomicU32::new(0);
        let end = Instant::now() + TICK;
        while futex::wait_until(&word, 0, end) != Err(Errno::ETIMEDOUT) {}
        false
    });
    ends("sleep", &|| {
        thread::sleep(TICK);
        false
    });
    assert_eq!(futex::wait(&AtomicU32::new(0), 1), Err(Errno::EAGAIN));
}

fn processor_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = ClockId::CLOCK_PROCESS_CPUTIME_ID.now().expect("a clock");
    Duration::new(tv_sec as u64, tv_nsec as u32)
}

/// Starts threads that wait without a limit, refused by a filter of their own, and wakes them. The
/// filter refuses their wakes too, so no thread sleeps by futex(2), and they end one at a time: at
/// its end a thread may wait for the end of another and be woken by it.
fn untimed_waits(errno: Errno) {
    let (mutex, semaphore, once) = (Mutex::new(0), Semaphore::new(0), Once::new());
    let (lock, parker) = (RwLock::new(0), Parker::new());
    let waits: [&(dyn Fn() + Sync); 5] =
        [&|| semaphore.acquire(), &|| *mutex.lock() += 1, &|| *lock.write() += 1, &|| once.wait(), &|| parker.park()];
    let held = (mutex.lock(), lock.write());
    let (tids, may_end) = ([const { AtomicU32::new(0) }; 5], AtomicU32::new(0));
    scope(|s| {
        let (mut places, may_end) = (tids.iter(), &may_end);
        let threads = waits.map(|wait| {
            let place = places.next().expect("a place for each thread");
            s.spawn(move || {
                let tid = sys::gettid();
                refuse(FUTEX, errno);
                place.store(tid, Relaxed);
                wait();
                wait_until("this thread's turn to end", || may_end.load(Relaxed) == tid);
            })
            .unwrap()
        });
        wait_until("the threads", || tids.iter().all(|tid| tid.load(Relaxed) != 0));
        thread::sleep(Duration::from_millis(5));
        drop(held);
        semaphore.release(1).unwrap();
        once.call_once(|| ());
        parker.unpark();
        for (tid, thread) in tids.iter().map(|tid| tid.load(Relaxed)).zip(threads) {
            may_end.store(tid, Relaxed);
            wait_until("the end of a thread", || thread.is_finished() && is_gone(tid));
            thread.join();
        }
    });
    assert_eq!((*mutex.lock(), *lock.read()), (1, 1));
}

/// A program's use of threads.
fn threads() {
    assert_eq!(spawn(|| 7).unwrap().join(), 7);
    assert_eq!(Builder::new().name("named").spawn(|| 8).unwrap().join(), 8);
    let mut sum = 0;
    scope(|s| s.spawn(|| sum += 1).map(drop)).unwrap();
    assert_eq!(sum, 1);
    static DETACHED: AtomicBool = AtomicBool::new(false);
    DETACHED.store(false, Relaxed);
    drop(spawn(|| DETACHED.store(true, Relaxed)).unwrap());
    wait_until("the detached thread", || DETACHED.load(Relaxed));
}

/// Clocks, waits, threads and a profile, where a filter refuses these calls.
#[cfg_attr(not(target_arch = "x86"), allow(dead_code))]
fn goes_on_without(calls: &[u32], errno: Errno) {
    in_child("another form", errno, || {
        vdso::turn_off();
        let (before, of_day) = (Instant::now(), SystemTime::now());
        refuse(calls, errno);
        let apart = SystemTime::now().duration_since(of_day).unwrap();
        assert!(apart < Duration::from_secs(50), "{apart:?}");
        assert!(Instant::now() >= before);
        timed_waits(true);
        threads();
        // As a profile does: the clock and the timer, in both widths.
        profile::start(100).unwrap();
        let busy = Instant::now();
        while busy.elapsed() < TICK {}
        profile::stop();
        let (set, waits) = (SigSet::from_iter([Signal::SIGUSR2]), Instant::now());
        assert!(signal::wait_timeout(&set, TICK).unwrap().is_none() && waits.elapsed() >= TICK);
        assert_eq!(ClockId::from_raw(1000).now(), Err(Errno::EINVAL), "an error of its own stays what it is");
        let nonsense = Timespec { tv_sec: i64::MAX, tv_nsec: 1 << 32 };
        assert_eq!(ClockId::CLOCK_MONOTONIC.sleep_until(nonsense), Err(Errno::EINVAL));
    });
}

/// A test that filters system calls.
const FILTERED: Expect = Expect::success().native("it takes a filter on system calls");

rt0::test_module! {
    timed_waits_end_on_time_whatever_a_filter_says => FILTERED,
    waits_without_a_limit_end_when_they_are_woken => FILTERED,
    threads_are_joined_where_no_thread_may_wait => FILTERED,
    a_sleep_that_is_refused_is_a_wait_of_another_kind => FILTERED,
    a_wait_that_is_refused_ends_by_a_message_where_the_clock_is_too => FILTERED,
    timed_waits_end_where_only_the_clock_is_refused => FILTERED,
    a_futex_wake_that_is_refused_ends_the_process_with_a_message =>
        Expect::signal(6)
            .stderr("rt0: fatal: futex wake failed with errno")
            .native("it takes a filter on system calls"),
    a_refused_wait_and_a_fork_and_an_interrupt => FILTERED,
    each_call_that_is_refused_has_a_defined_result => FILTERED,
    the_end_of_the_process_cannot_be_refused => FILTERED,
    where_64_bit_times_are_refused_the_32_bit_forms_do => FILTERED,
    where_32_bit_times_are_missing_the_64_bit_forms_do => FILTERED,
}

fn timed_waits_end_on_time_whatever_a_filter_says() {
    for errno in REFUSALS.into_iter().chain(LIES) {
        in_child("timed waits", errno, || {
            refuse(FUTEX, errno);
            let (start, busy) = (Instant::now(), processor_time());
            timed_waits(REFUSALS.contains(&errno));
            let (took, busy) = (start.elapsed(), processor_time() - busy);
            // A real EINTR must be reported at once, so a false one makes the caller spin until
            // its deadline.
            assert!(busy < took / 2 || errno == Errno::EINTR, "{errno}: {busy:?} of {took:?}");
        });
    }
}

fn waits_without_a_limit_end_when_they_are_woken() {
    for errno in REFUSALS.into_iter().chain(LIES) {
        in_child("waits", errno, || untimed_waits(errno));
    }
}

fn threads_are_joined_where_no_thread_may_wait() {
    for errno in REFUSALS {
        in_child("joins", errno, || {
            refuse(FUTEX, errno);
            threads();
            let slow = spawn(|| thread::sleep(TICK)).unwrap();
            slow.join();
        });
        in_child("a scope", errno, || {
            scope(|s| {
                s.spawn(|| thread::sleep(TICK)).unwrap();
                refuse(FUTEX, errno); // The scope's end waits, and the thread may wake it.
            })
        });
    }
}

fn a_sleep_that_is_refused_is_a_wait_of_another_kind() {
    for errno in REFUSALS {
        in_child("sleep", errno, || {
            refuse(CLOCK_NANOSLEEP, errno);
            let (start, busy) = (Instant::now(), processor_time());
            thread::sleep(TICK * 4);
            assert!(start.elapsed() >= TICK * 4);
            assert!(processor_time() - busy < TICK * 2);
            // And without any call that can sleep.
            refuse(FUTEX, errno);
            timed_waits(false);
            refuse(&[k::__NR_sched_yield], errno);
            timed_waits(false);
        });
    }
}

fn a_wait_that_is_refused_ends_by_a_message_where_the_clock_is_too() {
    let mut buf = [0; 256];
    need_filters();
    let (text, ended) = stderr_of(
        || {
            end_after(60);
            refuse_all([FUTEX, CLOCK_GETTIME], Errno::EPERM);
            Semaphore::new(0).try_acquire_for(TICK);
        },
        &mut buf,
    );
    assert_eq!((text.trim_end(), ended), ("rt0: fatal: futex wait failed with errno 1", Ended::Signal(k::SIGABRT)));
}

/// If only the clock is refused, the kernel's own results count, and the vDSO reads the clock.
fn timed_waits_end_where_only_the_clock_is_refused() {
    in_child("the clock", Errno::EPERM, || {
        if vdso::in_use().clock_gettime && !reads_by_call() {
            refuse(CLOCK_GETTIME, Errno::EPERM);
            timed_waits_by_vdso();
        }
    });
}

fn a_futex_wake_that_is_refused_ends_the_process_with_a_message() {
    static SEMAPHORE: Semaphore = Semaphore::new(0);
    static TID: AtomicU32 = AtomicU32::new(0);
    let _waits = spawn(|| {
        TID.store(sys::gettid(), Relaxed);
        SEMAPHORE.acquire();
    })
    .unwrap();
    wait_until("the thread", || TID.load(Relaxed) != 0);
    wait_until_asleep(TID.load(Relaxed));
    refuse(FUTEX, Errno::EPERM);
    SEMAPHORE.release(1).unwrap();
}

fn a_refused_wait_and_a_fork_and_an_interrupt() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: 1. It does nothing.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(nothing)) }.unwrap();
    for errno in REFUSALS {
        in_child("a fork", errno, || {
            refuse(FUTEX, errno);
            in_child("its child", errno, || timed_waits(true));
            timed_waits(true);
        });
        in_child("interrupts", errno, || {
            let (woken, tid) = (AtomicBool::new(false), AtomicU32::new(0));
            scope(|s| {
                let waits = s
                    .spawn(|| {
                        refuse(FUTEX, errno);
                        tid.store(sys::gettid(), Relaxed);
                        while !woken.load(Relaxed) {
                            thread::park();
                        }
                    })
                    .unwrap();
                wait_until("the thread", || tid.load(Relaxed) != 0);
                for _ in 0..50 {
                    let generation = waits.thread().interrupt().unwrap();
                    wait_until("the interrupt", || waits.thread().has_seen(generation));
                    waits.thread().signal(Signal::SIGUSR1).unwrap();
                }
                woken.store(true, Relaxed);
                waits.thread().unpark();
                waits.join();
            });
        });
    }
}

/// Every call that rt0 makes by itself: if refused, rt0 does without it, returns an error, or
/// ends the process with a message. Nothing hangs.
fn each_call_that_is_refused_has_a_defined_result() {
    const CALLS: &[(&str, u32)] = &[
        ("clone", k::__NR_clone),
        ("dup", k::__NR_dup),
        ("exit", k::__NR_exit),
        ("getpid", k::__NR_getpid),
        ("getrandom", k::__NR_getrandom),
        ("gettid", k::__NR_gettid),
        ("madvise", k::__NR_madvise),
        ("mprotect", k::__NR_mprotect),
        ("munmap", k::__NR_munmap),
        ("openat", k::__NR_openat),
        ("prctl", k::__NR_prctl),
        ("prlimit64", k::__NR_prlimit64),
        ("rt_sigaction", k::__NR_rt_sigaction),
        ("rt_sigprocmask", k::__NR_rt_sigprocmask),
        ("sched_getaffinity", k::__NR_sched_getaffinity),
        ("sched_yield", k::__NR_sched_yield),
        ("set_tid_address", k::__NR_set_tid_address),
        ("sigaltstack", k::__NR_sigaltstack),
        ("statx", k::__NR_statx),
        ("tgkill", k::__NR_tgkill),
        ("timer_create", k::__NR_timer_create),
        ("uname", k::__NR_uname),
    ];
    need_filters();
    for &(name, call) in CALLS {
        for errno in REFUSALS.into_iter().chain([Errno::EAGAIN, Errno::EINTR]) {
            let mut buf = [0; 512];
            let (text, ended) = stderr_of(
                || {
                    end_after(60);
                    refuse(&[call], errno);
                    uses_it_all();
                },
                &mut buf,
            );
            let fatal = text.starts_with("rt0: fatal: ") || text.contains(" failed with errno ");
            assert!(
                ended == Ended::Exit(0) && text.is_empty()
                    || [Ended::Signal(k::SIGABRT), Ended::Exit(128 + k::SIGABRT)].contains(&ended) && fatal,
                "{name}, {errno}: {ended:?} {text}"
            );
        }
    }
}

fn the_end_of_the_process_cannot_be_refused() {
    need_filters();
    for errno in REFUSALS {
        let ends: [(&[u32], &[Ended]); 3] = [
            (&[k::__NR_exit_group], &[Ended::Signal(k::SIGKILL)]),
            (&[k::__NR_exit_group, k::__NR_kill], &[Ended::Exit(7)]),
            // A trap; the signal depends on the machine.
            (&[k::__NR_exit_group, k::__NR_kill, k::__NR_exit], &[Ended::Signal(k::SIGILL), Ended::Signal(k::SIGTRAP)]),
        ];
        for (calls, ends) in ends {
            let pid = fork().expect("fork");
            if pid == 0 {
                end_after(60);
                refuse(calls, errno);
                sys::exit_group(7);
            }
            let ended = wait_for(pid);
            assert!(ends.contains(&ended), "{errno}: {ended:?}");
        }
    }
}

fn where_64_bit_times_are_refused_the_32_bit_forms_do() {
    if FUTEX.len() == 1 {
        rt0_tests::skip("there is one form of each call here");
    }
    for errno in REFUSALS.into_iter().chain([Errno::EIO]) {
        goes_on_without(&TIMED.map(|call| call[0]), errno);
    }
    for call in TIMED {
        goes_on_without(&[call[0]], Errno::EPERM);
    }
}

fn where_32_bit_times_are_missing_the_64_bit_forms_do() {
    if FUTEX.len() == 1 {
        rt0_tests::skip("there is one form of each call here");
    }
    const UNAME26: usize = 0x0020_0000; // linux/personality.h
    let narrow = TIMED.map(|call| call[call.len() - 1]);
    for errno in REFUSALS {
        goes_on_without(&narrow, errno);
    }
    // A kernel that reports an old version.
    // SAFETY: 1. It changes the result of uname(2).
    unsafe { sys::syscall(k::__NR_personality as usize, [UNAME26, 0, 0, 0, 0, 0]) }.expect("personality");
    goes_on_without(&narrow, Errno::ENOSYS);
    goes_on_without(&narrow[..1], Errno::ENOSYS);
}

/// Uses everything in rt0; each part may fail.
fn uses_it_all() {
    let _ = thread::available_parallelism();
    let _ = random::fill(&mut [0; 32]);
    let _ = profile::start(100);
    let threads: [Option<JoinHandle<u32>>; 3] = [1, 2, 3].map(|n| Builder::new().name("n").spawn(move || n).ok());
    for thread in threads.into_iter().flatten() {
        thread.join();
    }
    thread::limit_stack_cache(0, 0);
    for _ in 0..3 {
        let _ = spawn(|| ()).map(drop); // It unmaps its own stack.
    }
    let _ = spawn(|| thread::sleep(Duration::from_millis(1))).map(JoinHandle::join);
    let _ = thread::current().interrupt();
    let _ = rt0::all_threads::set_no_new_privs();
    profile::stop();
    let start = Instant::now();
    assert!(!Semaphore::new(0).try_acquire_for(Duration::from_millis(2)));
    assert!(start.elapsed() >= Duration::from_millis(2));
}

/// Whether the vDSO's clock is a system call, as on a machine whose counter it cannot read.
fn reads_by_call() -> bool {
    let pid = fork().expect("fork");
    if pid == 0 {
        refuse(CLOCK_GETTIME, Errno::EPERM);
        let _ = Instant::now(); // It ends the process if there is no clock.
        sys::exit_group(0);
    }
    wait_for(pid) != Ended::Exit(0)
}

fn timed_waits_by_vdso() {
    let start = Instant::now();
    assert!(!Semaphore::new(0).try_acquire_for(TICK));
    assert!(!Parker::new().park_timeout(TICK));
    thread::sleep(TICK);
    assert!(start.elapsed() >= TICK * 3);
}
