//! The timers: one for each thread, or one for the process where these are refused, and what is
//! left of them.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::general as k;
use rt0::profile::{drain, start, stop};
use rt0::{Errno, println, sys, thread};
use rt0_tests::{assert_mappings, emulated, mappings, often, slow, wait_until};

use super::{HZ, PERIOD, assert_stands_for, burn, compute, cpu_time, filter, lost, thread_time, timers, total};

/// The process's timer alone gives samples, and not many more than the CPU time. The exact number
/// depends on the machine's load: the timer counts whole ticks of the kernel, for the thread that
/// runs at the tick.
fn falls_back() {
    let mut micros = 150_000;
    loop {
        start(HZ).unwrap();
        assert!(emulated() || timers() == 0);
        let before = cpu_time();
        burn(micros);
        let spent = cpu_time() - before;
        stop();
        let sampled = total() * PERIOD;
        println!("{spent} us spent, {sampled} us sampled");
        if sampled > 0 && sampled <= spent * 3 + 2 * PERIOD {
            return;
        }
        assert!(micros < 4_000_000, "also in a long run");
        micros *= 2;
    }
}

/// Makes the kernel refuse timers, or allow them again: prlimit(2) of `RLIMIT_SIGPENDING`.
fn allow_timers(allow: bool) {
    let (mut limits, unchanged) = ([0u64; 2], core::ptr::null_mut()); // Soft and hard.
    let prlimit = |new: *const [u64; 2], old: *mut [u64; 2]| {
        let args = [0, k::RLIMIT_SIGPENDING as usize, new.expose_provenance(), old.expose_provenance(), 0, 0];
        // SAFETY: 1. The kernel reads or writes the limits.
        unsafe { sys::syscall(k::__NR_prlimit64 as usize, args) }.expect("prlimit");
    };
    prlimit(unchanged, &raw mut limits);
    limits[0] = if allow { limits[1] } else { 0 };
    prlimit(&raw const limits, unchanged);
}

rt0::test_module! {
    no_timer_outlives_its_thread,
    a_thousand_starts_and_stops_leave_nothing,
    where_timers_are_refused_the_process_has_one,
    a_filter_that_forbids_timers_leaves_the_process_timer,
    with_both_sources_each_tick_counts_once,
    filters_that_forbid_both_are_an_error,
    a_timer_that_cannot_be_deleted_counts_no_more,
}

fn no_timer_outlives_its_thread() {
    start(HZ).unwrap();
    let before = timers();
    assert_eq!(before, 1, "main's");
    for _ in 0..50 {
        let handles: [_; 4] = core::array::from_fn(|_| thread::spawn(|| burn(1000)).unwrap());
        handles.into_iter().for_each(|handle| handle.join());
    }
    drop(thread::spawn(|| burn(1000)).unwrap());
    wait_until("the detached thread's timer to go", || timers() == before);
    stop();
    assert_eq!(timers(), 0);
    assert!(total() > 0);
}

fn a_thousand_starts_and_stops_leave_nothing() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let busy: [_; 3] = core::array::from_fn(|_| {
        thread::spawn(|| {
            while !DONE.load(Relaxed) {
                compute();
            }
        })
        .unwrap()
    });
    start(HZ).unwrap();
    stop();
    let before = mappings();
    for _ in 0..often(1000) {
        start(1000).unwrap();
        compute();
        stop();
    }
    assert_mappings(before..=before);
    DONE.store(true, Relaxed);
    busy.into_iter().for_each(|handle| handle.join());
    assert_eq!(timers(), 0);
}

fn where_timers_are_refused_the_process_has_one() {
    allow_timers(false);
    falls_back();
}

fn a_filter_that_forbids_timers_leaves_the_process_timer() {
    filter(k::__NR_timer_create);
    falls_back();
}

fn with_both_sources_each_tick_counts_once() {
    // Main and the first thread have timers, and ignore the process's ticks, which reach them
    // too. Threads that start beyond the limit count only the process's ticks.
    let work = || {
        let before = thread_time();
        burn(120_000);
        (sys::gettid(), thread_time() - before)
    };
    static HAS_STARTED: AtomicBool = AtomicBool::new(false);
    start(HZ).unwrap();
    let first = thread::spawn(move || {
        HAS_STARTED.store(true, Relaxed);
        work()
    })
    .unwrap();
    while !HAS_STARTED.load(Relaxed) {
        thread::yield_now();
    }
    allow_timers(false);
    let others = [thread::spawn(work).unwrap(), thread::spawn(work).unwrap()];
    let main = work();
    let threads = [main, first.join()];
    let others = others.map(|other| other.join().0);
    stop();
    let (mut weights, mut of_others) = ([0; 2], 0);
    let _ = drain(|sample| {
        for (weight, _) in weights.iter_mut().zip(threads).filter(|(_, (tid, _))| *tid == sample.tid) {
            *weight += u64::from(sample.weight);
        }
        of_others += if others.contains(&sample.tid) { u64::from(sample.weight) } else { 0 };
    })
    .unwrap();
    println!("{threads:?}: {weights:?}; {of_others}");
    for ((_, spent), weight) in threads.into_iter().zip(weights) {
        assert_stands_for(weight, spent);
    }
    assert!((1..200).contains(&of_others));
}

fn filters_that_forbid_both_are_an_error() {
    filter(k::__NR_timer_create);
    filter(k::__NR_setitimer);
    for _ in 0..3 {
        assert_eq!(start(HZ), Err(Errno::EPERM));
    }
    assert_eq!(total(), 0);
}

fn a_timer_that_cannot_be_deleted_counts_no_more() {
    filter(k::__NR_timer_delete);
    start(HZ).unwrap();
    burn(100_000);
    stop();
    assert!(total() > 0);
    burn(100_000);
    assert_eq!(total(), 0);
    thread::spawn(|| burn(1000)).unwrap().join();
    start(HZ).unwrap();
    let spent = {
        let before = cpu_time();
        burn(200_000);
        cpu_time() - before
    };
    stop();
    let sampled = total() * PERIOD;
    // A timer that still counts would double it.
    let slack = 2 * PERIOD + if slow() { lost(spent) } else { 0 };
    assert!(sampled <= spent + slack, "{sampled} us sampled, {spent} us spent");
}
