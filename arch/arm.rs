//! arm (32 bits, EABI), EM 40, from v5TE on, both endians; all code here is A32, not Thumb.
//!
//! - System call: `svc 0`; number in r7; arguments in r0 to r5; result in r0, a failure is
//!   -4095..=-1. A call that is restarted through its restart block leaves `restart_syscall` in r7:
//!   on a 64-bit kernel (compat_setup_restart_syscall in arch/arm64/kernel/signal32.c) and on old
//!   32-bit ones (do_signal in arch/arm/kernel/signal.c; newer ones restart inside the kernel, in
//!   slow_work_pending of entry-common.S). The kernel keeps all other registers. Source:
//!   syscall(2).
//! - Entry: sp is 16-aligned and points at argc; all other registers are 0. Source:
//!   arch/arm/include/asm/processor.h.
//! - Thread pointer: set by a call of this machine's own, `set_tls`; read from the register
//!   TPIDRURO, which v7 and v6K have. Without the register the kernel has a function at a fixed
//!   address that reads the thread pointer; with the register that function may be missing. TLS
//!   variant I, a control block of 8 bytes. Source: Documentation/arch/arm/kernel_user_helpers.rst,
//!   arch/arm/include/asm/tls.h; AAELF32.
//! - clone(2): flags, stack, ptid, tls, ctid.
//! - Signals: a restorer is optional, else the kernel has a page of them; debuggers recognise both
//!   by their instructions. Two forms of frame, with and without `SA_SIGINFO`, and each has its own
//!   call to return. Source: arch/arm/kernel/signal.c.
//! - Stack: 8-aligned at every call; no red zone. Source: AAPCS32, 6.2.1.

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Compare, Context, Credentials, Frames, Guard, Mmap, Registers, Restorer, Strlen, Timed, Tls,
    Vdso, WithRestorer,
};

pub(crate) struct Cpu;

