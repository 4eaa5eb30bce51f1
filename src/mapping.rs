//! Memory from the kernel, in whole pages: mmap(2) and related calls.
//!
//! ```text
//!               reserve                commit
//!     nothing ───────────▶ reserved ─────────────▶ committed
//!        ▲   new            │  ▲                     │   protect, advise
//!        │                  │  └──────── decommit ───┘
//!        └──── free, drop ──┴────────────────────────┘
//! ```
//!
//! *Reserved* memory is address space that no other mapping gets. It uses no memory, counts only
//! against the limit of address space (`RLIMIT_AS`), and any access to it is a `SIGSEGV`.
//! *Committed* memory can be read and written and starts as zeros. It counts against
//! `vm.overcommit_memory` and `RLIMIT_DATA`; each page gets physical memory at its first access.
//!
//! A [`Mapping`] owns its pages. It gives out their address but never a reference, so its functions
//! are safe. Code that makes references from the address must not use them after a call that takes
//! away their memory. [`Pages`] is the same without an owner, for an allocator that does its own
//! bookkeeping.
//!
//! Addresses and lengths are multiples of [`cpu::page_size`](crate::cpu::page_size).
//!
//! Sources: mmap(2), mprotect(2), madvise(2), mremap(2), PR_SET_VMA(2const).

mod flags;
mod pages;

use core::ffi::CStr;
use core::fmt;
use core::ops::{Bound, RangeBounds};
use core::ptr::{NonNull, null_mut};

use linux_raw_sys::general as k;
use static_assertions::assert_impl_all;

use crate::errno::{Errno, Result};
use crate::once_word::OnceBool;
use crate::{auxv, sys};
pub use flags::{Advice, Protection};
pub use pages::Pages;

const READ_WRITE: u32 = k::PROT_READ | k::PROT_WRITE;

/// A range of pages of this process, unmapped when dropped.
///
/// ```no_run
/// use rt0::mapping::Mapping;
///
/// let memory = Mapping::reserve(1 << 30)?; // Address space alone.
/// memory.commit(..1 << 16)?;
/// // SAFETY: the first page is committed, and no other code has its address.
/// unsafe { memory.as_ptr().write(1) };
/// memory.decommit(..)?; // The address space stays.
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// # Errors of the functions that make one
///
/// - `EINVAL`: a length of 0.
/// - `ENOMEM`: the length exceeds the address space, a limit or `isize::MAX` bytes, or the process
///   has `vm.max_map_count` mappings.
/// - `EAGAIN`: mlockall(2) is in force, and the mapping would exceed `RLIMIT_MEMLOCK`.
///
/// Lengths are rounded up to whole pages.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    name: Option<&'static CStr>,
}

// SAFETY: it owns its pages as a box does and gives out no reference to their bytes. The kernel
// orders its calls.
unsafe impl Send for Mapping {}
// SAFETY: it gives out no reference to its pages' bytes, and the kernel orders its calls.
unsafe impl Sync for Mapping {}

assert_impl_all!(Mapping: Send, Sync);

impl Mapping {
    /// Maps `len` bytes of zeros, committed.
    ///
    /// In handlers: no.
    pub fn new(len: usize) -> Result<Mapping> {
        Mapping::at(null_mut(), whole_pages(len)?, READ_WRITE, 0)
    }

    /// Reserves `len` bytes.
    ///
    /// In handlers: no.
    pub fn reserve(len: usize) -> Result<Mapping> {
        Mapping::at(null_mut(), whole_pages(len)?, k::PROT_NONE, 0)
    }

    /// Reserves `len` bytes at a multiple of `align`, for huge pages or size-aligned arenas. Also
    /// `EINVAL` if `align` is not a power of two.
    ///
    /// In handlers: no.
    pub fn reserve_aligned(len: usize, align: usize) -> Result<Mapping> {
        let len = whole_pages(len)?;
        if !align.is_power_of_two() {
            return Err(Errno::EINVAL);
        }
        // A mapping starts at a page, so with `spare` more bytes it contains an aligned range.
        let spare = align.saturating_sub(page_size());
        let mut before = Mapping::reserve(len.checked_add(spare).ok_or(Errno::ENOMEM)?)?;
        let skipped = before.base.addr().get().wrapping_neg() & (align - 1);
        let mut aligned = before.split_off(skipped)?;
        // Unmaps the pages behind; dropping `before` unmaps those in front.
        aligned.split_off(len)?;
        Ok(aligned)
    }

