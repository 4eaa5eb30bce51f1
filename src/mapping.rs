//! Memory from the kernel, in whole pages: mmap(2) and its kin.
//!
//! ```text
//!               reserve                commit
//!     nothing ───────────▶ reserved ─────────────▶ committed
//!        ▲   new            │  ▲                     │   protect, advise
//!        │                  │  └──────── decommit ───┘
//!        └──── free, drop ──┴────────────────────────┘
//! ```
//!
//! *Reserved* memory is address space that nobody else gets: it costs nothing, counts against no
//! limit but that of address space (`RLIMIT_AS`), and any access to it is a `SIGSEGV`. *Committed*
//! memory can be read and written, begins as zeros, and counts from then on
//! (`vm.overcommit_memory`, `RLIMIT_DATA`); physical memory comes with the first access of each
//! page.
//!
//! A [`Mapping`] owns its pages. It hands out their address and never a reference, so what it does
//! to them is safe, and whoever makes references from the address answers for them: none may live
//! on past a call that takes away what it refers to. [`Pages`] is the same without the owner, for
//! an allocator that keeps its own books.
//!
//! Addresses and lengths are multiples of [`cpu::page_size`](crate::cpu::page_size).
//!
//! Sources: mmap(2), mprotect(2), madvise(2), mremap(2), PR_SET_VMA(2const).

use core::ffi::CStr;
use core::fmt;
use core::ops::{BitOr, Bound, RangeBounds};
use core::ptr::{NonNull, null_mut, slice_from_raw_parts_mut};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::general as k;
use static_assertions::assert_impl_all;

use crate::errno::{Errno, Result};
use crate::{auxv, sys};

/// A range of pages of this process, given back when dropped.
///
/// # Errors of all that make one
///
/// - `EINVAL`: a length of 0.
/// - `ENOMEM`: more than the address space or the limits have room for, or than `isize::MAX` bytes;
///   or the process has `vm.max_map_count` mappings.
/// - `EAGAIN`: mlockall(2) is in force, and more would be locked than `RLIMIT_MEMLOCK` allows.
///
/// Lengths are rounded up to whole pages.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    name: Option<&'static CStr>,
}

// SAFETY: it owns its pages as a box does, and lets nobody at their bytes; the calls on them are
// the kernel's to order.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

assert_impl_all!(Mapping: Send, Sync);

impl Mapping {
    /// `len` bytes of zeros, reserved and committed.
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

    /// Reserves `len` bytes at a multiple of `align`, as huge pages and size-aligned arenas need
    /// them. Also `EINVAL` if `align` is no power of two.
    ///
    /// In handlers: no.
    pub fn reserve_aligned(len: usize, align: usize) -> Result<Mapping> {
        let len = whole_pages(len)?;
        if !align.is_power_of_two() {
            return Err(Errno::EINVAL);
        }
        // Mappings begin at a page anyway, so this much more has an aligned range in it wherever it
        // lies.
        let spare = align.saturating_sub(page_size());
        let mut before = Mapping::reserve(len.checked_add(spare).ok_or(Errno::ENOMEM)?)?;
        let skipped = before.base.addr().get().wrapping_neg() & (align - 1);
        let mut aligned = before.split_off(skipped)?;
        aligned.split_off(len)?; // And gives back what is behind, as `before` what is before.
        Ok(aligned)
    }

    /// Reserves `len` bytes at `address` and nowhere else, and replaces nothing: `EEXIST` if
    /// something is mapped there. Also `EINVAL` if `address` is no multiple of the page size,
    /// `ENOMEM` or `EPERM` where no mapping may lie.
    ///
    /// In handlers: no.
    pub fn reserve_at(address: NonNull<u8>, len: usize) -> Result<Mapping> {
        let len = whole_pages(len)?;
        if !address.addr().get().is_multiple_of(page_size()) {
            return Err(Errno::EINVAL);
        }
        // Before Linux 4.17, and for some emulators, the flag says nothing and the address is a
        // hint.
        let mapping = Mapping::at(address.as_ptr(), len, k::PROT_NONE, k::MAP_FIXED_NOREPLACE)?;
        if mapping.base == address { Ok(mapping) } else { Err(Errno::EEXIST) }
    }

    fn at(address: *mut u8, len: usize, protection: u32, flags: u32) -> Result<Mapping> {
        // SAFETY: 1. Not MAP_FIXED.
        let base = unsafe { sys::mmap(address, len, protection, flags | k::MAP_PRIVATE | k::MAP_ANONYMOUS, -1, 0) }?;
        // Not null: the kernel gives that address only to who asks for it.
        Ok(Mapping { base: NonNull::new(base).ok_or(Errno::ENOMEM)?, len, name: None })
    }

