//! The cost of a runtime, measured by the same loops for each [`Runtime`].
//!
//! A program `bench` prints `metric value unit` lines. A metric that was sampled prints two,
//! `NAME.best` and `NAME.med` (the median of 7 to 15 samples of a few milliseconds). Its arguments:
//! `--list` (the names, nothing is measured), `--smoke` (one tiny sample of each, to check that all
//! works), `--scaling` (only the metrics with many threads), and names of metrics to select.

#![no_std]

mod memory;
mod metrics;
mod samples;
mod scaling;

use core::ops::DerefMut;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

pub use samples::Run;

/// The operations of a runtime.
///
/// The hot ones are `#[inline(always)]` in every implementation, so that they cost what a user's
/// call costs.
pub trait Runtime: Sized + 'static {
    /// Whether the runtime can catch signals.
    const SIGNALS: bool = false;
    /// Whether the runtime can make a system call on every thread.
    const ALL_THREADS: bool = false;
    /// Whether its memcpy and related functions are optimised.
    const MEMORY: bool = true;

    /// The loops' shared data.
    fn stage() -> &'static Stage<Self>;

    /// Writes to descriptor 1 or 2.
    fn write(fd: i32, text: &[u8]);
    /// Fills the start of `buf` from a file of /proc; returns the number of bytes.
    fn read_file(path: &'static core::ffi::CStr, buf: &mut [u8]) -> usize;
    /// The number of lines in a file of /proc.
    fn count_lines(path: &'static core::ffi::CStr) -> usize;
    /// The monotonic clock, for the loops themselves.
    fn now_ns() -> u64;
    /// Sleeps.
    fn sleep_ns(ns: u64);
    /// Binds the calling thread to a processor, or to none; false if that is refused.
    fn pin(cpu: Option<usize>) -> bool;

    /// getppid(2), as a user would make it.
    fn null_syscall() -> u32;
    /// The monotonic clock, as a user would read it.
    fn read_clock() -> impl Sized;

    /// Mutual exclusion.
    type Mutex: Sync;
    /// An unlocked mutex.
    const MUTEX: Self::Mutex;
    /// Access to the number in the mutex.
    type Guard<'a>: DerefMut<Target = u64>;
    /// Locks.
    fn lock(mutex: &Self::Mutex) -> Self::Guard<'_>;

    /// A condition variable.
    type Condvar: Sync;
    /// A condition variable without waiters.
    const CONDVAR: Self::Condvar;
    /// Waits for a notification.
    fn wait<'a>(condvar: &Self::Condvar, guard: Self::Guard<'a>) -> Self::Guard<'a>;
    /// Wakes one waiter.
    fn notify(condvar: &Self::Condvar);

    /// Locks and unlocks a read-write lock, for reading.
    fn read_locked();
    /// Calls a `Once` that has run.
    fn call_once();

    /// The runtime's fastest notification from one thread to another.
    type Event: Sync;
    /// An event that was not posted.
    const EVENT: Self::Event;
    /// Declares that the calling thread will wait.
    fn attach(event: &Self::Event);
    /// Makes the current or the next wait return.
    fn post(event: &Self::Event);
    /// Waits for a post and consumes it.
    fn await_post(event: &Self::Event);

    /// A running thread.
    type Thread;
    /// Starts a thread, with the defaults.
    fn spawn(f: fn(usize), argument: usize) -> Self::Thread;
    /// Waits for a thread's end.
    fn join(thread: Self::Thread);

    /// Catches SIGUSR1 with a function that does nothing.
    fn catch_signal() {}
    /// Sends SIGUSR1 to the calling thread.
    fn raise() {}
    /// setresuid(-1, -1, -1) on every thread.
    fn setresuid_everywhere() {}
}

/// At this distance two values are not in the same pair of cache lines, which processors fetch
/// together.
#[repr(align(128))]
struct Apart<T>(T);

/// The most threads at the same time.
const MOST: usize = 4096;

/// The loops' shared data, a static of each runtime.
pub struct Stage<R: Runtime> {
    mutex: Apart<R::Mutex>,
    /// Held while parked threads stay parked.
    gate: Apart<R::Mutex>,
    events: [Apart<R::Event>; 2],
    condvars: [Apart<R::Condvar>; 2],
    /// One per participating thread, by its number.
    shares: [Apart<AtomicU64>; 16],
    many_events: [R::Event; MOST],
    /// The number of threads that have reached their wait, or have not yet.
    count: Apart<AtomicUsize>,
    flag: Apart<AtomicBool>,
    /// The loop's parameter for its thread: a count or a processor.
    parameter: AtomicUsize,
    repeats: AtomicUsize,
}

impl<R: Runtime> Stage<R> {
    /// The initial state.
    pub const fn new() -> Stage<R> {
        Stage {
            mutex: Apart(R::MUTEX),
            gate: Apart(R::MUTEX),
            events: [const { Apart(R::EVENT) }; 2],
            condvars: [const { Apart(R::CONDVAR) }; 2],
            shares: [const { Apart(AtomicU64::new(0)) }; 16],
            many_events: [const { R::EVENT }; MOST],
            count: Apart(AtomicUsize::new(0)),
            flag: Apart(AtomicBool::new(false)),
            parameter: AtomicUsize::new(0),
            repeats: AtomicUsize::new(0),
        }
    }
}

impl<R: Runtime> Default for Stage<R> {
    fn default() -> Stage<R> {
        Stage::new()
    }
}

/// Measures as the arguments say; returns the exit status.
pub fn run<R: Runtime>(arguments: impl Iterator<Item = &'static str> + Clone) -> i32 {
    let run = Run::<R, _>::new(arguments);
    if run.scaling() {
        scaling::measure(&run);
    } else {
        metrics::measure(&run);
    }
    0
}
