//! s390x (IBM Z), EM 22, big-endian.
//!
//! - System call: `svc 0`; number in r1; arguments in r2 to r7; result in r2, a failure is
//!   -4095..=-1. The kernel changes nothing else: it restarts a call by a number of its own
//!   (do_signal and arch_do_signal_or_restart in arch/s390/kernel/signal.c). r1 is declared as
//!   changed nevertheless, as on all machines: a tracer that replaces a call may leave another
//!   number there. (`svc n` would carry a number below 256 by itself.) Source: __do_syscall in
//!   arch/s390/kernel/syscall.c.
//! - mmap(2) takes one argument, the address of its six. Source: `sys_old_mmap`,
//!   arch/s390/kernel/syscall.c.
//! - Entry: r15 is 8-aligned at least and points at argc. Source: ELF ABI s390x Supplement,
//!   "Process Initialization".
//! - Thread pointer: access registers a0 (its high half) and a1 (its low half); TLS variant II.
//! - clone(2): stack, flags, ptid, ctid, tls.
//! - Signals: a restorer is optional, else the vDSO has one, or an older kernel puts one on the
//!   stack; debuggers recognise it by its instruction. Two forms of frame, with and without
//!   `SA_SIGINFO`, and each has its own call to return. Source: arch/s390/kernel/signal.c.
//! - Stack: 8-aligned. A caller provides 160 bytes at r15 where the callee saves registers: the
//!   back chain at 0, r6 at 48. A function keeps r6 to r13 and r15. No red zone. Source: ELF ABI
//!   s390x Supplement, "The Stack Frame".

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{Ordering::SeqCst, fence};

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Compare, Context, Credentials, Frames, Guard, Mmap, Registers, Restorer, Strlen, Timed, Tls,
    Vdso, WithRestorer,
};

pub(crate) struct Cpu;

/// The bytes at a caller's stack pointer where the callee saves registers.
const FRAME: usize = 160;

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller guarantees it. The kernel changes only r2, and a tracer r1.
            unsafe {
                asm!(
                    "svc 0",
                    inlateout("r1") nr => _,
                    $(in($reg) $arg,)*
                    lateout("r2") ret,
                    options(nostack, preserves_flags),
                );
            }
            ret
        }
    };
}

