//! A profiler of CPU time: timer_create(2) on each thread's CPU-time clock, and a signal per tick.
//!
//! ```text
//!     a thread runs ── timer: SIGPROF ──▶ handler: pc and stack ──▶ its ring ── drain ──▶ visitor
//! ```
//!
//! Properties, and how they are achieved:
//!
//! 1. *A sample stands for a period of CPU time, on every thread alike:* each thread has its own
//!    timer, so many threads do not share one signal per tick. The first tick is uniform within one
//!    period, so threads that run for part of a period are sampled in proportion. A tick that finds
//!    the previous one undelivered adds to its weight. The kernel checks timers 100 to 1000 times a
//!    second and may miss a shorter thread, so at a thread's end its clock says how many ticks
//!    there should have been. The missing ones make one sample, at the function that the thread
//!    runs; for the thread that calls [`stop`], at `stop`. (On a busy machine the kernel checks the
//!    thread that runs at that moment, and seldom sees one that runs for short times.)
//! 2. *A thread that starts is profiled from its first instruction:* it sets its timer before any
//!    code of the program runs on it, on a clock that was zero when it was cloned.
//! 3. *Each tick counts once:* a limit (`RLIMIT_SIGPENDING`), a filter or an emulator may refuse
//!    timers. Then the process's timer runs too (setitimer(2), `ITIMER_PROF`); its ticks count only
//!    on threads without a timer. A `SIGPROF` from anywhere else does not count. The process's
//!    timer is the fallback because it is less exact: it counts whole ticks of the kernel's, on the
//!    thread that runs at the tick, with one signal for each. On several processors it falls short,
//!    and on a busy machine it may be wrong by a factor of two.
//! 4. *No timer outlives its thread:* the thread deletes it at its end, with all signals blocked.
//! 5. *The handler never waits,* and accesses only its own thread's stack, block and ring. It stays
//!    installed after [`stop`]: with the default action, a tick that is still pending would end the
//!    process.
//! 6. *Start, stop, and threads that start or end exclude each other:* the first two close the list
//!    of threads, and a thread that starts or ends while a profile runs holds the `ListLock`.

mod handler;
pub mod pprof;
mod ring;
mod session;
mod stack;
mod ticks;

use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::errno::{Errno, Result};
use crate::signal::{self, Action, Signal};
use crate::sys;
use crate::thread::{self, Block, List, this_block};
use handler::{store_main_stack, tick};
use ring::Ring;
use session::{
    HOOKS, LOST, NANOS_PER_SEC, SESSION, UNPROFILED, count_missing_ticks, delete_timer, end, profile, time_of,
};
pub(crate) use stack::walk;

/// The most addresses in a sample's stack.
pub const DEPTH: usize = 64;

/// The most samples per second of CPU time that [`start`] takes.
pub const MAX_HZ: u32 = 1_000_000;

/// Starts to profile every thread of the process, with `hz` samples for each second that a thread
/// runs. 100 is usual, and its cost is too small to measure. Above the kernel's own rate
/// (`CONFIG_HZ`, 100 to 1000) there are not more samples but heavier ones.
///
/// Samples of an earlier profile that were not drained are dropped. `SIGPROF` belongs to the
/// profiler from now on, also after [`stop`]. A thread that blocks it is sampled where it unblocks
/// it, with the weight of all that it missed. Stop before execve(2): if the process's timer is in
/// use, it continues and ends the new program.
///
/// Errors: `EINVAL`, `hz` is 0 or above [`MAX_HZ`]; `EBUSY`, a profile runs already or another
/// thread is draining; `ENOMEM`, no memory for the samples. If timers are refused to a thread and
/// to the process, the errno of setitimer(2). After an error nothing was started.
///
/// ```no_run
/// use rt0::profile;
///
/// profile::start(100)?; // Samples a second of processor time.
/// // … what is to be profiled …
/// profile::stop();
/// let drained = profile::drain(|sample| rt0::println!("{} {:#x?}", sample.weight, sample.stack))?;
/// rt0::println!("{} samples did not fit", drained.samples);
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no, it waits for threads that start and end.
pub fn start(hz: u32) -> Result<()> {
    if !(1..=MAX_HZ).contains(&hz) {
        return Err(Errno::EINVAL);
    }
    let _only = Drainer::new()?;
    signal::end_inherited_blocks();
    List::with(|list| {
        if SESSION.0.period.get() != 0 {
            return Err(Errno::EBUSY);
        }
        list.remove_ended();
        thread::register(&HOOKS);
        store_main_stack();
        // SAFETY: 1. `tick` does not wait, and accesses only what property 5 says.
        unsafe { signal::sigaction(Signal::SIGPROF, Action::info(tick)) }?;
        ring::all().for_each(Ring::clear);
        UNPROFILED.store(0, Relaxed);
        LOST.store(0, Relaxed);
        SESSION.0.begin(NANOS_PER_SEC / u64::from(hz));
        let started = list.iter().try_for_each(|thread| {
            // SAFETY: a block stays as long as it is linked.
            let thread = unsafe { thread.as_ref() };
            profile(list, thread, time_of(sys::cpu_clock(thread.tid())).unwrap_or(0))
        });
        started.inspect_err(|_| end(list))
    })
}

