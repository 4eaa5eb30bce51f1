//! Once, OnceLock and LazyLock.

use super::*;

#[test]
fn loom_one_runs_and_all_see_what_it_did() {
    model(6, || {
        let once = Arc::new((Once::new(), Watched::default()));
        let call = |(once, value): &(Once, Watched)| {
            once.call_once(|| assert_eq!(value.add(1), 1));
            assert_eq!(value.get(), 1);
        };
        let threads = [spawn(&once, call), spawn(&once, call)];
        interrupt();
        join(threads);
    });
}

#[test]
fn loom_a_waiter_is_woken_also_if_it_came_before_the_closure_began() {
    model(3, || {
        let lock = Arc::new(OnceLock::<Watched>::new());
        let waiters = [spawn(&lock, |lock| lock.wait().get()), spawn(&lock, |lock| lock.wait().get())];
        let value = Watched::default();
        value.add(5);
        assert!(lock.set(value).is_ok());
        assert_eq!(join(waiters), [5, 5]);
    });
}

#[test]
fn loom_a_wait_with_a_deadline_ends() {
    model(3, || {
        let once = Arc::new(Once::new());
        let timed = spawn(&once, |once| once.wait_until(some_time()));
        let other = spawn(&once, |once| once.wait());
        expire();
        once.call_once(|| ());
        timed.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn loom_a_closure_that_fails_lets_the_next_one_run() {
    model(3, || {
        let lock = Arc::new((OnceLock::<Watched>::new(), Watched::default()));
        let attempt = |(lock, tries): &(OnceLock<Watched>, Watched)| {
            let made = lock.get_or_try_init(|| match tries.add(1) {
                1 => Err(()),
                _ => Ok(Watched::default()),
            });
            made.is_ok()
        };
        let threads = [spawn(&lock, attempt), spawn(&lock, attempt)];
        let made = join(threads);
        assert_ne!(made[0], made[1], "one fails and one makes it");
        assert!(lock.0.get().is_some());
    });
}

#[test]
fn loom_a_lazy_value_is_made_once() {
    model(2, || {
        let lazy = Arc::new(LazyLock::<Watched>::new(|| {
            let value = Watched::default();
            value.add(7);
            value
        }));
        let threads = [(); 2].map(|()| spawn(&lazy, |lazy: &LazyLock<Watched>| lazy.get()));
        assert_eq!(lazy.get(), 7);
        assert_eq!(join(threads), [7, 7]);
    });
}
