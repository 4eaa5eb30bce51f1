//! Barrier.

use super::*;

#[test]
fn loom_what_each_did_before_is_seen_by_all_after() {
    model(3, || {
        let meeting = Arc::new((Barrier::new(2), [Watched::default(), Watched::default()]));
        let meet = |me: usize| {
            move |(barrier, values): &(Barrier, [Watched; 2])| {
                values[me].add(1);
                let led = u32::from(barrier.wait().is_leader());
                assert_eq!(values[1 - me].add(1), 2);
                let led_again = u32::from(barrier.wait().is_leader());
                assert_eq!(values[me].get(), 2);
                led + led_again
            }
        };
        let other = spawn(&meeting, meet(0));
        let led = meet(1)(&meeting);
        assert_eq!(led + other.join().unwrap(), 2);
    });
}

#[test]
fn loom_three_meet_while_signals_come() {
    model(1, || {
        let barrier = Arc::new(Barrier::new(3));
        let threads = [(); 2].map(|()| spawn(&barrier, |barrier| barrier.wait().is_leader()));
        interrupt();
        let leads = barrier.wait().is_leader();
        let leaders = join(threads).into_iter().chain([leads]);
        assert_eq!(leaders.filter(|leads| *leads).count(), 1);
    });
}