    /// Takes over pages, to give them back when dropped.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. `pages` are whole pages that are mapped, private and anonymous, and nobody else will
    ///    unmap them.
    pub unsafe fn from_raw(pages: NonNull<[u8]>) -> Mapping {
        Mapping { base: pages.cast(), len: pages.len(), name: None }
    }

    /// The pages, no longer owned.
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

    /// Its length in bytes: whole pages.
    ///
    /// In handlers: no.
    #[allow(clippy::len_without_is_empty)] // Only what `split_off` leaves can be empty, and then who asked knows.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Commits `range`: from now on it can be read and written. What was committed before keeps its
    /// contents; the rest is zeros.
    ///
    /// `ENOMEM` if the system promises no more memory (`vm.overcommit_memory`) or a limit is
    /// reached; `EINVAL` if `range` is not within the mapping or not of whole pages. An empty range
    /// does nothing.
    ///
    /// In handlers: no.
    pub fn commit(&self, range: impl RangeBounds<usize>) -> Result<()> {
        self.protect(range, Protection::READ_WRITE)
    }

    /// Decommits `range`: its contents are gone, its memory is the system's again, its addresses
    /// stay reserved. Whatever was advised of it, and locks on it, are gone too.
    ///
    /// Errors as of [`Mapping::commit`], and `ENOMEM` when that would need one mapping more than
    /// `vm.max_map_count`.
    ///
    /// In handlers: no.
    pub fn decommit(&self, range: impl RangeBounds<usize>) -> Result<()> {
        let (start, len) = self.part(range)?;
        if len == 0 {
            return Ok(());
        }
        // A new mapping over the old one. mprotect(2) and madvise(2) would take two calls, leave
        // the memory charged to the process, and fail on locked pages and on kernels without
        // madvise.
        let flags = k::MAP_FIXED | k::MAP_PRIVATE | k::MAP_ANONYMOUS;
        // SAFETY: 1. What vanishes is ours.
        unsafe { sys::mmap(start, len, k::PROT_NONE, flags, -1, 0) }?;
        if let Some(name) = self.name {
            let _ = set_name(start, len, name); // A name is for the reader; the decommit is done.
        }
        Ok(())
    }

    /// Sets what may be done with `range`; see mprotect(2). Without a permission, memory keeps its
    /// contents.
    ///
    /// Errors as of [`Mapping::commit`], and `EACCES` where a security module forbids it, as it may
    /// for memory that is or was writable and shall be executable.
    ///
    /// In handlers: no.
    pub fn protect(&self, range: impl RangeBounds<usize>, protection: Protection) -> Result<()> {
        let (start, len) = self.part(range)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: 1. Whoever uses our pages answers for that, as the module says.
        unsafe { sys::mprotect(start, len, protection.0) }
    }

    /// Advises the kernel on `range`; see [`Advice`] and madvise(2).
    ///
    /// `EINVAL` if `range` is not within the mapping or not of whole pages, for advice that the
    /// kernel does not know, or cannot follow there; `ENOSYS` from a kernel without madvise; what
    /// else madvise(2) lists.
    ///
    /// In handlers: no.
    pub fn advise(&self, range: impl RangeBounds<usize>, advice: Advice) -> Result<()> {
        let (start, len) = self.part(range)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: 1. Whoever uses our pages answers for that, as the module says.
        unsafe { sys::madvise(start, len, advice.0) }
    }

    /// Names the mapping: `/proc/self/maps` then shows `[anon:NAME]`. Parts of different names stay
    /// mappings of their own to the kernel, and count as such against `vm.max_map_count`.
    ///
    /// `EINVAL` for a name of 80 bytes or more, or with other bytes than printable ASCII but ``\ [
    /// ] $ ` ``; `EOPNOTSUPP` where the kernel has no names (before Linux 5.17, or built without
    /// them): that is remembered, and costs no further call.
    ///
    /// In handlers: no.
    pub fn set_name(&mut self, name: &'static CStr) -> Result<()> {
        set_name(self.as_ptr(), self.len, name)?;
        self.name = Some(name);
        Ok(())
    }

