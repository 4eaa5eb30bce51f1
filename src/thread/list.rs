//! Every thread that is: the main one and those that [`spawn`](super::spawn) made, linked through their blocks.
//!
//! A lock guards the list, and whoever holds it waits only for what the holders of no lock do. `all_threads` relies
//! on how it is used; the properties are written down there.

use core::cell::{Cell, UnsafeCell};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use super::{Block, this_block};
use crate::signal::{self, How, SigSet};
use crate::{futex, profile};

/// A block's neighbours in the list. Touched under the lock only.
pub(super) struct Links {
    previous: Cell<*mut Block>,
    next: Cell<*mut Block>,
    linked: Cell<bool>,
}

impl Links {
    pub(super) const fn new() -> Links {
        Links { previous: Cell::new(null_mut()), next: Cell::new(null_mut()), linked: Cell::new(false) }
    }
}

static LOCK: Lock = Lock { next: AtomicU32::new(0), turn: AtomicU32::new(0) };
static FIRST: First = First(UnsafeCell::new(null_mut()));

struct First(UnsafeCell<*mut Block>);

// SAFETY: only a `List` touches it, and there is one at a time.
unsafe impl Sync for First {}

/// The list, while its lock is held: nobody else adds to it or takes from it.
pub(crate) struct List(());

impl List {
    /// Takes the lock. A handler that ran while it is held could want it again, so the program's signals are blocked;
    /// the reserved ones are not, so that whoever holds it can be answered meanwhile.
    pub(crate) fn lock() -> List {
        LOCK.lock();
        List(())
    }

    /// Takes the lock where every signal is blocked and stays so; only if somebody else holds it the reserved ones
    /// are let through until it is there, for the holder may be waiting for this thread's answer.
    pub(super) fn lock_in_silence() -> List {
        if !LOCK.try_lock() {
            signal::mask(How::Set, &SigSet::full());
            LOCK.lock();
            signal::block_everything();
        }
        List(())
    }

    fn first(&self) -> &Cell<*mut Block> {
        // SAFETY: this is the only `List`, and the reference lives no longer.
        unsafe { Cell::from_mut(&mut *FIRST.0.get()) }
    }

    /// Sees to it that the main thread is in it. If nobody is, there never was another, and the caller is the main
    /// thread.
    pub(crate) fn link_main(&self) {
        if self.first().get().is_null() {
            self.link(this_block());
        }
    }

    pub(super) fn link(&self, block: NonNull<Block>) {
        let first = self.first().replace(block.as_ptr());
        let links = self.links(block);
        links.linked.set(true);
        links.next.set(first);
        if let Some(first) = NonNull::new(first) {
            self.links(first).previous.set(block.as_ptr());
        }
    }

    /// Takes out a block, if it is in.
    pub(super) fn unlink(&self, block: NonNull<Block>) {
        let links = self.links(block);
        if !links.linked.replace(false) {
            return;
        }
        profile::leave(self, block);
        let (previous, next) = (links.previous.replace(null_mut()), links.next.replace(null_mut()));
        match NonNull::new(previous) {
            Some(previous) => self.links(previous).next.set(next),
            None => self.first().set(next),
        }
        if let Some(next) = NonNull::new(next) {
            self.links(next).previous.set(previous);
        }
    }

    /// Takes out who ended without leaving: by exit(2) in a call of the program's own, or killed by a filter. Their
    /// memory is given back when their handles are gone.
    pub(crate) fn bury_the_dead(&self) {
        // SAFETY: a block stays as long as it is linked.
        let is_dead = |block: &NonNull<Block>| unsafe { block.as_ref() }.tid() == 0;
        while let Some(dead) = self.iter().find(is_dead) {
            self.unlink(dead);
            // SAFETY: 1. A thread that is in the list has its own reference still, and this one will not come to it.
            unsafe { super::release(dead) };
        }
    }

    /// All threads.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NonNull<Block>> + '_ {
        let mut next = NonNull::new(self.first().get());
        core::iter::from_fn(move || {
            let block = next?;
            next = NonNull::new(self.links(block).next.get());
            Some(block)
        })
    }

    fn links(&self, block: NonNull<Block>) -> &Links {
        // SAFETY: a block stays as long as it is linked, and its links are touched under the lock alone.
        unsafe { &(*block.as_ptr()).links }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        LOCK.unlock();
    }
}

/// A lock that is taken in the order in which it was asked for: one call on all threads after another must not keep a
/// thread from starting or ending.
struct Lock {
    /// The number that the next who asks gets.
    next: AtomicU32,
    /// The number that has its turn; the lock is free when that is nobody's yet.
    turn: AtomicU32,
}

impl Lock {
    fn try_lock(&self) -> bool {
        // Acquire, here and below: pairs with the release in `unlock`.
        let turn = self.turn.load(Acquire);
        self.next.compare_exchange(turn, turn.wrapping_add(1), Relaxed, Relaxed).is_ok()
    }

    fn lock(&self) {
        let number = self.next.fetch_add(1, Relaxed);
        fence(SeqCst); // Asking comes before looking; `unlock` has them the other way round, and one of the two sees.
        loop {
            let turn = self.turn.load(Acquire);
            if turn == number {
                return;
            }
            let _ = futex::wait(&self.turn, turn);
        }
    }

    fn unlock(&self) {
        let turn = self.turn.load(Relaxed).wrapping_add(1);
        self.turn.store(turn, Release);
        fence(SeqCst);
        if self.next.load(Relaxed) != turn {
            futex::wake_all(&self.turn); // They are few, and one of them is it.
        }
    }
}
