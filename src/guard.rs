//! Guard pages: memory below each stack that faults, so that a stack overflow ends the process
//! instead of overwriting what lies below.
//!
//! Properties, and how they are achieved:
//!
//! 1. *A guard faults:* it is marked in the page table where the kernel can do so
//!    (`MADV_GUARD_INSTALL`, Linux 6.13); the first guard is read to see whether it faults.
//!    Otherwise, and where mlockall(2) is in force, it is pages without permissions. With marks the
//!    kernel sees one mapping for stacks that lie side by side. Without marks it sees three or four
//!    for each thread, and a process may have 65,530 (`vm.max_map_count`).
//! 2. *No frame smaller than a guard steps over it:* with stack probes (`Arch::STACK_PROBES`) a
//!    function touches every page of its frame on the way down, so one page catches frames of any
//!    size. Without probes a function may touch only the far end of its frame, so a guard has at
//!    least 64 KiB. Two frames are not caught: without probes, a larger frame that touches nothing
//!    in the guard; and everywhere, a large frame of code that was compiled without probes, such as
//!    C without `-fstack-clash-protection`.
//! 3. *All guards have one size*, below each thread's stack and below each signal stack, including
//!    the main thread's signal stack. The main thread's own stack has no guard of rt0's: the kernel
//!    grows it, and keeps 256 pages below it free of other mappings (`stack_guard_gap`).

use core::ptr::null_mut;

use linux_raw_sys::general as k;

use crate::arch::{Arch, Cpu};
use crate::auxv::page_size;
use crate::errno::Result;
use crate::once_word::OnceBool;
use crate::sys;

/// The size of every guard in bytes: whole pages.
pub(crate) fn size() -> usize {
    const WITHOUT_PROBES: usize = 64 << 10;
    if Cpu::STACK_PROBES { page_size() } else { page_size().max(WITHOUT_PROBES) }
}

/// Makes the [`size`] bytes from `base` on a guard. Errors: those of mprotect(2); `ENOMEM` means
/// that the process has `vm.max_map_count` mappings.
///
/// # Safety
///
/// 1. The range is whole pages that are mapped, and nothing uses it.
unsafe fn install(base: *mut u8) -> Result<()> {
    /// Whether marks fault. An emulator may treat them as advice and ignore them.
    static MARKS_FAULT: OnceBool = OnceBool::new();
    let len = size();
    let known = MARKS_FAULT.known();
    if known != Some(false) {
        // SAFETY: 1. The caller guarantees that nothing uses the range.
        let marked = unsafe { sys::madvise(base, len, k::MADV_GUARD_INSTALL) }.is_ok();
        // SAFETY: 1. The caller guarantees that nothing uses the range, so no futex wait sees the
        // probe.
        if marked && (known == Some(true) || unsafe { !sys::can_read(base) }) {
            MARKS_FAULT.set(true);
            return Ok(());
        }
        // Also reached while the process locks all its memory: marks are then never used again.
        MARKS_FAULT.set(false);
    }
    // SAFETY: 1. The caller guarantees that nothing uses the range.
    unsafe { sys::mprotect(base, len, k::PROT_NONE) }
}

/// Fresh memory with guards, for stacks; unmapped when dropped.
pub(crate) struct Guarded {
    base: *mut u8,
    len: usize,
}

impl Guarded {
    /// `len` bytes, whole pages, with a guard at each of these offsets. Errors: those of mmap(2)
    /// and of [`install`].
    pub(crate) fn map(len: usize, guards: &[usize]) -> Result<Guarded> {
        let flags = k::MAP_PRIVATE | k::MAP_ANONYMOUS | k::MAP_NORESERVE | k::MAP_STACK;
        // SAFETY: 1. Not MAP_FIXED.
        let base = unsafe { sys::mmap(null_mut(), len, k::PROT_READ | k::PROT_WRITE, flags, -1, 0) };
        let base = base.map_err(sys::without_such_addresses)?;
        let memory = Guarded { base, len };
        for offset in guards {
            // SAFETY: 1. Within the fresh mapping, which nothing uses.
            unsafe { install(base.wrapping_add(*offset)) }?;
        }
        Ok(memory)
    }

    /// Its low end.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Its low end; the memory is the caller's from here on.
    pub(crate) fn into_raw(self) -> *mut u8 {
        let base = self.base;
        core::mem::forget(self);
        base
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: 1. The owner goes, and with it all that used the memory.
        unsafe { sys::unmap_or_empty(self.base, self.len) };
    }
}
