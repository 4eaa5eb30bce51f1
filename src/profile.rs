//! Where the program spends its CPU time: timer_create(2) on each thread's CPU-time clock, and a
//! signal per tick.
//!
//! ```text
//!     a thread runs ── timer: SIGPROF ──▶ handler: pc and stack ──▶ its ring ── drain ──▶ visitor
//! ```
//!
//! What holds, and how:
//!
//! 1. *A sample stands for a period of CPU time, on every thread alike:* each thread has its own
//!    timer, so many threads do not share one signal per tick. The first tick is uniform within one
//!    period, so threads that run for part of a period are sampled in proportion. A tick that finds
//!    the previous one undelivered adds to its weight. The kernel checks timers 100 to 1000 times a
//!    second and may miss a shorter thread, so at a thread's end its clock says how many ticks
//!    there should have been. The missing ones make one sample, at the function that the thread
//!    runs; for the thread that calls [`stop`], at `stop`. (On a busy machine the kernel checks the
//!    thread that runs at that moment, and seldom sees one that runs for short times.)
//! 2. *A thread that starts is profiled from its first instruction:* it sets its timer before
//!    anything of the program runs on it, on a clock that was zero when it was cloned.
//! 3. *Each tick counts once:* a limit (`RLIMIT_SIGPENDING`), a filter or an emulator may refuse
//!    timers. Then the process's timer runs too (setitimer(2), `ITIMER_PROF`); its ticks count only
//!    on threads without a timer. A `SIGPROF` from anywhere else does not count. The process's
//!    timer is the fallback because it is less exact: it counts whole ticks of the kernel's, on the
//!    thread that runs at the tick, with one signal for each. On several processors it falls short,
//!    and on a busy machine it may be wrong by a factor of two.
//! 4. *No timer outlives its thread:* the thread deletes it at its end, with all signals blocked.
//! 5. *The handler never waits,* and accesses only its own thread's stack, block and ring. It stays
//!    installed after [`stop`]: a tick that is still on its way finds it and does nothing, where
//!    the default action would end the process.
//! 6. *Start, stop, and threads that start or end exclude each other:* the first two close the list
//!    of threads, and a thread that starts or ends while a profile runs holds its links.

mod ring;
mod stack;
mod ticks;

use core::cell::Cell;
use core::ops::Range;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use linux_raw_sys::general as k;

use crate::arch::{Arch, Cpu};
use crate::errno::{Errno, Result};
use crate::random;
use crate::signal::{self, Action, Info, Signal};
use crate::sys::{self, Timespec};
use crate::thread::{self, Block, Hooks, Links, List, this_block};
use ring::Ring;
pub(crate) use stack::walk;
use ticks::Ticks;

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
        // SAFETY: 1. `tick` does not wait, and accesses what (5) says.
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
            count_what_is_missing(this, stop as fn() as usize);
        }
        end(list);
    });
}

/// A place where a thread was seen to run.
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
            // A thread that was killed, or that does not exist in a forked child, drains no more.
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

/// The running profile. Accessed only while holding the [`Links`]. `period` changes only while the
/// list is closed.
struct Session {
    /// Nanoseconds of CPU time between two samples of a thread; 0 if no profile runs.
    period: Cell<u64>,
    /// The value that this session's timers send. No earlier session had it.
    token: Cell<usize>,
    random: Cell<u64>,
}

struct Locked(Session);

// SAFETY: accessed only while holding the `Links`, which one thread has at a time.
unsafe impl Sync for Locked {}

static SESSION: Locked = Locked(Session { period: Cell::new(0), token: Cell::new(0), random: Cell::new(0) });

/// Whether the process's timer runs. The handler reads it.
static PROCESS_TIMER: AtomicU32 = AtomicU32::new(0);

/// The weight of ticks on threads without a ring.
static LOST: AtomicU32 = AtomicU32::new(0);

static UNPROFILED: AtomicU32 = AtomicU32::new(0);

impl Session {
    fn begin(&self, period: u64) {
        self.period.set(period);
        // Odd: another user of SIGPROF may send an address, which is even.
        self.token.set(self.token.get().wrapping_add(2) | 1);
        let seed = time_of(k::CLOCK_MONOTONIC as i32).unwrap_or(0);
        self.random.set(self.random.get() ^ seed);
    }

    /// Uniform in (0, period]; 0 would disarm a timer.
    fn first_tick(&self) -> u64 {
        // splitmix64: a counter, mixed.
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        random::mix(state) % self.period.get() + 1
    }
}

thread::part! {
    /// Each thread's.
    static SLOT: Slot;
}

static HOOKS: Hooks = Hooks { start: Some(enter), end: Some(leave), fork: Some(fork) };