    /// Reserves `len` bytes at exactly `address`, and replaces nothing: `EEXIST` if something is
    /// mapped there. Also `EINVAL` if `address` is not a multiple of the page size, and `ENOMEM` or
    /// `EPERM` where no mapping may lie.
    ///
    /// ```no_run
    /// use rt0::mapping::Mapping;
    ///
    /// let first = Mapping::reserve(1 << 20)?;
    /// let end = core::ptr::NonNull::new(first.as_ptr().wrapping_add(first.len())).unwrap();
    /// match Mapping::reserve_at(end, 1 << 20) {
    ///     Ok(second) => rt0::println!("{second:?} follows {first:?}"),
    ///     Err(rt0::Errno::EEXIST) => rt0::println!("something else lies there"),
    ///     Err(other) => return Err(other),
    /// }
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: no.
    pub fn reserve_at(address: NonNull<u8>, len: usize) -> Result<Mapping> {
        let len = whole_pages(len)?;
        if !address.addr().get().is_multiple_of(page_size()) {
            return Err(Errno::EINVAL);
        }
        // Kernels before Linux 4.17, and some emulators, ignore the flag and treat the address as a
        // hint.
        let mapping = Mapping::at(address.as_ptr(), len, k::PROT_NONE, k::MAP_FIXED_NOREPLACE)?;
        if mapping.base == address { Ok(mapping) } else { Err(Errno::EEXIST) }
    }

    fn at(address: *mut u8, len: usize, protection: u32, flags: u32) -> Result<Mapping> {
        // SAFETY: 1. Not MAP_FIXED.
        let base = unsafe { sys::mmap(address, len, protection, flags | k::MAP_PRIVATE | k::MAP_ANONYMOUS, -1, 0) };
        let base = base.map_err(sys::without_such_addresses)?;
        // Not null: the kernel maps address 0 only on request.
        Ok(Mapping { base: NonNull::new(base).ok_or(Errno::ENOMEM)?, len, name: None })
    }

    /// Takes ownership of pages; they are unmapped on drop.
    ///
    /// ```no_run
    /// use rt0::mapping::Mapping;
    ///
    /// let pages = Mapping::new(1 << 16)?.into_raw(); // For code that keeps pointers.
    /// // SAFETY: 1. They come from `into_raw`, and nothing else uses them.
    /// let mut memory = unsafe { Mapping::from_raw(pages) };
    /// let second_half = memory.split_off(1 << 15)?;
    /// drop(memory); // The second half stays mapped.
    /// # Ok::<(), rt0::Errno>(())
    /// ```
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. `pages` are whole pages that are mapped, private and anonymous, and no other code unmaps
    ///    them.
    pub unsafe fn from_raw(pages: NonNull<[u8]>) -> Mapping {
        Mapping { base: pages.cast(), len: pages.len(), name: None }
    }

    /// Gives up ownership of the pages and returns them.
    ///
    /// In handlers: no.
    pub fn into_raw(self) -> NonNull<[u8]> {
        let pages = NonNull::slice_from_raw_parts(self.base, self.len);
        core::mem::forget(self);
        pages
    }

    /// The first byte's address.
    ///
    /// In handlers: no.
    pub const fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The length in bytes: whole pages.
    ///
    /// In handlers: no.
    // Only `split_off` makes an empty one, and its caller knows.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Commits `range`: it can then be read and written. Memory that was committed already keeps
    /// its contents; the rest is zeros.
    ///
    /// `ENOMEM` if the system grants no more memory (`vm.overcommit_memory`) or a limit is reached;
    /// `EINVAL` if `range` is not within the mapping or not of whole pages. An empty range does
    /// nothing.
    ///
    /// In handlers: no.
    pub fn commit(&self, range: impl RangeBounds<usize>) -> Result<()> {
        self.protect(range, Protection::READ_WRITE)
    }

    /// Decommits `range`: its contents are lost, its memory returns to the system, its addresses
    /// stay reserved. Advice given for it and locks on it are lost too.
    ///
    /// Errors: those of [`Mapping::commit`], and `ENOMEM` if the process would exceed
    /// `vm.max_map_count`.
    ///
    /// In handlers: no.
    pub fn decommit(&self, range: impl RangeBounds<usize>) -> Result<()> {
        let (start, len) = self.checked_range(range)?;
        if len == 0 {
            return Ok(());
        }
        // Maps new pages over the old ones. The alternative, mprotect(2) and madvise(2), takes two
        // calls, leaves the memory charged to the process, and fails on locked pages and on kernels
        // without madvise.
        let flags = k::MAP_FIXED | k::MAP_PRIVATE | k::MAP_ANONYMOUS;
        // SAFETY: 1. This mapping owns the pages that are replaced.
        unsafe { sys::mmap(start, len, k::PROT_NONE, flags, -1, 0) }?;
        if let Some(name) = self.name {
            // The decommit has succeeded; a name only helps readers.
            let _ = set_name(start, len, name);
        }
        Ok(())
    }

    /// Sets the permissions of `range`; see mprotect(2). Memory without permissions keeps its
    /// contents.
    ///
    /// Errors: those of [`Mapping::commit`], and `EACCES` where a security module forbids it, for
    /// example making memory executable that is or was writable.
    ///
    /// In handlers: no.
    pub fn protect(&self, range: impl RangeBounds<usize>, protection: Protection) -> Result<()> {
        let (start, len) = self.checked_range(range)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: 1. Code that made references from the address must not use them afterwards, as
        // the module says.
        unsafe { sys::mprotect(start, len, protection.0) }
    }

