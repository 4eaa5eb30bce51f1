//! Mappings.

use core::ffi::CStr;

use linux_raw_sys::general as k;

use super::{RawFd, at, call, syscall};
use crate::arch::{Arch, Cpu, Mmap};
use crate::errno::{Errno, Result};

/// The error of an mmap(2) with valid arguments. There `EINVAL` means that the machine has no such
/// addresses, and this returns `ENOMEM` instead: sparc64's kernel says it for a length above half
/// of its addresses, ARM's for the first pages, which hold vectors of old processors.
/// (arch/sparc/kernel/sys_sparc_64.c, arch/arm/include/uapi/asm/mman.h)
pub(crate) fn without_such_addresses(errno: Errno) -> Errno {
    if errno == Errno::EINVAL { Errno::ENOMEM } else { errno }
}

/// mmap(2). `ENOMEM`, `EINVAL`, `EAGAIN`, `EPERM`; `EINVAL` also for an `offset` that is no
/// multiple of 4096.
///
/// # Safety
///
/// 1. With `MAP_FIXED`, nothing uses what is mapped at `addr..addr + len` again.
pub(crate) unsafe fn mmap(addr: *mut u8, len: usize, prot: u32, flags: u32, fd: RawFd, offset: u64) -> Result<*mut u8> {
    let mut args = [at(addr), len, prot as usize, flags as usize, fd as usize, 0];
    let unit = match Cpu::MMAP {
        Mmap::Units4096(_) => 4096,
        Mmap::Bytes(_) | Mmap::Block(_) => 1,
    };
    args[5] = usize::try_from(offset / unit).map_err(|_| Errno::EOVERFLOW)?;
    if !offset.is_multiple_of(unit) {
        return Err(Errno::EINVAL);
    }
    let base = match Cpu::MMAP {
        Mmap::Bytes(nr) | Mmap::Units4096(nr) => {
            // SAFETY: the caller guarantees 1; without MAP_FIXED the kernel chooses free addresses.
            unsafe { syscall(nr as usize, args) }
        }
        Mmap::Block(nr) => {
            // SAFETY: the caller guarantees 1; the kernel only reads the block.
            unsafe { call!(@ nr as usize, at(&raw const args)) }
        }
    }?;
    Ok(core::ptr::with_exposed_provenance_mut(base))
}

/// munmap(2). `EINVAL`; `ENOMEM` when a hole would need one mapping more than `vm.max_map_count`.
///
/// # Safety
///
/// 1. Nothing uses `addr..addr + len` again.
pub(crate) unsafe fn munmap(addr: *mut u8, len: usize) -> Result<()> {
    // SAFETY: the caller guarantees 1.
    unsafe { call!(__NR_munmap, at(addr), len) }.map(drop)
}

/// Unmaps pages, and returns whether that succeeded.
///
/// If the pages lie in the middle of what the kernel treats as one mapping, two mappings remain.
/// The kernel refuses that (`ENOMEM`) if the process has as many mappings as it may. Then the
/// pages' memory is released, and their addresses stay reserved. So a refusal does not end the
/// process.
///
/// # Safety
///
/// 1. The range is whole pages, private and anonymous, and nothing uses them again.
pub(crate) unsafe fn unmap_or_empty(base: *mut u8, len: usize) -> bool {
    // SAFETY: the caller guarantees 1.
    if unsafe { munmap(base, len) }.is_ok() {
        return true;
    }
    // SAFETY: the caller guarantees 1.
    let empty = |advice| unsafe { madvise(base, len, advice) };
    // For locked pages there is another advice since Linux 5.18, which needs no further mapping.
    let _ = empty(k::MADV_DONTNEED)
        .or_else(|_| empty(k::MADV_DONTNEED_LOCKED))
        .or_else(|_| munlock(base, len).and_then(|()| empty(k::MADV_DONTNEED)));
    false
}

