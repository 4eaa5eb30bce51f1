//! riscv64 and riscv32 (RV64GC lp64d, RV32GC ilp32d), EM 243. They differ in the width of a word
//! and in a few calls.
//!
//! - System call: `ecall`; number in a7; arguments in a0 to a5; result in a0, a failure is
//!   -4095..=-1. A call that is restarted through its restart block leaves `restart_syscall` in a7.
//!   Source: arch_do_signal_or_restart in arch/riscv/kernel/signal.c. The kernel keeps everything
//!   else but the vector registers and vl, vtype, vxrm, vxsat. Source: do_trap_ecall_u in
//!   arch/riscv/kernel/traps.c, Documentation/arch/riscv/vector.rst.
//! - riscv32 has only the calls with 64-bit times, and mmap2, whose offset counts 4096 bytes.
//!   Source: include/uapi/asm-generic/unistd.h (`__ARCH_WANT_TIME32_SYSCALLS`),
//!   arch/riscv/kernel/sys_riscv.c.
//! - Entry: sp is 16-aligned and points at argc; no other register is promised. gp must hold
//!   `__global_pointer$` before code that the linker relaxed to use it. Source: start_thread in
//!   arch/riscv/kernel/process.c, RISC-V ELF psABI.
//! - Thread pointer: tp (x4), an ordinary register to the kernel; TLS variant I, tp at the image
//!   itself (no TCB, no bias). Source: RISC-V ELF psABI, "Thread Local Storage".
//! - clone(2): flags, stack, ptid, tls, ctid (CONFIG_CLONE_BACKWARDS).
//! - Signals: no restorer; the handler returns through the vDSO. Source:
//!   arch/riscv/kernel/signal.c.
//! - Frame chain: s0 (fp) points above the return address and the caller's s0.
//! - Stack: always 16-aligned, no red zone. Source: RISC-V ELF psABI, "Integer Calling Convention".

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::{errno, general as k};

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
            // SAFETY: 1. The caller guarantees it. The kernel changes only a0, a7 and the vector
            // state, whose control registers an `asm!` destroys by default.
            unsafe {
                asm!(
                    "ecall",
                    inlateout("a7") nr => _,
                    $(in($reg) $arg,)*
                    lateout("a0") ret,
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _,
                    out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
                    out("v14") _, out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
                    out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _,
                    out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                    options(nostack),
                );
            }
            ret
        }
    };
}

/// Loads a word of a register's width.
macro_rules! load {
    ($operands:literal) => {
        core::cfg_select! {
            target_pointer_width = "64" => { concat!("ld ", $operands) }
            _ => { concat!("lw ", $operands) }
        }
    };
}

/// Stores a word of a register's width.
macro_rules! store {
    ($operands:literal) => {
        core::cfg_select! {
            target_pointer_width = "64" => { concat!("sd ", $operands) }
            _ => { concat!("sw ", $operands) }
        }
    };
}

