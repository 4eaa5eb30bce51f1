//! Signals: sets, masks and actions; signal(7).
//!
//! Two of them are rt0's own, and nothing here names, blocks or catches them: number 33, by which `all_threads` reaches
//! every thread, and number 32, by which [`Thread::interrupt`] reaches one. glibc keeps the same two to itself, for the
//! same uses. They are two because an action belongs to a signal: what the first interrupts goes on (`SA_RESTART`), and
//! what the second interrupts must not. (gdb stops at them until it is told `handle SIG32 SIG33 nostop noprint`.)
//!
//! Handlers run on a signal stack: every thread that [`thread::spawn`] makes has one, and the main thread gets its
//! own with the first [`sigaction`] or the first spawn, whichever comes first. A signal stack has room for what the
//! processor's registers take twice, and 16 KiB; at least 32 KiB in all. What runs over meets a guard page.
//!
//! # What a handler may call
//!
//! A handler runs between any two instructions of the thread that it interrupts, also in the middle of
//! a function of rt0's. Each public function says in a line `In handlers:` whether it may be called
//! there:
//!
//! - *yes*: it waits for no other thread and for nothing that the interrupted code may hold. It may
//!   interrupt any function of rt0, also itself. So a handler can wake a waiter
//!   ([`Semaphore::release`], [`Thread::unpark`], [`futex::wake`]), ask the time, read and write
//!   descriptors, and try locks. A guard that it takes is to be dropped before it returns.
//! - *no*: it could wait for ever for what the interrupted code holds, or find it half done.
//!
//! `Clone` and `Debug` of what a handler may have are as the functions that say yes, and so is `Drop`,
//! but not of the last [`Thread`] of a thread that has ended, of a [`JoinHandle`], of channels' ends and
//! of values with a destructor that waits. `tests/src/bin/handlers.rs` calls most of
//! them in a storm of signals: all that share something with the code that they interrupt.
//!
//! [`Semaphore::release`]: crate::sync::Semaphore::release
//! [`Thread`]: crate::thread::Thread
//! [`Thread::unpark`]: crate::thread::Thread::unpark
//! [`JoinHandle`]: crate::thread::JoinHandle
//! [`futex::wake`]: crate::futex::wake
//!
//! # What a process finds of them when it starts
//!
//! execve(2) keeps the mask of the thread that calls it, and which signals are ignored. What a
//! parent left of the signals that rt0 relies on is not the program's choice, so it does not last:
//!
//! | signal | found blocked | found ignored |
//! |---|---|---|
//! | 32, 33 | unblocked at first use; a pending one is dropped | caught when first sent |
//! | SIGSEGV, SIGBUS | unblocked at first use; a pending one is delivered | as the default: reported |
//! | SIGPROF | unblocked at first use; it does nothing if it had no action | caught by a profile |
//! | SIGABRT | unblocked by [`die_from`]; a fatal error ends with status 134 | the same |
//! | all others | stays | stays |
//!
//! A spawned thread starts with the mask of the thread that spawned it, and 32 and 33 unblocked.
//!
//! First use is the first of these on the main thread: spawning a thread, [`mask`],
//! [`report_overflows`], [`profile::start`], [`Thread::interrupt`], a call on all threads. It asks
//! for the mask once. A mask or an action that a program sets by a raw system call before that
//! cannot be told from a parent's. What it sets afterwards stays:
//!
//! - A signal that it blocks by [`mask`] stays blocked. A thread that blocks SIGSEGV ends the
//!   process without a line when its stack overflows, for the kernel runs no handler then. A thread
//!   that blocks SIGPROF is sampled where it unblocks it.
//! - An action that it sets by [`sigaction`] stays, also before that: also that SIGSEGV is ignored.
//! - A thread that blocks 32 or 33 by a raw call is not reached until it unblocks them.
//!
//! [`report_overflows`]: crate::thread::report_overflows
//! [`profile::start`]: crate::profile::start
//! [`Thread::interrupt`]: crate::thread::Thread::interrupt
//! [`thread::spawn`]: crate::thread::spawn

mod exec;
mod info;
mod inherited;
mod stack;
mod wait;

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use linux_raw_sys::general as k;
use static_assertions::assert_eq_size;

use crate::arch::{Arch, Cpu, RawAction};
use crate::errno::Result;
use crate::sys;

pub(crate) use exec::{ignore_again, reset_actions};
pub use info::{Info, Sender, Siginfo};
pub(crate) use inherited::end_inherited_blocks;
pub use stack::{SignalStack, sigaltstack, signal_stack};
pub(crate) use stack::{ensure_main_has_stack, set_signal_stack, stack_size};
pub use wait::{pending, suspend, wait, wait_timeout, wait_until};

