//! What a handler is told: siginfo_t and the interrupted thread's registers; sigaction(2).

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use linux_raw_sys::general as k;
use static_assertions::{assert_eq_size, assert_impl_all, assert_not_impl_any};

use super::Signal;
use crate::arch::{Arch, Cpu};

/// What the kernel says about a signal: siginfo_t. [`wait`](super::wait()) returns one.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Siginfo(k::siginfo_t);

assert_eq_size!(Siginfo, [u8; 128]); // The kernel's SI_MAX_SIZE: never less, whatever the signal.

// SAFETY: numbers and addresses, and nothing is reached through these.
unsafe impl Send for Siginfo {}
// SAFETY: numbers and addresses, and nothing is reached through these.
unsafe impl Sync for Siginfo {}

assert_impl_all!(Siginfo: Send, Sync, Copy);

/// What the kernel says about a signal and about what it interrupted, while its handler runs.
pub struct Info<'a> {
    siginfo: &'a Siginfo,
    /// The `ucontext`, which linux-raw-sys has no type for.
    context: *const u8,
    frame: PhantomData<&'a ()>,
}

assert_not_impl_any!(Info: Send, Sync); // It lies in the handler's frame.

/// The sender of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The process, as seen from here; 0 if it is not seen from here.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
}

/// What a timer's signal says.
#[derive(Clone, Copy)]
pub(crate) struct Timer {
    /// The value that the timer was made with.
    pub value: usize,
    /// How often it went off again before the signal was delivered. The kernel's count ends at 2^31
    /// - 1; before Linux 4.19 it went on as a negative one, which this takes for what it was.
    pub overrun: u32,
}

/// The part that all signals have; linux-raw-sys knows in which order this machine has it.
type Head = k::siginfo__bindgen_ty_1__bindgen_ty_1;

impl Siginfo {
    /// What the kernel wrote.
    pub(super) fn new(siginfo: k::siginfo_t) -> Siginfo {
        Siginfo(siginfo)
    }

    fn head(&self) -> &Head {
        // SAFETY: all signals have this part, and it is numbers.
        unsafe { &self.0.__bindgen_anon_1.__bindgen_anon_1 }
    }

    /// The signal's number.
    ///
    /// In handlers: yes.
    pub fn number(&self) -> i32 {
        self.head().si_signo
    }

    /// Why the signal came: `SI_USER` (0) and less when a program or a timer sent it, above 0 when
    /// the kernel did; the meaning depends on the signal (sigaction(2)).
    ///
    /// In handlers: yes.
    pub fn code(&self) -> i32 {
        self.head().si_code
    }

    /// Whether a program sent it: kill(2), tgkill(2), sigqueue(3). A SIGSEGV of that kind is no
    /// memory fault. (The kernel says the same of the SIGPIPE that a write raises.)
    ///
    /// In handlers: yes.
    pub fn from_user(&self) -> bool {
        [k::SI_USER as i32, k::SI_TKILL, k::SI_QUEUE].contains(&self.code())
    }

    /// Whether a seccomp filter sent it, in place of a system call: `SIGSYS` with `SYS_SECCOMP`.
    ///
    /// In handlers: yes.
    pub fn from_seccomp(&self) -> bool {
        self.number() == k::SIGSYS as i32 && self.code() == k::SYS_SECCOMP as i32
    }

    /// Its sender, if a program sent it.
    ///
    /// In handlers: yes.
    pub fn sender(&self) -> Option<Sender> {
        // SAFETY: with these codes the kernel writes this part.
        let kill = self.from_user().then(|| unsafe { self.head()._sifields._kill })?;
        Some(Sender { pid: kill._pid as u32, uid: kill._uid })
    }

    /// The value that came with it, if a program sent it with one: sigqueue(3).
    ///
    /// In handlers: yes.
    pub fn value(&self) -> Option<usize> {
        let head = (self.code() == k::SI_QUEUE).then(|| self.head())?;
        // SAFETY: with this code the kernel writes this part.
        let value = unsafe { head._sifields._rt }._sigval;
        // SAFETY: the same part; any bits are a pointer.
        Some(unsafe { value.sival_ptr }.addr())
    }

    /// What a timer of timer_create(2) says, if one sent it.
    pub(crate) fn timer(&self) -> Option<Timer> {
        // The headers of MIPS have -3 for it, what runs there has been seen to send -2; -3
        // elsewhere is a message queue's, which has a value at the same place. The value tells
        // whose it is.
        let head = (-3..=k::SI_TIMER).contains(&self.code()).then(|| self.head())?;
        // SAFETY: with these codes the kernel writes this part.
        let timer = unsafe { head._sifields._timer };
        // SAFETY: the same part; any bits are a pointer.
        let value = unsafe { timer._sigval.sival_ptr }.addr();
        Some(Timer { value, overrun: timer._overrun as u32 })
    }

