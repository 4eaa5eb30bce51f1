//! aarch64 (arm64), EM 183, both endians.
//!
//! - System call: `svc 0`; number in x8; arguments in x0 to x5; result in x0, a failure is
//!   -4095..=-1. A call that is restarted through its restart block leaves `restart_syscall` in x8.
//!   Source: do_signal and setup_restart_syscall in arch/arm64/kernel/signal.c. The kernel keeps
//!   all other registers, except those of SVE: its vectors keep only their low 128 bits, and the
//!   predicates and FFR are lost. Source: syscall(2), Documentation/arch/arm64/sve.rst.
//! - Entry: sp is 16-aligned and points at argc; all other registers are 0. Source:
//!   arch/arm64/include/asm/processor.h.
//! - Thread pointer: tpidr_el0, which the program writes itself; TLS variant I, a control block of
//!   16 bytes. Source: AAELF64 (ELF for the Arm 64-bit Architecture).
//! - clone(2): flags, stack, ptid, tls, ctid.
//! - Signals: a restorer is optional, else the vDSO has one; one form of frame. Debuggers recognise
//!   both by their instructions.
//! - Stack: sp must be 16-aligned whenever memory is accessed through it; no red zone. Source:
//!   AAPCS64, 6.4.5.

use core::arch::aarch64::{uint64x2_t, vdupq_n_u64, veorq_u64, vmaxvq_u32, vorrq_u64, vreinterpretq_u32_u64};
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Compare, Context, Credentials, Frames, Guard, Mmap, Registers, Restorer, Strlen, Timed, Tls,
    Ucontext, Vdso, WithRestorer, each_line,
};

pub(crate) struct Cpu;

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        syscall!($name($($arg in $reg),*) loses
            "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7" "v8" "v9" "v10" "v11" "v12" "v13" "v14" "v15"
            "v16" "v17" "v18" "v19" "v20" "v21" "v22" "v23" "v24" "v25" "v26" "v27" "v28" "v29" "v30" "v31"
            "p0" "p1" "p2" "p3" "p4" "p5" "p6" "p7" "p8" "p9" "p10" "p11" "p12" "p13" "p14" "p15");
    };
    ($name:ident($($arg:ident in $reg:tt),*) loses $($sve:tt)*) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller guarantees it. The kernel changes only x0, x8 and what a
            // program compiled for SVE keeps in vectors and predicates (the compiler keeps nothing
            // in FFR).
            unsafe {
                asm!(
                    "svc 0",
                    inlateout("x8") nr => _,
                    $(in($reg) $arg,)*
                    lateout("x0") ret,
                    $(#[cfg(target_feature = "sve")] lateout($sve) _,)*
                    options(nostack, preserves_flags),
                );
            }
            ret
        }
    };
}

impl Arch for Cpu {
    const MMAP: Mmap = Mmap::Bytes(k::__NR_mmap);
    timed!(plain FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME);
    const EVEN_PAIRS: bool = false;
    const TLS: Tls = Tls::Above { tcb: 16, bias: 0 };
    const GUARD: Guard = Guard::Variable;
    const UNALIGNED_WORDS: bool = true;
    const BULK: Option<Bulk> = None;
    // Pairs of vectors are loaded and stored by one instruction.
    type Pair = uint64x2_t;

    #[inline(always)]
    fn pair(word: usize) -> uint64x2_t {
        // SAFETY: every aarch64 that rt0 is built for has vectors.
        unsafe { vdupq_n_u64(word as u64) }
    }

    #[inline(always)]
    fn xor(x: uint64x2_t, y: uint64x2_t) -> uint64x2_t {
        // SAFETY: every aarch64 that rt0 is built for has vectors.
        unsafe { veorq_u64(x, y) }
    }

    #[inline(always)]
    fn or(x: uint64x2_t, y: uint64x2_t) -> uint64x2_t {
        // SAFETY: every aarch64 that rt0 is built for has vectors.
        unsafe { vorrq_u64(x, y) }
    }

    #[inline(always)]
    fn is_zero(x: uint64x2_t) -> bool {
        // SAFETY: every aarch64 that rt0 is built for has vectors.
        let words = unsafe { vreinterpretq_u32_u64(x) };
        // SAFETY: every aarch64 that rt0 is built for has vectors.
        unsafe { vmaxvq_u32(words) == 0 }
    }

