//! Actions of signals: sigaction(2).

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;

use super::set::EVERYTHING;
use super::{ALL_THREADS, Info, SigSet, Signal, end_inherited_blocks, ensure_main_has_stack};
use crate::arch::{Arch, Cpu, RawAction};
use crate::errno::{Errno, Result};
use crate::sys;

/// What happens when a signal is delivered.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Handler {
    /// The signal's default, as signal(7) lists it.
    Default,
    /// Nothing happens.
    Ignore,
    /// Calls the function with the signal's number.
    Call(extern "C" fn(signal: i32)),
    /// Calls a function with an [`Info`]: see [`Action::info`].
    Info(InfoHandler),
}

/// A function that takes an [`Info`], as [`Action::info`] prepared it for the kernel.
///
/// ```no_run
/// use rt0::signal::{Action, Handler, Info, InfoHandler};
///
/// fn on_fault(_: &Info) {}
///
/// let Handler::Info(handler) = Action::info(on_fault).handler else { unreachable!() };
/// let handler: InfoHandler = handler; // To compare, print and set again.
/// ```
#[derive(Clone, Copy)]
pub struct InfoHandler(unsafe extern "C" fn(i32, *const k::siginfo_t, *const u8));

impl InfoHandler {
    /// The function that the kernel calls for `F`. It gets `F` from its type, because an action has
    /// no space for a value.
    const fn of<F: Fn(&Info) + Copy + 'static>() -> InfoHandler {
        const { assert!(size_of::<F>() == 0, "a handler is a function or a closure that captures nothing") };
        unsafe extern "C" fn enter<F: Fn(&Info) + Copy>(_: i32, siginfo: *const k::siginfo_t, context: *const u8) {
            // SAFETY: F is zero-sized and Copy, and a value of it existed when the handler was
            // made.
            let handler = unsafe { core::ptr::NonNull::<F>::dangling().read() };
            // SAFETY: 1. The kernel passed both, and they are valid until this function returns.
            let info = unsafe { Info::new(siginfo, context) };
            handler(&info);
        }
        InfoHandler(enter::<F>)
    }
}

impl fmt::Debug for InfoHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}", self.0 as *const ())
    }
}

/// Flags of an [`Action`], as sigaction(2) names them: all that have an effect on every machine.
/// Two of sigaction's flags are fields instead: `restart` (`SA_RESTART`) and `handler`
/// (`SA_SIGINFO`). rt0 sets `SA_RESTORER` itself. Flags of the kernel that have no name here
/// (`SA_EXPOSE_TAGBITS`) are kept.
///
/// ```no_run
/// use rt0::signal::{self, Action, Flags, Handler, Signal};
///
/// extern "C" fn child_ended(_: i32) {}
///
/// let flags = Flags::SA_ONSTACK.union(Flags::SA_NOCLDSTOP); // Or `|`.
/// let action = Action { handler: Handler::Call(child_ended), flags, ..Action::DEFAULT };
/// // SAFETY: 1. The handler does nothing.
/// unsafe { signal::sigaction(Signal::SIGCHLD, action) }?;
/// # Ok::<(), rt0::Errno>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// The handler runs on the thread's signal stack. Without it, the handler runs on the stack
    /// that it interrupts, which has no space left after an overflow.
    pub const SA_ONSTACK: Flags = Flags(k::SA_ONSTACK);
    /// The signal itself is not blocked while its handler runs, unless it is in the action's mask.
    pub const SA_NODEFER: Flags = Flags(k::SA_NODEFER);
    /// The action becomes the default when the handler is entered.
    pub const SA_RESETHAND: Flags = Flags(k::SA_RESETHAND);
    /// For SIGCHLD: no signal when a child stops or continues.
    pub const SA_NOCLDSTOP: Flags = Flags(k::SA_NOCLDSTOP);
    /// For SIGCHLD: children leave no zombies when they end.
    pub const SA_NOCLDWAIT: Flags = Flags(k::SA_NOCLDWAIT);

    /// No flags. Most handlers want `SA_ONSTACK`.
    ///
    /// In handlers: yes.
    pub const fn empty() -> Flags {
        Flags(0)
    }

    /// These and the `others`.
    ///
    /// In handlers: yes.
    #[must_use]
    pub const fn union(self, others: Flags) -> Flags {
        Flags(self.0 | others.0)
    }

    /// Whether all of the `others` are among these.
    ///
    /// In handlers: yes.
    pub const fn contains(self, others: Flags) -> bool {
        self.0 & others.0 == others.0
    }
}

