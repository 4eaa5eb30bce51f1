//! The kernel of a model: loom's atomics, a futex whose sleepers loom schedules, and values whose
//! accesses loom checks.
//!
//! A wait compares and falls asleep in one step, as the kernel does under its lock. Wakes are
//! served first come, first served. [`interrupt`] is a signal, [`expire`] the end of all timeouts:
//! both end the sleeps that they find. A wake also orders memory (loom's `unpark` does), which the
//! kernel does not promise. But each model also runs the interleavings where the word has changed
//! already, and there only the lock's own orderings count.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use loom::cell::UnsafeCell;
use loom::thread::{self, Thread};

use crate::time::Instant;

pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32};

/// A model has no time.
pub(crate) fn pause() {}

std::thread_local! {
    /// The kernel of the model that runs on this thread of the test program.
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

struct Kernel {
    processors: usize,
    /// Changed by each operation, so that loom tries them in every order; it orders no memory.
    steps: Rc<AtomicU32>,
    asleep: VecDeque<Sleeper>,
    expired: bool,
}

struct Sleeper {
    word: *const AtomicU32,
    bitset: u32,
    timed: bool,
    thread: Thread,
    end: Rc<Cell<Option<End>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Woken,
    Interrupted,
    Expired,
}

/// Runs the model in every interleaving of its threads with at most `preemptions` preemptions, on
/// one processor.
pub(crate) fn model(preemptions: usize, threads: impl Fn() + Send + Sync + 'static) {
    model_on(1, preemptions, threads);
}

/// [`model`] on several `processors`, where spinning pays.
pub(crate) fn model_on(processors: usize, preemptions: usize, threads: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // LOOM_MAX_PREEMPTIONS overrides the bound.
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        let fresh = Kernel { processors, steps: Rc::new(AtomicU32::new(0)), asleep: VecDeque::new(), expired: false };
        KERNEL.with(|kernel| kernel.replace(Some(fresh)));
        threads();
        KERNEL.with(|kernel| kernel.replace(None));
    });
}

/// Runs one operation of the kernel, after all earlier ones.
fn step<R>(operation: impl FnOnce(&mut Kernel) -> R) -> R {
    let steps = KERNEL.with(|kernel| kernel.borrow().as_ref().map(|kernel| kernel.steps.clone()));
    steps.expect("the fake kernel is there in a model only").fetch_add(1, Relaxed);
    KERNEL.with(|kernel| operation(kernel.borrow_mut().as_mut().unwrap()))
}

pub(crate) fn several_processors() -> bool {
    KERNEL.with(|kernel| kernel.borrow().as_ref().is_some_and(|kernel| kernel.processors > 1))
}

pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>, bitset: u32) -> bool {
    let timed = deadline.is_some();
    if step(|kernel| kernel.expired) && timed {
        return true;
    }
    // An exchange sees the newest value; it orders nothing.
    if word.fetch_add(0, Relaxed) != expected {
        return false;
    }
    let end = Rc::new(Cell::new(None));
    let sleeper = Sleeper { word, bitset, timed, thread: thread::current(), end: end.clone() };
    KERNEL.with(|kernel| {
        let mut kernel = kernel.borrow_mut();
        let kernel = kernel.as_mut().unwrap();
        if timed && kernel.expired {
            end.set(Some(End::Expired)); // It passed since the first look.
        } else {
            kernel.asleep.push_back(sleeper);
        }
    });
    while end.get().is_none() {
        thread::park();
    }
    end.get() == Some(End::Expired)
}

/// A model has no time: this is a wait without a deadline.
pub(crate) fn wait_a_while(word: &AtomicU32, expected: u32, bitset: u32) -> bool {
    wait(word, expected, None, bitset)
}

pub(crate) fn wake(word: *const AtomicU32, count: u32, bitset: u32) -> usize {
    step(|kernel| {
        end_sleeps(kernel, End::Woken, count as usize, |sleeper| sleeper.word == word && sleeper.bitset & bitset != 0)
    })
}

pub(crate) fn requeue(from: &AtomicU32, to: &AtomicU32) {
    step(|kernel| {
        if let Some(index) = kernel.asleep.iter().position(|sleeper| sleeper.word == from) {
            let sleeper = kernel.asleep.remove(index).unwrap();
            kernel.asleep.push_back(Sleeper { word: to, ..sleeper });
        }
    });
}

/// A signal interrupts every sleeping thread.
pub(crate) fn interrupt() {
    step(|kernel| end_sleeps(kernel, End::Interrupted, usize::MAX, |_| true));
}

/// All deadlines pass.
pub(crate) fn expire() {
    step(|kernel| {
        kernel.expired = true;
        end_sleeps(kernel, End::Expired, usize::MAX, |sleeper| sleeper.timed);
    });
}

fn end_sleeps(kernel: &mut Kernel, end: End, most: usize, which: impl Fn(&Sleeper) -> bool) -> usize {
    let mut ended = 0;
    while ended < most
        && let Some(index) = kernel.asleep.iter().position(&which)
    {
        let sleeper = kernel.asleep.remove(index).unwrap();
        sleeper.end.set(Some(end));
        sleeper.thread.unpark();
        ended += 1;
    }
    ended
}

/// A value that loom checks: the code under test must order all accesses to it.
#[derive(Default)]
pub(crate) struct Watched(UnsafeCell<u32>);

// SAFETY: loom reports accesses that race.
unsafe impl Sync for Watched {}

impl Watched {
    pub(crate) fn add(&self, number: u32) -> u32 {
        self.0.with_mut(|value| {
            // SAFETY: loom reports an access that races with this one.
            unsafe { *value += number };
            // SAFETY: loom reports an access that races with this one.
            unsafe { *value }
        })
    }

    pub(crate) fn get(&self) -> u32 {
        // SAFETY: loom reports a write that races with this read.
        self.0.with(|value| unsafe { *value })
    }
}
