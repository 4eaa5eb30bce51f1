//! riscv64 and riscv32 (RV64GC lp64d, RV32GC ilp32d), EM 243. They differ in the width of a word and in a few calls.
//!
//! - System call: `ecall`; number in a7; arguments in a0 to a5; result in a0, a failure is -4095..=-1. The kernel keeps
//!   everything else but the vector registers and vl, vtype, vxrm, vxsat. Source: arch/riscv/kernel/entry.S,
//!   Documentation/arch/riscv/vector.rst.
//! - riscv32 has only the calls with 64-bit times, and mmap2, whose offset counts 4096 bytes. Source:
//!   include/uapi/asm-generic/unistd.h (`__ARCH_WANT_TIME32_SYSCALLS`), arch/riscv/kernel/sys_riscv.c.
//! - Entry: sp is 16-aligned and points at argc; no other register is promised. gp must hold `__global_pointer$` before
//!   code that the linker relaxed to use it. Source: start_thread in arch/riscv/kernel/process.c, RISC-V ELF psABI.
//! - Thread pointer: tp (x4), a register like any other to the kernel; TLS variant I, tp at the image itself (no TCB,
//!   no bias). Source: RISC-V ELF psABI, "Thread Local Storage".
//! - clone(2): flags, stack, ptid, tls, ctid (CONFIG_CLONE_BACKWARDS).
//! - Signals: no restorer; the handler returns through the vDSO. Source: arch/riscv/kernel/signal.c.
//! - Frame chain: s0 (fp) points above the return address and the caller's s0.
//! - Stack: always 16-aligned, no red zone. Source: RISC-V ELF psABI, "Integer Calling Convention".

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_ulong, c_void};
use core::mem::offset_of;

use linux_raw_sys::general as k;
#[cfg(target_pointer_width = "64")]
use linux_raw_sys::general::{__NR_clock_gettime, __NR_clock_nanosleep, __NR_futex, __NR_ppoll, __NR_timer_settime};
#[cfg(target_pointer_width = "32")]
use linux_raw_sys::general::{
    __NR_clock_gettime64 as __NR_clock_gettime, __NR_clock_nanosleep_time64 as __NR_clock_nanosleep,
    __NR_futex_time64 as __NR_futex, __NR_ppoll_time64 as __NR_ppoll, __NR_timer_settime64 as __NR_timer_settime,
};

use crate::arch::{Arch, CloneArgs, Context, Credentials, Frames, Mmap, RawAction, Timed, Tls, Vdso};