/// Interrupts one thread: `SIGRTMIN`, glibc's for cancelling.
pub(crate) const INTERRUPT: u32 = k::SIGRTMIN;

/// Makes a thread do its part of a call on all threads: glibc's for setuid(2) and its kin.
pub(crate) const ALL_THREADS: u32 = k::SIGRTMIN + 1;

const fn is_reserved(number: u32) -> bool {
    matches!(number, INTERRUPT | ALL_THREADS)
}

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
    /// The signal of this number; `None` for 0, for numbers above the machine's last, and for 32 and 33, which are
    /// rt0's.
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

/// A set of signals, of the size that this machine's kernel takes. It never holds 32 or 33: a thread that blocked them
/// could not be reached.
#[derive(Clone, Copy)]
pub struct SigSet(k::kernel_sigset_t);

assert_eq_size!(SigSet, k::kernel_sigset_t);

/// How many signals there are.
pub(crate) const COUNT: u32 = MAX;

/// Bits in one word of a set.
const WORD: u32 = usize::BITS;

const EVERYTHING: k::kernel_sigset_t = k::kernel_sigset_t { sig: [!0; _] };

impl SigSet {
    /// No signal.
    ///
    /// In handlers: yes.
    pub const fn empty() -> SigSet {
        SigSet(k::kernel_sigset_t { sig: [0; _] })
    }

    /// Every signal but rt0's two.
    ///
    /// In handlers: yes.
    pub const fn full() -> SigSet {
        SigSet::from_kernel(EVERYTHING)
    }

    const fn from_kernel(mut set: k::kernel_sigset_t) -> SigSet {
        let reserved = [INTERRUPT - 1, ALL_THREADS - 1];
        set.sig[(reserved[0] / WORD) as usize] &= !(1 << (reserved[0] % WORD));
        set.sig[(reserved[1] / WORD) as usize] &= !(1 << (reserved[1] % WORD));
        SigSet(set)
    }

    /// The set as the kernel takes it, for signalfd(2), ppoll(2) and their like: its address and its
    /// length, which is the `sizemask` or `sigsetsize` of these.
    ///
    /// In handlers: yes.
    pub const fn as_bytes(&self) -> &[u8] {
        // SAFETY: words without padding, so as many bytes, and they live as long.
        unsafe { core::slice::from_raw_parts((&raw const self.0).cast(), size_of::<SigSet>()) }
    }

    /// Puts `signal` in.
    ///
    /// In handlers: yes.
    pub const fn insert(&mut self, signal: Signal) {
        let bit = signal.raw() - 1;
        self.0.sig[(bit / WORD) as usize] |= 1 << (bit % WORD);
    }

    /// Takes `signal` out.
    ///
    /// In handlers: yes.
    pub const fn remove(&mut self, signal: Signal) {
        let bit = signal.raw() - 1;
        self.0.sig[(bit / WORD) as usize] &= !(1 << (bit % WORD));
    }

    fn is_empty(&self) -> bool {
        self.0.sig.iter().all(|word| *word == 0)
    }

    /// Whether `signal` is in.
    ///
    /// In handlers: yes.
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
    /// Calls the function with the signal's number.
    Call(extern "C" fn(signal: i32)),
    /// Calls a function with what the kernel says about the signal: see [`Action::info`].
    Info(InfoHandler),
}

/// A function that takes an [`Info`], as [`Action::info`] prepared it for the kernel.
#[derive(Clone, Copy)]
pub struct InfoHandler(unsafe extern "C" fn(i32, *const k::siginfo_t, *const u8));

impl InfoHandler {
    /// The form of `F` that the kernel calls. It finds `F` by its type, for it has no room to keep a value in.
    const fn of<F: Fn(&Info) + Copy + 'static>() -> InfoHandler {
        const { assert!(size_of::<F>() == 0, "a handler is a function or a closure that captures nothing") };
        unsafe extern "C" fn enter<F: Fn(&Info) + Copy>(_: i32, siginfo: *const k::siginfo_t, context: *const u8) {
            // SAFETY: F has no bytes, is Copy, and a value of it was there when the handler was made.
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

/// Flags of an [`Action`], as sigaction(2) names them. The others of its flags are the fields `restart`
/// (`SA_RESTART`) and `handler` (`SA_SIGINFO`). Flags that the kernel gave back and that have no name
/// here are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// The handler runs on the thread's signal stack. Without it a handler runs on the stack that it
    /// interrupts, where a stack that ran over has no room for it.
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
/// The action that [`sigaction`] or [`action_of`] returned is the same again when it is set, with what
/// the kernel knows of it (but not signals 32 and 33 in a mask that a raw call set).
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// What it does.
    pub handler: Handler,
    /// Blocked while the handler runs, besides the signal itself.
    pub mask: SigSet,
    /// Whether calls that the handler interrupts go on where they can (`SA_RESTART`; signal(7) lists those that never
    /// do).
    pub restart: bool,
    /// The other flags.
    pub flags: Flags,
}

impl Action {
    /// What signal(7) lists as the signal's default.
    pub const DEFAULT: Action =
        Action { handler: Handler::Default, mask: SigSet::empty(), restart: false, flags: Flags::SA_ONSTACK };

