//! The line about a stack that ran over.
//!
//! ```text
//!     touch a guard page → SIGSEGV → the reporter, on the signal stack: one line → the default action, return
//!                       → the same instruction faults again → the process dies by SIGSEGV, there
//! ```
//!
//! So a debugger and a core show the instruction that overflowed, as if nothing had been in between. A fault that is
//! no overflow takes the same way without the line.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::{auxvec, general as k};

use super::{Block, this_block};
use crate::auxv::{self, page_size};
use crate::errno::Result;
use crate::intrinsics;
use crate::io::Line;
use crate::signal::{self, Action, Info, Signal};
use crate::{guard, sys};

/// Lets a stack that runs over say so before the process ends by SIGSEGV: which thread, where its stack lies, and
/// which address it touched. The main thread gets its signal stack by this.
///
/// The first [`spawn`](super::spawn) does it too; a program that may never spawn calls it in its main. It costs seven
/// system calls, once. A handler of the program's own for SIGSEGV or SIGBUS stays, and one that is installed later
/// replaces the reporter. Errors: `ENOMEM`, no memory for the signal stack; those that a filter on system calls
/// gives.
pub fn report_overflows() -> Result<()> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    // Relaxed: later threads are cloned after this.
    if ASKED.load(Relaxed) {
        return Ok(());
    }
    signal::end_inherited_blocks();
    signal::ensure_main_has_stack()?;
    let action = Action::info(report).to_kernel();
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: 1. `report` makes system calls and reads what this thread alone writes. 2. As above.
        unsafe { signal::replace_found(signal, &action) }?;
    }
    ASKED.store(true, Relaxed);
    Ok(())
}

/// The handler of SIGSEGV and SIGBUS.
fn report(info: &Info) {
    // SAFETY: a running thread's block stays.
    let block = unsafe { this_block().as_ref() };
    if let Some(address) = info.address().map(|address| address.addr())
        && let Some(stack) = overflowed(block, address, info.sp())
    {
        let numbers = [sys::gettid() as usize, address, stack.start, stack.end, stack.len() >> 10];
        let mut numbers = numbers.iter();
        let mut line = Line::new(2);
        for &byte in b"\nthread '@' (tid #) has overflowed its stack: it touched 0x$, below 0x$..0x$ (# KiB)\n" {
            match byte {
                b'@' => line.text(block.name_for_messages()),
                b'#' | b'$' => line.number(*numbers.next().unwrap_or(&0), byte == b'$'),
                _ => line.bytes(&[byte]),
            };
        }
        line.flush(); // An error: there is nobody left to tell.
    }
    let Some(signal) = Signal::from_raw(info.number() as u32) else { return };
    let _ = signal::set_default(signal);
    // What a program sent, and what the kernel says of memory that nobody touched, does not come again by itself. It
    // is blocked until this returns.
    if info.code() <= 0 || (signal, info.code()) == (Signal::SIGBUS, k::BUS_MCEERR_AO as i32) {
        let _ = signal::raise(signal);
    }
}

/// The calling thread's stack, if a fault at `address` with the stack pointer at `sp` means that it ran over.
fn overflowed(block: &Block, address: usize, sp: usize) -> Option<Range<usize>> {
    let stack = &block.stack;
    if !stack.is_empty() {
        let guard = stack.start - guard::size()..stack.start;
        return guard.contains(&address).then(|| stack.clone());
    }
    let limit = sys::getrlimit(k::RLIMIT_STACK).unwrap_or(None);
    let stack = main_stack(main_stack_end()?, limit, address);
    ran_over_main(&stack, address, sp, page_size()).then_some(stack)
}

/// The address right above the main thread's stack: the end of the page that holds the last thing on it, the path of
/// the program. `None` if the kernel did not say where that is.
pub(crate) fn main_stack_end() -> Option<usize> {
    let path = auxv::of_process().get(auxvec::AT_EXECFN as usize)?;
    // SAFETY: 1. The kernel put the path there, with its NUL, and rt0 never writes to the initial stack.
    let len = unsafe { intrinsics::short_len(core::ptr::with_exposed_provenance(path)) };
    let page = page_size(); // A power of two.
    Some((path + len).checked_add(page)? & !(page - 1))
}

/// The addresses that the main thread's stack may grow to, down to its limit; with none, down to where it was refused.
fn main_stack(end: usize, limit: Option<u64>, address: usize) -> Range<usize> {
    let start = match limit.and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) => end.saturating_sub(limit),
        None => address.saturating_add(1).min(end),
    };
    start..end
}

/// Whether the main thread's stack was refused to grow to `address`.
///
/// There is no guard page to tell by: the kernel, which grows this stack, refuses beyond the limit, and also before
/// it, where another mapping is too close. But all that lies between the stack pointer and the stack's end is mapped,
/// so what faults there is where the stack pointer has gone already, and the stack has not.
fn ran_over_main(stack: &Range<usize>, address: usize, sp: usize, page: usize) -> bool {
    /// Frames of this size are believed to be frames.
    const LARGEST_FRAME: usize = 1 << 20;
    /// Nothing else lies so close below: the kernel leaves 128 MiB at least. An emulator's stack reaches beyond a
    /// small limit.
    const STILL_THIS_STACK: usize = 16 << 20;
    let on_this_stack = stack.start.saturating_sub(STILL_THIS_STACK)..stack.end;
    let frame = sp.saturating_sub(page)..sp.saturating_add(LARGEST_FRAME).min(stack.end);
    on_this_stack.contains(&sp) && frame.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;
    const END: usize = 0x7fff_f000;

    fn ran_over(limit: Option<u64>, address: usize, sp: usize) -> bool {
        ran_over_main(&main_stack(END, limit, address), address, sp, PAGE)
    }

    #[test]
    fn a_fault_at_the_stack_pointer_below_the_limit_is_an_overflow() {
        let low = END - (8 << 20);
        for (address, sp) in [(low - 8, low), (low - 8, low - 8), (low - 1000, low - 5000), (low + 8, low)] {
            assert!(ran_over(Some(8 << 20), address, sp), "{address:#x} {sp:#x}");
        }
    }

    #[test]
    fn other_faults_are_none() {
        let low = END - (8 << 20);
        for (address, sp) in
            [(0, low), (8, END - 100), (END + 8, END - 100), (0x1000_0000, 0x1000_0000), (low - PAGE, END - 100)]
        {
            assert!(!ran_over(Some(8 << 20), address, sp), "{address:#x} {sp:#x}");
        }
    }

    #[test]
    fn no_limit_and_odd_limits_are_no_panic() {
        assert!(ran_over(None, 0x1000_0000, 0x1000_0000));
        for limit in [None, Some(0), Some(1), Some(u64::MAX - 1), Some(1 << 40)] {
            for address in [0, 1, END - 1, END, usize::MAX] {
                for sp in [0, 1, END, usize::MAX] {
                    ran_over(limit, address, sp);
                }
            }
        }
    }
}
