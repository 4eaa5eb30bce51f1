//! Pages without an owner, for allocators.

use core::ptr::{NonNull, slice_from_raw_parts_mut};

use linux_raw_sys::general as k;

use super::{Mapping, whole_pages};
use crate::errno::{Errno, Result};
use crate::sys;

/// The kernel as an allocator's source of memory: whole pages of zeros, without any bookkeeping.
///
/// It provides what common allocators require of their source (`System` of dlmalloc, `Source` of
/// talc): pages, returning part of them, and growing them in place or elsewhere.
///
/// ```no_run
/// use rt0::mapping::Pages;
///
/// let pages = Pages.allocate(1 << 16)?;
/// // SAFETY: they were allocated above, and nothing points into them.
/// let pages = unsafe { Pages.resize(pages, 1 << 20, true) }?;
/// // SAFETY: they were allocated above, and are not used after this.
/// unsafe { Pages.free(pages) }?;
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Pages;

impl Pages {
    /// Maps `len` bytes, rounded up to whole pages: zeros that can be read and written. Errors:
    /// those of [`Mapping`].
    ///
    /// In handlers: no.
    pub fn allocate(&self, len: usize) -> Result<NonNull<[u8]>> {
        Mapping::new(len).map(Mapping::into_raw)
    }

    /// Unmaps pages: all pages of one [`Pages::allocate`], a part of them, or neighbouring pages of
    /// several. `EINVAL` if `pages` does not start at a page or is empty; `ENOMEM` as for
    /// [`Mapping::free`], and then nothing changes.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. The caller owns `pages`, and no code uses them afterwards. A length that is not a
    ///    multiple of the page size is rounded up.
    pub unsafe fn free(&self, pages: NonNull<[u8]>) -> Result<()> {
        // SAFETY: 1. The caller guarantees it, for the rounded length too.
        unsafe { sys::munmap(pages.cast().as_ptr(), pages.len()) }
    }

    /// Resizes pages and keeps their contents; new bytes are zeros. Shrinking never moves them.
    /// Growing happens in place if there is room; otherwise the pages move if `may_move`.
    ///
    /// `ENOMEM` if there is no room or no memory, if `new_len` is above `isize::MAX`, or as for
    /// [`Mapping::free`]. `EINVAL` if `new_len` is 0 or `pages` does not start at a page. `EFAULT`
    /// when growing pages that the kernel does not see as one mapping, for example if parts were
    /// protected or advised differently. After an error nothing has changed.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. The caller owns `pages`, which are whole pages. No code uses them afterwards under the
    ///    old address, nor any that were unmapped.
    pub unsafe fn resize(&self, pages: NonNull<[u8]>, new_len: usize, may_move: bool) -> Result<NonNull<[u8]>> {
        let len = whole_pages(new_len)?;
        let start = pages.cast::<u8>().as_ptr();
        if len < pages.len() {
            // mremap(2) does the same, but some emulators then unmap what lies behind the pages
            // (qemu 7.2).
            // SAFETY: 1. The caller guarantees that no code uses the pages that are unmapped.
            unsafe { sys::munmap(start.wrapping_add(len), pages.len() - len) }?;
            return Ok(NonNull::slice_from_raw_parts(pages.cast(), len));
        }
        let flags = if may_move { k::MREMAP_MAYMOVE } else { 0 };
        // SAFETY: 1. The caller guarantees that no code uses the pages under the old address.
        let base = unsafe { sys::mremap(start, pages.len(), len, flags) }?;
        NonNull::new(slice_from_raw_parts_mut(base, len)).ok_or(Errno::ENOMEM)
    }
}
