//! A thread's mapping: how it is laid out, and where it comes from and goes to.
//!
//! A mapping whose thread ended is kept for a thread to come, so that starting and ending threads takes no mmap(2), munmap(2)
//! or mprotect(2). What holds, and how:
//!
//! 1. *Nobody runs on a kept mapping that is taken.* It is put away as it is, also by a thread that puts its own away as the
//!    last thing it does on it, and taken only when the kernel has cleared the tid word that lies in it. So a detached thread
//!    needs no other to put its stack away, and nobody waits.
//! 2. *A kept mapping is nobody else's.* It is put away by who gave up the last reference, which a thread does after it has
//!    left the list of threads and nobody signals it any more.
//! 3. *It is as good as new.* The guards stay. Its size is exactly what the next thread needs, so the parts lie where
//!    that thread's would. TLS, block, name and closure are written anew; a thread sets its signal stack itself; and of what
//!    else lies there no safe code reads anything it has not written.
//! 4. *It keeps little memory.* Of a thread that used more than 64 KiB (`WARM`) of its stack the rest is given back at once
//!    (`MADV_DONTNEED`: `MADV_FREE` would leave it counted as the process's until somebody else needs it).
//! 5. *The cache is bounded*: [`limit_stack_cache`] says how. What it has no room for is unmapped.
//! 6. *A stack that runs over meets a guard*, as a signal stack does: guard.rs says what that catches.
//! 7. *The cache costs no start its memory.* Where address space or mappings are short (`RLIMIT_AS`,
//!    `vm.max_map_count`, `RLIMIT_MEMLOCK`), a start that needs a mapping gives the kept ones back and
//!    tries once more.
//! 8. *What cannot be unmapped does not end the process*: its memory goes back, its addresses stay
//!    taken ([`sys::unmap_or_empty`]). A thread that unmaps its own mapping as its last act cannot look, and
//!    leaves both.
//!
//! After a fork(2) the child has the parent's kept mappings, as its own: also those that threads of
//! the parent were just leaving, for these are no threads of the child's (`Block::tid`).

use core::ptr::NonNull;
use core::slice;

use linux_raw_sys::general as k;

use super::Block;
use super::cache::{Cache, Keep};
use crate::auxv::page_size;
use crate::errno::{Errno, Result};
use crate::guard::{self, Guarded};
use crate::signal::{self, SignalStack};
use crate::sys;

/// Every machine's ABI is content with it.
pub(super) const STACK_ALIGN: usize = 16;

/// Less could not hold what runs before and after the closure.
pub(super) const MIN_STACK_SIZE: usize = 16 << 10;

/// How much of a kept stack, counted from its high end, may stay in memory.
const WARM: usize = 64 << 10;

/// How much is looked at to see whether a stack was used beyond that; no page is smaller.
const LOOK: usize = 4096;

/// What the cache counts in.
const UNIT: usize = 4096;

/// Sets how many stacks of ended threads are kept for threads to come, and how many bytes of address space they take
/// together. 0 for either turns the cache off. Kept stacks beyond that are unmapped, now or when a thread next starts.
///
/// As long as nothing is set, 64 stacks are kept at most, and no more than that ever, of 192 MiB in all; on 32-bit machines
/// 32 MiB. Each has at most some 70 KiB in memory, one of a thread that did little two pages.
///
/// In handlers: no.
pub fn limit_stack_cache(stacks: usize, bytes: usize) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    cache().limit(count(stacks), count(bytes / UNIT));
    trim_stack_cache();
}

/// Unmaps the kept stacks of threads that have ended, and returns how many bytes of address space that were. A thread that is
/// just ending may leave its own after that.
///
/// In handlers: no.
pub fn trim_stack_cache() -> usize {
    let mut bytes = 0;
    while let Some(kept) = cache().take_any(|kept| _ = free(kept)) {
        bytes += free(kept);
    }
    bytes
}

#[cfg(not(all(loom, test)))]
fn cache() -> &'static Cache<Block> {
    static CACHE: Cache<Block> = Cache::new();
    &CACHE
}

#[cfg(all(loom, test))]
fn cache() -> &'static Cache<Block> {
    unreachable!("each model has its own")
}

/// In a forked child: what another thread of the parent had just taken out is not in the cache and
/// may be counted.
pub(super) fn renew_cache() {
    cache().count_anew();
}

impl Keep for Block {
    fn units(&self) -> u32 {
        units(self.mapping.1)
    }

    fn is_idle(&self) -> bool {
        self.tid() == 0
    }
}

/// More than any limit if it is more than anything.
fn units(len: usize) -> u32 {
    u32::try_from(len / UNIT).unwrap_or(u32::MAX) // A mapping is whole pages.
}

