//! powerpc (ppc, 32-bit), EM 20, big-endian.
//!
//! - System call: `sc`; number in r0; arguments in r3 to r8; result in r3. A failure sets the
//!   summary overflow bit of cr0 and leaves the error number, positive, in r3. The kernel may
//!   destroy r0, r4 to r12, cr0, ctr and xer; it keeps lr, the other condition fields and all
//!   floating-point and vector registers. Source: the kernel's
//!   Documentation/arch/powerpc/syscall64-abi.rst, which holds for `sc` here too;
//!   arch/powerpc/kernel/entry_32.S. What it leaves in r0 may be `restart_syscall`:
//!   check_syscall_restart in arch/powerpc/kernel/signal.c.
//! - 64-bit arguments are two registers, the high half first, in an odd-even pair (r3:r4, r5:r6,
//!   r7:r8).
//! - Entry: r1 is 16-aligned and points at argc. Source: `start_thread` in
//!   arch/powerpc/kernel/process.c.
//! - Thread pointer: r2, which the compiler leaves alone; TLS variant I, biased by 0x7000. Source:
//!   Power Architecture 32-bit ABI Supplement, "Thread Local Storage".
//! - clone(2): flags, stack, ptid, tls, ctid.
//! - Signals: a restorer is ignored: the return goes through the vDSO, or a trampoline of the
//!   kernel's on the stack. Source: arch/powerpc/kernel/signal_32.c.
//! - vDSO: as a system call, a failure sets cr0.SO, with the error number positive. Source:
//!   `cvdso_call` in arch/powerpc/include/asm/vdso/gettimeofday.h.
//! - Stack: 16-aligned at any time. A frame begins with the back chain and the callee's room for
//!   lr. No red zone. Source: System V ABI, PowerPC Processor Supplement, "The Stack Frame".

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Compare, Context, Credentials, Frames, Guard, Mmap, Registers, Restorer, Strlen, Timed, Tls,
    Vdso, WithRestorer, each_line,
};

pub(crate) struct Cpu;

/// The bytes that every frame begins with, rounded up to the alignment.
const FRAME: usize = 16;

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller guarantees it; the kernel destroys only what is listed.
            unsafe {
                asm!(
                    "sc",
                    "bns+ 2f",  // cr0.SO clear: r3 is a value.
                    "neg 3, 3", // Set: r3 is an error number, and the trait has it negative.
                    "2:",
                    inlateout("r0") nr => _,
                    $(in($reg) $arg,)*
                    lateout("r3") ret,
                    lateout("r4") _, lateout("r5") _, lateout("r6") _, lateout("r7") _,
                    lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _, lateout("r12") _,
                    lateout("cr0") _, lateout("ctr") _, lateout("xer") _,
                    options(nostack),
                );
            }
            ret
        }
    };
}

