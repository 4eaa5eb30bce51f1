//! WaitGroup.

use super::*;
use crate::sync::WaitGroup;

#[test]
fn loom_what_members_did_is_seen_by_all_that_waited() {
    model(1, || {
        let shared = Arc::new((WaitGroup::new(), [Watched::default(), Watched::default()]));
        let [first, second] = [0, 1].map(|me| {
            std::mem::forget(shared.0.enter()); // The thread leaves.
            spawn(&shared, move |(group, values)| {
                values[me].add(1);
                group.leave();
            })
        });
        let waiter = spawn(&shared, |(group, values)| {
            group.wait();
            values[0].get() + values[1].get()
        });
        shared.0.wait();
        assert_eq!(shared.1[0].get() + shared.1[1].get(), 2);
        join([first, second]);
        assert_eq!(waiter.join().unwrap(), 2);
        assert_eq!(shared.0.members(), 0);
    });
}

#[test]
fn loom_a_waiter_does_not_wait_for_members_of_the_next_round() {
    model(3, || {
        let group = Arc::new(WaitGroup::new());
        let first = group.enter();
        let waiter = spawn(&group, WaitGroup::wait);
        let_others_go_first();
        if group.is_waited_for() {
            drop(first);
            let _next = group.enter();
            waiter.join().unwrap();
        } else {
            drop(first);
            waiter.join().unwrap();
        }
    });
}

#[test]
fn loom_a_late_waiter_keeps_no_other() {
    model(3, || {
        let group = Arc::new(WaitGroup::new());
        let member = group.enter();
        let late = spawn(&group, |group| group.wait_until(some_time()));
        let patient = spawn(&group, WaitGroup::wait);
        expire();
        interrupt();
        drop(member);
        patient.join().unwrap();
        late.join().unwrap();
        assert!(group.wait_until(some_time()));
    });
}