/// Puts the mapping of a thread away, if there is room; else it stays the caller's. The thread may be the caller.
///
/// # Safety
///
/// 1. The last reference to `block` was the caller's. Its thread has ended, or does nothing more than end.
pub(super) unsafe fn keep(block: NonNull<Block>) -> bool {
    // SAFETY: 1. It is the caller's until it is put away.
    give_back_what_is_deep(unsafe { block.as_ref() });
    cache().put(block)
}

/// Unmaps the mapping of a thread that has ended or is about to, and returns how many bytes that
/// were: none if the kernel refused.
fn free(block: NonNull<Block>) -> usize {
    // SAFETY: the caller's, who had it from the cache or gave up the last reference.
    let this = unsafe { block.as_ref() };
    this.wait_for_end();
    let (base, len) = this.mapping;
    // SAFETY: 1. Nobody else has it, and nobody runs on it: its thread ended, or runs in the process that this is a copy of.
    if unsafe { sys::unmap_or_empty(base, len) } { len } else { 0 }
}

/// Keeps the mapping of a thread, or unmaps it.
///
/// # Safety
///
/// 1. As for [`keep`]; and it is not the calling thread's.
pub(super) unsafe fn keep_or_free(block: NonNull<Block>) {
    // SAFETY: 1. is our caller's.
    if !unsafe { keep(block) } {
        let _ = free(block);
    }
}

/// Gives the deep part of a stack back to the kernel if anything was ever written to the page above it: a thread that went
/// deeper left a frame there. (The exception is a frame larger than a page of which nothing was written there. Asking the
/// kernel what is in memory, for every thread, would cost more than it saves.)
fn give_back_what_is_deep(block: &Block) {
    let page = page_size();
    let warm = WARM.max(2 * page); // Two: the page that is looked at goes too, and the thread may still run on the next.
    let Some(deep_end) = (block.stack.end & !(page - 1)).checked_sub(warm) else { return };
    if deep_end <= block.stack.start {
        return;
    }
    let at = |address: usize| block.mapping.0.wrapping_add(address - block.mapping.0.addr());
    // SAFETY: within the stack, which is mapped and nobody uses so far down.
    let words = unsafe { slice::from_raw_parts(at(deep_end).cast::<usize>(), LOOK / size_of::<usize>()) };
    if words.iter().any(|word| *word != 0) {
        let deep = block.stack.start..deep_end + page;
        // Refused by a filter, or where all memory is locked: then it stays.
        // SAFETY: 1. As above.
        let _ = unsafe { sys::madvise(at(deep.start), deep.len(), k::MADV_DONTNEED) };
    }
}

/// A thread's mapping while it is being laid out; unmapped when dropped.
pub(super) struct Mapping {
    pub(super) base: *mut u8,
    pub(super) len: usize,
    pub(super) signal_stack: SignalStack,
    pub(super) stack_base: *mut u8,
    /// Whether all of it is zero.
    pub(super) is_fresh: bool,
    /// Everything above is carved.
    top: usize,
}

impl Mapping {
    /// Room for two guards, a signal stack, a stack, and parts of `room` bytes, their alignments included.
    pub(super) fn new(stack_size: usize, room: usize) -> Result<Mapping> {
        let (page, guard) = (page_size(), guard::size());
        let signal_size = signal::stack_size();
        let below = guard + signal_size + guard;
        let len = (|| {
            let stack = stack_size.checked_add(STACK_ALIGN)?;
            below.checked_add(stack)?.checked_add(room)?.checked_add(page - 1).map(|len| len & !(page - 1))
        })();
        let len = len.ok_or(Errno::ENOMEM)?;
        // SAFETY: taken from the cache, so ours.
        let kept = cache().take(units(len), |kept| _ = free(kept)).map(|kept| unsafe { kept.as_ref() }.mapping.0);
        let base = match kept {
            Some(base) => base,
            None => map(len, [0, guard + signal_size])?,
        };
        let signal_stack = SignalStack { base: base.wrapping_add(guard), size: signal_size };
        let stack_base = base.wrapping_add(below);
        Ok(Mapping { base, len, signal_stack, stack_base, is_fresh: kept.is_none(), top: len })
    }

    /// The next part down: `size` bytes at a multiple of `align`.
    pub(super) fn carve(&mut self, size: usize, align: usize) -> *mut u8 {
        let address = (self.base.addr() + self.top - size) & !(align - 1);
        self.top = address - self.base.addr();
        self.base.wrapping_add(self.top)
    }
}

/// A fresh mapping with guards at these offsets. If there is no room, kept ones make it (7).
fn map(len: usize, guards: [usize; 2]) -> Result<*mut u8> {
    let mapped = match Guarded::map(len, &guards) {
        Err(Errno::ENOMEM | Errno::EAGAIN) if trim_stack_cache() > 0 => Guarded::map(len, &guards),
        done => done,
    };
    mapped.map(Guarded::into_raw)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: 1. No thread was started on it, and what was carved from it is not used again.
        unsafe { sys::unmap_or_empty(self.base, self.len) };
    }
}