    const STRLEN: Option<Strlen> = None;
    const COMPARE: Option<Compare> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6.39"],
        clock_gettime: "__kernel_clock_gettime",
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__kernel_getrandom",
    };
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext<Sigcontext>, context.pc),
        sp: offset_of!(Ucontext<Sigcontext>, context.sp),
        fp: offset_of!(Ucontext<Sigcontext>, context.x29),
        link: Some(offset_of!(Ucontext<Sigcontext>, context.x30)),
        registers: &[Registers {
            at: offset_of!(Ucontext<Sigcontext>, context.x0_to_x28),
            apart: 8,
            names: "x0 x1 x2 x3 x4 x5 x6 x7 x8 x9 x10 x11 x12 x13 x14 x15 x16 x17 x18 x19 x20 x21 x22 x23 x24 x25 \
                    x26 x27 x28 x29 x30 sp pc pstate",
        }],
    };
    const FRAMES: Option<Frames> =
        Some(Frames { caller: 0, return_address: 8, in_callers: false, past_call: 1, elsewhere: None });
    const STACK_PROBES: bool = true;
    const CREDENTIALS: Credentials = Credentials::PLAIN;

    syscall!(syscall0());
    syscall!(syscall1(a in "x0"));
    syscall!(syscall2(a in "x0", b in "x1"));
    syscall!(syscall3(a in "x0", b in "x1", c in "x2"));
    syscall!(syscall4(a in "x0", b in "x1", c in "x2", d in "x3"));
    syscall!(syscall5(a in "x0", b in "x1", c in "x2", d in "x3", e in "x4"));
    syscall!(syscall6(a in "x0", b in "x1", c in "x2", d in "x3", e in "x4", f in "x5"));

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined x30", // No caller: unwinders stop here.
            "mov x29, 0",         // End of the frame chain.
            "mov x0, sp",         // Address of argc, argv, envp and auxv.
            "and sp, x0, -16",    // The kernel aligns it; a loader may not.
            "bl {start}",
            "udf 0", // Never returns.
            ".cfi_endproc",
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: the register is the program's own, and the caller guarantees the value. It counts
        // as writing memory, so the compiler moves no `thread_pointer` across it.
        unsafe { asm!("msr tpidr_el0, {}", in(reg) tp, options(nostack, preserves_flags)) };
        0
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // SAFETY: reading it is always allowed. `readonly` instead of `nomem` keeps it after
        // `set_thread_pointer`.
        unsafe { asm!("mrs {}, tpidr_el0", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    #[unsafe(naked)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        //   C: clone(args)    kernel: clone(flags, stack, ptid, tls, ctid)
        //             x0                       x0     x1    x2   x3    x4
        naked_asm!(
            ".cfi_startproc",
            "ldr x1, [x0, {stack}]",
            "ldr x5, [x0, {start}]",
            "str x5, [x1, -16]!", // The child's first words, at its stack pointer; 16-aligned.
            "ldr x2, [x0, {tid}]",
            "mov x4, x2",
            "ldr x3, [x0, {tls}]",
            "ldr x0, [x0, {flags}]",
            "mov x8, {nr}",
            "svc 0",
            "cbz x0, 2f",
            "ret", // Parent, or failure: the result is in x0.
            "2:",
            ".cfi_undefined x30",
            "mov x29, 0",   // Child: end of the frame chain.
            "ldr x0, [sp]", // The word that the parent left at the stack pointer.
            "bl {thread}",
            "udf 0", // Never returns.
            ".cfi_endproc",
            stack = const offset_of!(CloneArgs, stack),
            start = const offset_of!(CloneArgs, start),
            tid = const offset_of!(CloneArgs, tid),
            tls = const offset_of!(CloneArgs, tls),
            flags = const offset_of!(CloneArgs, flags),
            nr = const k::__NR_clone,
            thread = sym crate::sys::rust_clone,
        )
    }

    unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> ! {
        // SAFETY: 1. to 3. The caller guarantees them: the mapping may go, and nothing runs on it
        // afterwards. The second call needs no memory and does not return.
        unsafe {
            asm!(
                "svc 0", // munmap(base, len)
                "mov x0, 0",
                "mov x8, {exit}",
                "svc 0",
                "udf 0",
                exit = const k::__NR_exit,
                in("x8") k::__NR_munmap as usize,
                in("x0") base,
                in("x1") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(code: Range<usize>) -> isize {
        const DATA_IS_UNIFIED: u64 = 1 << 28; // IDC: no `dc cvau` is needed.
        const INSTRUCTIONS_ARE_COHERENT: u64 = 1 << 29; // DIC: no `ic ivau` is needed.
        let ctr: u64;
        // Where processors differ, the kernel traps this and answers for all of them.
        // SAFETY: reading it is always allowed.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
        let line = |log_of_words: u64| 4 << (ctr >> log_of_words & 0xf); // Of the smallest line.
        if ctr & DATA_IS_UNIFIED == 0 {
            each_line(code.clone(), line(16), |at| {
                // SAFETY: it changes no value, and the line is readable (1).
                unsafe { asm!("dc cvau, {}", in(reg) at, options(nostack, preserves_flags)) }
            });
        }
        // SAFETY: a barrier is always allowed.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
        if ctr & INSTRUCTIONS_ARE_COHERENT == 0 {
            each_line(code, line(0), |at| {
                // SAFETY: it changes no value, and the line is readable (1).
                unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags)) }
            });
            // SAFETY: a barrier is always allowed.
            unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
        }
        // SAFETY: a barrier is always allowed.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
        0
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Restorer =
        Restorer::Field { flag: k::SA_RESTORER, with_info: sigaction_return, plain: sigaction_return };

    type Sigaction = WithRestorer;
}

/// asm/sigcontext.h; aligned by what follows.
#[repr(C, align(16))]
#[allow(dead_code)]
struct Sigcontext {
    fault_address: u64,
    x0_to_x28: [u64; 29],
    x29: u64,
    x30: u64,
    sp: u64,
    pc: u64,
}

/// A signal handler returns here, because the vDSO's own restorer may not be mapped. gdb and libgcc
/// recognise the frame by exactly these two instructions.
#[unsafe(naked)]
unsafe extern "C" fn sigaction_return() {
    naked_asm!(
        "mov x8, {nr}",
        "svc 0",
        "udf 0", // Fails only by a seccomp filter; then the thread cannot go on.
        nr = const k::__NR_rt_sigreturn,
    )
}
