//! Locks: their guarantees, alone and under load.

mod barrier;
mod condvar;
mod mutex;
mod ordered;
mod parker;
mod reentrant_lock;
mod rwlock;
mod semaphore;

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;

use linux_raw_sys::general as k;
use rt0::signal::{self, Action, Signal};
use rt0::sys;
use rt0::thread::{self, JoinHandle, spawn};

const TICK: Duration = Duration::from_millis(20);

rt0::test_module! {
    fast_paths_whose_machine_code_is_looked_at_do_what_the_locks_promise,
    mutex::*,
    rwlock::*,
    reentrant_lock::*,
    condvar::*,
    parker::*,
    semaphore::*,
    barrier::*,
}

fn fast_paths_whose_machine_code_is_looked_at_do_what_the_locks_promise() {
    static LOCKS: ordered::Locks = ordered::Locks::new();
    ordered::call_all(&LOCKS);
}

/// Runs `work` while signals without `SA_RESTART` hit the process as fast as they can be sent.
fn in_a_storm(work: impl FnOnce()) {
    extern "C" fn nothing(_: i32) {}
    static OVER: AtomicBool = AtomicBool::new(false);
    // SAFETY: 1. The handler does nothing.
    unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(nothing)) }.unwrap();
    let storm = spawn(|| {
        while !OVER.load(Relaxed) {
            // SAFETY: 1. Its handler is installed.
            unsafe {
                let to_all = [sys::getpid() as usize, Signal::SIGUSR1.raw() as usize, 0, 0, 0, 0];
                sys::syscall(k::__NR_kill as usize, to_all)
            }
            .unwrap();
            thread::yield_now();
        }
    });
    work();
    OVER.store(true, Relaxed);
    storm.unwrap().join();
}

fn join<T, const N: usize>(threads: [JoinHandle<T>; N]) -> [T; N] {
    threads.map(|thread| thread.join())
}
