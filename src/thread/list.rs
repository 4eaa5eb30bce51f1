//! Every thread that is: the main one and those that [`spawn`](super::spawn) made, linked through their blocks.
//!
//! A lock guards the list, and whoever holds it waits only for what the holders of no lock do. `all_threads` relies on how
//! it is used; the properties are written down there.

use core::cell::{Cell, UnsafeCell};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use super::Block;
use crate::futex;
use crate::signal::{self, How, SigSet};

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

static LOCK: Lock = Lock(AtomicU32::new(FREE));
static FIRST: First = First(UnsafeCell::new(null_mut()));

struct First(UnsafeCell<*mut Block>);

// SAFETY: only a `List` touches it, and there is one at a time.
unsafe impl Sync for First {}

/// The list, while its lock is held: nobody else adds to it or takes from it.
pub(crate) struct List(());

impl List {
    /// Takes the lock. A handler that ran while it is held could want it again, so the program's signals are blocked; the
    /// reserved ones are not, so that whoever holds it can be answered meanwhile.
    pub(crate) fn lock() -> List {
        LOCK.lock();
        List(())
    }

    /// Takes the lock where every signal is blocked and stays so; only if somebody else holds it the reserved ones are let
    /// through until it is there, for the holder may be waiting for this thread's answer.
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

    /// Whether nobody is in it: there never was a thread but the main one.
    pub(super) fn is_empty(&self) -> bool {
        self.first().get().is_null()
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
        let (previous, next) = (links.previous.replace(null_mut()), links.next.replace(null_mut()));
        match NonNull::new(previous) {
            Some(previous) => self.links(previous).next.set(next),
            None => self.first().set(next),
        }
        if let Some(next) = NonNull::new(next) {
            self.links(next).previous.set(previous);
        }
    }

    /// Takes out who ended without leaving: by exit(2) in a call of the program's own, or killed by a filter. Their memory is
    /// given back when their handles are gone.
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

/// A lock of one word; `sync`'s belong to the programs.
struct Lock(AtomicU32);

const FREE: u32 = 0;
const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;

impl Lock {
    fn try_lock(&self) -> bool {
        // Acquire, here and below: pairs with the release in `unlock`.
        self.0.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok()
    }

    fn lock(&self) {
        if !self.try_lock() {
            // Whoever waited leaves it so, for others may wait too.
            while self.0.swap(WAITED_FOR, Acquire) != FREE {
                let _ = futex::wait(&self.0, WAITED_FOR);
            }
        }
    }

    fn unlock(&self) {
        if self.0.swap(FREE, Release) == WAITED_FOR {
            futex::wake(&self.0, 1);
        }
    }
}