    /// The address that faulted, if the kernel sent SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGTRAP for
    /// one. (s390x says only which page for the first two.)
    ///
    /// In handlers: yes.
    pub fn address(&self) -> Option<*const u8> {
        const WITH_ADDRESS: [u32; 5] = [k::SIGSEGV, k::SIGBUS, k::SIGILL, k::SIGFPE, k::SIGTRAP];
        let has =
            self.code() > 0 && self.code() != k::SI_KERNEL as i32 && WITH_ADDRESS.contains(&(self.number() as u32));
        // SAFETY: for these the kernel writes this part.
        has.then(|| unsafe { self.head()._sifields._sigfault }._addr.cast_const().cast())
    }
}

impl fmt::Debug for Siginfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Siginfo")
            .field("signal", &Signal::from_raw(self.number() as u32))
            .field("code", &self.code())
            .field("sender", &self.sender())
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl Deref for Info<'_> {
    type Target = Siginfo;

    fn deref(&self) -> &Siginfo {
        self.siginfo
    }
}

impl<'a> Info<'a> {
    /// # Safety
    ///
    /// 1. Both are what the kernel passed to a handler with `SA_SIGINFO`, and that handler still
    ///    runs.
    pub(super) unsafe fn new(siginfo: *const k::siginfo_t, context: *const u8) -> Info<'a> {
        // SAFETY: 1. The kernel wrote all of it; a Siginfo is one.
        Info { siginfo: unsafe { &*siginfo.cast::<Siginfo>() }, context, frame: PhantomData }
    }

    /// The address of the instruction that was about to run, or that faulted.
    ///
    /// In handlers: yes.
    pub fn pc(&self) -> usize {
        self.register(Cpu::CONTEXT.pc)
    }

    /// The interrupted stack pointer, as the register has it: on SPARC the address less 2047.
    ///
    /// In handlers: yes.
    pub fn sp(&self) -> usize {
        self.register(Cpu::CONTEXT.sp)
    }

    /// The interrupted frame pointer: where this machine's chain of frames starts, if the program
    /// was compiled to have one (`-Cforce-frame-pointers`). On PowerPC and SPARC that is the stack
    /// pointer; on MIPS and s390x there is the register and no chain.
    ///
    /// In handlers: yes.
    pub fn fp(&self) -> usize {
        let elsewhere = Cpu::FRAMES.as_ref().and_then(|frames| frames.elsewhere);
        match elsewhere.and_then(|above_sp| above_sp(self.pc())) {
            Some(above_sp) => self.sp().wrapping_add(above_sp),
            None => self.register(Cpu::CONTEXT.fp),
        }
    }

    /// The register that the last call left its return address in, on a machine that has one.
    pub(crate) fn link(&self) -> Option<usize> {
        Cpu::CONTEXT.link.map(|offset| self.register(offset))
    }

    /// Calls `f` with the name and the interrupted value of each register that this machine's table
    /// lists.
    pub(crate) fn for_each_register(&self, mut f: impl FnMut(&str, usize)) {
        for (name, place) in self.registers() {
            // SAFETY: it lies in the context; unaligned, as in `register`.
            f(name, unsafe { place.read_unaligned() });
        }
    }

    /// The interrupted registers: the kernel's names for this machine (sigcontext or pt_regs of its
    /// headers), and where their values lie. Neither vector nor floating-point registers are among
    /// them.
    ///
    /// When the handler returns, the kernel loads what lies there: a runtime that moves objects, or
    /// goes on elsewhere, writes it. The places may be unaligned, and last until the handler
    /// returns.
    ///
    /// In handlers: yes.
    pub fn registers(&self) -> impl Iterator<Item = (&'static str, *mut usize)> + use<'_, 'a> {
        Cpu::CONTEXT.registers.iter().flat_map(|row| {
            let names = row.names.split_ascii_whitespace().enumerate();
            names.map(|(index, name)| {
                let offset = row.at + index * row.apart;
                (name, self.context.cast_mut().wrapping_byte_add(offset).cast())
            })
        })
    }

    /// The place of the register of this name; see [`registers`](Info::registers).
    ///
    /// In handlers: yes.
    pub fn register_place(&self, name: &str) -> Option<*mut usize> {
        self.registers().find(|(found, _)| *found == name).map(|(_, place)| place)
    }

    fn register(&self, offset: usize) -> usize {
        // SAFETY: the context is this machine's `ucontext`, and the offset is of a register in it.
        let register = unsafe { self.context.byte_add(offset) }.cast::<usize>();
        // SAFETY: a register of the context; unaligned, because a stack pointer that a program
        // broke may have put the frame anywhere.
        unsafe { register.read_unaligned() }
    }
}

impl fmt::Debug for Info<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("signal", &Signal::from_raw(self.number() as u32))
            .field("code", &self.code())
            .field("sender", &self.sender())
            .field("address", &self.address())
            .field("pc", &format_args!("{:#x}", self.pc()))
            .finish_non_exhaustive()
    }
}
