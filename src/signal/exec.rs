//! The actions that a program starts with. execve(2) sets an action that calls a handler to the
//! default; a signal that is ignored stays ignored.

use super::action::{SIG_DFL, SIG_IGN};
use super::set::{EVERYTHING, MAX};
use super::{Action, SigSet, Signal};
use crate::arch::RawAction;
use crate::errno::Result;
use crate::sys;

/// Sets the default action for the signals in `defaults` that are ignored now. If `caught`, also
/// for every signal with a handler, including rt0's own. Returns the ignored signals that it
/// changed.
///
/// No other code sets actions meanwhile. The only errors are a filter's.
pub(crate) fn reset_actions(defaults: &SigSet, caught: bool) -> Result<SigSet> {
    let mut changed = SigSet::empty();
    for number in 1..=MAX {
        let signal = Signal::from_raw(number);
        let wanted = signal.is_some_and(|signal| defaults.contains(signal));
        if !wanted && !caught {
            continue;
        }
        let mut now = Action::DEFAULT.to_kernel();
        // SAFETY: 1. This installs no handler.
        unsafe { sys::rt_sigaction(number, None, Some(&mut now)) }?;
        let reset = match RawAction::from_kernel(now).handler {
            SIG_DFL => false,
            SIG_IGN => wanted,
            _ => caught,
        };
        if reset {
            // SAFETY: 1. The default action runs no handler.
            unsafe { sys::rt_sigaction(number, Some(&Action::DEFAULT.to_kernel()), None) }?;
            if let (Some(signal), true) = (signal, wanted) {
                changed.insert(signal);
            }
        }
    }
    Ok(changed)
}

/// Undoes the changes of [`reset_actions`] without `caught`.
pub(crate) fn ignore_again(changed: &SigSet) {
    let ignore = RawAction { handler: SIG_IGN, flags: 0, mask: EVERYTHING }.to_kernel();
    for signal in (1..=MAX).filter_map(Signal::from_raw).filter(|signal| changed.contains(*signal)) {
        // It does not fail: the kernel allowed the change to the default.
        // SAFETY: 1. An ignored signal runs no handler.
        let _ = unsafe { sys::rt_sigaction(signal.raw(), Some(&ignore), None) };
    }
}
