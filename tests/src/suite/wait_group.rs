//! WaitGroup.

use core::mem::forget;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use rt0::signal::{self, Action, Signal};
use rt0::sync::WaitGroup;
use rt0::test::Expect;
use rt0::time::Instant;
use rt0::{sys, thread};
use rt0_tests::{often, wait_until, wait_until_asleep};

rt0::test_module! {
    a_group_without_members_is_not_waited_for,
    a_wait_returns_after_what_all_members_did,
    each_clone_is_a_member,
    members_of_the_next_round_do_not_keep_a_waiter,
    a_wait_in_vain_is_late_and_leaves_nothing,
    a_signal_handler_may_be_a_member,
    one_member_too_many_panics => Expect::panic("a wait group of more than 2^23 - 1 members"),
}

const SHORT: Duration = Duration::from_millis(10);

fn a_group_without_members_is_not_waited_for() {
    let group = WaitGroup::new();
    group.wait();
    drop(group.enter());
    group.wait();
    assert!(group.wait_timeout(Duration::ZERO) && group.wait_until(Instant::now()));
}

fn a_wait_returns_after_what_all_members_did() {
    static GROUP: WaitGroup = WaitGroup::new();
    static DONE: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    for round in 1..=often(1000) as u32 {
        let members = [0, 1, 2].map(|number| {
            let member = GROUP.enter();
            thread::spawn(move || {
                DONE[number].store(round, Relaxed);
                drop(member);
            })
        });
        let other = thread::spawn(move || {
            GROUP.wait();
            DONE.each_ref().map(|done| done.load(Relaxed))
        });
        GROUP.wait();
        assert_eq!(DONE.each_ref().map(|done| done.load(Relaxed)), [round; 3]);
        assert_eq!(other.unwrap().join(), [round; 3]);
        members.into_iter().for_each(|thread| thread.unwrap().join());
    }
}

fn each_clone_is_a_member() {
    let group = WaitGroup::new();
    let first = group.enter();
    let second = first.clone();
    drop(first);
    assert_eq!(group.members(), 1);
    assert!(!group.wait_timeout(Duration::ZERO));
    drop(second);
    group.wait();
}

fn members_of_the_next_round_do_not_keep_a_waiter() {
    static GROUP: WaitGroup = WaitGroup::new();
    static WAITERS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    let first = GROUP.enter();
    let waiters = WAITERS.each_ref().map(|tid| {
        thread::spawn(|| {
            tid.store(sys::gettid(), Relaxed);
            GROUP.wait();
        })
    });
    for tid in &WAITERS {
        wait_until("a waiter", || tid.load(Relaxed) != 0);
        wait_until_asleep(tid.load(Relaxed));
    }
    drop(first);
    let _next = GROUP.enter(); // Most waiters wake after this.
    waiters.into_iter().for_each(|thread| thread.unwrap().join());
}

fn a_wait_in_vain_is_late_and_leaves_nothing() {
    let group = WaitGroup::new();
    let member = group.enter();
    assert!(!group.wait_timeout(SHORT) && !group.wait_until(Instant::now() + SHORT));
    thread::scope(|scope| {
        let late = scope.spawn(|| group.wait_timeout(SHORT)).unwrap();
        assert!(!late.join());
    });
    drop(member);
    assert!(group.wait_timeout(Duration::ZERO));
    assert_eq!(group.members(), 0);
}

fn a_signal_handler_may_be_a_member() {
    static GROUP: WaitGroup = WaitGroup::new();
    extern "C" fn enter_and_leave(_: i32) {
        drop(GROUP.enter());
    }
    // SAFETY: 1. The handler only counts.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(enter_and_leave)) }.unwrap();
    let member = GROUP.enter();
    let waiter = thread::spawn(|| GROUP.wait()).unwrap();
    for _ in 0..often(300) {
        signal::raise(Signal::SIGUSR1).unwrap();
        waiter.thread().signal(Signal::SIGUSR1).unwrap();
    }
    assert_eq!(GROUP.members(), 1);
    drop(member);
    waiter.join();
}

fn one_member_too_many_panics() {
    let group = WaitGroup::new();
    for _ in 0..=WaitGroup::MAX {
        forget(group.enter());
    }
}
