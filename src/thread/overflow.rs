//! The line about a stack overflow.
//!
//! ```text
//!     touch a guard page → SIGSEGV → the reporter, on the signal stack: one line → default action,
//!     return → the same instruction faults again → the process dies by SIGSEGV, there
//! ```
//!
//! So a debugger and a core dump show the instruction that overflowed, as without the reporter. For
//! a fault that is not an overflow the same happens, without the line.
//!
//! A fault is an overflow if all of these hold:
//!
//! 1. *The instruction accessed data.* A jump to an address without code faults at that address.
//! 2. *It accessed the guard of its thread's stack.* On the main thread: an address to which the
//!    kernel did not let the stack grow. A page that is mapped there and protected is the program's
//!    own.
//! 3. *The address is in a frame*: at most two pages below the stack pointer, or 1 MiB above it.
//!
//! A signal that was sent does not come again by itself. So the reporter sends it again, with the
//! default action installed. If that does not end the process, the reporter is installed again:
//! the first process of a PID namespace does not die of a signal that is sent to it.
//!
//! A thread that rt0 did not start may have any thread pointer. So the reporter reads the thread's
//! block only after the kernel has found it to be one, and says nothing about other threads. The
//! line is written as any other: a full pipe that nothing reads delays the process's end.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::{auxvec, general as k};

use super::{Block, block_in_report};
use crate::arch::{Arch, Cpu};
use crate::auxv::{self, page_size};
use crate::errno::Result;
use crate::intrinsics;
use crate::io::Line;
use crate::signal::{self, Action, Info, Signal};
use crate::{guard, sys};

/// Makes rt0 report a stack overflow before the process ends by SIGSEGV: the thread, where its
/// stack lies, and the address that it accessed. It also gives the main thread its signal stack.
///
/// The first [`spawn`](super::spawn) does it too; a program that may never spawn calls it in its
/// main. It costs seven system calls, once. A handler of the program's own for SIGSEGV or SIGBUS
/// stays, and one that is installed later replaces the reporter. Errors: `ENOMEM`, no memory for
/// the signal stack; what a filter on system calls returns.
///
/// ```no_run
/// rt0::thread::report_overflows()?; // Also for a program that starts no thread.
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: no.
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
        // SAFETY: 1. `report` makes system calls and reads what only this thread writes. 2. Every
        // thread of rt0's has a signal stack, and the main one got it above.
        unsafe { signal::replace_found(signal, &action) }?;
    }
    ASKED.store(true, Relaxed);
    Ok(())
}

/// The handler of SIGSEGV and SIGBUS.
fn report(info: &Info) {
    if let Some(block) = block_in_report()
        && let Some((address, stack)) = overflowed(block, info)
    {
        let mut line = Line::new(2);
        describe(&mut line, block, address, stack, auxv::of_process().secure());
        line.flush(); // An error cannot be reported anywhere.
    }
    end_by(info, &Action::info(report).to_kernel());
}

/// Makes the process die by the signal that a reporter handles: sets the default action, so that
/// the instruction faults again when the reporter returns. A signal that was sent is sent again
/// here. `reporter` is the action to install again if that does not end the process.
#[inline(always)] // As small as one function in a program without reports.
pub(crate) fn end_by(info: &Info, reporter: &<Cpu as Arch>::Sigaction) {
    let Some(signal) = Signal::from_raw(info.number() as u32) else { return };
    let _ = signal::set_default(signal);
    if is_sent(info) {
        signal::unblock_and_raise(signal);
        // SAFETY: 1. It was installed before. 2. This runs on a signal stack, or a filter forbids
        // those.
        let _ = unsafe { signal::replace_found(signal, reporter) };
    } else {
        // A standard error without a reader has raised this. The process would die of it when the
        // reporter returns, before the instruction faults again.
        signal::ignore(Signal::SIGPIPE);
    }
}

/// Whether the signal does not come again by itself: a program sent it, or the kernel reports
/// broken memory that no thread accessed.
#[inline(always)] // As small as one function in a program without reports.
pub(crate) fn is_sent(info: &Info) -> bool {
    info.code() <= 0 || (info.number(), info.code()) == (k::SIGBUS as i32, k::BUS_MCEERR_AO as i32)
}

/// The reporter's action.
#[inline(always)] // As small as one function in a program without reports.
pub(crate) fn reporter() -> <Cpu as Arch>::Sigaction {
    Action::info(report).to_kernel()
}

/// Writes the report to `line`. A process with more rights than its caller (`secure`) prints no
/// addresses.
#[inline(always)] // As small as one function in a program without reports.
pub(crate) fn describe<const ROOM: usize, const IS_BOUNDED: bool>(
    line: &mut Line<ROOM, IS_BOUNDED>,
    block: &Block,
    address: usize,
    stack: Range<usize>,
    secure: bool,
) {
    const TEXT: &[u8] = b"\nthread '@' (tid #) has overflowed its stack: it touched 0x$, below 0x$..0x$ (# KiB)\n";
    const WITHOUT_ADDRESSES: usize = TEXT.len() - b": it touched 0x$, below 0x$..0x$ (# KiB)\n".len();
    let numbers = [sys::gettid() as usize, address, stack.start, stack.end, stack.len() >> 10];
    let mut numbers = numbers.iter();
    let text = if secure { &TEXT[..WITHOUT_ADDRESSES] } else { TEXT };
    for &byte in text {
        match byte {
            b'@' => line.text(block.name_for_messages()),
            b'#' | b'$' => line.number(*numbers.next().unwrap_or(&0), byte == b'$'),
            _ => line.bytes(&[byte]),
        };
    }
    if secure {
        line.bytes(b"\n");
    }
}

