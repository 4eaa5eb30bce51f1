//! A thread's mapping: its layout, and the cache of mappings.
//!
//! The mapping of a thread that ended is kept for a later thread, so that starting and ending
//! threads takes no mmap(2), munmap(2) or mprotect(2). Properties, and how they are achieved:
//!
//! 1. *No thread runs on a mapping that is taken from the cache:* a thread may put its own mapping
//!    into the cache, as its last step before exit(2). Another thread takes the mapping only after
//!    the kernel has cleared the tid word in it. So a detached thread needs no other thread to free
//!    its stack, and no thread waits.
//! 2. *A kept mapping has no other owner:* the owner of the last reference puts it into the cache.
//!    A thread gives up its own reference after it has left the list and can no longer be
//!    signalled.
//! 3. *A kept mapping can be used like a fresh one:* the guards stay. Its size is exactly what the
//!    next thread needs, so all parts have the same places. TLS, block, name and closure are
//!    written again, and a thread sets its signal stack itself. Safe code does not read the rest
//!    before it has written it.
//! 4. *A kept mapping holds little memory:* if the thread used more than 64 KiB (`WARM`) of its
//!    stack, the pages below that are released at once. (By `MADV_DONTNEED`: after `MADV_FREE` they
//!    would still count as the process's until the system needs them.)
//! 5. *The cache is bounded:* see [`limit_stack_cache`]. A mapping that does not fit is unmapped.
//! 6. *A stack that overflows reaches a guard,* and so does a signal stack: `guard.rs` says which
//!    frames it catches.
//! 7. *The cache makes no start fail:* if address space or mappings run out (`RLIMIT_AS`,
//!    `vm.max_map_count`, `RLIMIT_MEMLOCK`), a start that needs a mapping unmaps the kept ones and
//!    tries once more.
//! 8. *A mapping that cannot be unmapped does not end the process:* its pages are released, its
//!    addresses stay reserved ([`sys::unmap_or_empty`]). A thread that unmaps its own mapping as
//!    its last step cannot see the refusal; then the pages stay too.
//!
//! After a fork(2) the child owns copies of the parent's kept mappings. That includes mappings on
//! which threads of the parent were still ending: they are no threads of the child (`Block::tid`).

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

/// Enough for every machine's ABI.
pub(super) const STACK_ALIGN: usize = 16;

/// The least size that holds what runs before and after the closure.
pub(super) const MIN_STACK_SIZE: usize = 16 << 10;

/// How much of a kept stack, counted from its high end, may stay in memory.
const WARM: usize = 64 << 10;

/// The bytes that are looked at to see whether a stack was used beyond that; no page is smaller.
const LOOK: usize = 4096;

/// The unit in which the cache counts bytes.
const UNIT: usize = 4096;

/// Sets how many stacks of ended threads are kept for later threads, and how many bytes of address
/// space they take together. 0 for either turns the cache off. Kept stacks beyond that are
/// unmapped, now or when a thread next starts.
///
/// The cache never keeps more than 64 stacks. By default it keeps up to 64, with 192 MiB of address
/// space together, on 32-bit machines 32 MiB. Each has at most about 70 KiB in memory; the stack of
/// a thread that did little has two pages.
///
/// In handlers: no.
pub fn limit_stack_cache(stacks: usize, bytes: usize) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    cache().limit(count(stacks), count(bytes / UNIT));
    trim_stack_cache();
}

/// Unmaps the kept stacks of ended threads, and returns how many bytes of address space they took.
/// A thread that is just ending may put its own stack into the cache after that.
///
/// ```no_run
/// use rt0::thread;
///
/// thread::limit_stack_cache(8, 16 << 20); // At most 8 stacks, 16 MiB.
/// let freed = thread::trim_stack_cache(); // For example after a burst of threads.
/// ```
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
    unreachable!("a model has its own cache")
}

/// In a forked child: counts the kept stacks again. The parent's count may include one that another
/// thread had just taken out.
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

/// The length in units; one that does not fit is above every limit.
fn units(len: usize) -> u32 {
    u32::try_from(len / UNIT).unwrap_or(u32::MAX) // A mapping is whole pages.
}

/// Puts the mapping of a thread into the cache if there is room; returns whether it did. If not,
/// the caller still owns it. The thread may be the calling one.
///
/// # Safety
///
/// 1. The caller owned the last reference to `block`. Its thread has ended, or does nothing more
///    than end.
pub(super) unsafe fn keep(block: NonNull<Block>) -> bool {
    // SAFETY: the caller owns it until it is in the cache (1).
    release_deep_pages(unsafe { block.as_ref() });
    cache().put(block)
}

