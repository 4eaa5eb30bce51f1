//! Which signals are blocked on a thread: rt_sigprocmask(2).

use linux_raw_sys::general as k;

use super::action::SIG_DFL;
use super::set::{EVERYTHING, WORD};
use super::{Action, SigSet, end_inherited_blocks};
use crate::arch::RawAction;
use crate::sys;

/// How [`mask`] changes the calling thread's set of blocked signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Adds the set.
    Block,
    /// Removes the set.
    Unblock,
    /// Replaces what is blocked by the set.
    Set,
}

/// rt_sigprocmask(2): changes which signals are blocked on the calling thread, and returns the set
/// before.
///
/// ```no_run
/// use rt0::signal::{How, SigSet, Signal, mask};
///
/// let before = mask(How::Block, &SigSet::from_iter([Signal::SIGINT]));
/// // No SIGINT is handled on this thread here.
/// mask(How::Set, &before);
/// ```
///
/// In handlers: yes.
pub fn mask(how: How, set: &SigSet) -> SigSet {
    end_inherited_blocks(); // What the program blocks stays blocked.
    let how = match how {
        How::Block => k::SIG_BLOCK,
        How::Unblock => k::SIG_UNBLOCK,
        How::Set => k::SIG_SETMASK,
    };
    // SAFETY: 1. The code that installed a handler vouched for it at any instruction.
    SigSet::from_kernel(unsafe { sys::rt_sigprocmask(how, &set.0) })
}

/// The signals that were blocked on a thread. It may contain the reserved ones.
#[derive(Clone, Copy)]
pub(crate) struct Blocked(k::kernel_sigset_t);

impl Blocked {
    pub(crate) const NOTHING: Blocked = Blocked(SigSet::empty().0);

    /// The signals of `set`.
    pub(crate) fn of(set: &SigSet) -> Blocked {
        Blocked(set.0)
    }

    /// The same without 32 and 33. A thread starts with these unblocked, even if the program
    /// blocked them on the parent by a raw system call.
    pub(crate) fn without_reserved(self) -> Blocked {
        Blocked(SigSet::from_kernel(self.0).0)
    }

    /// Blocks exactly these signals.
    pub(crate) fn restore(&self) {
        // SAFETY: 1. The code that installed a handler vouched for it at any instruction.
        unsafe { sys::rt_sigprocmask(k::SIG_SETMASK, &self.0) };
    }
}

/// Blocks every signal, rt0's own too. It is for a few instructions that never wait for another
/// thread: meanwhile a thread that makes a call on all threads waits for this one.
pub(crate) fn block_everything() -> Blocked {
    // SAFETY: 1. No signal becomes deliverable.
    Blocked(unsafe { sys::rt_sigprocmask(k::SIG_SETMASK, &EVERYTHING) })
}

/// For a thread that waits with the program's signals blocked. Unblocks for a moment the pending
/// signals that `before` did not block and whose action is the default. So signals can still end,
/// stop and continue the process, even if the thread waits for ever.
#[cold]
pub(crate) fn let_default_through(before: &Blocked) {
    // If a filter refuses this call, they stay blocked.
    let Ok(SigSet(pending)) = sys::rt_sigpending().map(SigSet::from_kernel) else { return };
    let mut let_through = SigSet::empty();
    for (word, bits) in let_through.0.sig.iter_mut().enumerate() {
        let mut waiting = pending.sig[word] & !before.0.sig[word];
        while waiting != 0 {
            let bit = waiting.trailing_zeros();
            waiting &= waiting - 1;
            let number = word as u32 * WORD + bit + 1;
            let mut now = Action::DEFAULT.to_kernel();
            // SAFETY: 1. This installs no handler.
            let asked = unsafe { sys::rt_sigaction(number, None, Some(&mut now)) };
            if asked.is_ok() && RawAction::from_kernel(now).handler == SIG_DFL {
                *bits |= 1 << bit;
            }
        }
    }
    if let_through.0.sig != [0; _] {
        // SAFETY: 1. They have no handlers.
        let now = Blocked(unsafe { sys::rt_sigprocmask(k::SIG_UNBLOCK, &let_through.0) });
        now.restore();
    }
}