impl core::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, others: Flags) -> Flags {
        self.union(others)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The action of a signal: what happens when it is delivered; sigaction(2).
///
/// An action that [`sigaction`] or [`action_of`] returned can be set again without loss. (Except
/// that signals 32 and 33 are removed from a mask that was set by a raw system call.)
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// What happens.
    pub handler: Handler,
    /// The signals that are blocked while the handler runs, besides the signal itself.
    pub mask: SigSet,
    /// Whether a system call that the handler interrupts is restarted (`SA_RESTART`; signal(7)
    /// lists the calls that never are).
    pub restart: bool,
    /// The other flags.
    pub flags: Flags,
}

impl Action {
    /// The signal's default action, as signal(7) lists it.
    pub const DEFAULT: Action =
        Action { handler: Handler::Default, mask: SigSet::empty(), restart: false, flags: Flags::SA_ONSTACK };

    /// Calls `handler` on the signal stack, with every other signal blocked, and restarts
    /// interrupted calls.
    ///
    /// In handlers: yes.
    pub const fn call(handler: extern "C" fn(signal: i32)) -> Action {
        Action { handler: Handler::Call(handler), mask: SigSet::full(), restart: true, flags: Flags::SA_ONSTACK }
    }

    /// As [`Action::call`], for a function that gets more than the number: the signal's source, the
    /// address that faulted, the interrupted registers. `handler` may be a closure that captures
    /// nothing; one that captures something does not compile.
    ///
    /// ```no_run
    /// # use rt0::signal::{Action, Info};
    /// # use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// # static SENDER: AtomicU32 = AtomicU32::new(0);
    /// let pid = |info: &Info| info.sender().map_or(0, |sender| sender.pid);
    /// let action = Action::info(move |info| SENDER.store(pid(info), Relaxed));
    /// ```
    ///
    /// In handlers: yes.
    pub const fn info<F: Fn(&Info) + Copy + 'static>(handler: F) -> Action {
        let _ = handler;
        Action {
            handler: Handler::Info(InfoHandler::of::<F>()),
            mask: SigSet::full(),
            restart: true,
            flags: Flags::SA_ONSTACK,
        }
    }

    #[inline(always)] // A constant action is converted at compile time.
    pub(crate) fn to_kernel(self) -> <Cpu as Arch>::Sigaction {
        let (handler, siginfo) = match self.handler {
            Handler::Default => (SIG_DFL, 0),
            Handler::Ignore => (SIG_IGN, 0),
            Handler::Call(f) => (f as usize, 0),
            Handler::Info(f) => (f.0 as usize, k::SA_SIGINFO),
        };
        let restart = if self.restart { k::SA_RESTART } else { 0 };
        RawAction { handler, flags: self.flags.0 as usize | (siginfo | restart) as usize, mask: self.mask.0 }
            .to_kernel()
    }

    pub(super) fn from_kernel(kernel: <Cpu as Arch>::Sigaction) -> Action {
        let raw = RawAction::from_kernel(kernel);
        let handler = match raw.handler {
            SIG_DFL => Handler::Default,
            SIG_IGN => Handler::Ignore,
            f if raw.flags & k::SA_SIGINFO as usize != 0 => {
                type F = unsafe extern "C" fn(i32, *const k::siginfo_t, *const u8);
                // SAFETY: it is neither SIG_DFL nor SIG_IGN, so it is a handler that was installed,
                // and the flag says that it has this type.
                Handler::Info(InfoHandler(unsafe { core::mem::transmute::<usize, F>(f) }))
            }
            // SAFETY: it is neither SIG_DFL nor SIG_IGN, so it is a handler that was installed. The
            // flag is not set, so it takes the number only.
            f => Handler::Call(unsafe { core::mem::transmute::<usize, extern "C" fn(i32)>(f) }),
        };
        let restart = raw.flags & k::SA_RESTART as usize != 0;
        let flags = Flags(raw.flags as u32 & !(k::SA_RESTART | k::SA_SIGINFO));
        Action { handler, mask: SigSet::from_kernel(raw.mask), restart, flags }
    }
}

