//! The lock of the library among threads of std's.

use std::thread;

use counting::Tally;

#[test]
fn no_count_is_lost_among_threads() {
    let tally = Tally::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| tally.add(1)));
        }
    });
    tally.print();
    assert_eq!(tally.total(), 4000);
}
