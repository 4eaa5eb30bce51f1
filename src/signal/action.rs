//! What a signal does: sigaction(2).

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;

use super::set::EVERYTHING;
use super::{ALL_THREADS, Info, SigSet, Signal, end_inherited_blocks, ensure_main_has_stack};
use crate::arch::{Arch, Cpu, RawAction};
use crate::errno::{Errno, Result};
use crate::sys;

/// What a signal does.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Handler {
    /// What signal(7) lists as its default.
    Default,
    /// Nothing.
    Ignore,
    /// Calls the function with the signal's number.
    Call(extern "C" fn(signal: i32)),
    /// Calls a function with what the kernel says about the signal: see [`Action::info`].
    Info(InfoHandler),
}

/// A function that takes an [`Info`], as [`Action::info`] prepared it for the kernel.
#[derive(Clone, Copy)]
pub struct InfoHandler(unsafe extern "C" fn(i32, *const k::siginfo_t, *const u8));

impl InfoHandler {
    /// The form of `F` that the kernel calls. It finds `F` by its type, for it has no room to keep
    /// a value in.
    const fn of<F: Fn(&Info) + Copy + 'static>() -> InfoHandler {
        const { assert!(size_of::<F>() == 0, "a handler is a function or a closure that captures nothing") };
        unsafe extern "C" fn enter<F: Fn(&Info) + Copy>(_: i32, siginfo: *const k::siginfo_t, context: *const u8) {
            // SAFETY: F has no bytes, is Copy, and a value of it was there when the handler was
            // made.
            let handler = unsafe { core::ptr::NonNull::<F>::dangling().read() };
            // SAFETY: 1. The kernel passes both, and they stay until this returns.
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

/// Flags of an [`Action`], as sigaction(2) names them. The others of its flags are the fields
/// `restart` (`SA_RESTART`) and `handler` (`SA_SIGINFO`). Flags that the kernel gave back and that
/// have no name here are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// The handler runs on the thread's signal stack. Without it a handler runs on the stack that
    /// it interrupts, where a stack that ran over has no room for it.
    pub const SA_ONSTACK: Flags = Flags(k::SA_ONSTACK);
    /// The signal itself is not blocked while its handler runs, unless it is in the action's mask.
    pub const SA_NODEFER: Flags = Flags(k::SA_NODEFER);
    /// The action is the default again as the handler is entered.
    pub const SA_RESETHAND: Flags = Flags(k::SA_RESETHAND);
    /// For SIGCHLD: no signal when a child stops or goes on.
    pub const SA_NOCLDSTOP: Flags = Flags(k::SA_NOCLDSTOP);
    /// For SIGCHLD: children leave no zombies when they end.
    pub const SA_NOCLDWAIT: Flags = Flags(k::SA_NOCLDWAIT);

    /// None. Mostly `SA_ONSTACK` is wanted.
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

/// What a signal does, and how: sigaction(2).
///
/// The action that [`sigaction`] or [`action_of`] returned is the same again when it is set, with
/// what the kernel knows of it (but not signals 32 and 33 in a mask that a raw call set).
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// What it does.
    pub handler: Handler,
    /// Blocked while the handler runs, besides the signal itself.
    pub mask: SigSet,
    /// Whether calls that the handler interrupts go on where they can (`SA_RESTART`; signal(7)
    /// lists those that never do).
    pub restart: bool,
    /// The other flags.
    pub flags: Flags,
}

impl Action {
    /// What signal(7) lists as the signal's default.
    pub const DEFAULT: Action =
        Action { handler: Handler::Default, mask: SigSet::empty(), restart: false, flags: Flags::SA_ONSTACK };

    /// The action that calls `handler` on the signal stack, with every other signal blocked, and
    /// lets interrupted calls go on.
    ///
    /// In handlers: yes.
    pub const fn call(handler: extern "C" fn(signal: i32)) -> Action {
        Action { handler: Handler::Call(handler), mask: SigSet::full(), restart: true, flags: Flags::SA_ONSTACK }
    }

