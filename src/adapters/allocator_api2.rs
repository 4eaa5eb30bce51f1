//! allocator-api2: the kernel's pages as the allocator of single collections.
//!
//! For large ones: each allocation is whole pages, and it grows by mremap(2), without a copy.

use core::alloc::Layout;
use core::ptr::{NonNull, without_provenance_mut};

use ::allocator_api2::alloc::{AllocError, Allocator};

use crate::errno;
use crate::mapping::{Mapping, Pages, page_size};

/// The pages of an allocation. Every size that fits it is rounded up to the same.
fn pages(start: NonNull<u8>, layout: Layout) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(start, layout.size().next_multiple_of(page_size()))
}

fn is_of_pages(layout: Layout) -> bool {
    layout.size() > 0 && layout.align() <= page_size()
}

/// Pages at a multiple of more than the page size.
fn aligned(layout: Layout) -> errno::Result<NonNull<[u8]>> {
    let mapping = Mapping::reserve_aligned(layout.size(), layout.align())?;
    mapping.commit(..)?;
    Ok(mapping.into_raw())
}

/// # Safety
///
/// 1. `start` is an allocation of `Pages` with the layout `old`, and only the result is used
///    afterwards; after an error, `start` as before.
unsafe fn resize(start: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
    if is_of_pages(old) && is_of_pages(new) {
        // SAFETY: 1. By 1.
        return unsafe { Pages.resize(pages(start, old), new.size(), true) }.map_err(|_| AllocError);
    }
    let resized = Allocator::allocate(&Pages, new)?;
    // SAFETY: both have this length, and they do not overlap.
    unsafe { resized.cast::<u8>().copy_from_nonoverlapping(start, old.size().min(new.size())) };
    // SAFETY: by 1, it is not used afterwards.
    unsafe { Pages.deallocate(start, old) };
    Ok(resized)
}

// SAFETY: an allocation is a mapping of its own until it is freed, and copies of `Pages` have no
// state.
unsafe impl Allocator for Pages {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            let start = NonNull::new(without_provenance_mut(layout.align())).ok_or(AllocError)?;
            return Ok(NonNull::slice_from_raw_parts(start, 0));
        }
        let pages = if is_of_pages(layout) { Pages::allocate(self, layout.size()) } else { aligned(layout) };
        pages.map_err(|_| AllocError)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        Allocator::allocate(self, layout) // New pages are zeros.
    }

    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: 1. They came from `allocate`, and the caller does not use them again.
            drop(unsafe { Mapping::from_raw(pages(start, layout)) });
        }
    }

    unsafe fn grow(&self, start: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. The caller guarantees it.
        unsafe { resize(start, old, new) }
    }

    unsafe fn grow_zeroed(&self, start: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. The caller guarantees it. New pages are zeros.
        unsafe { resize(start, old, new) }
    }

    unsafe fn shrink(&self, start: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. The caller guarantees it.
        unsafe { resize(start, old, new) }
    }
}
