//! Each test runs in a process of its own, on every machine: `cargo rt0 test --all`.
#![no_std]
#![no_main]

use core::time::Duration;

use rt0::signal::{self, Signal};
use rt0::sync::Mutex;
use rt0::test::Expect;
use rt0::{Env, println, thread};

rt0::tests! {
    threads_share_a_counter,
    a_line_is_printed => Expect::success().stdout("nineteen machines\n"),
    arguments_and_variables_arrive => Expect::success().args(&["a b", ""]).env(&[("WHAT", "it says")]),
    a_broken_promise_panics => Expect::panic("no process has this id"),
    a_status_is_passed_on => Expect::exit(3),
    an_abort_is_a_signal => Expect::signal(6),
    an_end_comes_in_time => Expect::success().limit(120),
}

fn threads_share_a_counter() {
    let counter = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| *counter.lock() += 1).expect("a thread");
        }
    });
    assert_eq!(*counter.lock(), 4);
}

fn a_line_is_printed() {
    println!("nineteen machines");
}

fn arguments_and_variables_arrive(env: Env) {
    assert!(env.args().skip(2).eq([c"a b", c""]));
    assert_eq!(env.var("WHAT"), Some(c"it says"));
}

fn a_broken_promise_panics() {
    let promise = rt0::sys::getpid() == 0;
    assert!(promise, "no process has this id");
}

fn a_status_is_passed_on() {
    rt0::sys::exit_group(3)
}

fn an_abort_is_a_signal() {
    signal::raise(Signal::SIGABRT).expect("it is sent");
}

fn an_end_comes_in_time() {
    thread::sleep(Duration::from_millis(1));
}
