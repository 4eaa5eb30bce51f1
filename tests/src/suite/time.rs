//! Clocks and sleeping.

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, Signal, sigaction};
use rt0::sys::Timespec;
use rt0::test::Expect;
use rt0::thread::{self, sleep, sleep_until, spawn};
use rt0::time::{ClockId, Instant, SystemTime, UNIX_EPOCH};
use rt0::{Errno, sys, vdso};
use rt0_tests::seccomp::{Verdict, filter};

const TICK: Duration = Duration::from_millis(20);

/// After 2106, when 32 bits of seconds end.
const FAR: Timespec = Timespec { tv_sec: 5_000_000_000, tv_nsec: 0 };

/// Sends SIGUSR1 to the calling thread repeatedly while `f` runs; returns how many arrived.
fn pestered(f: impl FnOnce()) -> usize {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn count(_: i32) {
        HANDLED.fetch_add(1, Relaxed);
    }
    // SAFETY: 1. An atomic.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(count)) }.unwrap();
    DONE.store(false, Relaxed);
    let (process, sleeper) = (sys::getpid(), sys::gettid());
    let sender = spawn(move || {
        while !DONE.load(Relaxed) {
            sys::tgkill(process, sleeper, Signal::SIGUSR1.raw()).unwrap();
            sleep(Duration::from_millis(1));
        }
    })
    .unwrap();
    f();
    DONE.store(true, Relaxed);
    sender.join();
    HANDLED.swap(0, Relaxed)
}

/// Whether `f` still runs after three ticks.
fn goes_on(f: impl FnOnce() + Send + 'static) -> bool {
    static RETURNED: AtomicBool = AtomicBool::new(false);
    RETURNED.store(false, Relaxed);
    drop(spawn(move || {
        f();
        RETURNED.store(true, Relaxed);
    }));
    sleep(TICK * 3);
    !RETURNED.load(Relaxed)
}

rt0::test_module! {
    an_instant_never_goes_back,
    an_instant_of_another_thread_counts_here,
    sleep_takes_at_least_as_long_as_asked,
    sleep_until_a_past_moment_returns,
    signals_do_not_shorten_a_sleep,
    signals_do_not_shorten_a_sleep_by_another_clock,
    a_deadline_after_2038_and_after_2106_is_not_past,
    a_past_deadline_needs_no_clock_that_can_wake,
    what_cannot_be_slept_by_is_an_error,
    processor_time_is_what_was_worked,
    the_time_of_day_is_after_1970_and_may_be_reckoned_with,
    the_time_of_day_has_64_bit_seconds_where_the_kernel_has,
    without_any_clock_the_process_ends_with_a_message =>
        Expect::signal(6).stderr("rt0: fatal: clock_gettime failed with errno"),
    threads_sleep_at_the_same_time,
}

fn an_instant_never_goes_back() {
    let mut last = Instant::now();
    for _ in 0..10_000 {
        let now = Instant::now();
        assert!(now >= last, "{last:?}, then {now:?}");
        last = now;
    }
}

fn an_instant_of_another_thread_counts_here() {
    for _ in 0..100 {
        let before = Instant::now();
        let between = spawn(Instant::now).unwrap().join();
        assert!(before <= between && between <= Instant::now());
    }
}

fn sleep_takes_at_least_as_long_as_asked() {
    let start = Instant::now();
    sleep(TICK);
    assert!(start.elapsed() >= TICK);
    sleep(Duration::ZERO);
}

fn sleep_until_a_past_moment_returns() {
    sleep_until(Instant::now());
    sleep_until(Instant::now() - Duration::from_secs(1));
    if let Some(before_the_clock_began) = Instant::now().checked_sub(Duration::from_secs(1 << 40)) {
        sleep_until(before_the_clock_began);
    }
}

fn signals_do_not_shorten_a_sleep() {
    // On a busy machine the sender may come too late.
    loop {
        let deadline = Instant::now() + TICK * 5;
        let handled = pestered(|| sleep_until(deadline));
        assert!(Instant::now() >= deadline);
        if handled > 0 {
            break;
        }
    }
}

fn signals_do_not_shorten_a_sleep_by_another_clock() {
    let start = ClockId::CLOCK_BOOTTIME.now().unwrap();
    let deadline = Timespec { tv_sec: start.tv_sec + 1, ..start };
    pestered(|| ClockId::CLOCK_BOOTTIME.sleep_until(deadline).unwrap());
    assert!(ClockId::CLOCK_BOOTTIME.now().unwrap() >= deadline);
}

