//! SPARC V9 with the 64-bit ABI (sparc64), EM 43, big-endian.
//!
//! - System call: `ta 0x6d`; number in %g1; arguments in %o0 to %o5; result in %o0. After a failure
//!   the carry flag is set, and %o0 is the positive error number. clone, fork and pipe return a
//!   second result in %o1. Also %g6 may be destroyed, which is the system's, and the floating-point
//!   registers: today's kernels keep them, but those who wrote them do not rely on it. A call that
//!   is restarted through its restart block leaves `restart_syscall` in %g1 (do_signal in
//!   signal_64.c). Source: arch/sparc/kernel/syscalls.S, signal_64.c,
//!   arch/sparc/vdso/vclock_gettime.c.
//! - Delay slots: the instruction after a branch or call runs before it takes effect.
//! - Register windows: `save` gives a function new %l0-%l7 and %o0-%o7, and makes the caller's %o
//!   its %i; `restore` goes back. The processor has a few windows. For what does not fit, the
//!   kernel stores %l and %i of a window where its %sp points, at any instruction, and loads them
//!   from there when the function goes on.
//! - Entry: %sp points as below; argc lies right above the 128 bytes of the window. Source:
//!   start_thread in arch/sparc/include/asm/processor_64.h.
//! - Thread pointer: %g7, a register like any other to the kernel; TLS variant II.
//! - clone(2): flags, stack, ptid, tls, ctid. The child starts on a copy of the frame of whoever
//!   calls, and %o0 is not 0 there: %o1 tells it from its parent. Source: clone_stackframe and
//!   copy_thread in arch/sparc/kernel/process_64.c.
//! - Signals: the restorer is mandatory, and an argument of rt_sigaction(2), not a part of the
//!   struct. Source: arch/sparc/kernel/sys_sparc_64.c, signal_64.c.
//! - Stack: %sp and %fp hold the address less 2047, which is 16-aligned. A frame starts with 128
//!   bytes for the window and, if the function calls others, 48 where these may put their
//!   arguments. No red zone. Source: *SPARC Compliance Definition* 2.4, "Low-Level System
//!   Information".

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::offset_of;

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Context, Credentials, Frames, Guard, Mmap, Restorer, Strlen, Timed, Tls, Vdso, WithRestorer,
};

pub(crate) struct Cpu;

/// What a stack or frame pointer is less than the address.
const BIAS: usize = 2047;
/// Where a window's %l and %i are stored.
const WINDOW: usize = 128;
/// What lies at the stack pointer of everybody who calls: the window, and a place for six
/// arguments.
const FRAME: usize = WINDOW + 48;

/// A stub is a function, not inline: rustc cannot be told yet that an `asm!` destroys the
/// floating-point registers. A call lets it know, by the ABI.
///
/// It costs a jump there and one back. Nothing is moved: with the number last, the C arguments are
/// where the kernel wants its own.
macro_rules! syscall {
    ($name:ident($($arg:ident),*), $number:literal) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            #[unsafe(naked)]
            unsafe extern "C" fn call($($arg: usize, )* nr: usize) -> isize {
                naked_asm!(
                    ".cfi_startproc",
                    $number, // Into %g1, from where `nr` lies.
                    "ta 0x6d",
                    "sub %g0, %o0, %g1",
                    "retl",
                    "movcs %xcc, %g1, %o0", // Delay slot: a failure becomes negative.
                    ".cfi_endproc",
                )
            }
            // SAFETY: 1. is our caller's; the stub keeps to the C ABI.
            unsafe { call($($arg, )* nr) }
        }
    };
}

