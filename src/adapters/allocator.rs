//! A global allocator: talc for small allocations, the kernel's pages for large ones.
//!
//! ```no_run
//! extern crate alloc;
//!
//! #[global_allocator]
//! static ALLOCATOR: rt0::adapters::allocator::Allocator =
//! rt0::adapters::allocator::Allocator::new();
//! ```
//!
//! Why this crate: dlmalloc and rlsf depend on libc on Linux, which a program on rt0 does not have,
//! and talc 5 links `alloc` into every program with the feature, even one without a global
//! allocator, which then does not link. talc 4 depends on nothing.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::{NonNull, null_mut};

use ::talc::{OomHandler, Span, Talc};

use crate::mapping::{self, Mapping, Pages};
use crate::sync::Mutex;

/// From this size on, in bytes, an allocation is a mapping of its own: it grows and shrinks by
/// mremap(2), without a copy, and its memory goes back when it is freed.
const LARGE: usize = 128 << 10;

/// The bytes that talc gets from the kernel at a time, and keeps.
const HEAP: usize = 1 << 20;

/// An upper bound of talc's own data in a heap, in bytes: its lists, in the first heap, take about
/// 1 KiB.
const OVERHEAD: usize = 16 << 10;

/// The least alignment of pages on every machine.
const PAGE: usize = 4096;

/// An allocator for all threads of the process, with one lock.
///
/// Allocations from 128 KiB on are mappings of their own, which go back to the kernel when they are
/// freed. Smaller ones are talc's, from heaps of 1 MiB, which are kept for later allocations.
///
/// Signal handlers must not use it: the interrupted code may hold its lock.
pub struct Allocator(Mutex<Talc<Heaps>>);

impl Allocator {
    /// An allocator that has no memory yet.
    ///
    /// In handlers: no.
    pub const fn new() -> Allocator {
        Allocator(Mutex::new(Talc::new(Heaps)))
    }
}

impl Default for Allocator {
    fn default() -> Allocator {
        Allocator::new()
    }
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator").finish_non_exhaustive()
    }
}

/// Gives talc a heap at a time.
struct Heaps;

impl OomHandler for Heaps {
    fn handle_oom(talc: &mut Talc<Heaps>, layout: Layout) -> Result<(), ()> {
        // No sum overflows: size and alignment are at most isize::MAX + 1 together.
        let least = layout.size() + layout.align() + OVERHEAD;
        let pages = Pages.allocate(least.max(HEAP)).map_err(|_| ())?;
        // SAFETY: the pages are owned, and no other code has their address.
        unsafe { talc.claim(Span::from_base_size(pages.cast().as_ptr(), pages.len())) }.map(|_| ())
    }
}

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

/// The pages of a large allocation.
fn pages(start: NonNull<u8>, layout: Layout) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(start, layout.size().next_multiple_of(mapping::page_size()))
}

// SAFETY: a block is talc's or a mapping; its layout says which.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return Pages.allocate(layout.size()).map_or(null_mut(), |pages| pages.cast().as_ptr());
        }
        // SAFETY: the caller guarantees a size above 0.
        unsafe { self.0.lock().malloc(layout) }.map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees it.
        let block = unsafe { self.alloc(layout) };
        if !is_large(layout) && !block.is_null() {
            // SAFETY: the block has this many bytes. New pages are zero.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(start) = NonNull::new(block) else { return };
        if is_large(layout) {
            // SAFETY: 1. They came from `alloc`, and the caller does not use them again.
            drop(unsafe { Mapping::from_raw(pages(start, layout)) });
        } else {
            // SAFETY: it came from `alloc` with this layout.
            unsafe { self.0.lock().free(start, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(start) = NonNull::new(block) else { return null_mut() };
        // SAFETY: the caller guarantees that the size is one of a layout with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_large(layout), is_large(new_layout)) {
            (false, false) if new_size <= layout.size() => {
                // SAFETY: it came from `alloc` with this layout, and the new size is not above its.
                unsafe { self.0.lock().shrink(start, layout, new_size) };
                return block;
            }
            (false, false) => {
                // SAFETY: it came from `alloc` with this layout, and the new size is above its.
                let grown = unsafe { self.0.lock().grow_in_place(start, layout, new_size) };
                if grown.is_ok() {
                    return block;
                }
            }
            (true, true) => {
                // SAFETY: 1. They came from `alloc`, and the caller uses only the result. If the
                // pages have become two mappings, the call fails and the data is copied.
                if let Ok(pages) = unsafe { Pages.resize(pages(start, layout), new_size, true) } {
                    return pages.cast().as_ptr();
                }
            }
            _ => {}
        }
        // SAFETY: the caller guarantees a size above 0.
        let new_block = unsafe { self.alloc(new_layout) };
        if !new_block.is_null() {
            // SAFETY: both blocks have this length, and they do not overlap.
            unsafe { new_block.copy_from_nonoverlapping(block, layout.size().min(new_size)) };
            // SAFETY: the caller guarantees it.
            unsafe { self.dealloc(block, layout) };
        }
        new_block
    }
}
