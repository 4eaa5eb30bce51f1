//! Parker.

use super::*;

#[test]
fn loom_what_came_before_an_unpark_is_seen_after_the_park() {
    model(8, || {
        let parker = Arc::new((Parker::new(), Watched::default()));
        let thread = spawn(&parker, |(parker, value)| {
            parker.park();
            assert_eq!(value.add(1), 6);
        });
        parker.1.add(5);
        parker.0.unpark();
        interrupt();
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_token_is_taken_once_and_a_timeout_takes_none_along() {
    model(8, || {
        let parker = Arc::new(Parker::new());
        let parked = spawn(&parker, |parker| parker.park_until(some_time()) || parker.park_until(some_time()));
        parker.unpark();
        expire();
        if !parked.join().unwrap() {
            unreachable!("the second park came after the unpark or the first had the token");
        }
    });
}

#[test]
fn loom_each_token_lets_one_of_several_go() {
    model(3, || {
        let parker = Arc::new(Parker::new());
        let threads = [(); 2].map(|()| spawn(&parker, |parker| parker.park()));
        parker.unpark();
        interrupt();
        thread::yield_now();
        // A second unpark would not add a token: wait until the first is taken.
        while !parker.is_empty() {
            thread::yield_now();
        }
        parker.unpark();
        join(threads);
    });
}