/// Stops profiling. The samples stay until [`drain`] or the next [`start`]. Without a start it does
/// nothing.
///
/// If the calling thread has used CPU time that no sample stands for, that makes one more sample,
/// at this function.
///
/// In handlers: no, it waits for threads that start and end.
pub fn stop() {
    List::with(|list| {
        // SAFETY: a running thread's block stays.
        let this = unsafe { this_block().as_ref() };
        if delete_timer(this) {
            count_missing_ticks(this, stop as fn() as usize);
        }
        end(list);
    });
}

/// A point in the program at which a thread was running.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The kernel's number of the thread, which may have ended.
    pub tid: u32,
    /// How many periods of CPU time it stands for.
    pub weight: u32,
    /// First the address of the next instruction, then from the inside out the addresses that the
    /// functions return to, as far as the program has frame pointers
    /// (`-Cforce-frame-pointers=yes`); at most [`DEPTH`] in all. On MIPS and s390x there is only
    /// the first.
    pub stack: &'a [usize],
}

/// What [`drain`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "samples may have been lost"]
#[non_exhaustive]
pub struct Drained {
    /// How many samples it visited.
    pub samples: usize,
    /// How many periods of CPU time had no room for their sample, since the last drain.
    pub lost: u32,
    /// How many threads have started since [`start`] that cannot be profiled: timers are refused to
    /// them and to the process, or there is no memory for their samples.
    pub unprofiled: u32,
}

/// Takes the samples out, those of one thread in order. `visit` is called without a lock and may
/// take its time; the profile continues meanwhile.
///
/// There is room for some 120 samples per thread with the deepest stacks and for 500 with usual
/// ones: at 100 Hz, drain once a second. Errors: `EBUSY`, another thread is draining or starting.
///
/// In handlers: no.
pub fn drain(mut visit: impl FnMut(Sample<'_>)) -> Result<Drained> {
    let _only = Drainer::new()?;
    let mut drained = Drained { samples: 0, lost: LOST.swap(0, Relaxed), unprofiled: UNPROFILED.load(Relaxed) };
    let mut stack = [0; DEPTH];
    for ring in ring::all() {
        let end = ring.end();
        while let Some((tid, weight, depth)) = ring.pop(end, &mut stack) {
            drained.samples += 1;
            visit(Sample { tid, weight, stack: &stack[..depth] });
        }
        drained.lost = drained.lost.saturating_add(ring.take_lost());
    }
    Ok(drained)
}

/// The right to take from the rings.
struct Drainer(());

/// The block of the thread that takes from the rings.
static DRAINING: AtomicPtr<Block> = AtomicPtr::new(null_mut());

impl Drainer {
    fn new() -> Result<Drainer> {
        thread::notice_fork(); // In a forked child the rings still hold samples of the parent.
        let this = this_block().as_ptr();
        // Acquire pairs with the release in `drop`: a ring has one consumer at a time.
        let take = |from| DRAINING.compare_exchange(from, this, Acquire, Acquire);
        match take(null_mut()) {
            Ok(_) => Ok(Drainer(())),
            // A thread that was killed, or that does not exist in a forked child, drains nothing.
            Err(other) if is_gone(other) && take(other).is_ok() => Ok(Drainer(())),
            Err(_) => Err(Errno::EBUSY),
        }
    }
}

impl Drop for Drainer {
    fn drop(&mut self) {
        DRAINING.store(null_mut(), Release);
    }
}

/// Whether a thread, known by its block's address, is not in the list or has ended.
#[cold]
fn is_gone(thread: *const Block) -> bool {
    List::with(|list| {
        // SAFETY: a block stays as long as it is linked.
        !list.iter().any(|block| block.as_ptr().cast_const() == thread && unsafe { block.as_ref() }.tid() != 0)
    })
}
