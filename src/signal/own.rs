//! Handlers of rt0's that replace other handlers of rt0's.

use core::sync::atomic::Ordering::Relaxed;

use super::action::caught;
use super::set::EVERYTHING;
use super::{Action, Info, Signal, end_inherited_blocks, ensure_main_has_stack, replace_found};
use crate::arch::{Arch, Cpu, RawAction};
use crate::errno::Result;
use crate::sys;

/// [`replace_found`], which also replaces `own`, an action of rt0's.
///
/// # Safety
///
/// 1. Condition 1 of [`sigaction`](super::sigaction).
/// 2. The main thread has its signal stack.
pub(crate) unsafe fn replace_own(
    signal: Signal,
    action: &<Cpu as Arch>::Sigaction,
    own: &<Cpu as Arch>::Sigaction,
) -> Result<()> {
    let mut now = *action;
    // SAFETY: 1. This installs no handler.
    unsafe { sys::rt_sigaction(signal.raw(), None, Some(&mut now)) }?;
    if RawAction::from_kernel(now).handler == RawAction::from_kernel(*own).handler {
        // SAFETY: 1. The caller guarantees the same (1).
        return unsafe { sys::rt_sigaction(signal.raw(), Some(action), None) };
    }
    // SAFETY: the caller guarantees 1 and 2.
    unsafe { replace_found(signal, action) }
}

/// [`catch_reserved`](super::catch_reserved) for a handler that gets an [`Info`]. Interrupted
/// system calls are restarted. Each call installs the handler again. `EINVAL`: an emulator does not
/// provide the signal.
///
/// # Safety
///
/// 1. Condition 1 of [`sigaction`](super::sigaction).
pub(crate) unsafe fn catch_reserved_with_info<F: Fn(&Info) + Copy + 'static>(number: u32, handler: F) -> Result<()> {
    ensure_main_has_stack()?;
    end_inherited_blocks();
    let action = RawAction::from_kernel(Action::info(handler).to_kernel());
    // SAFETY: 1. The caller guarantees the same (1).
    unsafe { sys::rt_sigaction(number, Some(&RawAction { mask: EVERYTHING, ..action }.to_kernel()), None) }?;
    caught(number).store(true, Relaxed); // The caller orders this with other installations.
    Ok(())
}