pub(super) const SIG_DFL: usize = 0;
pub(super) const SIG_IGN: usize = 1;

/// sigaction(2): sets the action of `signal` for this process, and returns the one before. With the
/// program's first handler the main thread gets its signal stack.
///
/// Errors: `EINVAL` for SIGKILL and SIGSTOP; `ENOMEM`, no memory for the signal stack.
///
/// ```no_run
/// use core::sync::atomic::{AtomicBool, Ordering};
/// use rt0::signal::{self, Action, Signal};
///
/// static STOP: AtomicBool = AtomicBool::new(false);
///
/// extern "C" fn stop(_: i32) {
///     STOP.store(true, Ordering::Relaxed);
/// }
///
/// // SAFETY: 1. It stores to an atomic.
/// unsafe { signal::sigaction(Signal::SIGTERM, Action::call(stop)) }?;
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
///
/// # Safety
///
/// 1. A handler only does what is sound at any instruction of any thread: no locks, only
///    async-signal-safe calls. (A panic ends the process, as everywhere.)
pub unsafe fn sigaction(signal: Signal, action: Action) -> Result<Action> {
    if let Handler::Call(_) | Handler::Info(_) = action.handler {
        ensure_main_has_stack()?;
    }
    note_choice(signal);
    let mut old = Action::DEFAULT.to_kernel();
    // SAFETY: the caller guarantees 1.
    unsafe { sys::rt_sigaction(signal.raw(), Some(&action.to_kernel()), Some(&mut old)) }?;
    Ok(Action::from_kernel(old))
}

/// The signals below 32 that the program gave an action by [`sigaction`], by their numbers' bits.
static CHOSEN: AtomicU32 = AtomicU32::new(0);

// Relaxed, here and below: if a program sets an action while another thread makes the first spawn,
// either order of the two is correct.
fn note_choice(signal: Signal) {
    CHOSEN.fetch_or(1u32.checked_shl(signal.raw()).unwrap_or(0), Relaxed);
}

fn is_chosen(signal: Signal) -> bool {
    CHOSEN.load(Relaxed) & 1u32.checked_shl(signal.raw()).unwrap_or(0) != 0
}

/// The action of `signal` in this process. Errors: only those of a system call filter.
///
/// ```no_run
/// use rt0::signal::{self, Handler, Signal};
///
/// // nohup(1) starts a program like this:
/// let is_ignored = matches!(signal::action_of(Signal::SIGHUP)?.handler, Handler::Ignore);
/// # Ok::<(), rt0::Errno>(())
/// ```
///
/// In handlers: yes.
pub fn action_of(signal: Signal) -> Result<Action> {
    let mut now = Action::DEFAULT.to_kernel();
    // SAFETY: 1. This installs no handler.
    unsafe { sys::rt_sigaction(signal.raw(), None, Some(&mut now)) }?;
    Ok(Action::from_kernel(now))
}

