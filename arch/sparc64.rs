//! SPARC V9 with the 64-bit ABI (sparc64), EM 43, big-endian.
//!
//! - System call: `ta 0x6d`; number in %g1; arguments in %o0 to %o5; result in %o0. After a failure
//!   the carry flag is set, and %o0 is the positive error number. clone, fork and pipe return a
//!   second result in %o1. The kernel may destroy %g6, which is reserved for the system, and the
//!   floating-point registers: today's kernels keep them, but the kernel's own callers do not rely
//!   on that. A call that is restarted through its restart block leaves `restart_syscall` in %g1
//!   (do_signal in signal_64.c). Source: arch/sparc/kernel/syscalls.S, signal_64.c,
//!   arch/sparc/vdso/vclock_gettime.c.
//! - Delay slots: the instruction after a branch or call runs before it takes effect.
//! - Register windows: `save` gives a function new %l0-%l7 and %o0-%o7, and makes the caller's %o
//!   its %i; `restore` undoes this. The processor has a few windows. At any instruction the kernel
//!   may store the %l and %i of a window at that window's %sp, and it loads them from there when
//!   the function continues.
//! - Entry: %sp is biased (see Stack); argc is directly above the 128 bytes of the window. Source:
//!   start_thread in arch/sparc/include/asm/processor_64.h.
//! - Thread pointer: %g7, an ordinary register to the kernel; TLS variant II.
//! - clone(2): flags, stack, ptid, tls, ctid. The child starts on a copy of the caller's frame. Its
//!   %o0 is not 0: %o1 distinguishes it from its parent. Source: clone_stackframe and copy_thread
//!   in arch/sparc/kernel/process_64.c.
//! - Signals: the restorer is mandatory, and an argument of rt_sigaction(2), not a part of the
//!   struct. Source: arch/sparc/kernel/sys_sparc_64.c, signal_64.c.
//! - Stack: %sp and %fp hold the address minus 2047; the address is 16-aligned. A frame starts with
//!   128 bytes for the window and, if the function calls others, 48 bytes where these may store
//!   their arguments. No red zone. Source: *SPARC Compliance Definition* 2.4, "Low-Level System
//!   Information".

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Compare, Context, Credentials, Frames, Guard, Mmap, Registers, Restorer, Strlen, Timed, Tls,
    Vdso, WithRestorer, each_line,
};

pub(crate) struct Cpu;

/// The address of a frame, minus the stack or frame pointer that stands for it.
const BIAS: usize = 2047;
/// The bytes where the kernel stores the %l and %i of a window.
const WINDOW: usize = 128;
/// The bytes at the stack pointer of a function that calls others: the window, and room for six
/// arguments.
const FRAME: usize = WINDOW + 48;