/// What the profiler keeps of a thread.
struct Slot {
    /// The value that this thread's timer sends; 0 if it has no timer. The handler reads it.
    token: AtomicUsize,
    /// Where its samples go. It stays from the first profile to the thread's end, because the
    /// handler may be writing there.
    ring: AtomicPtr<Ring>,
    /// The weight of the timer's ticks so far. The handler adds to it.
    counted: Ticks,
    /// The timer, and the time of its first tick on the thread's clock. Accessed only while holding
    /// the [`Links`].
    timer: Cell<(i32, u64)>,
}

// SAFETY: `timer` is accessed only while holding the `Links`, which one thread has at a time.
unsafe impl Sync for Slot {}

impl Slot {
    const fn new() -> Slot {
        Slot {
            token: AtomicUsize::new(0),
            ring: AtomicPtr::new(null_mut()),
            counted: Ticks::new(0),
            timer: Cell::new((0, 0)),
        }
    }
}

/// Profiles the calling thread, which has just started, if a profile runs (2) and [`start`] did not
/// find the thread in the list.
fn enter(links: &Links, thread: &Block) {
    let must_be = SESSION.0.period.get() != 0 && SLOT.of(thread).token.load(Relaxed) != SESSION.0.token.get();
    if must_be && profile(links, thread, 0).is_err() {
        ticks::add_saturating(&UNPROFILED, 1);
    }
}

/// The end of a thread's profile: called by the thread itself, with all signals blocked, or after
/// it ended (4).
fn leave(links: &Links, block: &Block) {
    if delete_timer(block) && NonNull::from_ref(block) == this_block() {
        count_what_is_missing(block, block.run.get().map_or(0, |run| run as usize));
    }
    if let Some(ring) = NonNull::new(SLOT.of(block).ring.swap(null_mut(), Relaxed)) {
        ring::give_back(links, ring);
    }
}

/// A forked child has no timers and no profile, because these are the parent's. Its samples are
/// dropped. All rings are free: their threads do not exist here, and the calling one takes a ring
/// again.
fn fork(links: &Links, thread: &Block) {
    SESSION.0.period.set(0);
    PROCESS_TIMER.store(0, Relaxed);
    SLOT.of(thread).token.store(0, Relaxed);
    SLOT.of(thread).ring.store(null_mut(), Relaxed);
    ring::free_all(links);
    for count in [&LOST, &UNPROFILED] {
        count.store(0, Relaxed);
    }
}

/// Gives a thread a ring and a timer, whose first tick is within a period after `since` on the
/// thread's clock. If a timer is refused, the process's timer runs instead (3).
fn profile(links: &Links, thread: &Block, since: u64) -> Result<()> {
    let (slot, session) = (SLOT.of(thread), &SESSION.0);
    if slot.ring.load(Relaxed).is_null() {
        // Release: what is in the ring comes before the handler finds it.
        slot.ring.store(ring::take(links)?.as_ptr(), Release);
    }
    let (tid, token, first) = (thread.tid(), session.token.get(), since + session.first_tick());
    let timer = match sys::timer_create(sys::cpu_clock(tid), tid, k::SIGPROF, token) {
        Ok(timer) => timer,
        Err(_) => return start_process_timer(),
    };
    slot.timer.set((timer, first));
    slot.counted.clear();
    // Stored before the timer runs, so that the first tick counts. Release: the ring comes before.
    slot.token.store(token, Release);
    if sys::timer_settime_abs(timer, timespec(session.period.get()), timespec(first)).is_err() {
        delete_timer(thread);
        return start_process_timer();
    }
    Ok(())
}

/// Deletes a thread's timer, if it has one. Ticks that it has sent no longer count.
fn delete_timer(thread: &Block) -> bool {
    let had = SLOT.of(thread).token.swap(0, Relaxed) != 0;
    if had {
        // A filter may refuse it, and in a forked child the timer is the parent's. Ticks that still
        // come do not count.
        let _ = sys::timer_delete(SLOT.of(thread).timer.get().0);
    }
    had
}

fn start_process_timer() -> Result<()> {
    if PROCESS_TIMER.load(Relaxed) == 0 {
        // Stored before the timer runs, so that the first tick counts.
        PROCESS_TIMER.store(1, Relaxed);
        let first = timespec(SESSION.0.first_tick().max(1000)); // It counts in microseconds.
        let interval = timespec(SESSION.0.period.get());
        sys::setitimer_prof(interval, first).inspect_err(|_| PROCESS_TIMER.store(0, Relaxed))?;
    }
    Ok(())
}

