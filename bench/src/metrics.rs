//! The loops. Each metric is described at its loop; its name is the same for all runtimes.

use core::hint::black_box;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::samples::{Best, Samples};
use crate::{Run, Runtime};

/// Measures all selected metrics.
pub(crate) fn measure<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>) {
    memory(run); // First, before any stack is cached.
    one_thread(run);
    if R::MEMORY {
        crate::memory::measure(run);
    }
    // 4 rounds of xorshift outside the lock take about 7 ns, 64 about 100.
    contended(run, 1, 4, ["mutex_contended_1", "mutex_fairness_1"]);
    contended(run, 2, 4, ["mutex_contended_2", "mutex_fairness_2"]);
    contended(run, 8, 4, ["mutex_contended_8", "mutex_fairness_8"]);
    contended(run, 2, 64, ["mutex_contended_2_long", "mutex_fairness_2_long"]);
    contended(run, 8, 64, ["mutex_contended_8_long", "mutex_fairness_8_long"]);
    ping_pong(run, "pingpong_unpinned", By::Event, [None, None]);
    ping_pong(run, "pingpong_pinned", By::Event, [Some(0), Some(1)]);
    ping_pong(run, "pingpong_one_core", By::Event, [Some(0), Some(0)]);
    ping_pong(run, "pingpong_condvar_unpinned", By::Condvar, [None, None]);
    ping_pong(run, "pingpong_condvar_pinned", By::Condvar, [Some(0), Some(1)]);
    ping_pong(run, "pingpong_condvar_one_core", By::Condvar, [Some(0), Some(0)]);
    spawn_join(run, "spawn_join", None);
    spawn_join(run, "spawn_join_one_core", Some(0));
    spawn_join_batch(run);
    if R::ALL_THREADS {
        all_threads(run, "all_threads_1", 1, 2000);
        all_threads(run, "all_threads_8", 8, 40);
        all_threads(run, "all_threads_64", 64, 40);
        all_threads(run, "all_threads_256", 256, 10);
    }
}

/// Operations of a single thread.
fn one_thread<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>) {
    let stage = R::stage();
    if run.wants(&["null_syscall"]) {
        run.per_call("null_syscall", 15, 50_000, || {
            black_box(R::null_syscall());
        });
    }
    if run.wants(&["clock_mono"]) {
        run.per_call("clock_mono", 15, 50_000, || {
            black_box(R::read_clock());
        });
    }
    // Lock and unlock.
    if run.wants(&["mutex_uncontended"]) {
        run.per_call("mutex_uncontended", 15, 200_000, || drop(black_box(R::lock(&stage.mutex.0))));
    }
    if run.wants(&["rwlock_read_uncontended"]) {
        run.per_call("rwlock_read_uncontended", 15, 200_000, R::read_locked);
    }
    if run.wants(&["once_fast_path"]) {
        run.per_call("once_fast_path", 15, 500_000, R::call_once);
    }
    if run.wants(&["condvar_notify_no_waiter"]) {
        run.per_call("condvar_notify_no_waiter", 15, 100_000, || R::notify(&stage.condvars[0].0));
    }
    // A signal to the own thread, its handler, and the return.
    if R::SIGNALS && run.wants(&["signal_roundtrip"]) {
        R::catch_signal();
        run.per_call("signal_roundtrip", 15, 10_000, R::raise);
    }
}

