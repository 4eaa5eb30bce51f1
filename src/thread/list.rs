//! The list of all threads: the main one and those that [`spawn`](super::spawn()) made, linked
//! through their blocks.
//!
//! Threads start and end at the same time as others, each inside the gate (`gate.rs`), and change
//! links while holding the latch. `all_threads` and `profile` close the gate, and then no thread
//! starts or ends. What they rely on is listed in `all_threads`. What holds here, and how:
//!
//! 1. *The tid word tells whether a thread is there:* the kernel clears a listed thread's word at
//!    its end, however it ends. The main thread registers its word when it first needs the list
//!    ([`ensure_listed`]). Before clone(2) the word holds `NOT_CLONED`, which no id is, so 0 always
//!    means a thread that ended.
//! 2. *What an ended thread held is released:* each wait here looks through the list after a tenth
//!    of a second without change. It releases what ended threads noted: their place at the gate
//!    (`gate.rs`, 5), and that they are signalling a thread (`interrupt.rs`). The next thread that
//!    closes the gate removes ended threads from the list ([`List::remove_ended`]).
//! 3. *A thread that is not cloned yet is not taken for one that ended:* its parent is inside the
//!    gate. So while the gate is closed, a block with `NOT_CLONED` is one whose parent was killed
//!    in clone(2). It is removed too; its closure is not dropped, as nothing of its parent's is.
//! 4. *A thread that waits here can be ended by a signal:* each step of a wait unblocks for a
//!    moment the signals that the program has not blocked and whose action is the default. So
//!    SIGTERM ends a process whose threads wait for one that never comes. (A handler that another
//!    thread installs at that moment may run once in the wait.)
//! 5. *A forked child has its own list,* which holds the thread that forked, whatever other threads
//!    were doing. Each use of the list first looks whether the process was forked (`fork.rs`).

use core::cell::{Cell, UnsafeCell};
use core::ops::Deref;
use core::ptr::{NonNull, null_mut};

use super::block::{Block, release, this_block};
use super::gate::{Gate, Latch};
use super::{fork, hooks, scope, stack};
use crate::signal::{self, Blocked, How, SigSet};
use crate::sys;

/// A block's neighbours in the list. Accessed only while holding the [`Links`].
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

// SAFETY: `first` is accessed only while holding the `Links`, which one thread has at a time.
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

/// Ensures that the list is this process's and has the calling thread. It lacks the main thread at
/// first, and every thread in a child that was forked by a raw system call. All signals are
/// blocked.
pub(super) fn ensure_listed() -> &'static Block {
    // SAFETY: a running thread's block stays.
    let this = unsafe { this_block().as_ref() };
    // Only the main thread has no id, before it first comes here.
    if this.life.tid() == 0 || fork::has_forked() {
        adopt(this);
    }
    this
}

/// Begins the list, with the calling thread: the main one of a process that had no list so far, or
/// the only one of a forked child. All signals are blocked.
#[cold]
pub(super) fn adopt(this: &'static Block) {
    let is_child = this.life.tid() != 0;
    // SAFETY: 1. The block outlives the thread.
    let tid = unsafe { sys::set_tid_address(this.life.tid_word()) };
    // If a filter refuses it, other threads do not see the end of this one.
    this.life.begin(tid.unwrap_or_else(|_| sys::gettid()));
    fork::remember(is_child);
    let (block, links) = (NonNull::from_ref(this), Links(()));
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
            fork(&links, this);
        }
    }
    links.first().set(null_mut());
    links.link(block);
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

/// Calls `f` with the links, while holding the latch. All signals are blocked; `before` is what the
/// program has blocked.
fn with_links<T>(this: &Block, before: &Blocked, f: impl FnOnce(&Links) -> T) -> T {
    let latch = lock(this, before);
    let done = f(&Links(()));
    latch.wake(latch.unlock());
    done
}

fn lock(this: &Block, before: &Blocked) -> &'static Latch {
    let latch = &threads().latch;
    latch.lock(this.life.tid_word(), |holder| {
        signal::let_default_through(before);
        sys::holds(holder.cast_const().cast(), 0)
    });
    latch
}

/// Called by a thread that has waited for a tenth of a second without change (2, 4). `before` is
/// what the program has blocked.
#[cold]
pub(super) fn look(this: &Block, before: &Blocked) {
    signal::let_default_through(before);
    let now = signal::block_everything();
    with_links(this, before, Links::release_what_ended_threads_hold);
    now.restore();
}

