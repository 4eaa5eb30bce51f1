//! The cost of a thread as the number of threads grows. All values are per thread, so a constant
//! value is a cost that grows linearly.

use core::hint::black_box;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::metrics::{nothing, status_kib, with_parked};
use crate::samples::{Best, Samples};
use crate::{MOST, Run, Runtime};

/// The numbers of threads.
const COUNTS: [usize; 5] = [1, 8, 64, 512, MOST];

/// Measures all selected metrics.
pub(crate) fn measure<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>) {
    let counts = || COUNTS.into_iter().map(|count| run.of(count, count.min(8)));
    let memory = ["scaling_mappings", "scaling_rss"]; // First, before any stack is cached.
    if run.wants(&memory) {
        counts().for_each(|threads| parked_memory(run, memory, threads));
    }
    if run.wants(&["scaling_spawn_join"]) {
        counts().for_each(|threads| spawn_join(run, "scaling_spawn_join", threads));
    }
    if R::ALL_THREADS && run.wants(&["scaling_all_threads"]) {
        counts().for_each(|threads| all_threads(run, "scaling_all_threads", threads));
    }
    if run.wants(&["scaling_contended"]) {
        counts().for_each(|threads| contended(run, "scaling_contended", threads));
    }
    if run.wants(&["scaling_unpark"]) {
        counts().for_each(|threads| unpark(run, "scaling_unpark", threads));
    }
}

/// Few threads are sampled often, many rarely.
fn repeats(threads: usize) -> usize {
    (2048 / threads).max(1)
}

/// Mappings and resident memory of a parked thread.
fn parked_memory<R: Runtime, A: Iterator<Item = &'static str> + Clone>(
    run: &Run<R, A>,
    [mappings, rss]: [&str; 2],
    threads: usize,
) {
    let counts = || (count_mappings::<R>(), status_kib::<R>("VmRSS:"));
    let before = counts();
    with_parked::<R>(threads, || {
        let now = counts();
        let each = |now: f64, before: f64| (now - before) / threads as f64;
        run.say(format_args!("{mappings}_{threads}"), each(now.0, before.0), "mappings");
        run.say(format_args!("{rss}_{threads}"), each(now.1, before.1), "KiB");
    });
}

fn count_mappings<R: Runtime>() -> f64 {
    R::count_lines(c"/proc/self/maps") as f64
}

/// Starts all threads, then joins them.
fn spawn_join<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>, name: &str, threads: usize) {
    let repeats = run.of(repeats(threads), 1);
    let mut samples = Samples::new();
    for _ in 0..run.of(5, 1) {
        let start = R::now_ns();
        for _ in 0..repeats {
            let mut started = [const { None }; MOST];
            started[..threads].iter_mut().for_each(|thread| *thread = Some(R::spawn(nothing, 0)));
            for thread in &mut started[..threads] {
                thread.take().into_iter().for_each(R::join);
            }
        }
        samples.add((R::now_ns() - start) as f64 / (threads * repeats) as f64);
    }
    run.say_samples(format_args!("{name}_{threads}"), &mut samples, "ns", Best::Low);
}

/// A system call on the main thread and all others, which are parked.
fn all_threads<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>, name: &str, threads: usize) {
    let repeats = run.of(repeats(threads), 1);
    let mut samples = Samples::new();
    with_parked::<R>(threads - 1, || {
        for _ in 0..run.of(5, 1) {
            let start = R::now_ns();
            (0..repeats).for_each(|_| R::setresuid_everywhere());
            samples.add((R::now_ns() - start) as f64 / (threads * repeats) as f64);
        }
    });
    run.say_samples(format_args!("{name}_{threads}"), &mut samples, "ns", Best::Low);
}

/// Threads that lock, count and unlock a fixed number of times together: the time per lock.
fn contended<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>, name: &str, threads: usize) {
    fn contender<R: Runtime>(_: usize) {
        let stage = R::stage();
        drop(R::lock(&stage.gate.0)); // All begin at the same time.
        for _ in 0..stage.repeats.load(Relaxed) {
            *black_box(&mut *R::lock(&stage.mutex.0)) += 1;
        }
    }

    let stage = R::stage();
    let each = run.of(1 << 18, 64) / threads;
    stage.repeats.store(each, Relaxed);
    let mut samples = Samples::new();
    for _ in 0..run.of(5, 1) {
        let closed = R::lock(&stage.gate.0);
        let mut started = [const { None }; MOST];
        started[..threads].iter_mut().for_each(|thread| *thread = Some(R::spawn(contender::<R>, 0)));
        let start = R::now_ns();
        drop(closed);
        for thread in &mut started[..threads] {
            thread.take().into_iter().for_each(R::join);
        }
        samples.add((R::now_ns() - start) as f64 / (threads * each) as f64);
    }
    run.say_samples(format_args!("{name}_{threads}"), &mut samples, "ns", Best::Low);
}

/// Unparks each thread; the last one to wake unparks the main thread.
fn unpark<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>, name: &str, threads: usize) {
    fn sleeper<R: Runtime>(nr: usize) {
        let stage = R::stage();
        R::attach(&stage.many_events[nr]);
        let mut left = stage.repeats.load(Relaxed);
        loop {
            // Release: the main thread may use this thread's event from then on.
            if stage.count.0.fetch_sub(1, Release) == 1 {
                R::post(&stage.events[0].0);
            }
            if left == 0 {
                return;
            }
            left -= 1;
            R::await_post(&stage.many_events[nr]);
        }
    }

    let stage = R::stage();
    let repeats = run.of(repeats(threads), 1);
    let samples_wanted = run.of(5, 1);
    let mut samples = Samples::new();
    stage.repeats.store(repeats * samples_wanted, Relaxed);
    R::attach(&stage.events[0].0);
    let arm = || stage.count.0.store(threads, Relaxed);
    let all_came = || {
        while stage.count.0.load(Acquire) != 0 {
            R::await_post(&stage.events[0].0);
        }
    };
    arm();
    let mut started = [const { None }; MOST];
    let numbered = started[..threads].iter_mut().enumerate();
    numbered.for_each(|(nr, thread)| *thread = Some(R::spawn(sleeper::<R>, nr)));
    all_came();
    for _ in 0..samples_wanted {
        let start = R::now_ns();
        for _ in 0..repeats {
            arm();
            stage.many_events[..threads].iter().for_each(R::post);
            all_came();
        }
        samples.add((R::now_ns() - start) as f64 / (threads * repeats) as f64);
    }
    started.into_iter().flatten().for_each(R::join);
    run.say_samples(format_args!("{name}_{threads}"), &mut samples, "ns", Best::Low);
}