    /// Gives the kernel advice for `range`; see [`Advice`] and madvise(2).
    ///
    /// `EINVAL` if `range` is not within the mapping or not of whole pages, or if the kernel does
    /// not know the advice or cannot follow it there; `ENOSYS` from a kernel without madvise; other
    /// errors as in madvise(2).
    ///
    /// In handlers: no.
    pub fn advise(&self, range: impl RangeBounds<usize>, advice: Advice) -> Result<()> {
        let (start, len) = self.checked_range(range)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: 1. Code that made references from the address must not use them afterwards, as
        // the module says.
        unsafe { sys::madvise(start, len, advice.0) }
    }

    /// Names the mapping: `/proc/self/maps` then shows `[anon:NAME]`. The kernel does not merge
    /// neighbouring mappings with different names, so each counts against `vm.max_map_count`.
    ///
    /// `EINVAL` for a name of 80 bytes or more, or with bytes that are not printable ASCII or are
    /// one of ``\ [ ] $ ` ``. `EOPNOTSUPP` if the kernel has no names (before Linux 5.17, or built
    /// without them): this is remembered, and later calls make no system call.
    ///
    /// In handlers: no.
    pub fn set_name(&mut self, name: &'static CStr) -> Result<()> {
        set_name(self.as_ptr(), self.len, name)?;
        self.name = Some(name);
        Ok(())
    }

    /// Splits the mapping in two, without a system call; `self` keeps the part below `at`. `EINVAL`
    /// if `at` is above the length or not a multiple of the page size.
    ///
    /// In handlers: no.
    pub fn split_off(&mut self, at: usize) -> Result<Mapping> {
        let (start, len) = self.checked_range(at..)?;
        let base = NonNull::new(start).ok_or(Errno::EINVAL)?;
        self.len = at;
        Ok(Mapping { base, len, name: self.name })
    }

    /// Unmaps the pages, as dropping does, and reports errors. `ENOMEM`, with the unchanged
    /// mapping, if the kernel sees the pages as the middle of a larger mapping and the process has
    /// `vm.max_map_count` mappings.
    ///
    /// In handlers: no.
    pub fn free(self) -> core::result::Result<(), (Errno, Mapping)> {
        match self.unmap() {
            Ok(()) => {
                core::mem::forget(self);
                Ok(())
            }
            Err(errno) => Err((errno, self)),
        }
    }

    fn unmap(&self) -> Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        // SAFETY: 1. The owner is about to go; code that made references does not use them
        // afterwards, as the module says.
        unsafe { sys::munmap(self.as_ptr(), self.len) }
    }

    /// The address and length of `range`; `EINVAL` if it is not within the mapping or not of whole
    /// pages.
    fn checked_range(&self, range: impl RangeBounds<usize>) -> Result<(*mut u8, usize)> {
        let start = match range.start_bound() {
            Bound::Included(&start) => Some(start),
            Bound::Excluded(&before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.checked_add(1),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => Some(self.len),
        };
        let (start, end) = start.zip(end).ok_or(Errno::EINVAL)?;
        let page = page_size();
        if start > end || end > self.len || !start.is_multiple_of(page) || !end.is_multiple_of(page) {
            return Err(Errno::EINVAL);
        }
        Ok((self.as_ptr().wrapping_add(start), end - start))
    }
}

impl Drop for Mapping {
    /// As [`Mapping::free`]. If the kernel refuses to unmap, the memory still returns to the
    /// system, but the addresses stay occupied. (Before Linux 5.18, locked memory that cannot be
    /// unlocked stays too.)
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: 1. The owner goes; code that made references does not use them afterwards, as
            // the module says.
            unsafe { sys::unmap_or_empty(self.as_ptr(), self.len) };
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("base", &self.base).field("len", &self.len).field("name", &self.name).finish()
    }
}

/// `len` rounded up to whole pages. `EINVAL` for 0, `ENOMEM` above `isize::MAX`.
fn whole_pages(len: usize) -> Result<usize> {
    match len.checked_next_multiple_of(page_size()) {
        Some(0) => Err(Errno::EINVAL),
        Some(len) if len <= isize::MAX as usize => Ok(len),
        _ => Err(Errno::ENOMEM),
    }
}

pub(crate) fn page_size() -> usize {
    // The unit tests start by std, which does not record the page size for rt0.
    if cfg!(test) { 4096 } else { auxv::page_size() }
}

/// See [`Mapping::set_name`].
fn set_name(start: *mut u8, len: usize, name: &CStr) -> Result<()> {
    static HAS_NAMES: OnceBool = OnceBool::new();
    if !is_name(name.to_bytes()) {
        return Err(Errno::EINVAL);
    }
    if HAS_NAMES.known() == Some(false) {
        return Err(Errno::EOPNOTSUPP);
    }
    match sys::prctl_set_vma_name(start, len, name) {
        // Name and range are valid, so the kernel does not know the option.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            HAS_NAMES.set(false);
            Err(Errno::EOPNOTSUPP)
        }
        done => done,
    }
}

/// Whether the kernel accepts it as a mapping's name.
fn is_name(name: &[u8]) -> bool {
    name.len() < 80 && name.iter().all(|byte| (b' '..=b'~').contains(byte) && !b"\\[]$`".contains(byte))
}

#[cfg(test)]
mod tests;