    /// Splits it in two, without a system call; this one keeps what is below `at`. `EINVAL` if `at`
    /// is above the length or not a multiple of the page size.
    ///
    /// In handlers: no.
    pub fn split_off(&mut self, at: usize) -> Result<Mapping> {
        let (start, len) = self.part(at..)?;
        let base = NonNull::new(start).ok_or(Errno::EINVAL)?;
        self.len = at;
        Ok(Mapping { base, len, name: self.name })
    }

    /// Gives the pages back, as dropping it does. `ENOMEM`, and the mapping as it was, if the
    /// kernel sees it as the middle of a larger one and the process has `vm.max_map_count`
    /// mappings.
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
        // SAFETY: 1. The owner is about to go; code that made references answers for them.
        unsafe { sys::munmap(self.as_ptr(), self.len) }
    }

    /// The address and length of `range`; `EINVAL` if it is not within the mapping or not of whole
    /// pages.
    fn part(&self, range: impl RangeBounds<usize>) -> Result<(*mut u8, usize)> {
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
    /// As [`Mapping::free`]. If the kernel refuses, the memory goes back all the same; the
    /// addresses stay taken. (Before Linux 5.18, locked memory stays too where it cannot be
    /// unlocked.)
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: 1. The owner goes; code that made references answers for them.
            unsafe { sys::unmap_or_empty(self.as_ptr(), self.len) };
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("base", &self.base).field("len", &self.len).field("name", &self.name).finish()
    }
}

/// What may be done with memory: none, or several with `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection(u32);

impl Protection {
    /// Nothing: any access is a `SIGSEGV`.
    pub const NONE: Protection = Protection(k::PROT_NONE);
    /// Reading.
    pub const READ: Protection = Protection(k::PROT_READ);
    /// Writing; on most machines that means reading too.
    pub const WRITE: Protection = Protection(k::PROT_WRITE);
    /// Executing; on some machines that means reading too.
    pub const EXECUTE: Protection = Protection(k::PROT_EXEC);
    /// Reading and writing.
    pub const READ_WRITE: Protection = Protection(READ_WRITE);
}

const READ_WRITE: u32 = k::PROT_READ | k::PROT_WRITE;

impl BitOr for Protection {
    type Output = Protection;

    fn bitor(self, other: Protection) -> Protection {
        Protection(self.0 | other.0)
    }
}

/// What to tell the kernel about memory: one of madvise(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice(u32);

impl Advice {
    /// Nothing special.
    pub const NORMAL: Advice = Advice(k::MADV_NORMAL);
    /// It will be needed soon.
    pub const WILL_NEED: Advice = Advice(k::MADV_WILLNEED);
    /// Its contents are not needed: it reads as zeros from now on, and stays committed. `EINVAL` on
    /// locked pages.
    pub const DONT_NEED: Advice = Advice(k::MADV_DONTNEED);
    /// Its contents are not needed: at any time until it is next written, it may turn to zeros. The
    /// memory counts as the process's until then. Since Linux 4.5.
    pub const FREE: Advice = Advice(k::MADV_FREE);
    /// It should be in huge pages, see [`cpu::huge_page_size`](crate::cpu::huge_page_size). The
    /// first access to each may then wait until the kernel found one. `EINVAL` from a kernel
    /// without them.
    pub const HUGE_PAGE: Advice = Advice(k::MADV_HUGEPAGE);
    /// It must not be in huge pages. No advice takes this back to the system's default.
    pub const NO_HUGE_PAGE: Advice = Advice(k::MADV_NOHUGEPAGE);
    /// Put it into huge pages now, as well as that goes: `EAGAIN`, `EBUSY` and `ENOMEM` when it
    /// does not. Since Linux 6.1.
    pub const COLLAPSE: Advice = Advice(k::MADV_COLLAPSE);
    /// Leave it out of core dumps.
    pub const DONT_DUMP: Advice = Advice(k::MADV_DONTDUMP);
    /// Take [`Advice::DONT_DUMP`] back.
    pub const DO_DUMP: Advice = Advice(k::MADV_DODUMP);
    /// A child of fork(2) does not have it.
    pub const DONT_FORK: Advice = Advice(k::MADV_DONTFORK);
    /// A child of fork(2) finds zeros there. Since Linux 4.14.
    pub const WIPE_ON_FORK: Advice = Advice(k::MADV_WIPEONFORK);
    /// Make all pages present and writable now; `ENOMEM` if there is not enough memory. Since Linux
    /// 5.14.
    pub const POPULATE_WRITE: Advice = Advice(k::MADV_POPULATE_WRITE);
}