/// mprotect(2). `EINVAL`, `ENOMEM`, `EACCES`.
///
/// # Safety
///
/// 1. Nothing uses `addr..addr + len` in a way that `prot` forbids.
pub(crate) unsafe fn mprotect(addr: *mut u8, len: usize, prot: u32) -> Result<()> {
    // SAFETY: the caller guarantees 1.
    unsafe { call!(__NR_mprotect, at(addr), len, prot as usize) }.map(drop)
}

/// mremap(2): the mapping's bytes at its new address and of its new length, where 0 is no flag and
/// `MREMAP_MAYMOVE` allows another address. `ENOMEM`; `EFAULT` if the range is not one mapping,
/// `EINVAL`.
///
/// # Safety
///
/// 1. Nothing uses `addr..addr + old_len` again, except what is still mapped there afterwards.
pub(crate) unsafe fn mremap(addr: *mut u8, old_len: usize, new_len: usize, flags: u32) -> Result<*mut u8> {
    // SAFETY: the caller guarantees 1.
    let base = unsafe { call!(__NR_mremap, at(addr), old_len, new_len, flags as usize) }?;
    Ok(core::ptr::with_exposed_provenance_mut(base))
}

/// madvise(2). `EINVAL` for advice that this kernel does not know or cannot follow there, `ENOMEM`
/// where nothing is mapped, `ENOSYS` where the kernel is built without it, `EAGAIN`.
///
/// # Safety
///
/// 1. If the advice drops the contents of `addr..addr + len`, nothing relies on them.
pub(crate) unsafe fn madvise(addr: *mut u8, len: usize, advice: u32) -> Result<()> {
    // SAFETY: the caller guarantees 1.
    unsafe { call!(__NR_madvise, at(addr), len, advice as usize) }.map(drop)
}

/// munlock(2). `ENOMEM` when that would need one mapping more than `vm.max_map_count`.
pub(crate) fn munlock(addr: *mut u8, len: usize) -> Result<()> {
    // SAFETY: 1. Memory that may be paged out has the same contents.
    unsafe { call!(__NR_munlock, at(addr), len) }.map(drop)
}

/// Makes the instructions in `code` those that were last stored there: see
/// [`Arch::flush_instructions`]. Errors: those of cacheflush(2) and its like, which only a filter
/// gives.
pub(crate) fn flush_instructions(code: &[u8]) -> Result<()> {
    if code.is_empty() {
        return Ok(()); // It may lie anywhere.
    }
    let start = at(code);
    // SAFETY: 1. A slice is readable, and it is not empty.
    Errno::check(unsafe { Cpu::flush_instructions(start..start + code.len()) }).map(drop)
}

/// prctl(2) with `PR_SET_VMA_ANON_NAME`: the name that /proc/self/maps shows for anonymous memory;
/// since Linux 5.17, where configured. `EINVAL` for a name of 80 bytes or more or with characters
/// that it does not take, and where there are no names; `EBADF` for memory that is a file's.
pub(crate) fn prctl_set_vma_name(addr: *mut u8, len: usize, name: &CStr) -> Result<()> {
    use linux_raw_sys::prctl::{PR_SET_VMA, PR_SET_VMA_ANON_NAME};
    let (set, what) = (PR_SET_VMA as usize, PR_SET_VMA_ANON_NAME as usize);
    // SAFETY: 1. The kernel only reads the name.
    unsafe { call!(__NR_prctl, set, what, at(addr), len, at(name.as_ptr())) }.map(drop)
}

/// mincore(2) of one byte: `Ok` if `addr` is a page's first byte in a mapping, `EINVAL` if it is
/// not a page's first, `ENOMEM` if nothing is mapped there.
pub(crate) fn mincore(addr: *const u8) -> Result<()> {
    let mut resident = 0u8;
    // SAFETY: 1. The kernel writes one byte per page of the one-byte range.
    unsafe { call!(__NR_mincore, at(addr), 1, at(&raw mut resident)) }.map(drop)
}
