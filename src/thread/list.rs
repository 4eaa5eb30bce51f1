//! Every thread that is: the main one and those that [`spawn`](super::spawn) made, linked through their blocks.
//!
//! Threads come and go side by side, each inside the gate (`gate.rs`), and touch links under its latch. `all_threads` and
//! `profile` close the gate: then nobody comes or goes. They rely on how it is used; the properties are written down
//! in `all_threads`.

use core::cell::{Cell, UnsafeCell};
use core::ops::Deref;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::gate::{Gate, Latch};
use super::{Block, scope, this_block};
use crate::signal::{self, How, SigSet};

/// A block's neighbours in the list. Touched by whoever has the [`Links`] only.
pub(super) struct Neighbours {
    previous: Cell<*mut Block>,
    next: Cell<*mut Block>,
    linked: Cell<bool>,
}

impl Neighbours {
    pub(super) const fn new() -> Neighbours {
        Neighbours { previous: Cell::new(null_mut()), next: Cell::new(null_mut()), linked: Cell::new(false) }
    }
}

/// The list's guards and its beginning.
struct Threads {
    gate: Gate,
    latch: Latch,
    first: UnsafeCell<*mut Block>,
    /// Set while the gate is closed.
    profiler: AtomicPtr<Profiler>,
}

// SAFETY: only who has the `Links` touches `first`, and there is one at a time.
unsafe impl Sync for Threads {}

#[cfg(not(all(loom, test)))]
fn threads() -> &'static Threads {
    static THREADS: Threads = Threads {
        gate: Gate::new(),
        latch: Latch::new(),
        first: UnsafeCell::new(null_mut()),
        profiler: AtomicPtr::new(null_mut()),
    };
    &THREADS
}

#[cfg(all(loom, test))]
fn threads() -> &'static Threads {
    unreachable!("a model has its own gate")
}

/// What is done with threads that come and go when they are profiled: a program that never asks for that has no profiler
/// in it.
pub(crate) struct Profiler {
    /// For the calling thread, which has just started, with all signals blocked. It may be known already.
    pub(crate) enter: fn(&Links, NonNull<Block>),
    /// For one that leaves the list: called by the thread itself, with all signals blocked, or after it ended.
    pub(crate) leave: fn(&Links, NonNull<Block>),
}

/// A way into the list and out of it, for one thread; others have theirs at the same time. All signals are blocked.
pub(super) struct Passage(());

impl Passage {
    /// Enters where every signal is blocked and stays so; only if somebody has closed the list the reserved ones are let
    /// through until it is open again, for he may be waiting for this thread's answer.
    pub(super) fn enter_in_silence() -> Passage {
        if !threads().gate.try_enter() {
            signal::mask(How::Set, &SigSet::full());
            threads().gate.enter_in_turn();
            signal::block_everything();
        }
        Passage(())
    }

    /// Puts in a thread that is about to be cloned.
    pub(super) fn link(&self, block: NonNull<Block>) {
        threads().latch.with(|| {
            let links = Links(());
            links.link_main();
            links.link(block);
        });
    }

    /// Takes out a thread that ends, or was not cloned.
    pub(super) fn unlink(&self, block: NonNull<Block>) {
        threads().latch.with(|| Links(()).unlink(block));
    }
}

/// Has the calling thread profiled from its start, if anybody profiles.
///
/// Whoever sets the profiler does so before the list is open to the thread's parent, and then it is seen here, or finds
/// the thread in the list.
pub(super) fn profile_from_start(block: NonNull<Block>) {
    if let Some(profiler) = profiler() {
        let _passage = Passage::enter_in_silence();
        threads().latch.with(|| (profiler.enter)(&Links(()), block));
    }
}

fn profiler() -> Option<&'static Profiler> {
    // SAFETY: set from a reference that lasts. Relaxed: it never changed.
    unsafe { threads().profiler.load(Relaxed).as_ref() }
}

impl Drop for Passage {
    fn drop(&mut self) {
        threads().gate.leave();
    }
}