pub(crate) struct Cpu;

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller vouches for the call; the kernel keeps all but a0 and the vector state, whose
            // control registers are destroyed by default.
            unsafe {
                asm!(
                    "ecall",
                    in("a7") nr,
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
    const FUTEX: Timed = Timed::Wide(__NR_futex);
    const CLOCK_GETTIME: Timed = Timed::Wide(__NR_clock_gettime);
    const CLOCK_NANOSLEEP: Timed = Timed::Wide(__NR_clock_nanosleep);
    const PPOLL: Timed = Timed::Wide(__NR_ppoll);
    const TIMER_SETTIME: Timed = Timed::Wide(__NR_timer_settime);
    const EVEN_PAIRS: bool = false;
    const TLS: Tls = Tls::Above { tcb: 0, bias: 0 };
    const UNALIGNED_WORDS: bool = false;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_4.15"],
        clock_gettime: if usize::BITS == 64 { "__vdso_clock_gettime" } else { "__vdso_clock_gettime64" },
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__vdso_getrandom",
    };
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext, context.pc),
        sp: offset_of!(Ucontext, context.sp),
        fp: offset_of!(Ucontext, context.s0),
    };
    const FRAMES: Option<Frames> = {
        let word = size_of::<usize>() as isize;
        Some(Frames { caller: -2 * word, return_address: -word, in_callers: false })
    };
    const CREDENTIALS: Credentials = Credentials {
        setuid: k::__NR_setuid,
        setgid: k::__NR_setgid,
        setgroups: k::__NR_setgroups,
        setresuid: k::__NR_setresuid,
        setresgid: k::__NR_setresgid,
    };

    syscall!(syscall0());
    syscall!(syscall1(a in "a0"));
    syscall!(syscall2(a in "a0", b in "a1"));
    syscall!(syscall3(a in "a0", b in "a1", c in "a2"));
    syscall!(syscall4(a in "a0", b in "a1", c in "a2", d in "a3"));
    syscall!(syscall5(a in "a0", b in "a1", c in "a2", d in "a3", e in "a4"));
    syscall!(syscall6(a in "a0", b in "a1", c in "a2", d in "a3", e in "a4", f in "a5"));

    #[unsafe(naked)]
    #[cfg_attr(not(test), unsafe(no_mangle))]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined ra", // Nobody called us: unwinders stop here.
            ".option push",
            ".option norelax", // Else the linker may turn the next line into `mv gp, gp`.
            "lla gp, __global_pointer$",
            ".option pop",
            "li s0, 0",         // End of the frame chain,
            "li ra, 0",         // and nothing to return to.
            "mv a0, sp",        // Where argc, argv, envp and auxv lie.
            "andi sp, sp, -16", // The kernel aligns it; a loader may not.
            "tail {start}",     // Never returns.
            ".cfi_endproc",
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: compiled code only reads tp, and what it will find there our caller vouches for by 1.
        unsafe { asm!("mv tp, {}", in(reg) tp, options(nostack, preserves_flags)) };
        0
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // Not `nomem`, though it reads no memory: then it could be moved to before the thread pointer is set.
        // SAFETY: 1. The thread pointer is set.
        unsafe { asm!("mv {}, tp", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    #[inline(never)]
    unsafe fn clone_thread(args: &CloneArgs) -> isize {
        #[unsafe(naked)]
        unsafe extern "C" fn clone(args: *const CloneArgs) -> isize {
            //   C: clone(args)    kernel: clone(flags, stack, ptid, tls, ctid)
            //            a0                      a0     a1     a2   a3    a4
            naked_asm!(
                ".cfi_startproc",
                load!("a1, {stack}(a0)"),
                load!("t0, {start}(a0)"),
                "addi a1, a1, -16", // The child's first words, above its stack pointer; still 16-aligned.
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
                load!("a0, 0(sp)"),   // What the parent left above the stack pointer.
                "tail {thread}",      // Never returns. gp came along with the parent's registers.
                ".cfi_endproc",
                stack = const offset_of!(CloneArgs, stack),
                start = const offset_of!(CloneArgs, start),
                tid = const offset_of!(CloneArgs, tid),
                tls = const offset_of!(CloneArgs, tls),
                flags = const offset_of!(CloneArgs, flags),
                nr = const k::__NR_clone,
                thread = sym crate::thread::rust_thread,
            )
        }
        // SAFETY: 1. to 3. are our caller's.
        unsafe { clone(args) }
    }

    unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> ! {
        // SAFETY: 1. to 3. are our caller's: the mapping may go, and nothing runs on it after; the second call needs no
        // memory and does not return.
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

    vdso_in_c!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Option<unsafe extern "C" fn()> = None;

    type Sigaction = Sigaction;

    fn sigaction(action: RawAction) -> Sigaction {
        // SAFETY: both are pointers that the kernel only stores; its type for them is an optional function pointer,
        // whose None is SIG_DFL.
        let sa_handler_kernel = unsafe { core::mem::transmute::<usize, k::__kernel_sighandler_t>(action.handler) };
        let sa_mask = action.mask;
        let spare = sa_mask.sig[sa_mask.sig.len() - 1];
        Sigaction {
            kernel: k::kernel_sigaction { sa_handler_kernel, sa_flags: action.flags as c_ulong, sa_mask },
            spare,
        }
    }

    fn raw_action(Sigaction { kernel, .. }: Sigaction) -> RawAction {
        RawAction {
            handler: kernel.sa_handler_kernel.map_or(0, |f| f as usize),
            flags: kernel.sa_flags as usize,
            mask: kernel.sa_mask,
        }
    }
}

/// What a handler gets, as far as [`Arch::CONTEXT`] needs it: asm/ucontext.h.
#[repr(C)]
#[allow(dead_code)] // Only its offsets are used.
struct Ucontext {
    flags_and_link: [usize; 2],
    stack: k::sigaltstack,
    sigmask: k::kernel_sigset_t,
    reserved: [u8; 1024 / 8 - size_of::<k::kernel_sigset_t>()],
    context: Sigcontext,
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

/// struct sigaction, and room behind it that the kernel does not look at.
///
/// qemu-user 7.2 believes in a restorer before the mask, as on other machines: it reads and writes one word more.
/// Without the room, an old action overwrites what lies behind it. With 64-bit words it finds the mask there too; with
/// 32-bit ones it takes the mask's second half for the first.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Sigaction {
    kernel: k::kernel_sigaction,
    spare: c_ulong,
}