/// Threads, the k-th on processor k % 2, that lock, count and unlock for 50 ms: the total number of
/// locks, and the ratio of the smallest to the largest share (1 is fair).
fn contended<R: Runtime, A: Iterator<Item = &'static str> + Clone>(
    run: &Run<R, A>,
    threads: usize,
    outside: usize,
    names: [&str; 2],
) {
    fn contender<R: Runtime>(k: usize) {
        let stage = R::stage();
        R::pin(Some(k % 2));
        let rounds = stage.parameter.load(Relaxed);
        let (mut times, mut x) = (0, k as u64 + 1);
        while !stage.flag.0.load(Relaxed) {
            let mut guard = R::lock(&stage.mutex.0);
            *black_box(&mut *guard) += 1;
            drop(guard);
            for _ in 0..rounds {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
            }
            times += 1;
        }
        black_box(x);
        stage.shares[k].0.store(times, Release);
    }

    let needed = if threads == 1 { 0 } else { 1 };
    if !run.wants(&names) || !run.pin(Some(needed), names[0]) {
        return;
    }
    run.pin(None, names[0]);
    let stage = R::stage();
    let window = run.of(50_000_000, 1_000_000) as u64;
    stage.parameter.store(outside, Relaxed);
    let (mut rates, mut fairness) = (Samples::new(), Samples::new());
    for _ in 0..run.of(7, 1) {
        stage.flag.0.store(false, SeqCst);
        let start = R::now_ns();
        let mut started = [const { None }; 16];
        for (k, thread) in started[..threads].iter_mut().enumerate() {
            *thread = Some(R::spawn(contender::<R>, k));
        }
        R::sleep_ns(window);
        stage.flag.0.store(true, SeqCst);
        let time = R::now_ns() - start;
        started.into_iter().flatten().for_each(R::join);
        let shares = || stage.shares[..threads].iter().map(|share| share.0.load(Acquire));
        rates.add(shares().sum::<u64>() as f64 * 1e3 / time as f64);
        fairness.add(shares().min().unwrap_or(0) as f64 / shares().max().unwrap_or(0).max(1) as f64);
    }
    run.say_samples(names[0], &mut rates, "Mops/s", Best::High);
    run.say_samples(names[1], &mut fairness, "min/max", Best::High);
}

/// How two threads notify each other.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Event,
    Condvar,
}

/// A round trip between two threads.
fn ping_pong<R: Runtime, A: Iterator<Item = &'static str> + Clone>(
    run: &Run<R, A>,
    name: &str,
    by: By,
    [mine, other]: [Option<usize>; 2],
) {
    fn arrive<R: Runtime>(cpu: usize) {
        if cpu != usize::MAX {
            R::pin(Some(cpu));
        }
    }
    fn event_partner<R: Runtime>(cpu: usize) {
        let stage = R::stage();
        arrive::<R>(cpu);
        R::attach(&stage.events[0].0);
        stage.flag.0.store(true, Release);
        for _ in 0..stage.repeats.load(Relaxed) {
            R::await_post(&stage.events[0].0);
            R::post(&stage.events[1].0);
        }
    }
    fn condvar_partner<R: Runtime>(cpu: usize) {
        arrive::<R>(cpu);
        R::stage().flag.0.store(true, Release);
        volleys::<R>(false);
    }
    fn volleys<R: Runtime>(serves: bool) {
        let stage = R::stage();
        let (mine, other) = if serves { (1, 0) } else { (0, 1) };
        let mut ball = R::lock(&stage.mutex.0);
        for _ in 0..stage.repeats.load(Relaxed) {
            if serves {
                *ball = 1;
                R::notify(&stage.condvars[other].0);
            }
            while *ball != mine as u64 ^ 1 {
                ball = R::wait(&stage.condvars[mine].0, ball);
            }
            if !serves {
                *ball = 0;
                R::notify(&stage.condvars[other].0);
            }
        }
    }

    if !run.wants(&[name]) || [other, mine].into_iter().any(|cpu| cpu.is_some() && !run.pin(cpu, name)) {
        return;
    }
    let stage = R::stage();
    let repeats = run.of(2000, 10);
    stage.repeats.store(repeats, Relaxed);
    *R::lock(&stage.mutex.0) = 0;
    let mut samples = Samples::new();
    for _ in 0..run.of(9, 1) {
        run.pin(mine, name);
        R::attach(&stage.events[1].0);
        stage.flag.0.store(false, Relaxed);
        let partner = if by == By::Event { event_partner::<R> } else { condvar_partner::<R> };
        let partner = R::spawn(partner, other.unwrap_or(usize::MAX));
        while !stage.flag.0.load(Acquire) {
            R::sleep_ns(1_000_000);
        }
        let start = R::now_ns();
        if by == By::Event {
            for _ in 0..repeats {
                R::post(&stage.events[0].0);
                R::await_post(&stage.events[1].0);
            }
        } else {
            volleys::<R>(true);
        }
        samples.add((R::now_ns() - start) as f64 / repeats as f64);
        R::join(partner);
    }
    run.pin(None, name);
    run.say_samples(name, &mut samples, "ns", Best::Low);
}

