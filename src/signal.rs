//! Signals: sets, masks and actions; signal(7).

use core::fmt;

use linux_raw_sys::general as k;
use static_assertions::assert_eq_size;

use crate::arch::{Arch, Cpu, RawAction};
use crate::errno::Result;
use crate::sys;

/// The highest signal number of this machine: 64, and 128 on MIPS.
const MAX: u32 = (size_of::<k::kernel_sigset_t>() * 8) as u32;

/// A signal's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident)*) => {
        /// The numbers of signal(7) on this machine.
        #[allow(missing_docs)] // Each is its own name; signal(7) says what it means.
        impl Signal {
            $(pub const $name: Signal = Signal(k::$name as u8);)*
        }

        impl Signal {
            fn name(self) -> Option<&'static str> {
                match self {
                    $(Signal::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

signals! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
    SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
}

impl Signal {
    /// The signal of this number; `None` for 0 and for numbers above the machine's last.
    pub const fn from_raw(number: u32) -> Option<Signal> {
        if number >= 1 && number <= MAX { Some(Signal(number as u8)) } else { None }
    }

    /// Its number.
    pub const fn raw(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.raw()),
            None => write!(f, "signal {}", self.raw()),
        }
    }
}

/// A set of signals, of the size that this machine's kernel takes.
#[derive(Clone, Copy)]
pub struct SigSet(k::kernel_sigset_t);

assert_eq_size!(SigSet, k::kernel_sigset_t);

/// Bits in one word of a set.
const WORD: u32 = usize::BITS;

impl SigSet {
    /// No signal.
    pub const fn empty() -> SigSet {
        SigSet(k::kernel_sigset_t { sig: [0; _] })
    }

    /// Every signal.
    pub const fn full() -> SigSet {
        SigSet(k::kernel_sigset_t { sig: [!0; _] })
    }

    /// Puts `signal` in.
    pub const fn insert(&mut self, signal: Signal) {
        let bit = signal.raw() - 1;
        self.0.sig[(bit / WORD) as usize] |= 1 << (bit % WORD);
    }

    /// Takes `signal` out.
    pub const fn remove(&mut self, signal: Signal) {
        let bit = signal.raw() - 1;
        self.0.sig[(bit / WORD) as usize] &= !(1 << (bit % WORD));
    }

    /// Whether `signal` is in.
    pub const fn contains(&self, signal: Signal) -> bool {
        let bit = signal.raw() - 1;
        self.0.sig[(bit / WORD) as usize] & 1 << (bit % WORD) != 0
    }
}

impl FromIterator<Signal> for SigSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SigSet {
        let mut set = SigSet::empty();
        signals.into_iter().for_each(|signal| set.insert(signal));
        set
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = (1..=MAX).filter_map(Signal::from_raw);
        f.debug_set().entries(all.filter(|signal| self.contains(*signal))).finish()
    }
}

/// What a signal does.
#[derive(Clone, Copy, Debug)]
pub enum Handler {
    /// What signal(7) lists as its default.
    Default,
    /// Nothing.
    Ignore,
    /// Calls this function, on the thread that took the signal.
    Call(extern "C" fn(signal: i32)),
}

/// What a signal does, and how: sigaction(2).
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// What it does.
    pub handler: Handler,
    /// Blocked while the handler runs, besides the signal itself.
    pub mask: SigSet,
    /// Whether calls that the handler interrupts go on where they can (`SA_RESTART`).
    pub restart: bool,
}

impl Action {
    /// The action that calls `handler` with every other signal blocked, and lets interrupted calls go on.
    pub const fn call(handler: extern "C" fn(signal: i32)) -> Action {
        Action { handler: Handler::Call(handler), mask: SigSet::full(), restart: true }
    }

    fn to_kernel(self) -> <Cpu as Arch>::Sigaction {
        let handler = match self.handler {
            Handler::Default => SIG_DFL,
            Handler::Ignore => SIG_IGN,
            Handler::Call(f) => f as usize,
        };
        let flags = if self.restart { k::SA_RESTART as usize } else { 0 };
        Cpu::sigaction(RawAction { handler, flags, mask: self.mask.0 })
    }

    fn from_kernel(kernel: <Cpu as Arch>::Sigaction) -> Action {
        let raw = Cpu::raw_action(kernel);
        let handler = match raw.handler {
            SIG_DFL => Handler::Default,
            SIG_IGN => Handler::Ignore,
            // SAFETY: neither of the two special values, so a handler that was installed: a function that takes the
            // number.
            f => Handler::Call(unsafe { core::mem::transmute::<usize, extern "C" fn(i32)>(f) }),
        };
        Action { handler, mask: SigSet(raw.mask), restart: raw.flags & k::SA_RESTART as usize != 0 }
    }
}

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// sigaction(2): sets what `signal` does in this process, and returns what it did. `EINVAL` for SIGKILL and SIGSTOP.
///
/// # Safety
///
/// 1. A handler only does what is sound at any instruction of any thread: no locks, no panics, only async-signal-safe
///    calls.
pub unsafe fn sigaction(signal: Signal, action: Action) -> Result<Action> {
    let mut old = Action { handler: Handler::Default, mask: SigSet::empty(), restart: false }.to_kernel();
    // SAFETY: 1. is our caller's.
    unsafe { sys::rt_sigaction(signal.raw(), Some(&action.to_kernel()), Some(&mut old)) }?;
    Ok(Action::from_kernel(old))
}

/// How [`mask`] changes the calling thread's set of blocked signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Adds the set.
    Block,
    /// Takes the set out.
    Unblock,
    /// Replaces all.
    Set,
}

/// rt_sigprocmask(2): changes which signals are blocked on the calling thread, and returns the set before.
pub fn mask(how: How, set: &SigSet) -> SigSet {
    let how = match how {
        How::Block => k::SIG_BLOCK,
        How::Unblock => k::SIG_UNBLOCK,
        How::Set => k::SIG_SETMASK,
    };
    // SAFETY: 1. Whoever installed a handler vouched for it at any instruction.
    SigSet(unsafe { sys::rt_sigprocmask(how, &set.0) })
}

/// Sends `signal` to the calling thread; it was handled when this returns, unless it is blocked. Errors of tgkill(2).
pub fn raise(signal: Signal) -> Result<()> {
    // Both are asked for each time: after a fork they differ.
    sys::tgkill(sys::getpid(), sys::gettid(), signal.raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_signals_are_refused() {
        for number in [0, MAX + 1, 200, u32::MAX] {
            assert_eq!(Signal::from_raw(number), None);
        }
        assert_eq!(Signal::from_raw(MAX).map(Signal::raw), Some(MAX));
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        for number in 1..=MAX {
            let signal = Signal::from_raw(number).unwrap();
            let mut set = SigSet::empty();
            set.insert(signal);
            let others = (1..=MAX).filter_map(Signal::from_raw).filter(|other| set.contains(*other));
            assert!(others.eq([signal]));
            set.remove(signal);
            assert!((1..=MAX).filter_map(Signal::from_raw).all(|other| !set.contains(other)));
            assert!(SigSet::full().contains(signal));
        }
    }
}