/// The calling thread is inside the gate, as others may be at the same time. All signals are
/// blocked.
pub(super) struct Passage<'a> {
    this: &'static Block,
    before: &'a Blocked,
}

impl<'a> Passage<'a> {
    /// Enters the gate. Every signal is blocked and stays so, except while another thread has
    /// closed the gate: then the reserved ones are unblocked, because that thread may be waiting
    /// for this one's answer. `before` is what the program has blocked.
    pub(super) fn enter(before: &'a Blocked) -> Passage<'a> {
        let this = ensure_listed();
        let gate = &threads().gate;
        if !gate.try_enter(&this.held) {
            gate.draw(&this.held);
            signal::mask(How::Set, &SigSet::full());
            gate.wait_for_turn(&this.held, || look(this, before));
            signal::block_everything();
            gate.enter_in_turn(&this.held);
        }
        Passage { this, before }
    }

    /// Adds a thread that is about to be cloned, and counts it in its scope.
    pub(super) fn link(&self, block: NonNull<Block>) {
        // SAFETY: no other thread has the block until it is linked.
        let new = unsafe { block.as_ref() };
        new.life.is_to_be_cloned();
        new.generation.set(fork::generation());
        with_links(self.this, self.before, |links| {
            links.link(block);
            scope::count(new);
        });
    }

    /// Removes a thread that was not cloned, and uncounts it.
    pub(super) fn unlink(&self, block: NonNull<Block>) {
        with_links(self.this, self.before, |links| {
            links.unlink(block);
            // SAFETY: the caller has failed to clone it, so it still owns the block.
            scope::uncount(unsafe { block.as_ref() });
        });
    }

    /// Removes the calling thread from the list, and leaves the gate. Between the two it makes no
    /// system call, in which it could be killed while it is inside the gate and not in the list.
    pub(super) fn leave_for_good(self) {
        let this = self.this;
        core::mem::forget(self);
        let latch = lock(this, &this.mask);
        Links(()).unlink(NonNull::from_ref(this));
        let (is_waited_for, is_last) = (latch.unlock(), threads().gate.leave(&this.held));
        latch.wake(is_waited_for);
        threads().gate.woken(is_last);
    }
}

/// Calls the hooks of the calling thread's start. All signals are blocked.
pub(super) fn started(this: &Block) {
    let starts = || hooks::registered().filter_map(|hooks| hooks.start);
    if starts().next().is_some() {
        let passage = Passage::enter(&this.mask);
        with_links(passage.this, passage.before, |links| starts().for_each(|start| start(links, this)));
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let gate = &threads().gate;
        gate.woken(gate.leave(&self.this.held));
    }
}

/// The right to change the list, which comes with the latch or the closed gate.
pub(crate) struct Links(());

impl Links {
    fn first(&self) -> &Cell<*mut Block> {
        // SAFETY: there is one `Links` at a time, and the reference borrows it.
        unsafe { Cell::from_mut(&mut *threads().first.get()) }
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

    /// Removes a block, if it is in the list. Hooks may make system calls, so they come first: a
    /// thread that is killed in one is still in the list.
    fn unlink(&self, block: NonNull<Block>) {
        let links = self.neighbours(block);
        if !links.linked.get() {
            return;
        }
        for end in hooks::registered().filter_map(|hooks| hooks.end) {
            // SAFETY: a block stays as long as it is linked.
            end(self, unsafe { block.as_ref() });
        }
        links.linked.set(false);
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
        // SAFETY: a block stays as long as it is linked, and its neighbours are accessed only while
        // holding the links.
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

/// The list, while no other thread adds to it or takes from it.
pub(crate) struct List<'a> {
    links: Links,
    this: &'static Block,
    before: &'a Blocked,
}

impl List<'_> {
    /// Calls `f` with the list closed. The program's signals are blocked, because a handler could
    /// need the list too. The reserved ones are not, so that this thread can answer another one
    /// that has closed the list before.
    ///
    /// In a child that `f` forks, the list holds only the calling thread, and `f` continues there
    /// with the links of that list.
    pub(crate) fn with<T>(f: impl FnOnce(&List<'_>) -> T) -> T {
        let before = signal::block_everything();
        let this = ensure_listed();
        let gate = &threads().gate;
        let generation = fork::generation();
        gate.draw(&this.held);
        signal::mask(How::Set, &SigSet::full());
        gate.wait_for_turn(&this.held, || look(this, &before));
        gate.close(|| look(this, &before));
        let done = f(&List { links: Links(()), this, before: &before });
        if fork::generation() == generation {
            gate.open(&this.held);
        }
        before.restore();
        done
    }

    /// [`with`](List::with) for a handler, and for a caller that does not wait for long: `None` if
    /// the list cannot be closed within so many tenths of a second. `f` forks no process.
    ///
    /// A handler of the program that runs in a wait of this thread for the list (4) finds what the
    /// thread holds there, and gets `None`.
    pub(crate) fn within<T>(tenths: u32, f: impl FnOnce(&List<'_>) -> T) -> Option<T> {
        const TRIES_A_TENTH: u32 = 20;
        let before = signal::block_everything();
        let this = ensure_listed();
        let gate = &threads().gate;
        let is_free = !this.held.is_something();
        let draws = is_free
            && (0..tenths * TRIES_A_TENTH).any(|_| {
                let drawn = gate.try_draw(&this.held);
                // The thread that has closed it may be waiting for this one's answer.
                signal::mask(How::Set, &SigSet::full());
                if !drawn {
                    // A handler may shorten it.
                    let _ = sys::nanosleep(&sys::Timespec { tv_sec: 0, tv_nsec: 5_000_000 });
                    signal::block_everything();
                }
                drawn
            });
        let done = draws.then(|| {
            let left = Cell::new(tenths);
            let closed = gate.close_while(|| {
                look(this, &before);
                left.set(left.get().saturating_sub(1));
                left.get() > 0
            });
            let done = closed.then(|| f(&List { links: Links(()), this, before: &before }));
            gate.open(&this.held);
            done
        });
        before.restore();
        done.flatten()
    }

    /// For an `f` that waits: called after each step without change, it unblocks signals for a
    /// moment (4).
    pub(crate) fn let_signals_through(&self) {
        signal::let_default_through(self.before);
    }

    /// Removes threads that ended without leaving the list: by an exit(2) of the program's own, or
    /// killed by a filter. Their scopes no longer wait for them, and what they held is released.
    /// Their memory goes when their handles are gone. A thread whose ticket has not come up stays,
    /// until a later call.
    pub(crate) fn remove_ended(&self) {
        // SAFETY: a block stays as long as it is linked.
        if !self.iter().any(|block| unsafe { block.as_ref() }.is_gone()) {
            return;
        }
        let now = signal::block_everything();
        with_links(self.this, self.before, |links| {
            links.release_what_ended_threads_hold();
            let can_go = |block: &NonNull<Block>| {
                // SAFETY: a block stays as long as it is linked.
                let block = unsafe { block.as_ref() };
                block.is_gone() && !threads().gate.is_awaited(&block.held)
            };
            while let Some(dead) = links.iter().find(can_go) {
                links.unlink(dead);
                // SAFETY: 1. It was linked until the line above, so its own reference is still
                // there. It has left its scope, or never will.
                unsafe { scope::uncount_ended(dead) };
                // SAFETY: its own reference keeps the block until the end of this loop's body.
                let block = unsafe { dead.as_ref() };
                if block.life.was_never_cloned() {
                    // Its parent was killed in clone(2), before there was a handle.
                    block.life.is_over();
                    // SAFETY: 1. The reference of the handle, which does not exist.
                    unsafe { release(dead) };
                }
                // SAFETY: 1. The thread's own reference: it was in the list, so it had not given it
                // up, and it has ended.
                unsafe { release(dead) };
            }
        });
        now.restore();
    }

    /// The number of threads in the list for which `f` is true.
    pub(super) fn count(&self, f: impl Fn(&Block) -> bool) -> usize {
        // SAFETY: a block stays as long as it is linked.
        self.iter().filter(|block| f(unsafe { block.as_ref() })).count()
    }

    /// fork(2), with no thread half-way through a start or an end. In the child the list holds the
    /// calling thread.
    ///
    /// # Safety
    ///
    /// 1. As for [`sys::fork`].
    pub(super) unsafe fn fork(&self) -> crate::errno::Result<u32> {
        let now = signal::block_everything();
        // SAFETY: the caller guarantees the same (1).
        let forked = unsafe { sys::fork() };
        if forked == Ok(0) {
            adopt(self.this);
        }
        now.restore();
        forked
    }
}

impl Deref for List<'_> {
    type Target = Links;

    fn deref(&self) -> &Links {
        &self.links
    }
}