fn end(list: &List<'_>) {
    SESSION.0.period.set(0);
    for thread in list.iter() {
        // SAFETY: a block stays as long as it is linked.
        delete_timer(unsafe { thread.as_ref() });
    }
    if PROCESS_TIMER.swap(0, Relaxed) != 0 {
        // If a filter that was installed since refuses it, its ticks continue and do not count.
        let _ = sys::setitimer_prof(timespec(0), timespec(0));
    }
}

/// Adds the last sample of the calling thread (1), whose timer is deleted: for the ticks that its
/// clock has passed and that had no signal.
fn count_what_is_missing(thread: &Block, at: usize) {
    let slot = SLOT.of(thread);
    let (Some(now), Some(ring)) = (time_of(k::CLOCK_THREAD_CPUTIME_ID as i32), slot.ring()) else { return };
    let (_, first) = slot.timer.get();
    let due = now.checked_sub(first).map_or(0, |past| past / SESSION.0.period.get() + 1);
    for weight in ticks::weights(due.saturating_sub(slot.counted.get())) {
        ring.push(sys::gettid(), weight, &[at]);
    }
}

impl Slot {
    fn ring(&self) -> Option<&'static Ring> {
        // Acquire pairs with the release in `profile`: what is in the ring comes before its
        // address.
        // SAFETY: rings stay.
        unsafe { self.ring.load(Acquire).as_ref() }
    }
}

/// The handler.
fn tick(info: &Info) {
    let Some(block) = thread::block_in_handler() else {
        // The thread is not rt0's: it has no ring, and only the process's timer.
        if info.timer().is_none() && info.code() == k::SI_KERNEL as i32 && PROCESS_TIMER.load(Relaxed) != 0 {
            LOST.fetch_add(1, Relaxed);
        }
        return;
    };
    let slot = SLOT.of(block);
    // Acquire pairs with the release in `profile`.
    let weight = match (slot.token.load(Acquire), info.timer()) {
        (0, None) if info.code() == k::SI_KERNEL as i32 && PROCESS_TIMER.load(Relaxed) != 0 => 1,
        (token, Some(timer)) if token != 0 && timer.value == token => {
            let weight = timer.overrun.saturating_add(1);
            slot.counted.add(weight);
            weight
        }
        _ => return,
    };
    let Some(ring) = slot.ring() else {
        ticks::add_saturating(&LOST, weight);
        return;
    };
    let mut frames = [0; DEPTH];
    let bounds = readable(block, info.sp());
    // Volatile, because any variable may lie there.
    // SAFETY: within the bounds, so it is mapped and lies on this thread's own stack.
    let read = |address| Some(unsafe { core::ptr::with_exposed_provenance::<usize>(address).read_volatile() });
    let depth = stack::walk(Cpu::FRAMES.as_ref(), [info.pc(), info.fp()], &bounds, read, &mut frames);
    ring.push(block.tid(), weight, &frames[..depth]);
}

/// The end of the main thread's stack, and how much of it may be read; 0 if unknown.
static MAIN_STACK: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

fn store_main_stack() {
    /// The kernel keeps 128 MiB below the stack's end free, whatever the limit.
    const NOTHING_ELSE_WITHIN: u64 = 64 << 20;
    let limit = sys::getrlimit(k::RLIMIT_STACK).ok().flatten().unwrap_or(NOTHING_ELSE_WITHIN);
    MAIN_STACK[0].store(thread::main_stack_end().unwrap_or(0), Relaxed);
    MAIN_STACK[1].store(limit.min(NOTHING_ELSE_WITHIN) as usize, Relaxed);
}

/// The part of the stack that is in use and certainly mapped: from the stack pointer up, on the one
/// of the thread's stacks that it points into. Empty if the program runs on a stack that it made
/// itself.
fn readable(block: &Block, sp: usize) -> Range<usize> {
    let signal = block.signal_stack.base.addr()..block.signal_stack.base.addr() + block.signal_stack.size;
    let main = {
        let [end, len] = [MAIN_STACK[0].load(Relaxed), MAIN_STACK[1].load(Relaxed)];
        if block.stack.is_empty() { end.saturating_sub(len)..end } else { 0..0 }
    };
    let stacks = [&block.stack, &signal, &main];
    stacks.into_iter().find(|stack| stack.contains(&sp)).map_or(0..0, |stack| sp..stack.end)
}

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A clock's time in nanoseconds.
fn time_of(clock: i32) -> Option<u64> {
    let Timespec { tv_sec, tv_nsec } = sys::clock_gettime(clock).ok()?;
    Some(tv_sec as u64 * NANOS_PER_SEC + tv_nsec as u64)
}

fn timespec(nanos: u64) -> Timespec {
    Timespec { tv_sec: (nanos / NANOS_PER_SEC) as i64, tv_nsec: (nanos % NANOS_PER_SEC) as i64 }
}
