//! The list of all threads: the main one and those that [`spawn`](super::spawn()) made, linked
//! through their blocks.
//!
//! Any number of threads start and end at the same time, each inside the gate (`gate.rs`), and
//! change the list while holding the latch. `all_threads` and `profile` close the gate, and then no
//! thread starts or ends. `all_threads` lists what they rely on. Properties of the list, and how
//! they are achieved:
//!
//! 1. *The tid word tells whether a thread is there:* the kernel clears a listed thread's word at
//!    its end, however it ends. The main thread registers its word when it first needs the list
//!    ([`ensure_listed`]). Before clone(2) the word holds `NOT_CLONED`, which is never an id. So 0
//!    always means a thread that ended.
//! 2. *What an ended thread held is released:* each wait here looks through the list after a tenth
//!    of a second without change. It releases what ended threads noted: their place at the gate
//!    (`gate.rs`, 5), and that they are signalling a thread (`interrupt.rs`). The next thread that
//!    closes the gate removes ended threads from the list ([`List::remove_ended`]).
//! 3. *A thread that is not cloned yet is not taken for one that ended:* its parent is inside the
//!    gate. So while the gate is closed, a block with `NOT_CLONED` is one whose parent was killed
//!    in clone(2). It is removed too. Its closure is not dropped, and neither are the values of the
//!    parent.
//! 4. *A thread that waits here can be ended by a signal:* each step of a wait unblocks for a
//!    moment the signals that the program has not blocked and whose action is the default. So
//!    SIGTERM ends a process whose threads wait for one that never comes. (A handler that another
//!    thread installs at that moment may run once in the wait.)
//! 5. *A forked child has its own list,* which holds the thread that forked, whatever other threads
//!    were doing. Each use of the list first looks whether the process was forked (`fork.rs`).

mod closed;
mod inside;

use core::cell::{Cell, UnsafeCell};
use core::ptr::{NonNull, null_mut};

use super::block::{Block, this_block};
use super::gate::Gate;
use super::latch::Latch;
use super::{fork, hooks, stack};
use crate::signal::{self, Blocked};
use crate::sys;
pub(crate) use closed::List;
pub(super) use inside::{InsideGate, call_start_hooks};

/// A block's neighbours in the list. Accessed only while holding the [`ListLock`].
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

/// The list's locks and its first block.
struct Threads {
    gate: Gate,
    latch: Latch,
    first: UnsafeCell<*mut Block>,
}

// SAFETY: `first` is accessed only while holding the `ListLock`, which one thread has at a time.
unsafe impl Sync for Threads {}

#[cfg(not(all(loom, test)))]
fn threads() -> &'static Threads {
    static THREADS: Threads = Threads { gate: Gate::new(), latch: Latch::new(), first: UnsafeCell::new(null_mut()) };
    &THREADS
}

#[cfg(all(loom, test))]
fn threads() -> &'static Threads {
    unreachable!("a model has its own gate")
}

/// Ensures that the list belongs to this process and contains the calling thread. It does not
/// before the main thread first calls this, and in a child that was forked by a raw system call.
/// All signals are blocked.
pub(super) fn ensure_listed() -> &'static Block {
    // SAFETY: a running thread's block stays.
    let this = unsafe { this_block().as_ref() };
    // Only the main thread has no id, before its first call.
    if this.lifecycle.tid() == 0 || fork::has_forked() {
        begin_list(this);
    }
    this
}

/// Begins a list that contains only the calling thread: the main thread of a process that had no
/// list so far, or the only thread of a forked child. All signals are blocked.
#[cold]
pub(super) fn begin_list(this: &'static Block) {
    let is_child = this.lifecycle.tid() != 0;
    // SAFETY: 1. The block outlives the thread.
    let tid = unsafe { sys::set_tid_address(this.lifecycle.tid_word()) };
    // If a filter refuses it, other threads do not see the end of this one.
    this.lifecycle.set_tid(tid.unwrap_or_else(|_| sys::gettid()));
    fork::remember(is_child);
    let (block, lock) = (NonNull::from_ref(this), ListLock(()));
    if is_child {
        threads().gate.renew();
        threads().latch.renew();
        this.generation.set(fork::generation());
        this.held.forget();
        this.interrupts.renew();
        this.neighbours.linked.set(false);
        this.neighbours.previous.set(null_mut());
        stack::renew_cache();
        for fork in hooks::registered().filter_map(|hooks| hooks.fork) {
            fork(&lock, this);
        }
    }
    lock.first().set(null_mut());
    lock.link(block);
}

