//! Signal stacks: sigaltstack(2).

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::{auxvec, general as k};

use crate::auxv::{self, page_size};
use crate::errno::Result;
use crate::guard::{self, Guarded};
use crate::sys;

/// Memory for the calling thread's handlers to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalStack {
    /// Its low end.
    pub base: *mut u8,
    /// Its size in bytes.
    pub size: usize,
}

/// The calling thread's signal stack, if it has one.
///
/// In handlers: yes.
pub fn signal_stack() -> Option<SignalStack> {
    // It cannot fail; a filter that forbids it is no stack.
    let mut now = NONE;
    // SAFETY: 1. Nothing changes.
    unsafe { sys::sigaltstack(None, Some(&mut now)) }.ok().and_then(|()| from_kernel(now))
}

/// sigaltstack(2): sets the calling thread's signal stack, `None` for none, and returns the one
/// before. `ENOMEM` for less than the kernel's least (`AT_MINSIGSTKSZ`), `EPERM` in a handler that
/// runs on the present one.
///
/// In handlers: yes.
///
/// # Safety
///
/// 1. `new` is memory that is used for nothing else as long as it is this thread's signal stack,
///    and it is large enough for the handlers that run on it; nothing guards its end.
pub unsafe fn sigaltstack(new: Option<SignalStack>) -> Result<Option<SignalStack>> {
    let (new, mut old) = (new.map_or(NONE, to_kernel), NONE);
    // SAFETY: the caller guarantees 1.
    unsafe { sys::sigaltstack(Some(&new), Some(&mut old)) }?;
    Ok(from_kernel(old))
}

/// [`sigaltstack`] without returning the one before.
///
/// # Safety
///
/// 1. As for that.
pub(crate) unsafe fn set_signal_stack(new: SignalStack) -> Result<()> {
    // SAFETY: the caller guarantees 1.
    unsafe { sys::sigaltstack(Some(&to_kernel(new)), None) }
}

const NONE: k::sigaltstack = k::sigaltstack { ss_sp: null_mut(), ss_flags: k::SS_DISABLE as i32, ss_size: 0 };

fn to_kernel(SignalStack { base, size }: SignalStack) -> k::sigaltstack {
    k::sigaltstack { ss_sp: base.cast(), ss_flags: 0, ss_size: size as _ }
}

fn from_kernel(old: k::sigaltstack) -> Option<SignalStack> {
    let disabled = old.ss_flags as u32 & k::SS_DISABLE != 0;
    (!disabled).then_some(SignalStack { base: old.ss_sp.cast(), size: old.ss_size as usize })
}

/// The size of a thread's signal stack in bytes, whole pages.
///
/// Twice what the kernel needs for the registers of this processor: one of rt0's own handlers,
/// which block everything, may come while one of the program's runs, which block all but rt0's.
pub(crate) fn stack_size() -> usize {
    const LEAST: usize = 32 << 10;
    const HANDLERS: usize = 16 << 10;
    const MOST_BELIEVED: usize = 1 << 20; // Some 16 times what the largest registers of today take.
    let frame = auxv::of_process().get(auxvec::AT_MINSIGSTKSZ as usize).unwrap_or(0).min(MOST_BELIEVED);
    let page = page_size(); // A power of two.
    ((2 * frame + HANDLERS).max(LEAST) + page - 1) & !(page - 1)
}

/// Gives the main thread its signal stack, below it a guard. The first caller comes before a second
/// thread exists, so is the main thread. A stack that it was given before stays. `ENOMEM`; a filter
/// that forbids sigaltstack(2) leaves its handlers on its own stack.
pub(crate) fn ensure_main_has_stack() -> Result<()> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    // Relaxed: later threads are cloned after this.
    if ASKED.load(Relaxed) {
        return Ok(());
    }
    if signal_stack().is_none() {
        let (guard, size) = (guard::size(), stack_size());
        let memory = Guarded::map(guard + size, &[0])?;
        let stack = SignalStack { base: memory.base().wrapping_add(guard), size };
        // SAFETY: 1. Fresh memory, and the next line keeps it for the life of the process.
        if unsafe { set_signal_stack(stack) }.is_ok() {
            memory.into_raw();
        }
    }
    ASKED.store(true, Relaxed);
    Ok(())
}
