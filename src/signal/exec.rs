//! What becomes of the actions when a process gets another program: execve(2) sets those that call
//! a handler to the default and leaves the ignored ones ignored.

use super::action::{SIG_DFL, SIG_IGN};
use super::set::{EVERYTHING, MAX};
use super::{Action, SigSet, Signal};
use crate::arch::RawAction;
use crate::errno::Result;
use crate::sys;

/// Sets to the default what `defaults` has and is ignored now; with `caught`, also what calls a
/// handler, rt0's own signals among them. The ignored ones that it changed.
///
/// For a process in which no other code sets actions meanwhile. The only errors are a filter's.
pub(crate) fn reset_actions(defaults: &SigSet, caught: bool) -> Result<SigSet> {
    let mut changed = SigSet::empty();
    for number in 1..=MAX {
        let signal = Signal::from_raw(number);
        let wanted = signal.is_some_and(|signal| defaults.contains(signal));
        if !wanted && !caught {
            continue;
        }
        let mut now = Action::DEFAULT.to_kernel();
        // SAFETY: 1. Nothing is installed.
        unsafe { sys::rt_sigaction(number, None, Some(&mut now)) }?;
        let reset = match RawAction::from_kernel(now).handler {
            SIG_DFL => false,
            SIG_IGN => wanted,
            _ => caught,
        };
        if reset {
            // SAFETY: 1. The default is no handler.
            unsafe { sys::rt_sigaction(number, Some(&Action::DEFAULT.to_kernel()), None) }?;
            if let (Some(signal), true) = (signal, wanted) {
                changed.insert(signal);
            }
        }
    }
    Ok(changed)
}

/// Takes back what [`reset_actions`] without `caught` has changed.
pub(crate) fn ignore_again(changed: &SigSet) {
    let ignore = RawAction { handler: SIG_IGN, flags: 0, mask: EVERYTHING }.to_kernel();
    for signal in (1..=MAX).filter_map(Signal::from_raw).filter(|signal| changed.contains(*signal)) {
        // It worked the other way.
        // SAFETY: 1. To ignore is no handler.
        let _ = unsafe { sys::rt_sigaction(signal.raw(), Some(&ignore), None) };
    }
}
