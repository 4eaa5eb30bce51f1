//! Scopes.

use std::sync::Arc;

use loom::thread;

use crate::futex::fake_kernel::{Watched, interrupt, model};
use crate::thread::scope::{CountedBy, Running};

/// # Safety
///
/// 1. Condition 1 of [`Running::leave`].
unsafe fn leave(running: &Running) {
    // SAFETY: the caller guarantees 1.
    if unsafe { Running::leave(running) } {
        crate::futex::base::wake((&raw const *running).cast(), 1, crate::futex::base::ANY);
    }
}

#[test]
fn loom_a_scope_ends_after_its_last_thread_also_if_threads_start_threads() {
    model(6, || {
        let shared = Arc::new((Running::new(), Watched::default(), Watched::default()));
        shared.0.enter();
        let first = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.0.enter();
                let second = {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        shared.1.add(1);
                        // SAFETY: 1. The thread that started it has counted it.
                        unsafe { leave(&shared.0) };
                    })
                };
                shared.2.add(1);
                // SAFETY: 1. Counted below.
                unsafe { leave(&shared.0) };
                second
            })
        };
        interrupt();
        assert!(shared.0.wait_for_all());
        assert_eq!((shared.1.add(1), shared.2.add(1)), (2, 2));
        first.join().unwrap().join().unwrap();
    });
}

#[test]
fn loom_a_thread_that_was_lost_is_not_waited_for_and_is_not_forgotten() {
    model(8, || {
        let shared = Arc::new((Running::new(), Watched::default()));
        shared.0.enter();
        shared.0.enter();
        let leaves = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.add(1);
                // SAFETY: 1. Counted above.
                unsafe { leave(&shared.0) };
            })
        };
        let removes = {
            let shared = shared.clone();
            // SAFETY: 1. Counted above; it is the lost one's count.
            thread::spawn(move || unsafe { Running::lose(&shared.0) })
        };
        interrupt();
        assert!(!shared.0.wait_for_all());
        assert_eq!(shared.1.add(1), 2);
        leaves.join().unwrap();
        removes.join().unwrap();
    });
}

#[test]
fn loom_a_thread_that_leaves_its_scope_is_not_taken_for_lost() {
    model(8, || {
        let shared = Arc::new((Running::new(), CountedBy::new()));
        shared.1.set(&shared.0);
        shared.0.enter();
        let leaves = {
            let shared = shared.clone();
            thread::spawn(move || {
                // SAFETY: 1. Counted above.
                if unsafe { shared.1.leave(&shared.0) } {
                    crate::futex::base::wake((&raw const shared.0).cast(), 1, crate::futex::base::ANY);
                }
            })
        };
        let listed = usize::from(shared.1.is(&shared.0));
        shared.0.lose_all_but(listed);
        assert!(shared.0.wait_for_all());
        leaves.join().unwrap();
    });
}
