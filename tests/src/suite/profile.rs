//! The CPU profiler: samples add up to the CPU time of all threads, and nothing leaks.

mod stacks;
mod timers;

use core::hint::black_box;
use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::profile::{MAX_HZ, Sample, drain, start, stop};
use rt0::signal::{self, How, SigSet, Signal};
use rt0::test::Expect;
use rt0::time::{ClockId, Instant};
use rt0::{Env, Errno, all_threads, println, sys, thread};
use rt0_tests::seccomp::filter_calls;
use rt0_tests::{emulated, read_file, skip, slow, stress_time, wait_until, wait_until_asleep};

const HZ: u32 = 100;
const PR_GET_KEEPCAPS: usize = linux_raw_sys::prctl::PR_GET_KEEPCAPS as usize;

/// The CPU time of a sample, in microseconds.
const PERIOD: u64 = 10_000;

/// The CPU time of the process in microseconds.
fn cpu_time() -> u64 {
    micros(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// The CPU time of this thread in microseconds.
fn thread_time() -> u64 {
    micros(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn micros(clock: ClockId) -> u64 {
    let now = clock.now().expect("clock_gettime");
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Computes for this long.
#[inline(never)]
fn burn(micros: u64) {
    let until = thread_time() + micros;
    while thread_time() < until {
        compute();
    }
}

/// Some microseconds of work.
#[inline(never)]
fn compute() {
    let mut x = 1u32;
    for i in 0..2000 {
        x = black_box(x.wrapping_mul(1664525).wrapping_add(i));
    }
}

/// The weight of all samples, with none lost.
fn total() -> u64 {
    let mut weight = 0;
    let drained = drain(|sample| weight += u64::from(sample.weight)).expect("no other thread drains");
    assert_eq!((drained.lost, drained.unprofiled), (0, 0));
    weight
}

/// Tries with increasing CPU time until samples and time agree within 10 %: with little time a
/// single tick matters.
fn adds_up(threads: usize, work: fn(u64)) {
    let mut micros = 300_000 / threads as u64;
    loop {
        start(HZ).unwrap();
        let before = cpu_time();
        match threads {
            1 => work(micros),
            _ => {
                let handles: [_; 4] = core::array::from_fn(|_| thread::spawn(move || work(micros)).unwrap());
                handles.into_iter().for_each(|handle| handle.join());
            }
        }
        let spent = cpu_time() - before;
        stop();
        let sampled = total() * PERIOD;
        println!("{spent} us spent, {sampled} us sampled");
        if sampled.abs_diff(spent) * 10 <= spent {
            return;
        }
        assert!(micros < 4_000_000, "also in a long run");
        micros *= 2;
    }
}

/// The number of timers of timer_create(2) in this process.
fn timers() -> usize {
    let mut buf = [0; 16 << 10];
    match read_file(c"/proc/self/timers", &mut buf) {
        Ok(text) => text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"ID:")).count(),
        Err(_) => skip("/proc has no timers here"),
    }
}

fn filter(nr: u32) {
    const ERRNO_EPERM: u32 = 0x0005_0001; // SECCOMP_RET_ERRNO
    if let Err(errno) = filter_calls(&[nr], ERRNO_EPERM) {
        println!("{errno:?}");
        skip("no filters here");
    }
}

/// Computes while a profile runs, until there are enough samples. On a busy machine the kernel
/// rarely samples a thread that runs for short times.
#[inline(never)]
fn burn_until(mut is_enough: impl FnMut(Sample<'_>) -> bool) {
    for _ in 0..400 {
        burn(50_000);
        let mut enough = false;
        let _ = drain(|sample| enough |= is_enough(sample)).expect("no other thread drains");
        if enough {
            return;
        }
    }
    panic!("twenty seconds of CPU time and not enough samples");
}

/// How much two CPU-time clocks may differ in `spent` microseconds, under an emulated machine whose
/// host is busy: the kernel counts the machine's pauses on only one of them.
fn lost(spent: u64) -> u64 {
    spent / 2 + 40_000
}

/// Asserts that a thread's samples stand for the CPU time that it saw itself spend. Besides the
/// computation there is the thread's start, and a tick or two more or less.
fn assert_stands_for(weight: u64, spent: u64) {
    let slack = 30_000 + 2 * PERIOD + if slow() { lost(spent) } else { 0 };
    assert!((weight * PERIOD).abs_diff(spent) <= slack, "{weight} samples in {spent} us");
}

rt0::test_module! {
    a_rate_that_is_none_is_refused,
    samples_add_up_to_the_time_of_one_thread,
    samples_add_up_to_the_time_of_four_threads,
    a_million_ticks_a_second_weigh_what_they_should,
    a_thousand_threads_of_a_millisecond_are_about_a_hundred_samples,
    an_idle_thread_gives_none,
    threads_are_profiled_that_were_there_and_that_come_later,
    what_a_program_sends_is_no_tick_and_does_no_harm,
    ticks_that_are_held_back_add_to_the_next,
    only_one_drains,
    a_start_drops_what_was_left,
    a_profile_sees_a_thread_to_its_end_while_others_come_and_go,
    threads_that_come_and_go_are_interrupted_called_and_profiled_at_once =>
        Expect::success().alone(),
    a_forked_child_can_profile_itself,
    stacks::*,
    timers::*,
}

fn a_rate_that_is_none_is_refused() {
    for hz in [0, MAX_HZ + 1, u32::MAX] {
        assert_eq!(start(hz), Err(Errno::EINVAL));
    }
    stop();
    for hz in [1, MAX_HZ] {
        start(hz).unwrap();
        assert_eq!(start(hz), Err(Errno::EBUSY));
        stop();
        stop();
    }
}

fn samples_add_up_to_the_time_of_one_thread() {
    adds_up(1, burn);
}

fn samples_add_up_to_the_time_of_four_threads() {
    adds_up(4, burn);
}

fn a_million_ticks_a_second_weigh_what_they_should() {
    start(MAX_HZ).unwrap();
    let before = cpu_time();
    burn(150_000);
    let spent = cpu_time() - before;
    stop();
    let sampled = total();
    println!("{spent} us spent, {sampled} us sampled");
    assert!(sampled * 10 > spent * 5 && sampled * 10 < spent * 11);
}

fn a_thousand_threads_of_a_millisecond_are_about_a_hundred_samples() {
    static SPENT: AtomicU32 = AtomicU32::new(0);
    start(HZ).unwrap();
    let tid = sys::gettid();
    for _ in 0..if slow() { 150 } else { 1000 } {
        thread::spawn(|| {
            burn(1000);
            SPENT.fetch_add(thread_time() as u32, Relaxed);
        })
        .unwrap()
        .join();
    }
    stop();
    let (mut sampled, mut of_ends) = (0, 0);
    let _ = drain(|sample| {
        if sample.tid != tid {
            sampled += sample.weight;
            of_ends += (sample.stack.len() == 1) as u32;
        }
    })
    .unwrap();
    let expected = SPENT.load(Relaxed) / PERIOD as u32;
    println!("{sampled} samples ({of_ends} of one address) for {expected} periods");
    // A thread's first tick is random, so the sum deviates by the square root of the expected
    // value. Six times that is not chance.
    assert!(sampled > 0 && sampled.abs_diff(expected).pow(2) <= 36 * expected);
}

fn an_idle_thread_gives_none() {
    static TID: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    let idle = thread::spawn(|| {
        TID.store(sys::gettid(), Relaxed);
        while !DONE.load(Relaxed) {
            thread::park();
        }
    })
    .unwrap();
    wait_until("the thread to run", || TID.load(Relaxed) != 0);
    wait_until_asleep(TID.load(Relaxed));
    start(HZ).unwrap();
    burn(100_000);
    stop();
    let mut of_idle = 0;
    let drained = drain(|sample| of_idle += (sample.tid == TID.load(Relaxed)) as u32).unwrap();
    assert!(of_idle == 0 && drained.samples > 0);
    DONE.store(true, Relaxed);
    idle.thread().unpark();
    idle.join();
}

fn threads_are_profiled_that_were_there_and_that_come_later() {
    static GO: AtomicBool = AtomicBool::new(false);
    let work = || {
        wait_until("the profile to start", || GO.load(Relaxed));
        let before = thread_time();
        burn(120_000);
        (sys::gettid(), thread_time() - before)
    };
    let before = thread::spawn(work).unwrap();
    start(HZ).unwrap();
    GO.store(true, Relaxed);
    let threads = [before.join(), thread::spawn(work).unwrap().join()];
    stop();
    let mut weights = [0u64; 2];
    let _ = drain(|sample| {
        for ((tid, _), weight) in threads.iter().zip(&mut weights) {
            *weight += if sample.tid == *tid { u64::from(sample.weight) } else { 0 };
        }
    })
    .unwrap();
    threads.into_iter().zip(weights).for_each(|((_, spent), weight)| assert_stands_for(weight, spent));
}

fn what_a_program_sends_is_no_tick_and_does_no_harm() {
    start(1).unwrap();
    for _ in 0..100 {
        signal::raise(Signal::SIGPROF).unwrap();
    }
    stop();
    assert!(total() <= 1);
    signal::raise(Signal::SIGPROF).unwrap();
    assert_eq!(total(), 0);
}

fn ticks_that_are_held_back_add_to_the_next() {
    start(HZ).unwrap();
    let set = [Signal::SIGPROF].into_iter().collect::<SigSet>();
    signal::mask(How::Block, &set);
    burn(150_000);
    signal::mask(How::Unblock, &set);
    burn(20_000); // They come with the next tick or the thread's end.
    stop();
    let sampled = total();
    let most = 22 + if slow() { lost(170_000) / PERIOD } else { 0 };
    assert!((14..=most).contains(&sampled), "{sampled}");
}

fn only_one_drains() {
    start(1000).unwrap();
    let mut inner = None;
    burn_until(|_| {
        inner = Some((drain(|_| ()), start(1)));
        true
    });
    assert_eq!(inner, Some((Err(Errno::EBUSY), Err(Errno::EBUSY))));
    stop();
}

fn a_start_drops_what_was_left() {
    start(1000).unwrap();
    burn(50_000);
    stop();
    start(1).unwrap();
    stop();
    assert!(total() <= 1);
}

fn a_profile_sees_a_thread_to_its_end_while_others_come_and_go() {
    static DONE: AtomicBool = AtomicBool::new(false);
    start(1000).unwrap();
    let drainer = thread::spawn(|| {
        let mut weight = 0;
        while !DONE.load(Acquire) {
            weight += total();
            thread::sleep(Duration::from_millis(1));
        }
        weight
    })
    .unwrap();
    let before = cpu_time();
    for _ in 0..12 {
        let handles: [_; 8] = core::array::from_fn(|_| thread::spawn(|| burn(3000)).unwrap());
        handles.into_iter().for_each(|handle| handle.join());
    }
    let spent = (cpu_time() - before) / 1000;
    stop();
    DONE.store(true, Release);
    let sampled = drainer.join() + total();
    println!("{sampled} ms of {spent} sampled");
    assert!(sampled * 10 >= spent * 7 && sampled * 10 <= spent * 12);
}

fn threads_that_come_and_go_are_interrupted_called_and_profiled_at_once(env: Env) {
    static DONE: AtomicBool = AtomicBool::new(false);
    static ROUNDS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    let until_done = |index: usize, round: fn()| {
        thread::spawn(move || {
            while !DONE.load(Relaxed) {
                round();
                ROUNDS[index].fetch_add(1, Relaxed);
            }
        })
        .unwrap()
    };
    let spawning = || {
        let handles: [_; 4] = core::array::from_fn(|_| thread::spawn(|| burn(200)).unwrap());
        for handle in &handles {
            let _ = handle.thread().interrupt(); // It may have ended.
        }
        handles.into_iter().for_each(|handle| handle.join());
    };
    let calling = || {
        // SAFETY: 1. It reads a flag of each thread.
        let call = unsafe { all_threads::syscall(k::__NR_prctl as usize, [PR_GET_KEEPCAPS, 0, 0, 0, 0, 0]) };
        assert!(matches!(call, Ok(0)) || emulated(), "{call:?}");
    };
    let threads = [until_done(0, spawning), until_done(1, spawning), until_done(2, calling)];
    let started = Instant::now();
    let (mut weight, mut profiles) = (0, 0);
    let enough = |weight| weight > 0 && ROUNDS.iter().all(|rounds| rounds.load(Relaxed) > 0);
    while started.elapsed() < stress_time(env) || !enough(weight) {
        start(1000).unwrap();
        burn(5000);
        stop();
        weight += total();
        profiles += 1;
    }
    DONE.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join());
    println!("{profiles} profiles of {weight} samples; {ROUNDS:?}");
    assert_eq!(timers(), 0);
}

fn a_forked_child_can_profile_itself() {
    start(HZ).unwrap();
    let child = rt0_tests::fork().unwrap();
    if child == 0 {
        stop();
        start(HZ).unwrap();
        burn_until(|sample| sample.tid == sys::getpid());
        stop();
        sys::exit_group(0);
    }
    assert_eq!(rt0_tests::wait_for(child), rt0_tests::Ended::Exit(0));
    stop();
}
