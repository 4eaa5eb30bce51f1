//! The vDSO: found without a call, usable from everywhere, and not used when turned off.

use core::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{Action, Signal, raise, sigaction};
use rt0::sys::Timespec;
use rt0::test::Expect;
use rt0::thread::{Builder, spawn};
use rt0::time::{ClockId, Instant, SystemTime};
use rt0::vdso::{InUse, in_use, turn_off, turn_off_if_asked};
use rt0::{Env, Errno, println, thread};
use rt0_tests::seccomp::{Verdict, filter};
use rt0_tests::{alarm_every, often, skip, slow, vdso_image};

/// The calls that a test needs to report its end.
const LAST_WORDS: &[u32] = &[k::__NR_write, k::__NR_exit_group];

/// Whether the kernel maps an image.
fn image(env: Env) -> bool {
    const AT_SYSINFO_EHDR: usize = 33;
    env.auxv().get(AT_SYSINFO_EHDR).is_some_and(|address| address != 0)
}

/// Skips the test if the vDSO has no clock.
fn need_clock() {
    if !in_use().clock_gettime {
        skip("no clock in the vDSO here");
    }
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

rt0::test_module! {
    the_clock_of_the_kernels_image_is_used,
    every_clock_tells_the_same_with_and_without,
    a_clock_that_does_not_exist_is_einval_with_and_without,
    turned_off_it_is_not_used_again,
    the_variable_turns_it_off_for_a_program_that_asks =>
        Expect::success().env(&[("RT0_VDSO", "0")]),
    another_value_of_the_variable_turns_nothing_off => Expect::success().env(&[("RT0_VDSO", "1")]),
    without_the_variable_nothing_is_turned_off,
    a_hundred_reads_and_the_look_for_the_clock_make_no_call,
    turned_off_every_read_is_a_call,
    a_filters_enosys_does_not_take_the_clocks_away,
    a_signal_handler_may_be_the_first_to_read_a_clock,
    handlers_read_clocks_while_their_thread_does,
    threads_that_look_for_it_at_once_find_the_same,
    it_may_be_turned_off_while_others_read,
    the_smallest_stack_is_enough,
}

fn the_clock_of_the_kernels_image_is_used(env: Env) {
    if !image(env) {
        assert_eq!(in_use(), InUse::default());
        skip("this kernel or emulator maps no image");
    }
    if cfg!(target_arch = "riscv32") {
        skip("its kernels' images have no clock");
    }
    assert!(in_use().clock_gettime);
}

fn every_clock_tells_the_same_with_and_without() {
    need_clock();
    let clocks = [
        ClockId::CLOCK_REALTIME,
        ClockId::CLOCK_MONOTONIC,
        ClockId::CLOCK_MONOTONIC_RAW,
        ClockId::CLOCK_REALTIME_COARSE,
        ClockId::CLOCK_MONOTONIC_COARSE,
        ClockId::CLOCK_BOOTTIME,
        ClockId::CLOCK_TAI,
        ClockId::CLOCK_PROCESS_CPUTIME_ID,
        ClockId::CLOCK_THREAD_CPUTIME_ID,
    ];
    let with = clocks.map(|clock| clock.now().unwrap());
    turn_off();
    let without = clocks.map(|clock| clock.now().unwrap());
    for ((clock, with), without) in clocks.into_iter().zip(with).zip(without) {
        let later = nanoseconds(without) - nanoseconds(with);
        assert!((0..60_000_000_000).contains(&later), "{clock:?}: {with:?}, then {without:?}");
        assert!((0..1_000_000_000).contains(&with.tv_nsec), "{clock:?}: {with:?}");
    }
}

fn a_clock_that_does_not_exist_is_einval_with_and_without() {
    for _ in 0..2 {
        for number in [10, 1000, i32::MAX] {
            assert_eq!(ClockId::from_raw(number).now(), Err(Errno::EINVAL), "clock {number}");
        }
        turn_off();
    }
}

fn turned_off_it_is_not_used_again() {
    let before = Instant::now();
    turn_off();
    assert_eq!(in_use(), InUse::default());
    assert!(Instant::now() >= before);
    assert_eq!(in_use(), InUse::default());
}

fn the_variable_turns_it_off_for_a_program_that_asks(env: Env) {
    assert_eq!(in_use().clock_gettime, image(env) && !cfg!(target_arch = "riscv32"));
    assert!(turn_off_if_asked(env));
    assert_eq!(in_use(), InUse::default());
    assert!(Instant::now() <= Instant::now());
}

fn another_value_of_the_variable_turns_nothing_off(env: Env) {
    let before = in_use();
    assert!(!turn_off_if_asked(env));
    assert_eq!(in_use(), before);
}

fn without_the_variable_nothing_is_turned_off(env: Env) {
    let before = in_use();
    assert!(!turn_off_if_asked(env));
    assert_eq!(in_use(), before);
}

fn a_hundred_reads_and_the_look_for_the_clock_make_no_call(env: Env) {
    if !image(env) {
        skip("this kernel or emulator maps no image");
    }
    filter(LAST_WORDS, Verdict::Allow, Verdict::Kill);
    for _ in 0..100 {
        let (now, wall) = (Instant::now(), SystemTime::now());
        assert!(now.elapsed() < Duration::from_secs(3600) && wall > SystemTime::UNIX_EPOCH);
    }
    assert!(in_use().clock_gettime);
}

fn turned_off_every_read_is_a_call() {
    turn_off();
    filter(LAST_WORDS, Verdict::Allow, Verdict::Refuse(Errno::ENOSYS));
    assert_eq!(ClockId::CLOCK_MONOTONIC.now(), Err(Errno::ENOSYS));
}

fn a_filters_enosys_does_not_take_the_clocks_away() {
    need_clock();
    filter(LAST_WORDS, Verdict::Allow, Verdict::Refuse(Errno::ENOSYS));
    // The vDSO cannot read this clock, and returns the kernel's result.
    assert_eq!(ClockId::CLOCK_THREAD_CPUTIME_ID.now(), Err(Errno::ENOSYS));
    assert!(in_use().clock_gettime);
    assert!(ClockId::CLOCK_MONOTONIC.now().is_ok());
}

fn a_signal_handler_may_be_the_first_to_read_a_clock() {
    static NOW: AtomicU32 = AtomicU32::new(0);
    extern "C" fn read(_: i32) {
        let now = ClockId::CLOCK_MONOTONIC.now().map_or(0, |now| now.tv_sec as u32);
        NOW.store(now + 1, Relaxed);
    }
    // SAFETY: 1. Clocks and atomics only.
    unsafe { sigaction(Signal::SIGUSR1, Action::call(read)) }.unwrap();
    raise(Signal::SIGUSR1).unwrap();
    let (then, now) = (NOW.load(Relaxed) - 1, ClockId::CLOCK_MONOTONIC.now().unwrap().tv_sec as u32);
    assert!(then <= now && now - then < 60, "{then} {now}");
}

fn handlers_read_clocks_while_their_thread_does(env: Env) {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    static WRONG: AtomicUsize = AtomicUsize::new(0);
    static IMAGE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    let image = vdso_image(env);
    IMAGE[0].store(image.start, Relaxed);
    IMAGE[1].store(image.end, Relaxed);
    let action = Action::info(|info| {
        let (a, b) = (Instant::now(), Instant::now());
        WRONG.fetch_add(usize::from(b < a || thread::current().name() != Some("main")), Relaxed);
        let [start, end] = IMAGE.each_ref().map(|word| word.load(Relaxed));
        INSIDE.fetch_add(usize::from((start..end).contains(&info.pc())), Relaxed);
        HANDLED.fetch_add(1, Relaxed);
    });
    // SAFETY: 1. Clocks and atomics only.
    unsafe { sigaction(Signal::SIGALRM, action) }.unwrap();
    let may_miss_it = slow() || !in_use().clock_gettime;
    alarm_every(Duration::from_micros(if slow() { 2000 } else { 200 }));
    let mut last = Instant::now();
    let end = last + Duration::from_secs(20);
    let mut reads = 0;
    let enough = || HANDLED.load(Relaxed) >= often(500) && (may_miss_it || INSIDE.load(Relaxed) >= 10);
    while (!enough() || reads < often(20_000)) && last < end {
        let now = Instant::now();
        assert!(now >= last, "{last:?}, then {now:?}");
        last = now;
        reads += 1;
    }
    alarm_every(Duration::ZERO);
    let counts = [&HANDLED, &INSIDE, &WRONG].map(|count| count.load(Relaxed));
    println!("handlers, in the vDSO, wrong: {counts:?}");
    assert_eq!(WRONG.load(Relaxed), 0);
    assert!(enough());
}

fn threads_that_look_for_it_at_once_find_the_same() {
    static GO: AtomicU32 = AtomicU32::new(0);
    let threads = [(); 16].map(|()| {
        spawn(|| {
            while GO.load(Acquire) == 0 {
                let _ = rt0::futex::wait(&GO, 0);
            }
            (in_use(), Instant::now())
        })
        .unwrap()
    });
    GO.store(1, Release);
    rt0::futex::wake_all(&GO);
    let results = threads.map(|thread| thread.join());
    let now = Instant::now();
    assert!(results.iter().all(|(found, then)| *found == in_use() && *then <= now));
}

fn it_may_be_turned_off_while_others_read() {
    static READING: AtomicUsize = AtomicUsize::new(0);
    let readers = [(); 4].map(|()| {
        spawn(|| {
            READING.fetch_add(1, Relaxed);
            let mut last = Instant::now();
            for _ in 0..20_000 {
                let now = Instant::now();
                assert!(now >= last, "{last:?}, then {now:?}");
                last = now;
            }
        })
        .unwrap()
    });
    while READING.load(Relaxed) < 4 {
        thread::yield_now();
    }
    turn_off();
    readers.into_iter().for_each(|reader| reader.join());
    assert_eq!(in_use(), InUse::default());
}

fn the_smallest_stack_is_enough() {
    let read = || (0..100).all(|_| Instant::now() <= Instant::now());
    assert!(Builder::new().stack_size(0).spawn(read).unwrap().join());
}