impl Arch for Cpu {
    const MMAP: Mmap = Mmap::Units4096(k::__NR_mmap2);
    timed!(both FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME);
    const EVEN_PAIRS: bool = true;
    const TLS: Tls = Tls::Above { tcb: 0, bias: 0x7000 };
    // The guard is at r2 - 0x7008. Below it are, among others, the words that
    // __builtin_cpu_supports reads, down to r2 - 0x7044. They may be 0: code with it needs glibc's
    // __parse_hwcap_3_4_and_convert_at_platform, and so does not link.
    const GUARD: Guard = Guard::Word { at: -8, reserved: 0x50 };
    const UNALIGNED_WORDS: bool = true;
    const BULK: Option<Bulk> = None;
    integer!(Pair, pair, xor, or, is_zero);
    const STRLEN: Option<Strlen> = None;
    const COMPARE: Option<Compare> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6.15", "LINUX_5.11"],
        clock_gettime: "__kernel_clock_gettime64",
        clock_gettime_narrow: Some("__kernel_clock_gettime"),
        narrow_vouches_for_wide: false,
        getrandom: "__kernel_getrandom",
    };
    // The ABI chains frames by the stack pointer.
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext, nip),
        sp: offset_of!(Ucontext, r1),
        fp: offset_of!(Ucontext, r1),
        link: Some(offset_of!(Ucontext, nip) + 4 * 4), // lr: msr, orig_r3 and ctr lie between.
        registers: &[Registers {
            at: offset_of!(Ucontext, r0),
            apart: 4,
            names: "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 r26 \
                    r27 r28 r29 r30 r31 nip msr orig_r3 ctr lr xer cr",
        }],
    };
    const FRAMES: Option<Frames> =
        Some(Frames { caller: 0, return_address: 4, in_callers: true, past_call: 1, elsewhere: None });
    const STACK_PROBES: bool = true;
    const CREDENTIALS: Credentials = Credentials::PLAIN;

    syscall!(syscall0());
    syscall!(syscall1(a in "r3"));
    syscall!(syscall2(a in "r3", b in "r4"));
    syscall!(syscall3(a in "r3", b in "r4", c in "r5"));
    syscall!(syscall4(a in "r3", b in "r4", c in "r5", d in "r6"));
    syscall!(syscall5(a in "r3", b in "r4", c in "r5", d in "r6", e in "r7"));
    syscall!(syscall6(a in "r3", b in "r4", c in "r5", d in "r6", e in "r7", f in "r8"));

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined lr", // No caller: unwinders stop here.
            "mr 3, 1",           // Address of argc, argv, envp and auxv.
            "clrrwi 1, 1, 4",    // The kernel aligns it to 16; a loader may not.
            "li 0, 0",
            "stwu 0, -{frame}(1)", // End of the frame chain: a frame whose back chain is 0.
            "bl {start}",
            "trap", // Never returns.
            ".cfi_endproc",
            frame = const FRAME,
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: the register is the program's own, and the caller guarantees the value. It counts
        // as writing memory, so the compiler moves no `thread_pointer` across it.
        unsafe { asm!("mr 2, {}", in(reg) tp, options(nostack, preserves_flags)) };
        0
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // SAFETY: reading it is always allowed. `readonly` instead of `nomem` keeps it after
        // `set_thread_pointer`.
        unsafe { asm!("mr {}, 2", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    #[unsafe(naked)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        //   C: clone(args)    kernel: clone(flags, stack, ptid, tls, ctid)
        //            r3                       r3     r4    r5   r6    r7
        naked_asm!(
            ".cfi_startproc",
            "lwz 4, {stack}(3)",
            "lwz 8, {start}(3)",
            "lwz 5, {tid}(3)",
            "lwz 6, {tls}(3)",
            "lwz 3, {flags}(3)",
            "mr 7, 5",
            "li 0, 0",
            "stwu 0, -({frame} + 16)(4)", // The child's frame: back chain 0, the end of the chain.
            "stw 8, {frame}(4)",          // The child's first word, above its frame's head.
            "li 0, {nr}",
            "sc",
            "bns+ 2f",
            "neg 3, 3", // Failure, as in the stubs.
            "blr",
            "2:",
            "cmpwi 3, 0",
            "bnelr+", // Parent: the result is in r3.
            ".cfi_undefined lr",
            "lwz 3, {frame}(1)", // Child: the word above the frame's head.
            "bl {thread}",
            "trap", // Never returns.
            ".cfi_endproc",
            stack = const offset_of!(CloneArgs, stack),
            start = const offset_of!(CloneArgs, start),
            tid = const offset_of!(CloneArgs, tid),
            tls = const offset_of!(CloneArgs, tls),
            flags = const offset_of!(CloneArgs, flags),
            frame = const FRAME,
            nr = const k::__NR_clone,
            thread = sym crate::sys::rust_clone,
        )
    }

    unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> ! {
        // SAFETY: 1. to 3. The caller guarantees them: the mapping may go, and nothing runs on it
        // afterwards. The second call needs no memory and does not return.
        unsafe {
            asm!(
                "sc", // munmap(base, len)
                "li 3, 0",
                "li 0, {exit}",
                "sc",
                "trap",
                exit = const k::__NR_exit,
                in("r0") k::__NR_munmap as usize,
                in("r3") base,
                in("r4") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(code: Range<usize>) -> isize {
        /// No processor's lines are shorter (MPC8xx: 16).
        const LINE: usize = 16;
        each_line(code.clone(), LINE, |at| {
            // SAFETY: it changes no value, and the line is readable (1).
            unsafe { asm!("dcbst 0, {}", in(reg) at, options(nostack, preserves_flags)) }
        });
        // SAFETY: a barrier is always allowed.
        unsafe { asm!("sync", options(nostack, preserves_flags)) };
        each_line(code, LINE, |at| {
            // SAFETY: it changes no value, and the line is readable (1).
            unsafe { asm!("icbi 0, {}", in(reg) at, options(nostack, preserves_flags)) }
        });
        // SAFETY: barriers are always allowed.
        unsafe { asm!("sync", "isync", options(nostack, preserves_flags)) };
        0
    }

    vdso!(vdso_clock_gettime, vdso_getrandom by call_vdso);

    const RESTORER: Restorer = Restorer::Kernels;

    // The struct has a field for a restorer, but the kernel does not read it.
    type Sigaction = WithRestorer;
}

/// A handler's third argument, as far as [`Arch::CONTEXT`] needs it: asm/ucontext.h. `regs` holds
/// the address of `r0`.
#[repr(C)]
#[allow(dead_code)] // Only its offsets are used.
struct Ucontext {
    flags_and_link: [usize; 2],
    stack: k::sigaltstack,
    pad: [i32; 7],
    regs: *const u8,
    sigmask: k::kernel_sigset_t,
    maskext: [i32; 30],
    pad2: [i32; 3],
    r0: u32,
    r1: u32,
    r2_to_r31: [u32; 30],
    nip: u32,
}

const _: () = assert!(offset_of!(Ucontext, r0) % 16 == 0, "struct mcontext is 16-aligned, for its vector registers");

/// Calls a function of the vDSO. It reports a failure by cr0.SO, as a system call does, and a call
/// from Rust cannot read that bit. It also stores lr in its caller's frame, so this function makes
/// a frame.
///
/// # Safety
///
/// 1. `function` is code of the vDSO, and does nothing with these arguments that the caller may not
///    do.
#[unsafe(naked)]
unsafe extern "C" fn call_vdso(function: *const c_void, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    naked_asm!(
        ".cfi_startproc",
        "mflr 0",
        "stw 0, 4(1)", // The ABI's place for lr.
        "stwu 1, -{frame}(1)",
        ".cfi_def_cfa_offset {frame}",
        ".cfi_offset lr, 4",
        "mtctr 3",
        "mr 3, 4",
        "mr 4, 5",
        "mr 5, 6",
        "mr 6, 7",
        "mr 7, 8",
        "bctrl",
        "bns+ 2f",
        "neg 3, 3", // Failure, as in the stubs.
        "2:",
        "addi 1, 1, {frame}",
        ".cfi_def_cfa_offset 0",
        "lwz 0, 4(1)",
        "mtlr 0",
        ".cfi_restore lr",
        "blr",
        ".cfi_endproc",
        frame = const FRAME,
    )
}
