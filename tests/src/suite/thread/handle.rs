//! Names, ids, handles, parking.

use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use rt0::signal::{self, Action, Signal};
use rt0::sync::Parker;
use rt0::thread::{self, Builder, Thread, spawn};
use rt0::time::Instant;
use rt0::{Errno, sys};
use rt0_tests::{assert_mappings, mappings, often, read_file, wait_until};

use super::TICK;

rt0::test_module! {
    the_threads_that_run_are_found,
    the_threads_that_run_are_found_while_threads_come_and_go,
    a_thread_has_an_id_of_its_own,
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

fn a_thread_has_an_id_of_its_own() {
    let (tid, pid) = spawn(|| (sys::gettid(), sys::getpid())).unwrap().join();
    assert_ne!(tid, sys::gettid());
    assert_eq!(pid, sys::getpid());
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
    assert_mappings(0..=before + 1);
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