/// Sets the action of `signal`, unless the program has set one. It replaces the default, and also
/// `SIG_IGN` if the program did not choose it by [`sigaction`]: then the parent left it.
///
/// # Safety
///
/// 1. Condition 1 of [`sigaction`].
/// 2. The main thread has its signal stack.
#[inline]
pub(crate) unsafe fn replace_found(signal: Signal, action: &<Cpu as Arch>::Sigaction) -> Result<()> {
    let mut now = *action;
    // SAFETY: 1. This installs no handler.
    unsafe { sys::rt_sigaction(signal.raw(), None, Some(&mut now)) }?;
    match RawAction::from_kernel(now).handler {
        SIG_DFL => {}
        SIG_IGN if !is_chosen(signal) => {}
        _ => return Ok(()),
    }
    // SAFETY: the caller guarantees 1.
    unsafe { sys::rt_sigaction(signal.raw(), Some(action), None) }
}

/// Sets the default action for `signal`.
#[inline]
pub(crate) fn set_default(signal: Signal) -> Result<()> {
    // SAFETY: 1. The default action runs no handler.
    unsafe { sys::rt_sigaction(signal.raw(), Some(&Action::DEFAULT.to_kernel()), None) }
}

/// Ignores `signal` from now on, also where it is pending: sigaction(2).
pub(crate) fn ignore(signal: Signal) {
    let ignore = Action { handler: Handler::Ignore, ..Action::DEFAULT };
    // SAFETY: 1. No handler. Refused by a filter: then it is as before.
    let _ = unsafe { sys::rt_sigaction(signal.raw(), Some(&ignore.to_kernel()), None) };
}

/// Whether a reserved signal has its handler.
#[inline(always)]
pub(super) fn caught(number: u32) -> &'static AtomicBool {
    static CAUGHT: [AtomicBool; 2] = [const { AtomicBool::new(false) }; _];
    &CAUGHT[usize::from(number == ALL_THREADS)]
}

/// Installs rt0's own handler for one of the reserved signals, once. All signals are blocked while
/// it runs. `EOPNOTSUPP`: an emulator does not provide the signal.
///
/// # Safety
///
/// 1. Condition 1 of [`sigaction`].
pub(crate) unsafe fn catch_reserved(number: u32, handler: extern "C" fn(i32), restart: bool) -> Result<()> {
    let caught = caught(number);
    // Relaxed: if two threads install it, both install the same. A signal is sent after this.
    if caught.load(Relaxed) {
        return Ok(());
    }
    ensure_main_has_stack()?;
    end_inherited_blocks();
    let flags = if restart { k::SA_ONSTACK | k::SA_RESTART } else { k::SA_ONSTACK } as usize;
    let action = RawAction { handler: handler as usize, flags, mask: EVERYTHING }.to_kernel();
    // SAFETY: the caller guarantees 1.
    unsafe { sys::rt_sigaction(number, Some(&action), None) }.map_err(|errno| match errno {
        Errno::EINVAL => Errno::EOPNOTSUPP,
        other => other,
    })?;
    caught.store(true, Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_info_handler_comes_back_as_it_went() {
        fn handler(_: &Info) {}
        let action = Action { restart: false, ..Action::info(handler) };
        let back = Action::from_kernel(action.to_kernel());
        let (Handler::Info(one), Handler::Info(two)) = (action.handler, back.handler) else { panic!("{back:?}") };
        assert_eq!(one.0 as usize, two.0 as usize);
        assert!(!back.restart);
    }

    #[test]
    fn an_action_that_comes_back_has_all_its_flags() {
        extern "C" fn handler(_: i32) {}
        let names =
            [Flags::SA_ONSTACK, Flags::SA_NODEFER, Flags::SA_RESETHAND, Flags::SA_NOCLDSTOP, Flags::SA_NOCLDWAIT];
        for bits in 0..1u32 << names.len() {
            let chosen = names.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0);
            let flags = chosen.fold(Flags::empty(), |flags, (_, flag)| flags | *flag);
            for restart in [true, false] {
                let back = Action::from_kernel(Action { flags, restart, ..Action::call(handler) }.to_kernel());
                assert_eq!((back.flags, back.restart), (flags, restart));
            }
        }
    }
}