impl Arch for Cpu {
    const MMAP: Mmap = Mmap::Bytes(k::__NR_mmap);
    timed!(plain FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME);
    const EVEN_PAIRS: bool = false;
    const TLS: Tls = Tls::Below;
    const GUARD: Guard = Guard::Word { at: 0x28, reserved: 0x30 };
    const UNALIGNED_WORDS: bool = false;
    const BULK: Option<Bulk> = None;
    integer!(Pair, pair, xor, or, is_zero);
    const STRLEN: Option<Strlen> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6"],
        clock_gettime: "__vdso_clock_gettime",
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__vdso_getrandom",
    };
    // The chain starts in the window at the stack pointer: the kernel stores all windows before it
    // starts a handler (and qemu does not, so there the chain is none).
    const CONTEXT: Context =
        Context { pc: offset_of!(Ucontext, tpc), sp: offset_of!(Ucontext, o6), fp: offset_of!(Ucontext, o6) };
    // %i6 and %i7 of a window, after %l0-%l7 and %i0-%i5. The latter is the address of the call.
    const FRAMES: Option<Frames> = Some(Frames {
        caller: BIAS as isize + 112,
        return_address: BIAS as isize + 120,
        in_callers: false,
        elsewhere: None,
    });
    const STACK_PROBES: bool = false;
    const CREDENTIALS: Credentials = Credentials::PLAIN;

    syscall!(syscall0(), "mov %o0, %g1");
    syscall!(syscall1(a), "mov %o1, %g1");
    syscall!(syscall2(a, b), "mov %o2, %g1");
    syscall!(syscall3(a, b, c), "mov %o3, %g1");
    syscall!(syscall4(a, b, c, d), "mov %o4, %g1");
    syscall!(syscall5(a, b, c, d, e), "mov %o5, %g1");
    syscall!(syscall6(a, b, c, d, e, f), "ldx [%sp + 2047 + 176], %g1"); // On the stack: BIAS and FRAME above.

    #[unsafe(naked)]
    #[cfg_attr(not(test), unsafe(no_mangle))]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined %o7",              // Nobody called us: unwinders stop here.
            "mov %g0, %fp",                    // End of the frame chain,
            "mov %g0, %i7",                    // and of the return addresses.
            "add %sp, {bias} + {window}, %o0", // Where argc, argv, envp and auxv lie.
            "andn %o0, 15, %g1",               // The kernel aligns it; a loader may not.
            "sub %g1, {frame} + {bias}, %sp",  // What rust_start expects of its caller.
            "call {start}",                    // Never returns.
            "mov %g0, %o7",                    // Delay slot: nothing to return to.
            ".cfi_endproc",
            bias = const BIAS,
            window = const WINDOW,
            frame = const FRAME,
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: the register is the program's own, and our caller vouches for the value. It
        // counts as writing memory, so that no `thread_pointer` moves across.
        unsafe { asm!("mov {}, %g7", in(reg) tp, options(nostack, preserves_flags)) };
        0
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // SAFETY: reading it is always allowed. `readonly` rather than `nomem` keeps it behind
        // `set_thread_pointer`.
        unsafe { asm!("mov %g7, {}", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    /// The window of its own is what the child gets a copy of, %l0 and %l1 in it; without one it
    /// would be that of our caller, with a frame of unknown size.
    #[unsafe(naked)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        //   C: clone(args)    kernel: clone(flags, stack, ptid, tls, ctid)
        //            %i0                    %o0    %o1    %o2   %o3  %o4
        naked_asm!(
            ".cfi_startproc",
            "save %sp, -{frame}, %sp",
            ".cfi_def_cfa_register %fp",
            ".cfi_window_save",
            ".cfi_register %o7, %i7",
            "ldx [%i0 + {start}], %l0",
            "ldx [%i0 + {stack}], %o1",
            "sub %o1, {bias}, %o1",
            "sub %o1, {frame}, %l1", // Where the kernel puts the copy of our frame.
            "stx %l0, [%l1 + {bias}]", // A child with memory of its own finds no copy there: the kernel
            "stx %l1, [%l1 + {bias} + 8]", // makes it in the parent's memory, after it copied that.
            "ldx [%i0 + {tid}], %o2",
            "ldx [%i0 + {tls}], %o3",
            "mov %o2, %o4",
            "ldx [%i0 + {flags}], %o0",
            "mov {nr}, %g1",
            "ta 0x6d",
            "bcs,pn %xcc, 2f",
            "sub %g0, %o0, %g1", // Delay slot: a failure becomes negative.
            "brnz,pn %o1, 3f",   // The child.
            "mov %o0, %g1",      // Delay slot.
            "2:",
            "ret",
            "restore %g1, %g0, %o0", // Delay slot: back in our caller's window, with the result.
            "3:",
            ".cfi_undefined %o7",
            "mov %l1, %sp",  // Where it is already; not so under qemu, which does not copy the frame.
            "mov %g0, %fp",  // End of the frame chain,
            "mov %g0, %i7",  // and of the return addresses.
            "mov %l0, %o0",  // What came in the window.
            "call {thread}", // Never returns.
            "mov %g0, %o7",  // Delay slot: nothing to return to.
            ".cfi_endproc",
            stack = const offset_of!(CloneArgs, stack),
            start = const offset_of!(CloneArgs, start),
            tid = const offset_of!(CloneArgs, tid),
            tls = const offset_of!(CloneArgs, tls),
            flags = const offset_of!(CloneArgs, flags),
            bias = const BIAS,
            frame = const FRAME,
            nr = const k::__NR_clone,
            thread = sym crate::sys::rust_clone,
        )
    }

    /// %o0 is the parent's number in the child, and %o1 is 1 there.
    #[unsafe(naked)]
    unsafe extern "C" fn fork() -> isize {
        naked_asm!(
            ".cfi_startproc",
            "mov {flags}, %o0",
            "mov %g0, %o1",
            "mov %g0, %o2",
            "mov %g0, %o3",
            "mov %g0, %o4",
            "mov {nr}, %g1",
            "ta 0x6d",
            "sub %g0, %o0, %g1",
            "movrnz %o1, %g0, %o0", // The child.
            "retl",
            "movcs %xcc, %g1, %o0", // Delay slot: a failure becomes negative.
            ".cfi_endproc",
            flags = const k::SIGCHLD,
            nr = const k::__NR_clone,
        )
    }

    unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> ! {
        /// Where the last window of a thread is stored that has no stack any more. All such threads
        /// share it, and what they load from it is anybody's.
        struct Grave(UnsafeCell<[u64; WINDOW / 8]>);
        // SAFETY: no Rust reads or writes it.
        unsafe impl Sync for Grave {}
        static GRAVE: Grave = Grave(UnsafeCell::new([0; _]));

        // SAFETY: 1. to 3. are our caller's: the mapping may go, and nothing runs on it after. Also
        // the kernel stores no window there: `flushw` has it do so with those of our callers
        // before, and %sp leads it elsewhere with ours, of which we need no %l and %i. The second
        // call does not return.
        unsafe {
            asm!(
                "flushw",
                "mov {grave}, %sp",
                "mov {munmap}, %g1",
                "ta 0x6d", // munmap(base, len)
                "mov 0, %o0",
                "mov {exit}, %g1",
                "ta 0x6d",
                "ta 5", // A trap that is no call: a signal that ends the process.
                munmap = const k::__NR_munmap,
                exit = const k::__NR_exit,
                grave = in(reg) GRAVE.0.get().wrapping_byte_sub(BIAS),
                in("o0") base,
                in("o1") len,
                options(noreturn, nostack),
            )
        }
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    // The field of the struct is there, too, and the kernel does not look at it.
    const RESTORER: Restorer = Restorer::Argument(sigaction_return);

    type Sigaction = WithRestorer;
}

/// What a handler gets, as far as [`Arch::CONTEXT`] needs it: no `ucontext`, but the second
/// argument once more, the siginfo_t, and after it `struct pt_regs` of asm/ptrace.h. Source:
/// setup_rt_frame in arch/sparc/kernel/signal_64.c.
#[repr(C)]
#[allow(dead_code)] // Only its offsets are used.
struct Ucontext {
    siginfo: k::siginfo_t,
    g0_to_g7: [u64; 8],
    o0_to_o5: [u64; 6],
    o6: u64,
    o7: u64,
    tstate: u64,
    tpc: u64,
}

/// Where a signal handler returns to: 8 beyond the address that the kernel has, as from any call.
/// Debuggers know the frame by the two instructions there.
#[unsafe(naked)]
unsafe extern "C" fn sigaction_return() {
    naked_asm!(
        "nop",
        "nop",
        "mov {nr}, %g1",
        "ta 0x6d",
        "ta 5", // Only a filter lets it fail; then there is nothing to go on with.
        nr = const k::__NR_rt_sigreturn,
    )
}
