//! The running profile, and what it keeps of each thread: a ring and a timer.

use core::cell::Cell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use linux_raw_sys::general as k;

use super::ring::{self, Ring};
use super::ticks::{self, Ticks};
use crate::errno::Result;
use crate::random;
use crate::sys::{self, Timespec};
use crate::thread::{self, Block, Hooks, List, ListLock, this_block};

/// The running profile. Accessed only while holding the [`ListLock`]. `period` changes only while
/// the list is closed.
pub(super) struct Session {
    /// Nanoseconds of CPU time between two samples of a thread; 0 if no profile runs.
    pub(super) period: Cell<u64>,
    /// The value that this session's timers send. No earlier session had it.
    token: Cell<usize>,
    random: Cell<u64>,
}

pub(super) struct Locked(pub(super) Session);

// SAFETY: accessed only while holding the `ListLock`, which one thread has at a time.
unsafe impl Sync for Locked {}

pub(super) static SESSION: Locked = Locked(Session { period: Cell::new(0), token: Cell::new(0), random: Cell::new(0) });

/// Whether the process's timer runs. The handler reads it.
pub(super) static PROCESS_TIMER: AtomicU32 = AtomicU32::new(0);

/// The weight of ticks on threads without a ring.
pub(super) static LOST: AtomicU32 = AtomicU32::new(0);

pub(super) static UNPROFILED: AtomicU32 = AtomicU32::new(0);

impl Session {
    pub(super) fn begin(&self, period: u64) {
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
    pub(super) static SLOT: Slot;
}

pub(super) static HOOKS: Hooks = Hooks { start: Some(enter), end: Some(leave), fork: Some(fork) };

/// What the profiler keeps of a thread.
pub(super) struct Slot {
    /// The value that this thread's timer sends; 0 if it has no timer. The handler reads it.
    pub(super) token: AtomicUsize,
    /// Where its samples go. It stays from the first profile to the thread's end, because the
    /// handler may be writing there.
    ring: AtomicPtr<Ring>,
    /// The weight of the timer's ticks so far. The handler adds to it.
    pub(super) counted: Ticks,
    /// The timer, and the time of its first tick on the thread's clock. Accessed only while holding
    /// the [`ListLock`].
    timer: Cell<(i32, u64)>,
}

// SAFETY: `timer` is accessed only while holding the `ListLock`, which one thread has at a time.
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

/// Profiles the calling thread, which has just started, if a profile runs (2) and `start` did not
/// find the thread in the list.
fn enter(lock: &ListLock, thread: &Block) {
    let must_be = SESSION.0.period.get() != 0 && SLOT.of(thread).token.load(Relaxed) != SESSION.0.token.get();
    if must_be && profile(lock, thread, 0).is_err() {
        ticks::add_saturating(&UNPROFILED, 1);
    }
}

/// The end of a thread's profile: called by the thread itself, with all signals blocked, or after
/// it ended (4).
fn leave(lock: &ListLock, block: &Block) {
    if delete_timer(block) && NonNull::from_ref(block) == this_block() {
        count_missing_ticks(block, block.run.get().map_or(0, |run| run as usize));
    }
    if let Some(ring) = NonNull::new(SLOT.of(block).ring.swap(null_mut(), Relaxed)) {
        ring::give_back(lock, ring);
    }
}

/// A forked child has no timers and no profile, because these are the parent's. Its samples are
/// dropped. All rings are free: their threads do not exist here, and the calling one takes a ring
/// again.
fn fork(lock: &ListLock, thread: &Block) {
    SESSION.0.period.set(0);
    PROCESS_TIMER.store(0, Relaxed);
    SLOT.of(thread).token.store(0, Relaxed);
    SLOT.of(thread).ring.store(null_mut(), Relaxed);
    ring::free_all(lock);
    for count in [&LOST, &UNPROFILED] {
        count.store(0, Relaxed);
    }
}

/// Gives a thread a ring and a timer, whose first tick is within a period after `since` on the
/// thread's clock. If a timer is refused, the process's timer runs instead (3).
pub(super) fn profile(lock: &ListLock, thread: &Block, since: u64) -> Result<()> {
    let (slot, session) = (SLOT.of(thread), &SESSION.0);
    if slot.ring.load(Relaxed).is_null() {
        // Release: what is in the ring comes before the handler finds it.
        slot.ring.store(ring::take(lock)?.as_ptr(), Release);
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
pub(super) fn delete_timer(thread: &Block) -> bool {
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

pub(super) fn end(list: &List<'_>) {
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
pub(super) fn count_missing_ticks(thread: &Block, at: usize) {
    let slot = SLOT.of(thread);
    let (Some(now), Some(ring)) = (time_of(k::CLOCK_THREAD_CPUTIME_ID as i32), slot.ring()) else { return };
    let (_, first) = slot.timer.get();
    let due = now.checked_sub(first).map_or(0, |past| past / SESSION.0.period.get() + 1);
    for weight in ticks::weights(due.saturating_sub(slot.counted.get())) {
        ring.push(sys::gettid(), weight, &[at]);
    }
}

impl Slot {
    pub(super) fn ring(&self) -> Option<&'static Ring> {
        // Acquire pairs with the release in `profile`: what is in the ring comes before its
        // address.
        // SAFETY: rings stay.
        unsafe { self.ring.load(Acquire).as_ref() }
    }
}

pub(super) const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A clock's time in nanoseconds.
pub(super) fn time_of(clock: i32) -> Option<u64> {
    let Timespec { tv_sec, tv_nsec } = sys::clock_gettime(clock).ok()?;
    Some(tv_sec as u64 * NANOS_PER_SEC + tv_nsec as u64)
}

fn timespec(nanos: u64) -> Timespec {
    Timespec { tv_sec: (nanos / NANOS_PER_SEC) as i64, tv_nsec: (nanos % NANOS_PER_SEC) as i64 }
}
