//! The arguments of a handler: siginfo_t and the interrupted thread's registers; sigaction(2).

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use linux_raw_sys::general as k;
use static_assertions::{assert_eq_size, assert_impl_all, assert_not_impl_any};

use super::Signal;
use crate::arch::{Arch, Cpu};

/// The kernel's information about a signal: siginfo_t. [`wait`](super::wait()) returns one.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Siginfo(k::siginfo_t);

assert_eq_size!(Siginfo, [u8; 128]); // SI_MAX_SIZE: the kernel writes this much for any signal.

// SAFETY: it holds numbers and addresses, and no method accesses memory at these addresses.
unsafe impl Send for Siginfo {}
// SAFETY: it holds numbers and addresses, and no method accesses memory at these addresses.
unsafe impl Sync for Siginfo {}

assert_impl_all!(Siginfo: Send, Sync, Copy);

/// The kernel's information about a signal and the interrupted code, while the signal's handler
/// runs.
///
/// ```no_run
/// use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// use rt0::signal::{self, Action, Info, Sender, Siginfo, Signal};
///
/// static LAST: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
///
/// fn note(info: &Info) {
///     let siginfo: &Siginfo = info;
///     if siginfo.from_user()
///         && let Some(Sender { pid, .. }) = siginfo.sender()
///     {
///         LAST[0].store(pid as usize, Relaxed);
///     }
///     LAST[1].store(info.pc(), Relaxed);
///     LAST[2].store(info.sp(), Relaxed);
/// }
///
/// // SAFETY: 1. It stores to atomics.
/// unsafe { signal::sigaction(Signal::SIGUSR1, Action::info(note)) }?;
/// # Ok::<(), rt0::Errno>(())
/// ```
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
    /// The process's id in this PID namespace; 0 if it has none.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
}

/// The information of a timer's signal.
#[derive(Clone, Copy)]
pub(crate) struct Timer {
    /// The value that the timer was made with.
    pub value: usize,
    /// How often it expired again before the signal was delivered. The kernel's count ends at 2^31
    /// - 1. Before Linux 4.19 the count became negative then; as unsigned it is still right.
    pub overrun: u32,
}

/// The part that all signals have. linux-raw-sys has this machine's order of its fields.
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

    /// The signal's cause. `SI_USER` (0) or less: a program or a timer sent it. Above 0: the kernel
    /// sent it, and the meaning depends on the signal (sigaction(2)).
    ///
    /// In handlers: yes.
    pub fn code(&self) -> i32 {
        self.head().si_code
    }

    /// Whether a program sent it: kill(2), tgkill(2), sigqueue(3). Such a SIGSEGV is not a memory
    /// fault. (Also true for the SIGPIPE of a write: the kernel gives it the same code.)
    ///
    /// In handlers: yes.
    pub fn from_user(&self) -> bool {
        [k::SI_USER as i32, k::SI_TKILL, k::SI_QUEUE].contains(&self.code())
    }

    /// Whether a seccomp filter sent it, in place of a system call: `SIGSYS` with `SYS_SECCOMP`.
    ///
    /// ```no_run
    /// use rt0::signal::{self, Action, Info, Signal};
    ///
    /// fn refused(info: &Info) {
    ///     if !info.from_seccomp() {
    ///         signal::die_from(Signal::SIGSYS);
    ///     } // Otherwise the call returns what the filter says.
    /// }
    ///
    /// // SAFETY: 1. It makes system calls only.
    /// unsafe { signal::sigaction(Signal::SIGSYS, Action::info(refused)) }?;
    /// # Ok::<(), rt0::Errno>(())
    /// ```
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

    /// The timer's information, if a timer of timer_create(2) sent the signal.
    pub(crate) fn timer(&self) -> Option<Timer> {
        // The code is -2, and -3 in the headers of MIPS, where kernels have been seen to send -2.
        // Elsewhere -3 is a message queue's code, which has a value at the same place. The caller
        // recognises its timer by the value.
        let head = (-3..=k::SI_TIMER).contains(&self.code()).then(|| self.head())?;
        // SAFETY: with these codes the kernel writes this part.
        let timer = unsafe { head._sifields._timer };
        // SAFETY: the same part; any bits are a pointer.
        let value = unsafe { timer._sigval.sival_ptr }.addr();
        Some(Timer { value, overrun: timer._overrun as u32 })
    }

    /// The address that faulted, if the kernel sent SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGTRAP for
    /// a fault. (On s390x it is the start of the page for the first two.)
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
        // SAFETY: the kernel wrote all of it, and `Siginfo` is transparent (1).
        Info { siginfo: unsafe { &*siginfo.cast::<Siginfo>() }, context, frame: PhantomData }
    }

    /// The address of the instruction that was about to run, or that faulted.
    ///
    /// In handlers: yes.
    pub fn pc(&self) -> usize {
        self.register(Cpu::CONTEXT.pc)
    }

    /// The interrupted stack pointer, as the register has it. On SPARC that is the address minus
    /// 2047.
    ///
    /// In handlers: yes.
    pub fn sp(&self) -> usize {
        self.register(Cpu::CONTEXT.sp)
    }

    /// The interrupted frame pointer: the start of this machine's chain of frames, if the program
    /// was compiled with one (`-Cforce-frame-pointers`). On PowerPC and SPARC that is the stack
    /// pointer. On MIPS and s390x it is the register's value, and there is no chain.
    ///
    /// In handlers: yes.
    pub fn fp(&self) -> usize {
        let elsewhere = Cpu::FRAMES.as_ref().and_then(|frames| frames.elsewhere);
        match elsewhere.and_then(|above_sp| above_sp(self.pc())) {
            Some(above_sp) => self.sp().wrapping_add(above_sp),
            None => self.register(Cpu::CONTEXT.fp),
        }
    }

    /// The link register, to which a call writes its return address, on machines that have one.
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
    /// When the handler returns, the kernel loads the registers from there. A runtime writes to
    /// them to move an object or to continue elsewhere. The pointers may be unaligned. They are
    /// valid until the handler returns.
    ///
    /// ```no_run
    /// use rt0::signal::Info;
    ///
    /// fn show(info: &Info) {
    ///     rt0::println!("frame pointer {:#x}", info.fp());
    ///     for (name, place) in info.registers() {
    ///         // SAFETY: the context is valid until the handler returns.
    ///         rt0::println!("{name} {:#x}", unsafe { place.read_unaligned() });
    ///     }
    ///     if let Some(result) = info.register_place("rax") {
    ///         // SAFETY: the same; the kernel loads it when the handler returns.
    ///         unsafe { result.write_unaligned(0) };
    ///     }
    /// }
    /// ```
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
        // SAFETY: the context is this machine's `ucontext`, and a register lies at the offset.
        let register = unsafe { self.context.byte_add(offset) }.cast::<usize>();
        // SAFETY: a register of the context. It may be unaligned, because the frame may be
        // anywhere if the program broke its stack pointer.
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
