//! Unblocks signals that the parent left blocked: execve(2) keeps the mask of the thread that calls
//! it.
//!
//! Properties, by which the table in [`signal`](super) holds:
//!
//! 1. *A signal is unblocked before rt0 relies on it:* each function that relies on one calls
//!    [`end_inherited_blocks`] first. So does [`mask`](super::mask), before it does what the
//!    program asks for.
//! 2. *It is unblocked on all threads:* the first caller is the main thread, because the first
//!    spawn calls this too, and a thread starts with the mask of the thread that spawned it.
//! 3. *It is unblocked once:* a signal that the program blocks afterwards stays blocked.
//! 4. *No pending signal ends the process, except SIGSEGV and SIGBUS:* a pending signal 32 or 33 is
//!    dropped, and a SIGPROF without an action gets a handler that does nothing.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use linux_raw_sys::general as k;

use super::action::{SIG_DFL, SIG_IGN};
use super::set::EVERYTHING;
use super::{ALL_THREADS, INTERRUPT, SigSet, Signal};
use crate::arch::RawAction;
use crate::sys;

/// The signals whose inherited block ends.
const RELIED_ON: [u32; 5] = [INTERRUPT, ALL_THREADS, k::SIGSEGV, k::SIGBUS, k::SIGPROF];

/// Unblocks the signals that rt0 relies on, if the parent left them blocked: see the properties in
/// this module. One system call, once.
#[inline]
pub(crate) fn end_inherited_blocks() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    // Relaxed: later threads are cloned after this. A handler that runs between the load and the
    // store calls `unblock_inherited` too, which does no harm.
    if !ENDED.load(Relaxed) {
        ENDED.store(true, Relaxed);
        unblock_inherited();
    }
}

#[cold]
fn unblock_inherited() {
    // The two sets here are the only ones of this type that may contain 32 and 33.
    // SAFETY: 1. This unblocks no signal.
    let blocked = SigSet(unsafe { sys::rt_sigprocmask(k::SIG_BLOCK, &SigSet::empty().0) });
    let signals = RELIED_ON.into_iter().map(|number| Signal(number as u8));
    let inherited: SigSet = signals.filter(|signal| blocked.contains(*signal)).collect();
    if !inherited.is_empty() {
        unblock(&inherited);
    }
}

#[cold]
fn unblock(inherited: &SigSet) {
    for number in [INTERRUPT, ALL_THREADS] {
        if inherited.contains(Signal(number as u8)) {
            drop_pending(number);
        }
    }
    if inherited.contains(Signal::SIGPROF) {
        let handler = nothing as extern "C" fn(i32) as usize;
        let flags = (k::SA_RESTART | k::SA_ONSTACK) as usize;
        exchange(k::SIGPROF, RawAction { handler, flags, mask: EVERYTHING }, |old| old.handler == SIG_DFL);
    }
    // SAFETY: 1. The code that installed a handler vouched for it at any instruction; `nothing`
    // does nothing.
    unsafe { sys::rt_sigprocmask(k::SIG_UNBLOCK, &inherited.0) };
}

/// Drops the pending signals of this number, by ignoring the number for a moment; sigaction(2).
fn drop_pending(number: u32) {
    exchange(number, RawAction { handler: SIG_IGN, flags: 0, mask: SigSet::empty().0 }, |_| false);
}

/// Sets an action. Then restores the old one, unless `for_good` returns true for it.
fn exchange(number: u32, action: RawAction, for_good: impl FnOnce(RawAction) -> bool) {
    let action = action.to_kernel();
    let mut old = action;
    // SAFETY: 1. An ignored signal runs no handler, and `nothing` does nothing.
    let set = unsafe { sys::rt_sigaction(number, Some(&action), Some(&mut old)) };
    // An emulator may lack the signal: then it has no action, and none is pending.
    if set.is_ok() && !for_good(RawAction::from_kernel(old)) {
        // SAFETY: 1. It was installed before.
        let _ = unsafe { sys::rt_sigaction(number, Some(&old), None) }; // An emulator may lack it.
    }
}

extern "C" fn nothing(_: i32) {}