/// The address that was accessed, and the calling thread's stack, if the fault is an overflow.
pub(crate) fn overflowed(block: &Block, info: &Info) -> Option<(usize, Range<usize>)> {
    let address = info.address()?.addr();
    let page = page_size();
    if is_jump(address, info.pc(), page) || !is_in_frame(address, info.sp(), page) {
        return None;
    }
    let stack = &block.stack;
    if !stack.is_empty() {
        let guard = stack.start - guard::size()..stack.start;
        return guard.contains(&address).then(|| (address, stack.clone()));
    }
    let limit = sys::getrlimit(k::RLIMIT_STACK).unwrap_or(None);
    let stack = main_stack(main_stack_end()?, limit, address);
    let is_protected = info.number() == k::SIGSEGV as i32 && info.code() == k::SEGV_ACCERR as i32;
    ran_over_main(&stack, address, info.sp(), is_protected).then_some((address, stack))
}

/// Whether the instruction at `pc` faulted as it was fetched: on its own page. (s390x says which
/// page was touched, and no more.)
fn is_jump(address: usize, pc: usize, page: usize) -> bool {
    address & !(page - 1) == pc & !(page - 1)
}

/// Whether an address is near enough to the stack pointer to be in a frame, or just being pushed.
fn is_in_frame(address: usize, sp: usize, page: usize) -> bool {
    /// Larger frames are not recognised.
    const LARGEST_FRAME: usize = 1 << 20;
    // Two pages: the page's start is all that s390x says.
    (sp.saturating_sub(2 * page)..sp.saturating_add(LARGEST_FRAME)).contains(&address)
}

/// The address right above the main thread's stack: the end of the page with the last string on it,
/// the path of the program. `None` if the kernel did not say where that is.
pub(crate) fn main_stack_end() -> Option<usize> {
    let path = auxv::of_process().get(auxvec::AT_EXECFN as usize).filter(|path| *path != 0)?;
    // SAFETY: 1. The kernel put the path there, with its NUL, and rt0 never writes to the initial
    // stack.
    let len = unsafe { intrinsics::short_len(core::ptr::with_exposed_provenance(path)) };
    let page = page_size(); // A power of two.
    Some((path + len).checked_add(page)? & !(page - 1))
}

/// The addresses of the main thread's stack: down to its limit; without a limit, down to `address`,
/// where it could not grow.
fn main_stack(end: usize, limit: Option<u64>, address: usize) -> Range<usize> {
    let start = match limit.and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) => end.saturating_sub(limit),
        None => address.saturating_add(1).min(end),
    };
    start..end
}

/// Whether the kernel refused to grow the main thread's stack to `address`, which is in a frame.
///
/// This stack has no guard page. The kernel grows it, and refuses beyond the limit, or before it if
/// another mapping is too close. Normally everything between the stack pointer and the stack's end
/// is mapped. So a fault there means that the stack pointer moved and the stack did not grow.
///
/// A page that `is_protected` is mapped. Within the limit it belongs to the program; below the
/// limit an emulator has a protected page.
fn ran_over_main(stack: &Range<usize>, address: usize, sp: usize, is_protected: bool) -> bool {
    /// Nothing else lies so close below: the kernel leaves 128 MiB at least. An emulator's stack
    /// reaches beyond a small limit.
    const STILL_THIS_STACK: usize = 16 << 20;
    let on_this_stack = stack.start.saturating_sub(STILL_THIS_STACK)..stack.end;
    on_this_stack.contains(&sp) && address < stack.end && !(is_protected && address >= stack.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;
    const END: usize = 0x7fff_f000;

    fn ran_over(limit: Option<u64>, address: usize, sp: usize) -> bool {
        is_in_frame(address, sp, PAGE) && ran_over_main(&main_stack(END, limit, address), address, sp, false)
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
        for (address, sp) in [
            (0, low),
            (8, END - 100),
            (END + 8, END - 100),
            (0x1000_0000, 0x1000_0000),
            (low - PAGE, END - 100),
            (low, low + 3 * PAGE),
        ] {
            assert!(!ran_over(Some(8 << 20), address, sp), "{address:#x} {sp:#x}");
        }
    }

    #[test]
    fn a_jump_is_none() {
        assert!(is_jump(0x1000, 0x1000, PAGE) && is_jump(0x1000, 0x1ffc, PAGE));
        assert!(!is_jump(0x1000, 0x2000, PAGE) && !is_jump(0x1fff, 0x2000, PAGE));
    }

    #[test]
    fn a_protected_page_is_the_programs_own_within_the_limit_and_an_emulators_below() {
        let low = END - (8 << 20);
        let stack = main_stack(END, Some(8 << 20), low);
        for (address, is_overflow) in [(low + PAGE, false), (low, false), (low - 8, true)] {
            assert_eq!(ran_over_main(&stack, address, address, true), is_overflow);
            assert!(ran_over_main(&stack, address, address, false));
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