fn a_deadline_after_2038_and_after_2106_is_not_past() {
    for far in [Timespec { tv_sec: i64::from(i32::MAX) + 1, ..FAR }, FAR, Timespec { tv_sec: i64::MAX, ..FAR }] {
        for clock in [ClockId::CLOCK_REALTIME, ClockId::CLOCK_MONOTONIC] {
            assert!(goes_on(move || clock.sleep_until(far).unwrap()), "{clock:?} {far:?}");
        }
    }
    assert!(goes_on(|| sleep(Duration::MAX)));
    assert!(goes_on(|| sleep_until(Instant::now() + Duration::from_secs(FAR.tv_sec as u64))));
}

fn a_past_deadline_needs_no_clock_that_can_wake() {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let negative = Timespec { tv_sec: -1, tv_nsec: 0 };
    for clock in [ClockId::CLOCK_REALTIME, ClockId::CLOCK_MONOTONIC_RAW, ClockId::CLOCK_THREAD_CPUTIME_ID] {
        assert_eq!((clock.sleep_until(zero), clock.sleep_until(negative)), (Ok(()), Ok(())), "{clock:?}");
    }
}

fn what_cannot_be_slept_by_is_an_error() {
    let own_time = ClockId::CLOCK_THREAD_CPUTIME_ID.sleep_until(FAR);
    assert!([Err(Errno::EOPNOTSUPP), Err(Errno::EINVAL)].contains(&own_time), "{own_time:?}");
    assert_eq!(ClockId::CLOCK_MONOTONIC.sleep_until(Timespec { tv_nsec: 1_000_000_000, ..FAR }), Err(Errno::EINVAL));
    assert_eq!(ClockId::CLOCK_MONOTONIC.sleep_until(Timespec { tv_nsec: -1, ..FAR }), Err(Errno::EINVAL));
    assert_eq!(ClockId::CLOCK_MONOTONIC_RAW.sleep_until(FAR), Err(Errno::EOPNOTSUPP));
    assert_eq!(ClockId::from_raw(1000).sleep_until(FAR), Err(Errno::EINVAL));
}

fn processor_time_is_what_was_worked() {
    let (thread, process) = (ClockId::CLOCK_THREAD_CPUTIME_ID, ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let start = thread.now().unwrap();
    let mut rounds = 0u64;
    while thread.now().unwrap() == start {
        assert!(black_box(rounds) < 1 << 32, "work takes no time");
        rounds += 1;
    }
    let others = spawn(move || thread.now().unwrap()).unwrap().join();
    let mine = thread.now().unwrap();
    let all = process.now().unwrap();
    assert!(mine > start && all > mine && all > others, "{start:?} {mine:?} {others:?} {all:?}");
}

fn the_time_of_day_is_after_1970_and_may_be_reckoned_with() {
    let now = SystemTime::now();
    let age = now.duration_since(UNIX_EPOCH).unwrap();
    assert!(age > Duration::ZERO);
    assert_eq!(UNIX_EPOCH + age, now);
    assert_eq!(UNIX_EPOCH.duration_since(now).unwrap_err().duration(), age);
    assert_eq!(now - age, UNIX_EPOCH);
    let late = UNIX_EPOCH + Duration::from_secs(FAR.tv_sec as u64);
    assert!(late > now && late.elapsed().is_err());
}

fn the_time_of_day_has_64_bit_seconds_where_the_kernel_has() {
    // Both widths of the call, and both of the vDSO's function, agree while both can.
    let by_vdso = SystemTime::now();
    vdso::turn_off();
    let by_call = SystemTime::now();
    let apart = by_call.duration_since(by_vdso).unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_secs(60), "{by_vdso:?} {by_call:?}");
}

fn without_any_clock_the_process_ends_with_a_message() {
    vdso::turn_off();
    let last_words = [k::__NR_write, k::__NR_exit_group, k::__NR_getpid, k::__NR_gettid, k::__NR_tgkill];
    filter(&last_words, Verdict::Allow, Verdict::Refuse(Errno::ENOSYS));
    let _ = Instant::now();
}

fn threads_sleep_at_the_same_time() {
    let start = Instant::now();
    let sleepers = [(); 20].map(|()| spawn(|| sleep(TICK)).unwrap());
    sleepers.into_iter().for_each(|sleeper| sleeper.join());
    assert!(start.elapsed() >= TICK);
    thread::yield_now();
}