// The naked functions use only instructions of v4: link-time optimisation parses them without the
// target's features, and then refuses even `bx`.

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller guarantees it. The kernel changes only r0 and r7.
            unsafe {
                asm!(
                    "svc #0",
                    inlateout("r7") nr => _,
                    $(in($reg) $arg,)*
                    lateout("r0") ret,
                    options(nostack, preserves_flags),
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
    const TLS: Tls = Tls::Above { tcb: 8, bias: 0 };
    const GUARD: Guard = Guard::Variable;
    const UNALIGNED_WORDS: bool = false;
    // `ldm` and `stm` move eight words at once; the compiler does not make them of single loads and
    // stores.
    const BULK: Option<Bulk> = Some(Bulk { copy_from: 32, set_from: 32, apart: 0, copy: copy_words, set: set_words });
    integer!(Pair, pair, xor, or, is_zero);
    const STRLEN: Option<Strlen> = None;
    const COMPARE: Option<Compare> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6"],
        clock_gettime: "__vdso_clock_gettime64",
        clock_gettime_narrow: Some("__vdso_clock_gettime"),
        narrow_vouches_for_wide: true,
        getrandom: "__vdso_getrandom",
    };
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext, pc),
        sp: offset_of!(Ucontext, sp),
        fp: offset_of!(Ucontext, fp),
        link: Some(offset_of!(Ucontext, lr)),
        registers: &[Registers {
            at: offset_of!(Ucontext, r0_to_r10),
            apart: 4,
            names: "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 fp ip sp lr pc cpsr",
        }],
    };
    const FRAMES: Option<Frames> =
        Some(Frames { caller: 0, return_address: 4, in_callers: false, past_call: 1, elsewhere: None });
    const STACK_PROBES: bool = false;
    const CREDENTIALS: Credentials = Credentials {
        getuid: k::__NR_getuid32,
        setuid: k::__NR_setuid32,
        setgid: k::__NR_setgid32,
        setgroups: k::__NR_setgroups32,
        setreuid: k::__NR_setreuid32,
        setregid: k::__NR_setregid32,
        setresuid: k::__NR_setresuid32,
        setresgid: k::__NR_setresgid32,
        ids: [
            k::__NR_getuid32,
            k::__NR_geteuid32,
            k::__NR_getgid32,
            k::__NR_getegid32,
            k::__NR_setfsuid32,
            k::__NR_setfsgid32,
        ],
    };

    syscall!(syscall0());
    syscall!(syscall1(a in "r0"));
    syscall!(syscall2(a in "r0", b in "r1"));
    syscall!(syscall3(a in "r0", b in "r1", c in "r2"));
    syscall!(syscall4(a in "r0", b in "r1", c in "r2", d in "r3"));
    syscall!(syscall5(a in "r0", b in "r1", c in "r2", d in "r3", e in "r4"));
    syscall!(syscall6(a in "r0", b in "r1", c in "r2", d in "r3", e in "r4", f in "r5"));

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined lr", // No caller: unwinders stop here.
            "mov fp, #0",        // End of the frame chain.
            "mov r0, sp",        // Address of argc, argv, envp and auxv.
            "bic sp, r0, #15",   // The kernel aligns it; a loader may not.
            "bl {start}",
            "udf #0", // Never returns.
            ".cfi_endproc",
            start = sym tls_register::start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: 1. set_tls only sets the thread pointer, and the caller guarantees the value.
        unsafe { Self::syscall1(k::__ARM_NR_set_tls as usize, tp.expose_provenance()) }
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        tls_register::read()
    }

    #[unsafe(naked)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        //   C: clone(args)    kernel: clone(flags, stack, ptid, tls, ctid)
        //             r0                       r0     r1    r2   r3    r4
        naked_asm!(
            ".cfi_startproc",
            "push {{r4, r7, lr}}",
            ".cfi_def_cfa_offset 12",
            ".cfi_offset r4, -12",
            ".cfi_offset r7, -8",
            ".cfi_offset lr, -4",
            "ldr r1, [r0, #{stack}]",
            "ldr r3, [r0, #{start}]",
            "str r3, [r1, #-16]!", // The child's first words, at its stack pointer; 16-aligned.
            "ldr r2, [r0, #{tid}]",
            "mov r4, r2",
            "ldr r3, [r0, #{tls}]",
            "ldr r0, [r0, #{flags}]",
            "mov r7, #{nr}",
            "svc #0",
            "cmp r0, #0",
            "beq 2f",
            "pop {{r4, r7, pc}}", // Parent, or failure: the result is in r0.
            "2:",
            ".cfi_undefined lr",
            "mov fp, #0",   // Child: end of the frame chain.
            "ldr r0, [sp]", // The word that the parent left at the stack pointer.
            "bl {thread}",
            "udf #0", // Never returns.
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
                "svc #0", // munmap(base, len)
                "mov r0, #0",
                "mov r7, #{exit}",
                "svc #0",
                "udf #0",
                exit = const k::__NR_exit,
                in("r7") k::__NR_munmap,
                in("r0") base,
                in("r1") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(code: Range<usize>) -> isize {
        // Its flags must be 0. Source: do_cache_op in arch/arm/kernel/traps.c.
        // SAFETY: 1. It changes no value.
        unsafe { Self::syscall3(k::__ARM_NR_cacheflush as usize, code.start, code.end, 0) }
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Restorer =
        Restorer::Field { flag: k::SA_RESTORER, with_info: rt_sigaction_return, plain: sigaction_return };

    type Sigaction = WithRestorer;
}

/// [`Bulk::copy`]. Both addresses are aligned, because `UNALIGNED_WORDS` is false.
unsafe fn copy_words(dest: *mut u8, src: *const u8, words: usize) {
    // SAFETY: 1. and 2. The caller guarantees them.
    unsafe { copy_aligned(dest, src, words) };
}

/// [`Bulk::set`]. `dest` is aligned, because `UNALIGNED_WORDS` is false.
unsafe fn set_words(dest: *mut u8, word: usize, words: usize) {
    // SAFETY: 1. The caller guarantees it.
    unsafe { set_aligned(dest, word, words) };
}

/// Copies words upward: eight at a time, the last few one by one.
///
/// # Safety
///
/// 1. `words` words are readable at `src` and writable at `dest`, and both are aligned.
/// 2. `dest` is not strictly inside the source.
#[unsafe(naked)]
unsafe extern "C" fn copy_aligned(dest: *mut u8, src: *const u8, words: usize) {
    naked_asm!(
        // r0: dest, r1: src, r2: words left, less eight.
        "push {{r4, r5, r6, r7, r8, r9, r10, lr}}",
        "subs r2, r2, #8",
        "blo 3f",
        "2: ldmia r1!, {{r3, r4, r5, r6, r7, r8, r9, r10}}",
        "subs r2, r2, #8",
        "stmia r0!, {{r3, r4, r5, r6, r7, r8, r9, r10}}",
        "bhs 2b",
        "3: adds r2, r2, #8",
        "beq 5f",
        "4: ldr r3, [r1], #4",
        "subs r2, r2, #1",
        "str r3, [r0], #4",
        "bne 4b",
        "5: pop {{r4, r5, r6, r7, r8, r9, r10, pc}}",
    )
}

/// Stores a word `words` times: eight at a time, the last few one by one.
///
/// # Safety
///
/// 1. `words` words are writable at `dest`, which is aligned.
#[unsafe(naked)]
unsafe extern "C" fn set_aligned(dest: *mut u8, word: usize, words: usize) {
    naked_asm!(
        // r0: dest, r1: the word, r2: words left, less eight.
        "push {{r4, r5, r6, r7, r8, lr}}",
        "mov r3, r1",
        "mov r4, r1",
        "mov r5, r1",
        "mov r6, r1",
        "mov r7, r1",
        "mov r8, r1",
        "mov r12, r1",
        "subs r2, r2, #8",
        "blo 3f",
        "2: stmia r0!, {{r1, r3, r4, r5, r6, r7, r8, r12}}",
        "subs r2, r2, #8",
        "bhs 2b",
        "3: adds r2, r2, #8",
        "beq 5f",
        "4: str r1, [r0], #4",
        "subs r2, r2, #1",
        "bne 4b",
        "5: pop {{r4, r5, r6, r7, r8, pc}}",
    )
}

/// A handler's third argument, as far as [`Arch::CONTEXT`] needs it: asm/ucontext.h, then `struct
/// sigcontext` of asm/sigcontext.h.
#[repr(C)]
#[allow(dead_code)] // Only its offsets are used.
struct Ucontext {
    flags_and_link: [usize; 2],
    stack: k::sigaltstack,
    trap_no_error_code_oldmask: [u32; 3],
    r0_to_r10: [u32; 11],
    fp: u32,
    ip: u32,
    sp: u32,
    lr: u32,
    pc: u32,
}

/// The thread pointer of a program that is compiled for processors with the register.
#[cfg(target_feature = "v6k")]
mod tls_register {
    use core::arch::{asm, naked_asm};

    pub(super) use crate::start::rust_start as start;

    #[inline(always)]
    pub(super) fn read() -> *mut u8 {
        let tp;
        // SAFETY: reading it is always allowed. `readonly` instead of `nomem` keeps it after
        // `set_thread_pointer`.
        unsafe { asm!("mrc p15, 0, {}, c13, c0, 3", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    /// Compiled code calls this to find its thread-local variables. Source: RTABI32, 4.3.5.
    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_aeabi_read_tp")]
    unsafe extern "C" fn __aeabi_read_tp() -> *mut u8 {
        naked_asm!(".cfi_startproc", "mrc p15, 0, r0, c13, c0, 3", "mov pc, lr", ".cfi_endproc")
    }
}

/// The thread pointer of a program that also runs on processors without the register. It uses the
/// register where that exists, because kernels for v7 and v8 may lack the function.
#[cfg(not(target_feature = "v6k"))]
mod tls_register {
    use core::arch::{asm, naked_asm};
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use linux_raw_sys::auxvec;

    /// The function that reads the thread pointer: the kernel's at its fixed address, or
    /// `read_register`. Both change no other register than r0.
    static READ: AtomicUsize = AtomicUsize::new(0xffff_0fe0);

    /// The bit of `AT_HWCAP` that reports the register; asm/hwcap.h.
    const HWCAP_TLS: usize = 1 << 15;

    /// Reads the register's bit in the auxiliary vector, before Rust starts and uses the thread
    /// pointer.
    #[unsafe(naked)]
    pub(super) unsafe extern "C" fn start(sp: *const usize) -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined lr",
            "ldr r1, [r0]", // Skip argc, argv and its null,
            "add r1, r0, r1, lsl #2",
            "add r1, r1, #8",
            "2:",
            "ldr r2, [r1], #4", // skip envp and its null,
            "cmp r2, #0",
            "bne 2b",
            "3:",
            "ldr r2, [r1], #8", // then search the pairs of auxv.
            "cmp r2, #{at_null}",
            "beq 4f", // No AT_HWCAP: use the kernel's function.
            "cmp r2, #{at_hwcap}",
            "bne 3b",
            "ldr r2, [r1, #-4]",
            "tst r2, #{hwcap_tls}",
            "ldrne r2, ={read_register}",
            "ldrne r3, ={read}",
            "strne r2, [r3]",
            "4:",
            "b {start}",
            ".ltorg",
            ".cfi_endproc",
            at_null = const auxvec::AT_NULL,
            at_hwcap = const auxvec::AT_HWCAP,
            hwcap_tls = const HWCAP_TLS,
            read_register = sym read_register,
            read = sym READ,
            start = sym crate::start::rust_start,
        )
    }

    #[unsafe(naked)]
    unsafe extern "C" fn read_register() -> *mut u8 {
        naked_asm!(".cfi_startproc", "mrc p15, 0, r0, c13, c0, 3", "mov pc, lr", ".cfi_endproc")
    }

    #[inline(always)]
    pub(super) fn read() -> *mut u8 {
        let tp;
        // Relaxed: only `start` writes it, before there is a second thread.
        let read = READ.load(Relaxed);
        // SAFETY: reading the thread pointer is always allowed, and `read` is one of the two
        // functions. `readonly` instead of `nomem` keeps it after `set_thread_pointer`.
        unsafe {
            asm!(
                "blx r0",
                inlateout("r0") read => tp,
                out("lr") _,
                options(nostack, pure, readonly, preserves_flags),
            );
        }
        tp
    }

    /// Compiled code calls this to find its thread-local variables. It may change ip besides r0.
    /// Source: RTABI32, 4.3.5.
    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_aeabi_read_tp")]
    unsafe extern "C" fn __aeabi_read_tp() -> *mut u8 {
        naked_asm!(
            ".cfi_startproc",
            "ldr ip, ={read}",
            "ldr pc, [ip]",
            ".ltorg",
            ".cfi_endproc",
            read = sym READ,
        )
    }
}

/// A handler that was installed with `SA_SIGINFO` returns here. gdb recognises the frame by exactly
/// these two instructions.
#[unsafe(naked)]
unsafe extern "C" fn rt_sigaction_return() {
    naked_asm!(
        "mov r7, #{nr}",
        "svc #0",
        "udf #0", // Fails only by a seccomp filter; then the thread cannot go on.
        nr = const k::__NR_rt_sigreturn,
    )
}

/// All other handlers return here: the kernel builds the older frame for them. gdb recognises these
/// two instructions too.
#[unsafe(naked)]
unsafe extern "C" fn sigaction_return() {
    naked_asm!(
        "mov r7, #{nr}",
        "svc #0",
        "udf #0", // Fails only by a seccomp filter; then the thread cannot go on.
        nr = const k::__NR_sigreturn,
    )
}
