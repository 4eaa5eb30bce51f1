//! The asymmetric fence.

use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use linux_raw_sys::general as k;
use rt0::thread::{self, spawn};
use rt0::{Errno, all_threads};
use rt0_tests::seccomp::{Verdict, filter};
use rt0_tests::{often, slow, wait_until};

rt0::test_module! {
    of_two_that_mark_and_look_one_sees_the_other,
    without_membarrier_a_heavy_fence_interrupts_each_thread,
}

/// The store-buffer test: each thread stores its word and loads the other's. With a light fence
/// on the one side and a heavy one on the other, not both find the old value.
fn of_two_that_mark_and_look_one_sees_the_other() {
    static ROUND: AtomicU32 = AtomicU32::new(0);
    static WORDS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    static SEEN: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    let rounds = often(4_000) as u32;
    let light = spawn(move || {
        for round in 1..=rounds {
            while ROUND.load(Acquire) != round {
                core::hint::spin_loop();
                if slow() || round % 64 == 0 {
                    thread::yield_now();
                }
            }
            WORDS[0].store(round, Relaxed);
            all_threads::light_fence();
            SEEN.store(WORDS[1].load(Relaxed), Relaxed);
            DONE.store(round, Release);
        }
    })
    .unwrap();
    for round in 1..=rounds {
        ROUND.store(round, Release);
        WORDS[1].store(round, Relaxed);
        all_threads::heavy_fence().unwrap();
        let seen = WORDS[0].load(Relaxed);
        wait_until("the other's look", || DONE.load(Acquire) == round);
        assert!(seen == round || SEEN.load(Relaxed) == round, "round {round}: both saw the old value");
    }
    light.join();
}

fn without_membarrier_a_heavy_fence_interrupts_each_thread() {
    filter(&[k::__NR_membarrier], Verdict::Refuse(Errno::ENOSYS), Verdict::Allow);
    static STOP: AtomicBool = AtomicBool::new(false);
    let others = [(); 2].map(|()| {
        spawn(|| {
            while !STOP.load(Relaxed) {
                core::hint::spin_loop()
            }
        })
        .unwrap()
    });
    (0..often(100)).for_each(|_| all_threads::heavy_fence().unwrap());
    STOP.store(true, Relaxed);
    others.into_iter().for_each(|other| other.join());
}