/// Unmaps the mapping of a thread that has ended or is ending, and returns its size in bytes; 0 if
/// the kernel refused.
fn free(block: NonNull<Block>) -> usize {
    // SAFETY: the caller took the block from the cache or gave up the last reference to it.
    let this = unsafe { block.as_ref() };
    this.wait_for_end();
    let (base, len) = this.mapping;
    // SAFETY: 1. It has no other owner, and no thread runs on it: its thread has ended, or is a
    // thread of the process that this one was forked from.
    if unsafe { sys::unmap_or_empty(base, len) } { len } else { 0 }
}

/// Keeps the mapping of a thread, or unmaps it.
///
/// # Safety
///
/// 1. The caller owned the last reference to `block`. Its thread has ended, or does nothing more
///    than end, and is not the calling one.
pub(super) unsafe fn keep_or_free(block: NonNull<Block>) {
    // SAFETY: 1. The caller guarantees it (1).
    if !unsafe { keep(block) } {
        let _ = free(block);
    }
}

/// Releases the pages of the deep part of a stack if the page above it was ever written to: a
/// thread that used the deep part left frames there.
///
/// One word in `STRIDE` is read. Frames of one size put the same word, such as the return address,
/// at equal distances. `STRIDE` is odd and `STRIDE` words are more than 64 bytes, so the words that
/// are read lie at different places in these frames. What is not noticed: frames that left zeros at
/// all these words, such as a frame larger than the page that wrote nothing there. Reading all
/// words would take more instructions than the rest of a start and a join where no vectors are
/// (docs/figures.md). Asking the kernel for each thread which pages are in memory would cost more
/// than it saves.
fn release_deep_pages(block: &Block) {
    const STRIDE: usize = 64 / size_of::<usize>() + 1;
    let (base, len) = block.mapping;
    if block.stack.start.wrapping_sub(base.addr()) >= len {
        return; // The stack belongs to the program.
    }
    let page = page_size();
    // Two pages: the page that is read goes too, and the thread may still run on the next one.
    let warm = WARM.max(2 * page);
    let Some(deep_end) = (block.stack.end & !(page - 1)).checked_sub(warm) else { return };
    if deep_end <= block.stack.start {
        return;
    }
    let at = |address: usize| base.wrapping_add(address - base.addr());
    // SAFETY: within the stack, which is mapped and not in use that far down.
    let words = unsafe { slice::from_raw_parts(at(deep_end).cast::<usize>(), LOOK / size_of::<usize>()) };
    let (mut seen, mut next) = (0, 0);
    while let Some(word) = words.get(next) {
        seen |= word;
        next += STRIDE;
    }
    if seen != 0 {
        let deep = block.stack.start..deep_end + page;
        // A filter may refuse it, and so does the kernel if all memory is locked. Then they stay.
        // SAFETY: 1. Within the stack, and not in use that far down.
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
    /// The offset above which everything is carved.
    top: usize,
}

impl Mapping {
    /// A mapping for two guards, a signal stack, a stack, and parts that take `room` bytes with
    /// their alignments. For a thread on a stack of the program's, `stack_size` is 0.
    pub(super) fn new(stack_size: usize, room: usize) -> Result<Mapping> {
        let (page, guard) = (page_size(), guard::size());
        let signal_size = signal::stack_size();
        let below = guard + signal_size + guard;
        let len = (|| {
            let stack = stack_size.checked_add(STACK_ALIGN)?;
            below.checked_add(stack)?.checked_add(room)?.checked_add(page - 1).map(|len| len & !(page - 1))
        })();
        let len = len.ok_or(Errno::ENOMEM)?;
        // SAFETY: taken from the cache, so this function owns it.
        let kept = cache().take(units(len), |kept| _ = free(kept)).map(|kept| unsafe { kept.as_ref() }.mapping.0);
        let base = match kept {
            Some(base) => base,
            None => map(len, [0, guard + signal_size])?,
        };
        let signal_stack = SignalStack { base: base.wrapping_add(guard), size: signal_size };
        let stack_base = base.wrapping_add(below);
        Ok(Mapping { base, len, signal_stack, stack_base, is_fresh: kept.is_none(), top: len })
    }

    /// Carves the next part, downwards: `size` bytes at a multiple of `align`.
    pub(super) fn carve(&mut self, size: usize, align: usize) -> *mut u8 {
        let address = (self.base.addr() + self.top - size) & !(align - 1);
        self.top = address - self.base.addr();
        self.base.wrapping_add(self.top)
    }
}

/// A fresh mapping with guards at these offsets. If there is no room, kept mappings are unmapped
/// (7).
fn map(len: usize, guards: [usize; 2]) -> Result<*mut u8> {
    let mapped = match Guarded::map(len, &guards) {
        Err(Errno::ENOMEM | Errno::EAGAIN) if trim_stack_cache() > 0 => Guarded::map(len, &guards),
        done => done,
    };
    mapped.map(Guarded::into_raw)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: 1. No thread was started on it, and the carved parts are not used again.
        unsafe { sys::unmap_or_empty(self.base, self.len) };
    }
}
