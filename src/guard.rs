//! Guards: memory that faults, below each stack, so that a stack that runs over ends the process
//! and does not write into what lies below.
//!
//! What holds, and how:
//!
//! 1. *A guard faults.* It is a mark in the page table where the kernel has those (Linux 6.13), as
//!    the first guard shows when it is tried; else it is pages without permissions, as also where
//!    mlockall(2) is in force. With marks the kernel sees one mapping of the stacks that lie side
//!    by side. Without, it sees three or four of each thread, and allows a process 65,530
//!    (`vm.max_map_count`).
//! 2. *No frame that is smaller than a guard steps over it.* A function with stack probes
//!    (`Arch::STACK_PROBES`) touches every page of its frame on the way down, so one page catches
//!    frames of any size. Without probes a function may touch the far end of its frame only: there
//!    a guard has 64 KiB at least. What is not caught there is a larger frame, of which nothing is
//!    touched that lies in the guard; and everywhere code that was compiled without probes, as C is
//!    unless `-fstack-clash-protection` is given.
//! 3. *All guards are of one size*: below each thread's stack and below each signal stack, that of
//!    the main thread too. The main thread's own stack has none of rt0's. The kernel, which grows
//!    it, keeps 256 pages below it free of other mappings (`stack_guard_gap`).

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use linux_raw_sys::general as k;

use crate::arch::{Arch, Cpu};
use crate::auxv::page_size;
use crate::errno::Result;
use crate::sys;

/// The size of every guard in bytes: whole pages.
pub(crate) fn size() -> usize {
    const WITHOUT_PROBES: usize = 64 << 10;
    if Cpu::STACK_PROBES { page_size() } else { page_size().max(WITHOUT_PROBES) }
}

/// Makes a guard of the [`size`] bytes from `base` on. Errors: those of mprotect(2), of which
/// `ENOMEM` says that the process has `vm.max_map_count` mappings.
///
/// # Safety
///
/// 1. The range is whole pages that are mapped, and nothing uses it.
pub(crate) unsafe fn install(base: *mut u8) -> Result<()> {
    /// Whether marks do what they should. An emulator may take them for advice that it may ignore.
    static MARKS: AtomicU8 = AtomicU8::new(UNTRIED);
    const UNTRIED: u8 = 0;
    const FAULT: u8 = 1;
    const USELESS: u8 = 2;
    let len = size();
    // Relaxed, here and below: threads that try at once find the same.
    let marks = MARKS.load(Relaxed);
    if marks != USELESS {
        // SAFETY: 1. is our caller's.
        let marked = unsafe { sys::madvise(base, len, k::MADV_GUARD_INSTALL) }.is_ok();
        // SAFETY: 1. No thread uses the page, so none waits there.
        if marked && (marks == FAULT || unsafe { !sys::can_read(base) }) {
            MARKS.store(FAULT, Relaxed);
            return Ok(());
        }
        // Also where the process locks all memory, for as long as it lives.
        MARKS.store(USELESS, Relaxed);
    }
    // SAFETY: 1. is our caller's.
    unsafe { sys::mprotect(base, len, k::PROT_NONE) }
}