    /// As [`Action::call`], for a function that wants to know more than the number: where the
    /// signal comes from, which address faulted, what was interrupted. A closure will do if it
    /// captures nothing; else it does not compile.
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

    #[inline(always)] // Of a constant nothing is left.
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
                // SAFETY: neither of the two special values, so a handler that was installed, of
                // the type the flag says.
                Handler::Info(InfoHandler(unsafe { core::mem::transmute::<usize, F>(f) }))
            }
            // SAFETY: neither of the two special values, and the flag says that it takes the number
            // only.
            f => Handler::Call(unsafe { core::mem::transmute::<usize, extern "C" fn(i32)>(f) }),
        };
        let restart = raw.flags & k::SA_RESTART as usize != 0;
        let flags = Flags(raw.flags as u32 & !(k::SA_RESTART | k::SA_SIGINFO));
        Action { handler, mask: SigSet::from_kernel(raw.mask), restart, flags }
    }
}

pub(super) const SIG_DFL: usize = 0;
pub(super) const SIG_IGN: usize = 1;

/// sigaction(2): sets what `signal` does in this process, and returns what it did. `EINVAL` for
/// SIGKILL and SIGSTOP. With the program's first handler the main thread gets its signal stack;
/// `ENOMEM` if there is no memory for it.
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

// Relaxed, here and below: a program that sets an action while another thread is the first to spawn
// orders the two itself, or has either of them last.
fn note_choice(signal: Signal) {
    CHOSEN.fetch_or(1u32.checked_shl(signal.raw()).unwrap_or(0), Relaxed);
}

fn is_chosen(signal: Signal) -> bool {
    CHOSEN.load(Relaxed) & 1u32.checked_shl(signal.raw()).unwrap_or(0) != 0
}

/// What `signal` does in this process.
///
/// In handlers: yes.
pub fn action_of(signal: Signal) -> Result<Action> {
    let mut now = Action::DEFAULT.to_kernel();
    // SAFETY: 1. Nothing is installed.
    unsafe { sys::rt_sigaction(signal.raw(), None, Some(&mut now)) }?;
    Ok(Action::from_kernel(now))
}

/// Sets what `signal` does, unless the program has set that: what it finds is replaced if it is the
/// default, or that the signal is ignored where a parent left that.
///
/// # Safety
///
/// 1. As for [`sigaction`].
/// 2. The main thread has its signal stack.
#[inline]
pub(crate) unsafe fn replace_found(signal: Signal, action: &<Cpu as Arch>::Sigaction) -> Result<()> {
    let mut now = *action;
    // SAFETY: 1. Nothing is installed.
    unsafe { sys::rt_sigaction(signal.raw(), None, Some(&mut now)) }?;
    match RawAction::from_kernel(now).handler {
        SIG_DFL => {}
        SIG_IGN if !is_chosen(signal) => {}
        _ => return Ok(()),
    }
    // SAFETY: the caller guarantees 1.
    unsafe { sys::rt_sigaction(signal.raw(), Some(action), None) }
}

/// Lets `signal` do again what it does by default.
#[inline]
pub(crate) fn set_default(signal: Signal) -> Result<()> {
    // SAFETY: 1. The default is no handler.
    unsafe { sys::rt_sigaction(signal.raw(), Some(&Action::DEFAULT.to_kernel()), None) }
}

/// Whether a reserved signal has its handler.
#[inline(always)]
pub(super) fn caught(number: u32) -> &'static AtomicBool {
    static CAUGHT: [AtomicBool; 2] = [const { AtomicBool::new(false) }; _];
    &CAUGHT[usize::from(number == ALL_THREADS)]
}

/// Installs rt0's own handler for one of the reserved signals, once, with everything blocked while
/// it runs. `EOPNOTSUPP` where the signal does not exist: some emulators know fewer than the
/// kernel.
///
/// # Safety
///
/// 1. As for [`sigaction`].
pub(crate) unsafe fn catch_reserved(number: u32, handler: extern "C" fn(i32), restart: bool) -> Result<()> {
    let caught = caught(number);
    // Relaxed: a thread that installs it again installs the same, and signals are sent after this.
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