/// The right to change the list: others may be coming and going, but not at this moment.
pub(crate) struct Links(());

impl Links {
    fn first(&self) -> &Cell<*mut Block> {
        // SAFETY: these are the only `Links`, and the reference lives no longer.
        unsafe { Cell::from_mut(&mut *threads().first.get()) }
    }

    /// Sees to it that the main thread is in it. If nobody is, there never was another, and the caller is the main
    /// thread.
    pub(crate) fn link_main(&self) {
        if self.first().get().is_null() {
            self.link(this_block());
        }
    }

    fn link(&self, block: NonNull<Block>) {
        let first = self.first().replace(block.as_ptr());
        let links = self.neighbours(block);
        links.linked.set(true);
        links.next.set(first);
        if let Some(first) = NonNull::new(first) {
            self.neighbours(first).previous.set(block.as_ptr());
        }
    }

    /// Takes out a block, if it is in.
    fn unlink(&self, block: NonNull<Block>) {
        let links = self.neighbours(block);
        if !links.linked.replace(false) {
            return;
        }
        if let Some(profiler) = profiler() {
            (profiler.leave)(self, block);
        }
        let (previous, next) = (links.previous.replace(null_mut()), links.next.replace(null_mut()));
        match NonNull::new(previous) {
            Some(previous) => self.neighbours(previous).next.set(next),
            None => self.first().set(next),
        }
        if let Some(next) = NonNull::new(next) {
            self.neighbours(next).previous.set(previous);
        }
    }

    fn neighbours(&self, block: NonNull<Block>) -> &Neighbours {
        // SAFETY: a block stays as long as it is linked, and its neighbours are touched by whoever has the links alone.
        unsafe { &(*block.as_ptr()).neighbours }
    }
}

/// The list, while nobody else adds to it or takes from it.
pub(crate) struct List(Links);

impl List {
    /// Calls `f` with the list closed. A handler that ran meanwhile could want it too, so the program's signals are
    /// blocked; the reserved ones are not, so that whoever has closed it before can be answered meanwhile.
    pub(crate) fn with<T>(f: impl FnOnce(&List) -> T) -> T {
        let before = signal::mask(How::Block, &SigSet::full());
        threads().gate.close();
        let done = f(&List(Links(())));
        threads().gate.open();
        signal::mask(How::Set, &before);
        done
    }

    /// Takes out who ended without leaving: by exit(2) in a call of the program's own, or killed by a filter. Their
    /// scopes don't wait for them any more; what they had goes to others, their memory when their handles are gone.
    pub(crate) fn bury_the_dead(&self) {
        // SAFETY: a block stays as long as it is linked.
        let is_dead = |block: &NonNull<Block>| unsafe { block.as_ref() }.tid() == 0;
        while let Some(dead) = self.iter().find(is_dead) {
            self.unlink(dead);
            // SAFETY: 1. Linked until the line above, so its own reference is there. It left the scope, or never will.
            unsafe { scope::bury(dead) };
            // If it died in the middle of a request, whoever gets the state makes a system call for each.
            // SAFETY: its own reference is there until the next line.
            unsafe { dead.as_ref() }.random.give_back();
            // SAFETY: 1. A thread that is in the list has its own reference still, and this one will not come to it.
            unsafe { super::release(dead) };
        }
    }

    /// Has threads that come and go profiled from now on. What was set stays, so that whatever a thread was given is
    /// taken back from it.
    pub(crate) fn set_profiler(&self, profiler: &'static Profiler) {
        threads().profiler.store(core::ptr::from_ref(profiler).cast_mut(), Relaxed);
    }

    /// All threads.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NonNull<Block>> + '_ {
        let mut next = NonNull::new(self.first().get());
        core::iter::from_fn(move || {
            let block = next?;
            next = NonNull::new(self.neighbours(block).next.get());
            Some(block)
        })
    }
}

impl Deref for List {
    type Target = Links;

    fn deref(&self) -> &Links {
        &self.0
    }
}