/// The kernel as an allocator's source of memory: whole pages, zeroed, with nothing written down
/// about them.
///
/// It has what the sources of the usual allocators have to have (`System` of dlmalloc, `Source` of
/// talc): pages, a part of them back, more of them in place or elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pages;

impl Pages {
    /// `len` bytes, rounded up to whole pages: zeros that can be read and written. Errors as of
    /// [`Mapping`].
    ///
    /// In handlers: no.
    pub fn allocate(&self, len: usize) -> Result<NonNull<[u8]>> {
        Mapping::new(len).map(Mapping::into_raw)
    }

    /// Gives pages back: all that came from one [`Pages::allocate`], a part, or the neighbouring
    /// ones of several. `EINVAL` if `pages` does not begin with a page or is empty; `ENOMEM` as of
    /// [`Mapping::free`], and then they are the caller's as before.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. `pages` are the caller's, and nobody uses them again; if the length is no multiple of the
    ///    page size, up to the next one.
    pub unsafe fn free(&self, pages: NonNull<[u8]>) -> Result<()> {
        // SAFETY: 1. is our caller's; the kernel rounds up as we say.
        unsafe { sys::munmap(pages.cast().as_ptr(), pages.len()) }
    }

    /// Makes pages more or fewer, with their contents and zeros behind. Fewer stay where they lie;
    /// more do if there is room, and else, if they `may_move`, go where there is.
    ///
    /// `ENOMEM` if there is no room, or no memory, if `new_len` is above `isize::MAX`, or as of
    /// [`Mapping::free`]; `EINVAL` if it is 0 or `pages` does not begin with a page; `EFAULT` for
    /// more if the kernel does not see them as one mapping (as when parts were protected or advised
    /// differently). They are as before then.
    ///
    /// In handlers: no.
    ///
    /// # Safety
    ///
    /// 1. `pages` are the caller's, whole pages, and nobody uses them again under the old address,
    ///    or those given back.
    pub unsafe fn resize(&self, pages: NonNull<[u8]>, new_len: usize, may_move: bool) -> Result<NonNull<[u8]>> {
        let len = whole_pages(new_len)?;
        let start = pages.cast::<u8>().as_ptr();
        if len < pages.len() {
            // What mremap(2) does too, but for emulators that then take away what lies behind the
            // pages (qemu 7.2).
            // SAFETY: 1. is our caller's.
            unsafe { sys::munmap(start.wrapping_add(len), pages.len() - len) }?;
            return Ok(NonNull::slice_from_raw_parts(pages.cast(), len));
        }
        let flags = if may_move { k::MREMAP_MAYMOVE } else { 0 };
        // SAFETY: 1. is our caller's.
        let base = unsafe { sys::mremap(start, pages.len(), len, flags) }?;
        NonNull::new(slice_from_raw_parts_mut(base, len)).ok_or(Errno::ENOMEM)
    }
}

/// `len` rounded up to whole pages. `EINVAL` for 0, `ENOMEM` above what a pointer's offset can be.
fn whole_pages(len: usize) -> Result<usize> {
    match len.checked_next_multiple_of(page_size()) {
        Some(0) => Err(Errno::EINVAL),
        Some(len) if len <= isize::MAX as usize => Ok(len),
        _ => Err(Errno::ENOMEM),
    }
}

fn page_size() -> usize {
    // The unit tests come in by std's start, which does not keep it for us.
    if cfg!(test) { 4096 } else { auxv::page_size() }
}

/// See [`Mapping::set_name`].
fn set_name(start: *mut u8, len: usize, name: &CStr) -> Result<()> {
    static NO_NAMES: AtomicBool = AtomicBool::new(false);
    if !is_name(name.to_bytes()) {
        return Err(Errno::EINVAL);
    }
    // Relaxed: the answer is all there is. Whoever misses another thread's asks too.
    if NO_NAMES.load(Relaxed) {
        return Err(Errno::EOPNOTSUPP);
    }
    match sys::prctl_set_vma_name(start, len, name) {
        // The name is good and so is the range: it is the option that the kernel does not know.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            NO_NAMES.store(true, Relaxed);
            Err(Errno::EOPNOTSUPP)
        }
        done => done,
    }
}

/// Whether the kernel takes it as a mapping's name.
fn is_name(name: &[u8]) -> bool {
    name.len() < 80 && name.iter().all(|byte| (b' '..=b'~').contains(byte) && !b"\\[]$`".contains(byte))
}

#[cfg(test)]
mod tests;
