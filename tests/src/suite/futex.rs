//! futex(2): what each function promises.

use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::time::Instant;
use rt0::{Errno, futex, thread};
use rt0_tests::wait_until;

const TICK: Duration = Duration::from_millis(20);

rt0::test_module! {
    a_word_that_differs_is_eagain,
    a_timeout_is_etimedout_and_not_early,
    a_timeout_of_zero_is_etimedout,
    a_deadline_in_the_past_is_etimedout,
    a_timeout_beyond_the_clock_waits_until_woken,
    times_are_right_also_where_the_kernel_has_32_bit_time_only,
    a_wake_without_waiters_is_0,
    one_wake_lets_one_go_and_wake_all_the_rest,
    shared_wakes_do_the_same,
    a_private_wait_is_not_woken_by_a_shared_wake,
    no_wake_is_lost_between_two_threads,
}

fn a_word_that_differs_is_eagain() {
    let word = AtomicU32::new(1);
    assert_eq!(futex::wait(&word, 0), Err(Errno::EAGAIN));
    assert_eq!(futex::shared::wait(&word, 0), Err(Errno::EAGAIN));
    assert_eq!(futex::wait_timeout(&word, 0, TICK), Err(Errno::EAGAIN));
    assert_eq!(futex::wait_until(&word, 0, Instant::now()), Err(Errno::EAGAIN));
}

fn a_timeout_is_etimedout_and_not_early() {
    let word = AtomicU32::new(0);
    for wait in [futex::wait_timeout, futex::shared::wait_timeout] {
        let start = Instant::now();
        assert_eq!(wait(&word, 0, TICK), Err(Errno::ETIMEDOUT));
        assert!(start.elapsed() >= TICK, "{:?}", start.elapsed());
    }
}

fn a_timeout_of_zero_is_etimedout() {
    let word = AtomicU32::new(0);
    assert_eq!(futex::wait_timeout(&word, 0, Duration::ZERO), Err(Errno::ETIMEDOUT));
}

fn a_deadline_in_the_past_is_etimedout() {
    let word = AtomicU32::new(0);
    let now = Instant::now();
    assert_eq!(futex::wait_until(&word, 0, now), Err(Errno::ETIMEDOUT));
    let before_the_clock = now.checked_sub(Duration::from_secs(1 << 40)).unwrap();
    assert_eq!(futex::wait_until(&word, 0, before_the_clock), Err(Errno::ETIMEDOUT));
}

fn a_timeout_beyond_the_clock_waits_until_woken() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    for timeout in [Duration::MAX, Duration::from_secs(i64::MAX as u64), Duration::from_secs(1 << 33)] {
        WORD.store(0, Relaxed);
        let waiter = thread::spawn(move || {
            while WORD.load(Acquire) == 0 {
                let waited = futex::wait_timeout(&WORD, 0, timeout);
                assert!(matches!(waited, Ok(()) | Err(Errno::EAGAIN | Errno::EINTR)), "{waited:?}");
            }
        })
        .unwrap();
        thread::sleep(TICK);
        WORD.store(1, Release);
        futex::wake_all(&WORD);
        waiter.join();
    }
}

fn times_are_right_also_where_the_kernel_has_32_bit_time_only() {
    // Makes uname(2) report 2.6, before any call with a time. (No effect on machines with one
    // width of time.)
    const UNAME26: usize = 0x0020000;
    // SAFETY: 1. It only changes the result of uname(2).
    unsafe { rt0::sys::syscall(k::__NR_personality as usize, [UNAME26, 0, 0, 0, 0, 0]) }.unwrap();
    let word = AtomicU32::new(0);
    let start = Instant::now();
    assert_eq!(futex::wait_timeout(&word, 0, TICK), Err(Errno::ETIMEDOUT));
    assert!(start.elapsed() >= TICK);
    thread::sleep(TICK);
    assert!(start.elapsed() >= 2 * TICK && start.elapsed() < Duration::from_secs(100));
    let far = thread::spawn(|| thread::park_timeout(Duration::from_secs(1 << 33))).unwrap();
    thread::sleep(TICK);
    assert!(!far.is_finished(), "a timeout beyond 2038 is cut short, not past");
    far.thread().unpark();
    far.join();
}

fn a_wake_without_waiters_is_0() {
    let word = AtomicU32::new(0);
    assert_eq!((futex::wake(&word, 1), futex::wake(&word, 0), futex::wake_all(&word)), (0, 0, 0));
    assert_eq!((futex::shared::wake(&word, u32::MAX), futex::shared::wake_all(&word)), (0, 0));
}

fn one_wake_lets_one_go_and_wake_all_the_rest() {
    wakes(futex::wait, futex::wake, futex::wake_all);
}

fn shared_wakes_do_the_same() {
    wakes(futex::shared::wait, futex::shared::wake, futex::shared::wake_all);
}

/// The flag for private words reaches the kernel, which uses different keys for private and
/// shared waits.
fn a_private_wait_is_not_woken_by_a_shared_wake() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let waiter = thread::spawn(|| while futex::wait(&WORD, 0) == Err(Errno::EINTR) {}).unwrap();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(1));
        assert_eq!(futex::shared::wake_all(&WORD), 0);
    }
    wait_until("the waiter to wake", || futex::wake(&WORD, 1) == 1);
    waiter.join();
}

fn no_wake_is_lost_between_two_threads() {
    static TURN: AtomicU32 = AtomicU32::new(0);
    const ROUNDS: u32 = 2000;
    let play = |parity: u32| {
        move || {
            for _ in 0..ROUNDS {
                loop {
                    let turn = TURN.load(Acquire);
                    if turn % 2 == parity {
                        break;
                    }
                    let _ = futex::wait(&TURN, turn);
                }
                TURN.fetch_add(1, Release);
                futex::wake(&TURN, 1);
            }
        }
    };
    let (a, b) = (thread::spawn(play(0)).unwrap(), thread::spawn(play(1)).unwrap());
    a.join();
    b.join();
    assert_eq!(TURN.load(Relaxed), 2 * ROUNDS);
}

/// Eight threads wait; some are woken one at a time, then the rest at once.
fn wakes(
    wait: fn(&AtomicU32, u32) -> Result<(), Errno>,
    wake: fn(&AtomicU32, u32) -> usize,
    wake_all: fn(&AtomicU32) -> usize,
) {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static LEFT: AtomicU32 = AtomicU32::new(8);
    let waiters = [(); 8].map(|()| {
        thread::spawn(move || {
            // Counted only when woken: a wait that ends by a signal or spuriously is repeated.
            while wait(&WORD, 0) == Err(Errno::EINTR) {}
            LEFT.fetch_sub(1, Relaxed);
        })
        .unwrap()
    });
    let mut woken = 0;
    for count in [1, 2] {
        wait_until("a waiter to wake", || {
            woken += wake(&WORD, count);
            woken >= count as usize
        });
        wait_until("the woken to go on", || 8 - LEFT.load(Relaxed) as usize == woken);
    }
    wait_until("the rest to wake", || {
        woken += wake_all(&WORD);
        woken == 8
    });
    waiters.into_iter().for_each(|waiter| waiter.join());
    assert_eq!(LEFT.load(Relaxed), 0);
}