/// For a thread that is about to wait for another one, which may not exist in a child that was
/// forked by a raw system call.
pub(crate) fn notice_fork() {
    if fork::has_forked() {
        let before = signal::block_everything();
        ensure_listed();
        before.restore();
    }
}

/// Calls `f` with the [`ListLock`], while holding the latch. All signals are blocked; `before` is
/// what the program has blocked.
fn with_lock<T>(this: &Block, before: &Blocked, f: impl FnOnce(&ListLock) -> T) -> T {
    let latch = lock(this, before);
    let done = f(&ListLock(()));
    latch.wake(latch.unlock());
    done
}

fn lock(this: &Block, before: &Blocked) -> &'static Latch {
    let latch = &threads().latch;
    latch.lock(this.lifecycle.tid_word(), |holder| {
        signal::let_default_through(before);
        sys::holds(holder.cast_const().cast(), 0)
    });
    latch
}

/// Called by a thread that has waited for a tenth of a second without change (2, 4). `before` is
/// what the program has blocked.
#[cold]
pub(super) fn check_for_ended(this: &Block, before: &Blocked) {
    signal::let_default_through(before);
    let now = signal::block_everything();
    with_lock(this, before, ListLock::release_what_ended_threads_hold);
    now.restore();
}

/// The right to change the list: its holder has the latch, or has closed the gate.
pub(crate) struct ListLock(());

impl ListLock {
    fn first(&self) -> &Cell<*mut Block> {
        // SAFETY: there is one `ListLock` at a time, and the reference borrows it.
        unsafe { Cell::from_mut(&mut *threads().first.get()) }
    }

    fn link(&self, block: NonNull<Block>) {
        let first = self.first().replace(block.as_ptr());
        let neighbours = self.neighbours(block);
        neighbours.linked.set(true);
        neighbours.next.set(first);
        if let Some(first) = NonNull::new(first) {
            self.neighbours(first).previous.set(block.as_ptr());
        }
    }

    /// Removes a block, if it is in the list. Hooks may make system calls, so they come first: a
    /// thread that is killed in one is still in the list.
    fn unlink(&self, block: NonNull<Block>) {
        let neighbours = self.neighbours(block);
        if !neighbours.linked.get() {
            return;
        }
        for end in hooks::registered().filter_map(|hooks| hooks.end) {
            // SAFETY: a block stays as long as it is linked.
            end(self, unsafe { block.as_ref() });
        }
        neighbours.linked.set(false);
        let (previous, next) = (neighbours.previous.replace(null_mut()), neighbours.next.replace(null_mut()));
        match NonNull::new(previous) {
            Some(previous) => self.neighbours(previous).next.set(next),
            None => self.first().set(next),
        }
        if let Some(next) = NonNull::new(next) {
            self.neighbours(next).previous.set(previous);
        }
    }

    fn neighbours(&self, block: NonNull<Block>) -> &Neighbours {
        // SAFETY: a block stays as long as it is linked, and its neighbours are accessed only while
        // holding the `ListLock`.
        unsafe { &(*block.as_ptr()).neighbours }
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

    /// Releases what ended threads hold, as far as possible (2).
    fn release_what_ended_threads_hold(&self) {
        // What one of them releases may let the next one release more.
        while self.iter().any(|block| {
            // SAFETY: a block stays as long as it is linked.
            let block = unsafe { block.as_ref() };
            block.tid() == 0 && (threads().gate.give_back(&block.held) | block.signalling.give_back())
        }) {}
    }
}