    /// The action that calls `handler` on the signal stack, with every other signal blocked, and lets
    /// interrupted calls go on.
    ///
    /// In handlers: yes.
    pub const fn call(handler: extern "C" fn(signal: i32)) -> Action {
        Action { handler: Handler::Call(handler), mask: SigSet::full(), restart: true, flags: Flags::SA_ONSTACK }
    }

    /// As [`Action::call`], for a function that wants to know more than the number: where the signal comes from, which
    /// address faulted, what was interrupted. A closure will do if it captures nothing; else it does not compile.
    ///
    /// ```ignore
    /// let action = Action::info(|info| SENDER.store(info.sender().map_or(0, |sender| sender.pid), Relaxed));
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

    fn from_kernel(kernel: <Cpu as Arch>::Sigaction) -> Action {
        let raw = RawAction::from_kernel(kernel);
        let handler = match raw.handler {
            SIG_DFL => Handler::Default,
            SIG_IGN => Handler::Ignore,
            f if raw.flags & k::SA_SIGINFO as usize != 0 => {
                type F = unsafe extern "C" fn(i32, *const k::siginfo_t, *const u8);
                // SAFETY: neither of the two special values, so a handler that was installed, of the type the flag
                // says.
                Handler::Info(InfoHandler(unsafe { core::mem::transmute::<usize, F>(f) }))
            }
            // SAFETY: as above.
            f => Handler::Call(unsafe { core::mem::transmute::<usize, extern "C" fn(i32)>(f) }),
        };
        let restart = raw.flags & k::SA_RESTART as usize != 0;
        let flags = Flags(raw.flags as u32 & !(k::SA_RESTART | k::SA_SIGINFO));
        Action { handler, mask: SigSet::from_kernel(raw.mask), restart, flags }
    }
}

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// sigaction(2): sets what `signal` does in this process, and returns what it did. `EINVAL` for SIGKILL and SIGSTOP.
/// With the program's first handler the main thread gets its signal stack; `ENOMEM` if there is no memory for it.
///
/// In handlers: yes.
///
/// # Safety
///
/// 1. A handler only does what is sound at any instruction of any thread: no locks, only async-signal-safe calls. (A
///    panic ends the process, as everywhere.)
pub unsafe fn sigaction(signal: Signal, action: Action) -> Result<Action> {
    if let Handler::Call(_) | Handler::Info(_) = action.handler {
        ensure_main_has_stack()?;
    }
    note_choice(signal);
    let mut old = Action::DEFAULT.to_kernel();
    // SAFETY: 1. is our caller's.
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
    // SAFETY: 1. is our caller's.
    unsafe { sys::rt_sigaction(signal.raw(), Some(action), None) }
}

/// Lets `signal` do again what it does by default.
#[inline]
pub(crate) fn set_default(signal: Signal) -> Result<()> {
    // SAFETY: 1. The default is no handler.
    unsafe { sys::rt_sigaction(signal.raw(), Some(&Action::DEFAULT.to_kernel()), None) }
}

/// Installs rt0's own handler for one of the reserved signals, with everything blocked while it runs.
///
/// Some emulators know fewer signals than the kernel, and say so with `EINVAL`.
///
/// # Safety
///
/// 1. As for [`sigaction`].
pub(crate) unsafe fn catch_reserved(number: u32, handler: extern "C" fn(i32), restart: bool) -> Result<()> {
    ensure_main_has_stack()?;
    end_inherited_blocks();
    let flags = if restart { k::SA_ONSTACK | k::SA_RESTART } else { k::SA_ONSTACK } as usize;
    let action = RawAction { handler: handler as usize, flags, mask: EVERYTHING }.to_kernel();
    // SAFETY: 1. is our caller's.
    unsafe { sys::rt_sigaction(number, Some(&action), None) }
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
///
/// In handlers: yes.
pub fn mask(how: How, set: &SigSet) -> SigSet {
    end_inherited_blocks(); // What the program blocks stays blocked.
    let how = match how {
        How::Block => k::SIG_BLOCK,
        How::Unblock => k::SIG_UNBLOCK,
        How::Set => k::SIG_SETMASK,
    };
    // SAFETY: 1. Whoever installed a handler vouched for it at any instruction.
    SigSet::from_kernel(unsafe { sys::rt_sigprocmask(how, &set.0) })
}

/// What was blocked on a thread, the reserved signals among it.
#[derive(Clone, Copy)]
pub(crate) struct Blocked(k::kernel_sigset_t);

impl Blocked {
    pub(crate) const NOTHING: Blocked = Blocked(SigSet::empty().0);

    /// The same without 32 and 33: a thread starts with them unblocked, whatever a program blocked
    /// by a raw call on the thread that spawns it.
    pub(crate) fn without_reserved(self) -> Blocked {
        Blocked(SigSet::from_kernel(self.0).0)
    }

    /// Blocks this and no more.
    pub(crate) fn restore(&self) {
        // SAFETY: 1. As in `mask`.
        unsafe { sys::rt_sigprocmask(k::SIG_SETMASK, &self.0) };
    }
}

/// Blocks every signal there is, rt0's own too. For stretches of a few instructions that never wait for another
/// thread: meanwhile whoever makes a call on all threads waits for this one.
pub(crate) fn block_everything() -> Blocked {
    // SAFETY: 1. No signal becomes deliverable.
    Blocked(unsafe { sys::rt_sigprocmask(k::SIG_SETMASK, &EVERYTHING) })
}

/// For a thread that waits with the program's signals blocked: lets those through for a moment that
/// are pending, that `before` did not block, and whose action is the default. So a process whose
/// thread waits for one that never comes can be ended, stopped and gone on with as any.
#[cold]
pub(crate) fn let_default_through(before: &Blocked) {
    // A filter that refuses it leaves them blocked.
    let Ok(SigSet(pending)) = sys::rt_sigpending().map(SigSet::from_kernel) else { return };
    let mut let_through = SigSet::empty();
    for (word, bits) in let_through.0.sig.iter_mut().enumerate() {
        let mut waiting = pending.sig[word] & !before.0.sig[word];
        while waiting != 0 {
            let bit = waiting.trailing_zeros();
            waiting &= waiting - 1;
            let number = word as u32 * WORD + bit + 1;
            let mut now = Action::DEFAULT.to_kernel();
            // SAFETY: 1. Nothing is installed.
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

/// Sends `signal` to the calling thread; it was handled when this returns, unless it is blocked. Errors of tgkill(2).
///
/// In handlers: yes.
pub fn raise(signal: Signal) -> Result<()> {
    // A handler that forked between the three calls would let the child signal its parent.
    let before = block_everything();
    // Both are asked for each time: after a fork they differ.
    let sent = sys::tgkill(sys::getpid(), sys::gettid(), signal.raw());
    before.restore();
    sent
}

/// Sends `signal` to the calling thread, also in its handler: it is delivered before this returns.
pub(crate) fn unblock_and_raise(signal: Signal) {
    mask(How::Unblock, &SigSet::from_iter([signal]));
    let _ = raise(signal); // Refused by a filter: then it is not sent.
}

/// Ends the process by `signal`, as if nobody had caught it: whoever waits for the process sees that it died of it,
/// with a core if that is the signal's default.
///
/// The first process of a PID namespace cannot die of a signal it does not catch; there, and for a signal that by
/// default does not end a process, the exit status is 128 and the signal's number, as a shell reports it.
///
/// On MIPS the last signal has the number 128. The kernel reports a death in the number's low seven
/// bits, which are 0 here, as for a process that ended well; so the exit status is 255 instead.
///
/// In handlers: yes.
pub fn die_from(signal: Signal) -> ! {
    /// What wait(2) can tell of.
    const LAST_REPORTED: u32 = 0x7f;
    if signal.raw() > LAST_REPORTED {
        sys::exit_group(255);
    }
    // SAFETY: 1. The default is no handler. Refused for SIGKILL and SIGSTOP, which have no other.
    let _ = unsafe { sys::rt_sigaction(signal.raw(), Some(&Action::DEFAULT.to_kernel()), None) };
    unblock_and_raise(signal);
    for _ in 0..3 {
        sys::sched_yield(); // Where another thread was chosen to die.
    }
    sys::exit_group(128 + signal.raw() as i32)
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
