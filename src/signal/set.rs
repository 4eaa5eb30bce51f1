//! A signal's number, and sets of signals.

use core::fmt;

use linux_raw_sys::general as k;
use static_assertions::assert_eq_size;

use super::{ALL_THREADS, INTERRUPT, is_reserved};

/// The highest signal number of this machine: 64, and 128 on MIPS.
pub(super) const MAX: u32 = (size_of::<k::kernel_sigset_t>() * 8) as u32;

/// A signal's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(pub(super) u8);

macro_rules! signals {
    ($($name:ident)*) => {
        /// The numbers of signal(7) on this machine.
        #[allow(missing_docs)] // Each is its own name; signal(7) says what it means.
        impl Signal {
            $(pub const $name: Signal = Signal(k::$name as u8);)*
        }

        impl Signal {
            /// Its name, if signal(7) has one.
            pub(crate) fn name(self) -> Option<&'static str> {
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
    /// The signal of this number; `None` for 0, for numbers above the machine's last, and for 32
    /// and 33, which are rt0's.
    ///
    /// In handlers: yes.
    pub const fn from_raw(number: u32) -> Option<Signal> {
        if number >= 1 && number <= MAX && !is_reserved(number) { Some(Signal(number as u8)) } else { None }
    }

    /// Its number.
    ///
    /// In handlers: yes.
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

/// A set of signals, in the kernel's form. It never contains 32 or 33, because rt0 could not reach
/// a thread that blocks them.
///
/// ```
/// use rt0::signal::{SigSet, Signal};
///
/// let mut set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
/// set.remove(Signal::SIGINT);
/// assert!(set.contains(Signal::SIGTERM) && !set.contains(Signal::SIGINT));
/// ```
#[derive(Clone, Copy)]
pub struct SigSet(pub(super) k::kernel_sigset_t);

assert_eq_size!(SigSet, k::kernel_sigset_t);

/// How many signals there are.
pub(crate) const COUNT: u32 = MAX;

/// Bits in one word of a set.
pub(super) const WORD: u32 = usize::BITS;

pub(super) const EVERYTHING: k::kernel_sigset_t = k::kernel_sigset_t { sig: [!0; _] };

impl SigSet {
    /// No signal.
    ///
    /// In handlers: yes.
    pub const fn empty() -> SigSet {
        SigSet(k::kernel_sigset_t { sig: [0; _] })
    }

    /// Every signal except 32 and 33.
    ///
    /// In handlers: yes.
    pub const fn full() -> SigSet {
        SigSet::from_kernel(EVERYTHING)
    }

    pub(super) const fn from_kernel(mut set: k::kernel_sigset_t) -> SigSet {
        let reserved = [INTERRUPT - 1, ALL_THREADS - 1];
        set.sig[(reserved[0] / WORD) as usize] &= !(1 << (reserved[0] % WORD));
        set.sig[(reserved[1] / WORD) as usize] &= !(1 << (reserved[1] % WORD));
        SigSet(set)
    }

    /// The set in the kernel's form, for signalfd(2), ppoll(2) and the like. The slice's length is
    /// their `sizemask` or `sigsetsize`.
    ///
    /// In handlers: yes.
    pub const fn as_bytes(&self) -> &[u8] {
        // SAFETY: the set is words without padding, and the slice borrows it.
        unsafe { core::slice::from_raw_parts((&raw const self.0).cast(), size_of::<SigSet>()) }
    }

    /// Adds `signal`.
    ///
    /// In handlers: yes.
    pub const fn insert(&mut self, signal: Signal) {
        let (word, bit) = place(signal, &self.0);
        self.0.sig[word] |= 1 << bit;
    }

    /// Removes `signal`.
    ///
    /// In handlers: yes.
    pub const fn remove(&mut self, signal: Signal) {
        let (word, bit) = place(signal, &self.0);
        self.0.sig[word] &= !(1 << bit);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.sig.iter().all(|word| *word == 0)
    }

    /// Whether it contains `signal`.
    ///
    /// In handlers: yes.
    pub const fn contains(&self, signal: Signal) -> bool {
        let (word, bit) = place(signal, &self.0);
        self.0.sig[word] & 1 << bit != 0
    }
}

/// The word of a set that holds this signal, and its bit there. A set has a bit for each number, so
/// the remainder changes nothing: it shows the compiler that the index is not out of bounds.
const fn place(signal: Signal, set: &k::kernel_sigset_t) -> (usize, u32) {
    let bit = signal.raw() - 1;
    ((bit / WORD) as usize % set.sig.len(), bit % WORD)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_signals_are_refused() {
        for number in [0, INTERRUPT, ALL_THREADS, MAX + 1, 200, u32::MAX] {
            assert_eq!(Signal::from_raw(number), None);
        }
        assert_eq!(Signal::from_raw(MAX).map(Signal::raw), Some(MAX));
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        for signal in (1..=MAX).filter_map(Signal::from_raw) {
            let mut set = SigSet::empty();
            set.insert(signal);
            let others = (1..=MAX).filter_map(Signal::from_raw).filter(|other| set.contains(*other));
            assert!(others.eq([signal]));
            set.remove(signal);
            assert!((1..=MAX).filter_map(Signal::from_raw).all(|other| !set.contains(other)));
            assert!(SigSet::full().contains(signal));
        }
    }

    #[test]
    fn no_set_holds_the_reserved_signals() {
        let raw = |number: u32| Signal(number as u8);
        for set in [SigSet::full(), SigSet::from_kernel(EVERYTHING)] {
            assert!(!set.contains(raw(INTERRUPT)) && !set.contains(raw(ALL_THREADS)));
            assert_eq!(set.0.sig.iter().map(|word| word.count_ones()).sum::<u32>(), MAX - 2);
        }
    }
}