impl Arch for Cpu {
    const MMAP: Mmap = Mmap::Block(k::__NR_mmap);
    timed!(plain FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME);
    const EVEN_PAIRS: bool = false;
    const TLS: Tls = Tls::Below;
    // The guard is at 0x28. At 0x38 code compiled by GCC with -fsplit-stack reads the end of the
    // stack.
    const GUARD: Guard = Guard::Word { at: 0x28, reserved: 0x40 };
    const UNALIGNED_WORDS: bool = true;
    const BULK: Option<Bulk> = None;
    integer!(Pair, pair, xor, or, is_zero);
    const STRLEN: Option<Strlen> = Some(strlen);
    const COMPARE: Option<Compare> = Some(compare);
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6.29"],
        clock_gettime: "__kernel_clock_gettime",
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__kernel_getrandom",
    };
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext, psw_address),
        sp: offset_of!(Ucontext, r15),
        fp: offset_of!(Ucontext, r11),
        link: Some(offset_of!(Ucontext, r12_to_r14) + 2 * 8),
        registers: &[Registers {
            at: offset_of!(Ucontext, psw_mask),
            apart: 8,
            names: "mask pc r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15",
        }],
    };
    // The ABI allows a back chain, but compilers keep it only on request, and rustc does not.
    const FRAMES: Option<Frames> = None;
    const STACK_PROBES: bool = true;
    const CREDENTIALS: Credentials = Credentials::PLAIN;

    syscall!(syscall0());
    syscall!(syscall1(a in "r2"));
    syscall!(syscall2(a in "r2", b in "r3"));
    syscall!(syscall3(a in "r2", b in "r3", c in "r4"));
    syscall!(syscall4(a in "r2", b in "r3", c in "r4", d in "r5"));
    syscall!(syscall5(a in "r2", b in "r3", c in "r4", d in "r5", e in "r6"));
    syscall!(syscall6(a in "r2", b in "r3", c in "r4", d in "r5", e in "r6", f in "r7"));

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined %r14",   // No caller: unwinders stop here.
            "lgr %r2, %r15",         // Address of argc, argv, envp and auxv.
            "nill %r15, 0xfff8",     // The kernel aligns it; a loader may not.
            "aghi %r15, -{frame}",   // The callee's save area.
            "xc 0(8,%r15), 0(%r15)", // End of the frame chain: back chain 0.
            "brasl %r14, {start}",
            ".short 0", // Never returns; 0 is no instruction.
            ".cfi_endproc",
            frame = const FRAME,
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: the registers are the program's own, and the caller guarantees the value. It
        // counts as writing memory, so the compiler moves no `thread_pointer` across it.
        unsafe {
            asm!(
                "sar %a1, {tp}", // Takes the low half of its operand.
                "srlg {tp}, {tp}, 32",
                "sar %a0, {tp}",
                tp = inout(reg) tp => _,
                options(nostack, preserves_flags),
            )
        };
        0
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // SAFETY: reading them is always allowed. `readonly` instead of `nomem` keeps it after
        // `set_thread_pointer`.
        unsafe {
            asm!(
                "ear {tp}, %a0",
                "sllg {tp}, {tp}, 32",
                "ear {tp}, %a1", // The low half only.
                tp = out(reg) tp,
                options(nostack, pure, readonly, preserves_flags),
            )
        };
        tp
    }

    #[unsafe(naked)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        //   C: clone(args)    kernel: clone(stack, flags, ptid, ctid, tls)
        //            r2                     r2     r3     r4    r5    r6
        naked_asm!(
            ".cfi_startproc",
            "stg %r6, 48(%r15)", // The caller's, in the place that it gives for that.
            ".cfi_offset %r6, -112",
            "lg %r3, {flags}(%r2)",
            "lg %r4, {tid}(%r2)",
            "lgr %r5, %r4",
            "lg %r6, {tls}(%r2)",
            "lg %r0, {start}(%r2)",
            "lg %r2, {stack}(%r2)",
            "aghi %r2, -({frame} + 16)", // The child's frame, and its first word above.
            "xc 0(8,%r2), 0(%r2)",       // End of the frame chain.
            "stg %r0, {frame}(%r2)",
            "lghi %r1, {nr}",
            "svc 0",
            "lg %r6, 48(%r15)",
            "ltgr %r2, %r2",
            "bnzr %r14", // Parent, or failure: the result is in r2.
            ".cfi_undefined %r14",
            "lg %r2, {frame}(%r15)", // Child: the word that the parent left above the frame.
            "brasl %r14, {thread}",
            ".short 0", // Never returns.
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

    unsafe extern "C" fn fork() -> isize {
        // SAFETY: 1. The caller guarantees it. On this machine the stack comes before the flags.
        unsafe { Self::syscall5(k::__NR_clone as usize, 0, k::SIGCHLD as usize, 0, 0, 0) }
    }

    unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> ! {
        // SAFETY: 1. to 3. The caller guarantees them: the mapping may go, and nothing runs on it
        // afterwards. The second call needs no memory and does not return.
        unsafe {
            asm!(
                "svc 0", // munmap(base, len)
                "lghi %r2, 0",
                "lghi %r1, {exit}",
                "svc 0",
                ".short 0", // 0 is no instruction.
                exit = const k::__NR_exit,
                in("r1") k::__NR_munmap as usize,
                in("r2") base,
                in("r3") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(_code: Range<usize>) -> isize {
        // The processor itself notices a store to instructions that it has fetched. A serialization
        // makes it drop what it has prefetched, and this fence is one. Source: Principles of
        // Operation, "Instruction fetching".
        fence(SeqCst);
        0
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Restorer =
        Restorer::Field { flag: k::SA_RESTORER, with_info: rt_sigaction_return, plain: sigaction_return };

    type Sigaction = WithRestorer;
}

/// [`Arch::STRLEN`] by SEARCH STRING, which looks for the byte in the low half of r0.
#[inline(always)]
unsafe fn strlen(s: *const u8) -> usize {
    let end: usize;
    // SAFETY: 1. It reads no byte after the NUL.
    unsafe {
        asm!(
            "lghi %r0, 0",
            "lghi {end}, 0", // No end: the NUL is found before.
            "2: srst {end}, {at}",
            "jo 2b", // The processor may stop early; `at` is then where to continue.
            at = inout(reg_addr) s => _,
            end = out(reg_addr) end,
            out("r0") _,
            options(pure, readonly, nostack),
        );
    }
    end - s.addr()
}

/// [`Arch::COMPARE`] by COMPARE LOGICAL of up to 256 bytes. Its condition code says which is less.
#[inline(always)]
unsafe fn compare(a: *const u8, b: *const u8, n: usize) -> c_int {
    if n == 0 {
        return 0;
    }
    let order: u64;
    // SAFETY: 1. It reads `n` bytes at `a` and at `b`.
    unsafe {
        asm!(
            "cgije {rounds}, 0, 3f",
            "2: clc 0(256, {a}), 0({b})",
            "jne 4f",
            "la {a}, 256({a})",
            "la {b}, 256({b})",
            "brctg {rounds}, 2b",
            "3: exrl {last}, 5f", // Runs 5 with the low byte of `last` as its length less one.
            "4: ipm {order}",
            ".subsection 1",
            "5: clc 0(1, {a}), 0({b})",
            ".previous",
            a = inout(reg_addr) a => _,
            b = inout(reg_addr) b => _,
            rounds = inout(reg) (n - 1) / 256 => _, // All but the last 1 to 256 bytes.
            last = in(reg_addr) n - 1,
            order = lateout(reg) order,
            options(pure, readonly, nostack),
        );
    }
    // Bits 28 and 29 hold the condition code: 0 for equal, 1 if `a` is less, 2 if `a` is greater.
    // As a signed number of two bits it is 0, 1 or -2.
    -((order as i32) << 2 >> 30)
}

/// A handler's third argument, as far as [`Arch::CONTEXT`] needs it: asm/ucontext.h, then
/// `_sigregs` of asm/sigcontext.h.
#[repr(C)]
#[allow(dead_code)] // Only its offsets are used.
struct Ucontext {
    flags_and_link: [usize; 2],
    stack: k::sigaltstack,
    psw_mask: u64,
    psw_address: u64,
    r0_to_r10: [u64; 11],
    r11: u64,
    r12_to_r14: [u64; 3],
    r15: u64,
}

/// A handler that was installed with `SA_SIGINFO` returns here. libgcc recognises the frame by this
/// one instruction, which contains the number of the call.
#[unsafe(naked)]
unsafe extern "C" fn rt_sigaction_return() {
    // Fails only by a seccomp filter; then the thread cannot go on. 0 is no instruction.
    naked_asm!("svc {nr}", ".short 0", nr = const k::__NR_rt_sigreturn)
}

/// All other handlers return here: the kernel builds the older frame for them. libgcc recognises
/// this instruction too.
#[unsafe(naked)]
unsafe extern "C" fn sigaction_return() {
    naked_asm!("svc {nr}", ".short 0", nr = const k::__NR_sigreturn)
}