pub(crate) fn nothing(_: usize) {}

/// Spawns and joins one thread after the other.
fn spawn_join<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>, name: &str, cpu: Option<usize>) {
    if run.wants(&[name]) && (cpu.is_none() || run.pin(cpu, name)) {
        run.per_call(name, 10, 2000, || R::join(R::spawn(nothing, 0)));
        run.pin(None, name);
    }
}

/// 64 threads are started, then joined: the time for each.
fn spawn_join_batch<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>) {
    let name = "spawn_join_batch";
    if !run.wants(&[name]) {
        return;
    }
    let batches = run.of(20, 1);
    let mut samples = Samples::new();
    for _ in 0..run.of(10, 1) {
        let start = R::now_ns();
        for _ in 0..batches {
            let mut threads = [const { None }; 64];
            threads.iter_mut().for_each(|thread| *thread = Some(R::spawn(nothing, 0)));
            threads.into_iter().flatten().for_each(R::join);
        }
        samples.add((R::now_ns() - start) as f64 / (64 * batches) as f64);
    }
    run.say_samples(name, &mut samples, "ns", Best::Low);
}

/// The VmRSS and VmSize of a parked thread, averaged over 1,000.
fn memory<R: Runtime, A: Iterator<Item = &'static str> + Clone>(run: &Run<R, A>) {
    let metrics = ["mem_rss_per_thread", "mem_vm_per_thread"];
    if run.wants(&metrics) {
        let threads = run.of(1000, 10);
        let sizes = || [status_kib::<R>("VmRSS:"), status_kib::<R>("VmSize:")];
        let before = sizes();
        with_parked::<R>(threads, || {
            for ((name, after), before) in metrics.into_iter().zip(sizes()).zip(before) {
                run.say(name, (after - before) / threads as f64, "KiB");
            }
        });
    }
}

/// setresuid(-1, -1, -1) on the main thread and all others, which are parked.
fn all_threads<R: Runtime, A: Iterator<Item = &'static str> + Clone>(
    run: &Run<R, A>,
    name: &str,
    threads: usize,
    calls: usize,
) {
    if run.wants(&[name]) {
        with_parked::<R>(threads - 1, || run.per_call(name, 15, calls, R::setresuid_everywhere));
    }
}

/// Calls `f` while `threads` threads are parked.
pub(crate) fn with_parked<R: Runtime>(threads: usize, f: impl FnOnce()) {
    fn parked<R: Runtime>(_: usize) {
        let stage = R::stage();
        stage.count.0.fetch_add(1, SeqCst);
        drop(R::lock(&stage.gate.0));
    }

    let stage = R::stage();
    stage.count.0.store(0, SeqCst);
    let closed = R::lock(&stage.gate.0);
    let mut started = [const { None }; crate::MOST];
    started[..threads].iter_mut().for_each(|thread| *thread = Some(R::spawn(parked::<R>, 0)));
    while stage.count.0.load(SeqCst) < threads {
        R::sleep_ns(1_000_000);
    }
    R::sleep_ns(20_000_000); // Until the last of them sleeps too.
    f();
    drop(closed);
    started.into_iter().flatten().for_each(R::join);
}

/// A value in KiB from /proc/self/status.
pub(crate) fn status_kib<R: Runtime>(key: &str) -> f64 {
    let mut buf = [0; 4096];
    let len = R::read_file(c"/proc/self/status", &mut buf);
    let text = core::str::from_utf8(&buf[..len]).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let digits = line.trim_start().bytes().take_while(u8::is_ascii_digit);
    digits.fold(0.0, |value, digit| value * 10.0 + f64::from(digit - b'0'))
}
