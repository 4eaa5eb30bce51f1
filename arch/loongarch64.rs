//! loongarch64 (LP64D), EM 258.
//!
//! - System call: `syscall 0`; number in $a7; arguments in $a0 to $a5; result in $a0, a failure is
//!   -4095..=-1. A call that is restarted through its restart block leaves `restart_syscall` in
//!   $a7. Source: arch_do_signal_or_restart in arch/loongarch/kernel/signal.c. The kernel destroys
//!   $t0 to $t8 (it saves them only for exceptions) and keeps everything else, $fcc0 to $fcc7
//!   included. Source: handle_syscall in arch/loongarch/kernel/entry.S.
//! - Entry: $sp is 16-aligned and points at argc; no other register is promised. Source:
//!   start_thread in arch/loongarch/kernel/process.c.
//! - Thread pointer: $tp ($r2), an ordinary register to the kernel; TLS variant I, $tp at the image
//!   itself (no TCB, no bias). Source: LoongArch ELF psABI.
//! - clone(2): flags, stack, ptid, ctid, tls (no CONFIG_CLONE_BACKWARDS, unlike riscv).
//! - Signals: no restorer; the handler returns through the vDSO. Source:
//!   arch/loongarch/kernel/signal.c.
//! - Frame chain: $fp points above the return address and the caller's $fp.
//! - Stack: always 16-aligned, no red zone. Source: LoongArch procedure call standard.

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Compare, Context, Credentials, Frames, Guard, Mmap, Registers, Restorer, Strlen, Timed, Tls,
    Ucontext, Vdso, WithoutRestorer,
};

pub(crate) struct Cpu;

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller guarantees it. The kernel changes only $a0, $a7 and $t0 to $t8.
            unsafe {
                asm!(
                    "syscall 0",
                    inlateout("$a7") nr => _,
                    $(in($reg) $arg,)*
                    lateout("$a0") ret,
                    lateout("$t0") _, lateout("$t1") _, lateout("$t2") _, lateout("$t3") _, lateout("$t4") _,
                    lateout("$t5") _, lateout("$t6") _, lateout("$t7") _, lateout("$t8") _,
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
    const TLS: Tls = Tls::Above { tcb: 0, bias: 0 };
    const GUARD: Guard = Guard::Variable;
    const UNALIGNED_WORDS: bool = true;
    const BULK: Option<Bulk> = None;
    integer!(Pair, pair, xor, or, is_zero);
    const STRLEN: Option<Strlen> = None;
    const COMPARE: Option<Compare> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_5.10"],
        clock_gettime: "__vdso_clock_gettime",
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__vdso_getrandom",
    };
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext<Sigcontext>, context.pc),
        sp: offset_of!(Ucontext<Sigcontext>, context.sp),
        fp: offset_of!(Ucontext<Sigcontext>, context.fp),
        link: Some(offset_of!(Ucontext<Sigcontext>, context.zero_ra_tp) + 8),
        registers: &[Registers {
            at: offset_of!(Ucontext<Sigcontext>, context.pc),
            apart: 8,
            names: "pc zero ra tp sp a0 a1 a2 a3 a4 a5 a6 a7 t0 t1 t2 t3 t4 t5 t6 t7 t8 r21 fp s0 s1 s2 s3 s4 s5 s6 \
                    s7 s8",
        }],
    };
    const FRAMES: Option<Frames> =
        Some(Frames { caller: -16, return_address: -8, in_callers: false, past_call: 1, elsewhere: None });
    const STACK_PROBES: bool = false;
    const CREDENTIALS: Credentials = Credentials::PLAIN;

    syscall!(syscall0());
    syscall!(syscall1(a in "$a0"));
    syscall!(syscall2(a in "$a0", b in "$a1"));
    syscall!(syscall3(a in "$a0", b in "$a1", c in "$a2"));
    syscall!(syscall4(a in "$a0", b in "$a1", c in "$a2", d in "$a3"));
    syscall!(syscall5(a in "$a0", b in "$a1", c in "$a2", d in "$a3", e in "$a4"));
    syscall!(syscall6(a in "$a0", b in "$a1", c in "$a2", d in "$a3", e in "$a4", f in "$a5"));

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined $ra",         // No caller: unwinders stop here.
            "move $fp, $zero",            // End of the frame chain,
            "move $ra, $zero",            // and nothing to return to.
            "move $a0, $sp",              // Address of argc, argv, envp and auxv.
            "bstrins.d $sp, $zero, 3, 0", // The kernel aligns it to 16; a loader may not.
            "tail36 $t0, {start}",        // Never returns. Reaches all code; `b` only 128 MiB.
            ".cfi_endproc",
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: compiled code only reads $tp, and the caller guarantees the value (1).
        unsafe { asm!("move $tp, {}", in(reg) tp, options(nostack, preserves_flags)) };
        0
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // Not `nomem`, although it reads no memory: the compiler could move it before
        // `set_thread_pointer`.
        // SAFETY: 1. The thread pointer is set.
        unsafe { asm!("move {}, $tp", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    #[unsafe(naked)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        //   C: clone(args)    kernel: clone(flags, stack, ptid, ctid, tls)
        //            $a0                     $a0    $a1    $a2   $a3   $a4
        naked_asm!(
            ".cfi_startproc",
            "ld.d $a1, $a0, {stack}",
            "ld.d $t0, $a0, {start}",
            "addi.d $a1, $a1, -16", // The child's first words, at its stack pointer; 16-aligned.
            "st.d $t0, $a1, 0",
            "ld.d $a2, $a0, {tid}",
            "move $a3, $a2",
            "ld.d $a4, $a0, {tls}",
            "ld.d $a0, $a0, {flags}",
            "li.w $a7, {nr}",
            "syscall 0",
            "beqz $a0, 2f",
            "ret", // Parent, or failure: the result is in $a0.
            "2:",
            ".cfi_undefined $ra",
            "move $fp, $zero",      // Child: end of the frame chain,
            "move $ra, $zero",      // and nothing to return to.
            "ld.d $a0, $sp, 0",     // The word that the parent left at the stack pointer.
            "tail36 $t0, {thread}", // Never returns.
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
                "syscall 0", // munmap(base, len)
                "move $a0, $zero",
                "li.w $a7, {exit}",
                "syscall 0",
                "break 0",
                exit = const k::__NR_exit,
                in("$a7") k::__NR_munmap as usize,
                in("$a0") base,
                in("$a1") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(_code: Range<usize>) -> isize {
        // The caches are coherent; this makes the processor drop what it has prefetched. Source:
        // local_flush_icache_range in arch/loongarch/mm/cache.c.
        // SAFETY: a barrier is always allowed.
        unsafe { asm!("ibar 0", options(nostack, preserves_flags)) };
        0
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Restorer = Restorer::Kernels;

    type Sigaction = WithoutRestorer;
}

/// asm/sigcontext.h; aligned by what follows.
#[repr(C, align(16))]
#[allow(dead_code)]
struct Sigcontext {
    pc: u64,
    zero_ra_tp: [u64; 3],
    sp: u64,
    r4_to_r21: [u64; 18],
    fp: u64,
}
