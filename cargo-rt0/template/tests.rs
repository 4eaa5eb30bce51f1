//! Each test runs in a process of its own, on every machine: `cargo rt0 test --all`.
#![no_std]
#![no_main]

use rt0::test::Expect;
use rt0::thread;

rt0::tests! {
    a_thread_returns_its_result,
    an_empty_list_has_no_first => Expect::panic("called `Option::unwrap()` on a `None` value"),
}

fn a_thread_returns_its_result() {
    let child = thread::spawn(|| 6 * 7).expect("a thread");
    assert_eq!(child.join(), 42);
}

fn an_empty_list_has_no_first(env: rt0::Env) {
    // The arguments are the program's and the test's name.
    env.args().nth(2).unwrap();
}