/// A stub is a function, not inline: in an `asm!` rustc cannot yet declare that the floating-point
/// registers are destroyed. By the ABI every call of a function destroys them.
///
/// The cost is a jump to it and back. No argument moves: with the number last, the C arguments are
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
            // SAFETY: 1. The caller guarantees it. The stub follows the C ABI.
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
    const COMPARE: Option<Compare> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6"],
        clock_gettime: "__vdso_clock_gettime",
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__vdso_getrandom",
    };
    // The chain starts in the window at the stack pointer: the kernel stores all windows before it
    // starts a handler. (qemu does not, so there the chain is empty.)
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext, tpc),
        sp: offset_of!(Ucontext, o6),
        fp: offset_of!(Ucontext, o6),
        link: Some(offset_of!(Ucontext, o7)),
        registers: &[Registers {
            at: offset_of!(Ucontext, g0_to_g7),
            apart: 8,
            names: "g0 g1 g2 g3 g4 g5 g6 g7 o0 o1 o2 o3 o4 o5 o6 o7 tstate tpc tnpc",
        }],
    };
    // %i6 and %i7 of a window, which follow %l0-%l7 and %i0-%i5. %i7 is the address of the call.
    const FRAMES: Option<Frames> = Some(Frames {
        caller: BIAS as isize + 112,
        return_address: BIAS as isize + 120,
        in_callers: false,
        past_call: 0,
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
    // The seventh argument is on the stack: 2047 is BIAS, 176 is FRAME.
    syscall!(syscall6(a, b, c, d, e, f), "ldx [%sp + 2047 + 176], %g1");

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined %o7",              // No caller: unwinders stop here.
            "mov %g0, %fp",                    // End of the frame chain,
            "mov %g0, %i7",                    // and of the return addresses.
            "add %sp, {bias} + {window}, %o0", // Address of argc, argv, envp and auxv.
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
        // SAFETY: the register is the program's own, and the caller guarantees the value. It counts
        // as writing memory, so the compiler moves no `thread_pointer` across it.
        unsafe { asm!("mov {}, %g7", in(reg) tp, options(nostack, preserves_flags)) };
        0
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // SAFETY: reading it is always allowed. `readonly` instead of `nomem` keeps it after
        // `set_thread_pointer`.
        unsafe { asm!("mov %g7, {}", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    /// The child gets a copy of this function's own window, with %l0 and %l1. Without a window of
    /// its own it would be a copy of the caller's, whose frame size is unknown.
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
            "sub %o1, {frame}, %l1", // The kernel puts the copy of this frame here.
            // If the child does not share memory, the kernel makes that copy only in the parent's
            // memory, after it copied the memory: so store both words here too.
            "stx %l0, [%l1 + {bias}]",
            "stx %l1, [%l1 + {bias} + 8]",
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
            "restore %g1, %g0, %o0", // Delay slot: back in the caller's window, with the result.
            "3:",
            ".cfi_undefined %o7",
            "mov %l1, %sp",  // Already so, except under qemu, which does not copy the frame.
            "mov %g0, %fp",  // End of the frame chain,
            "mov %g0, %i7",  // and of the return addresses.
            "mov %l0, %o0",  // The word in %l0, copied with the window.
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

    /// In the child %o0 is the parent's id, and %o1 is 1.
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
        /// Where the kernel stores the last window of a thread whose stack is unmapped. All such
        /// threads share it; the values that they load from it are never used.
        struct LastWindow(UnsafeCell<[u64; WINDOW / 8]>);
        // SAFETY: no Rust reads or writes it.
        unsafe impl Sync for LastWindow {}
        static LAST_WINDOW: LastWindow = LastWindow(UnsafeCell::new([0; _]));

        // SAFETY: 1. to 3. The caller guarantees them: the mapping may go, and nothing runs on it
        // afterwards. The kernel stores no window there either: `flushw` makes it store the
        // callers' windows before, and the new %sp directs this function's window elsewhere; its %l
        // and %i are not needed. The second call does not return.
        unsafe {
            asm!(
                "flushw",
                "mov {last_window}, %sp",
                "mov {munmap}, %g1",
                "ta 0x6d", // munmap(base, len)
                "mov 0, %o0",
                "mov {exit}, %g1",
                "ta 0x6d",
                "ta 5", // No system call: this trap ends the process by a signal.
                munmap = const k::__NR_munmap,
                exit = const k::__NR_exit,
                last_window = in(reg) LAST_WINDOW.0.get().wrapping_byte_sub(BIAS),
                in("o0") base,
                in("o1") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(code: Range<usize>) -> isize {
        each_line(code, 8, |at| {
            // SAFETY: it changes no value, and the word is readable (1).
            unsafe { asm!("flush {}", in(reg) at, options(nostack, preserves_flags)) }
        });
        0
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    // The struct has the field too, but the kernel does not read it.
    const RESTORER: Restorer = Restorer::Argument(sigaction_return);

    type Sigaction = WithRestorer;
}

/// A handler's third argument, as far as [`Arch::CONTEXT`] needs it. It is not a `ucontext` but the
/// second argument again, the siginfo_t, followed by `struct pt_regs` of asm/ptrace.h. Source:
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

/// A signal handler returns here: 8 bytes after the address that the kernel has, as from any call.
/// Debuggers recognise the frame by the two instructions there.
#[unsafe(naked)]
unsafe extern "C" fn sigaction_return() {
    naked_asm!(
        "nop",
        "nop",
        "mov {nr}, %g1",
        "ta 0x6d",
        "ta 5", // Fails only by a seccomp filter; then the thread cannot go on.
        nr = const k::__NR_rt_sigreturn,
    )
}
