//! What a runtime costs, measured by the same loops for each: a runtime is what implements
//! [`Runtime`].
//!
//! A program `bench` prints `metric value unit` lines. A metric that was sampled prints two,
//! `NAME.best` and `NAME.med` (the median of 7 to 15 samples of a few milliseconds). Its arguments:
//! `--list` (the names, nothing is measured), `--smoke` (one tiny sample of each, to see that all
//! works), `--scaling` (what happens as threads become many, instead of the rest), and names of
//! metrics, when not all are wanted.

#![no_std]

mod memory;
mod metrics;
mod samples;
mod scaling;

use core::ops::DerefMut;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

pub use samples::Run;

/// What a runtime offers, by the names of its own.
///
/// The hot ones are `#[inline(always)]` in every implementation, so that what is measured is what a
/// user's own call costs.
pub trait Runtime: Sized + 'static {
    /// Whether there is a way to catch signals.
    const SIGNALS: bool = false;
    /// Whether there is a way to make a system call on every thread.
    const ALL_THREADS: bool = false;
    /// Whether its memcpy and its kin are made to be fast.
    const MEMORY: bool = true;

    /// Everything that the loops share.
    fn stage() -> &'static Stage<Self>;

    /// Writes to descriptor 1 or 2.
    fn write(fd: i32, text: &[u8]);
    /// Fills the start of `buf` from a file of /proc, and says how many bytes there were.
    fn read_file(path: &'static core::ffi::CStr, buf: &mut [u8]) -> usize;
    /// How many lines a file of /proc has.
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
    /// An open one.
    const MUTEX: Self::Mutex;
    /// The right to the number in it.
    type Guard<'a>: DerefMut<Target = u64>;
    /// Locks.
    fn lock(mutex: &Self::Mutex) -> Self::Guard<'_>;

    /// A condition variable.
    type Condvar: Sync;
    /// One that nobody waits for.
    const CONDVAR: Self::Condvar;
    /// Waits for it.
    fn wait<'a>(condvar: &Self::Condvar, guard: Self::Guard<'a>) -> Self::Guard<'a>;
    /// Wakes one who waits.
    fn notify(condvar: &Self::Condvar);

    /// Locks and unlocks a read-write lock, for reading.
    fn read_locked();
    /// Does once what was done before.
    fn call_once();

    /// The best way of handing over from one thread to another.
    type Event: Sync;
    /// One that was not posted.
    const EVENT: Self::Event;
    /// Says that the calling thread is the one that will wait.
    fn attach(event: &Self::Event);
    /// Lets the next or present wait return.
    fn post(event: &Self::Event);
    /// Waits for a post, and takes it.
    fn await_post(event: &Self::Event);

    /// A thread that runs.
    type Thread;
    /// Starts one, with the defaults.
    fn spawn(f: fn(usize), argument: usize) -> Self::Thread;
    /// Waits for its end.
    fn join(thread: Self::Thread);

    /// Catches SIGUSR1 with a function that does nothing.
    fn catch_signal() {}
    /// Sends SIGUSR1 to the calling thread.
    fn raise() {}
    /// setresuid(-1, -1, -1) on every thread.
    fn setresuid_everywhere() {}
}

/// So far apart, no two processors meet that use different ones (pairs of lines are fetched
/// together).
#[repr(align(128))]
struct Apart<T>(T);

/// The most threads there are at once.
const MOST: usize = 4096;

/// Everything that the loops share: a runtime has it as a static.
pub struct Stage<R: Runtime> {
    mutex: Apart<R::Mutex>,
    /// Held while parked threads stay parked.
    gate: Apart<R::Mutex>,
    events: [Apart<R::Event>; 2],
    condvars: [Apart<R::Condvar>; 2],
    /// One per thread that takes part, in the order of their numbers.
    shares: [Apart<AtomicU64>; 16],
    many_events: [R::Event; MOST],
    /// Threads that have come to where they wait, or are still on their way.
    count: Apart<AtomicUsize>,
    flag: Apart<AtomicBool>,
    /// What the loop's thread must know: a count, or a processor.
    parameter: AtomicUsize,
    repeats: AtomicUsize,
}

impl<R: Runtime> Stage<R> {
    /// Before anything has happened.
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

/// Measures what the arguments ask for; the exit status.
pub fn run<R: Runtime>(arguments: impl Iterator<Item = &'static str> + Clone) -> i32 {
    let run = Run::<R, _>::new(arguments);
    if run.scaling() {
        scaling::measure(&run);
    } else {
        metrics::measure(&run);
    }
    0
}