impl Arch for Cpu {
    #[cfg(target_pointer_width = "64")]
    const MMAP: Mmap = Mmap::Bytes(k::__NR_mmap);
    #[cfg(target_pointer_width = "32")]
    const MMAP: Mmap = Mmap::Units4096(k::__NR_mmap2);
    #[cfg(target_pointer_width = "64")]
    timed!(plain FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME);
    #[cfg(target_pointer_width = "32")]
    timed!(time64 FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME);
    const EVEN_PAIRS: bool = false;
    const TLS: Tls = Tls::Above { tcb: 0, bias: 0 };
    const GUARD: Guard = Guard::Variable;
    const UNALIGNED_WORDS: bool = false;
    const BULK: Option<Bulk> = None;
    integer!(Pair, pair, xor, or, is_zero);
    const STRLEN: Option<Strlen> = None;
    const COMPARE: Option<Compare> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_4.15"],
        clock_gettime: if usize::BITS == 64 { "__vdso_clock_gettime" } else { "__vdso_clock_gettime64" },
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__vdso_getrandom",
    };
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext<Sigcontext>, context.pc),
        sp: offset_of!(Ucontext<Sigcontext>, context.sp),
        fp: offset_of!(Ucontext<Sigcontext>, context.s0),
        link: Some(offset_of!(Ucontext<Sigcontext>, context.ra)),
        registers: &[Registers {
            at: offset_of!(Ucontext<Sigcontext>, context.pc),
            apart: size_of::<usize>(),
            names: "pc ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6",
        }],
    };
    const FRAMES: Option<Frames> = {
        let word = size_of::<usize>() as isize;
        Some(Frames { caller: -2 * word, return_address: -word, in_callers: false, past_call: 1, elsewhere: None })
    };
    const STACK_PROBES: bool = false;
    const CREDENTIALS: Credentials = Credentials::PLAIN;

    syscall!(syscall0());
    syscall!(syscall1(a in "a0"));
    syscall!(syscall2(a in "a0", b in "a1"));
    syscall!(syscall3(a in "a0", b in "a1", c in "a2"));
    syscall!(syscall4(a in "a0", b in "a1", c in "a2", d in "a3"));
    syscall!(syscall5(a in "a0", b in "a1", c in "a2", d in "a3", e in "a4"));
    syscall!(syscall6(a in "a0", b in "a1", c in "a2", d in "a3", e in "a4", f in "a5"));

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined ra", // No caller: unwinders stop here.
            ".option push",
            ".option norelax", // Else the linker may turn the next line into `mv gp, gp`.
            "lla gp, __global_pointer$",
            ".option pop",
            "li s0, 0",         // End of the frame chain,
            "li ra, 0",         // and nothing to return to.
            "mv a0, sp",        // Address of argc, argv, envp and auxv.
            "andi sp, sp, -16", // The kernel aligns it; a loader may not.
            "tail {start}",     // Never returns.
            ".cfi_endproc",
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: compiled code only reads tp, and the caller guarantees the value (1).
        unsafe { asm!("mv tp, {}", in(reg) tp, options(nostack, preserves_flags)) };
        0
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // Not `nomem`, although it reads no memory: the compiler could move it before
        // `set_thread_pointer`.
        // SAFETY: 1. The thread pointer is set.
        unsafe { asm!("mv {}, tp", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    #[unsafe(naked)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        //   C: clone(args)    kernel: clone(flags, stack, ptid, tls, ctid)
        //            a0                      a0     a1     a2   a3    a4
        naked_asm!(
            ".cfi_startproc",
            load!("a1, {stack}(a0)"),
            load!("t0, {start}(a0)"),
            "addi a1, a1, -16", // The child's first words, at its stack pointer; 16-aligned.
            store!("t0, 0(a1)"),
            load!("a2, {tid}(a0)"),
            load!("a3, {tls}(a0)"),
            "mv a4, a2",
            load!("a0, {flags}(a0)"),
            "li a7, {nr}",
            "ecall",
            "beqz a0, 2f",
            "ret", // Parent, or failure: the result is in a0.
            "2:",
            ".cfi_undefined ra",
            "li s0, 0",           // Child: end of the frame chain,
            "li ra, 0",           // and nothing to return to.
            load!("a0, 0(sp)"),   // The word that the parent left at the stack pointer.
            "tail {thread}",      // Never returns. gp came along with the parent's registers.
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
                "ecall", // munmap(base, len)
                "li a0, 0",
                "li a7, {exit}",
                "ecall",
                "unimp",
                exit = const k::__NR_exit,
                in("a7") k::__NR_munmap as usize,
                in("a0") base,
                in("a1") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(code: Range<usize>) -> isize {
        const OF_ALL_THREADS: usize = 0;
        const MISSING: isize = -(errno::ENOSYS as isize);
        // SAFETY: 1. It changes no value.
        let done = unsafe { Self::syscall3(k::__NR_riscv_flush_icache as usize, code.start, code.end, OF_ALL_THREADS) };
        if done != MISSING {
            return done;
        }
        // Every kernel for this machine has the call. qemu-user lacks it: it notices a store to a
        // page whose code it has translated, and here it starts a new translation.
        // SAFETY: a barrier is always allowed.
        unsafe { asm!("fence.i", options(nostack, preserves_flags)) };
        0
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Restorer = Restorer::Kernels;

    type Sigaction = WithoutRestorer;
}

/// `struct user_regs_struct` of asm/ptrace.h, aligned by the floating point registers after it.
#[repr(C, align(16))]
#[allow(dead_code)]
struct Sigcontext {
    pc: usize,
    ra: usize,
    sp: usize,
    gp_tp_t0_t1_t2: [usize; 5],
    s0: usize,
}
