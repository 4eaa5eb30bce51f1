//! The loops over rt0: `counted NAME TIMES`.
#![no_std]
#![no_main]

mod loops;

use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rt0::signal::{self, Action, Signal};
use rt0::sync::{Mutex, Once, RwLock};
use rt0::time::ClockId;
use rt0::{sys, thread};

use loops::Operations;

rt0::entry!(main);

struct Rt0;

static MUTEX: Mutex<usize> = Mutex::new(0);
static RWLOCK: RwLock<usize> = RwLock::new(0);
static ONCE: Once = Once::new();
static PROCESS: AtomicU32 = AtomicU32::new(0);
static THREAD: AtomicU32 = AtomicU32::new(0);

impl Operations for Rt0 {
    #[inline(always)]
    fn call_the_kernel() {
        black_box(sys::getppid());
    }

    #[inline(always)]
    fn read_the_clock() {
        if black_box(ClockId::CLOCK_MONOTONIC.now()).is_err() {
            sys::exit_group(3);
        }
    }

    #[inline(always)]
    fn lock() {
        drop(black_box(MUTEX.lock()));
    }

    #[inline(always)]
    fn lock_for_reading() {
        drop(black_box(RWLOCK.read()));
    }

    #[inline(always)]
    fn call_once() {
        ONCE.call_once(|| {});
    }

    #[inline(always)]
    fn spawn_and_join() {
        match thread::spawn(|| {}) {
            Ok(thread) => thread.join(),
            Err(_) => sys::exit_group(4),
        }
    }

    fn catch_signal() {
        extern "C" fn nothing(_: i32) {}
        // SAFETY: 1. It does nothing.
        if unsafe { signal::sigaction(Signal::SIGUSR1, Action::call(nothing)) }.is_err() {
            sys::exit_group(5);
        }
        PROCESS.store(sys::getpid(), Relaxed);
        THREAD.store(sys::gettid(), Relaxed);
    }

    #[inline(always)]
    fn send_signal() {
        if sys::tgkill(PROCESS.load(Relaxed), THREAD.load(Relaxed), Signal::SIGUSR1.raw()).is_err() {
            sys::exit_group(6);
        }
    }
}

fn main(env: rt0::Env) -> i32 {
    let mut arguments = env.args().skip(1);
    let (Some(name), Some(times)) = (arguments.next(), arguments.next()) else { return 2 };
    let Some(times) = times.to_str().ok().and_then(|times| times.parse().ok()) else { return 2 };
    if loops::run::<Rt0>(name, times) { 0 } else { 2 }
}
