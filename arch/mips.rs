//! MIPS with the o32 ABI, both byte orders, EM 8.
//!
//! - System call: `syscall`; number in $v0; arguments in $a0-$a3, then at 16($sp) and 20($sp);
//!   result in $v0. After a failure $a3 is not 0, and $v0 is the positive error number. The kernel
//!   destroys $at, $t0-$t8, hi and lo. On each call, whatever it is, it reads 16($sp) to 28($sp).
//!   Source: arch/mips/kernel/scall32-o32.S, asm/stackframe.h. When the kernel restarts a call, it
//!   may put another number into $v0, which the result overwrites, and it puts the old $a3 back.
//!   Source: do_signal in arch/mips/kernel/signal.c.
//! - Delay slots: the instruction after a branch or jump runs before the branch takes effect. Under
//!   `.set noreorder` this code fills them.
//! - Functions: position-independent ones expect their own address in $t9 and make their $gp of it,
//!   so every call from here goes through $t9. The caller leaves the callee 16 bytes at its $sp to
//!   store $a0-$a3 in. Source: System V psABI, MIPS supplement, chapter 3.
//! - Entry: $sp is aligned and points at argc; the other registers are 0, $gp and $t9 among them.
//! - Thread pointer: the UserLocal register, set by set_thread_area(2), read by `rdhwr`; TLS
//!   variant I, biased by 0x7000.
//! - clone(2): flags, stack, ptid, tls, ctid.
//! - Signals: flags come first in struct sigaction; there are 128; no restorer, the kernel returns
//!   through its vDSO.
//! - Stack: 8-aligned, no red zone.

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Compare, Context, Credentials, FlagsFirst, Frames, Guard, Mmap, Registers, Restorer, Strlen,
    Timed, Tls, Vdso,
};

pub(crate) struct Cpu;

/// A stub is a function, not inline: in an `asm!` rustc cannot declare that $at, hi and lo are
/// destroyed, and the compiler may keep values there (half of a product that it reads later). By
/// the ABI every call of a function destroys them.
///
/// The cost is a jump to it and back: the registers that the kernel destroys are ones that a caller
/// saves at every call. No argument moves: with the number last, the C arguments are where the
/// kernel wants its own, and 16($sp) to 28($sp) are in the caller's frame.
macro_rules! syscall {
    ($name:ident($($arg:ident),*), $number:literal) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            #[unsafe(naked)]
            unsafe extern "C" fn call($($arg: usize, )* nr: usize) -> isize {
                naked_asm!(
                    ".cfi_startproc",
                    ".set push",
                    ".set noreorder",
                    $number, // Into $v0, from where `nr` lies.
                    "syscall",
                    "negu $v1, $v0",
                    "jr $ra",
                    "movn $v0, $v1, $a3", // Delay slot: a failure becomes negative.
                    ".set pop",
                    ".cfi_endproc",
                )
            }
            // SAFETY: 1. The caller guarantees it. The stub follows the C ABI.
            unsafe { call($($arg, )* nr) }
        }
    };
}

impl Arch for Cpu {
    const MMAP: Mmap = Mmap::Units4096(k::__NR_mmap2);
    timed!(both FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME);
    const EVEN_PAIRS: bool = true;
    const TLS: Tls = Tls::Above { tcb: 0, bias: 0x7000 };
    const GUARD: Guard = Guard::Variable;
    const UNALIGNED_WORDS: bool = false;
    const BULK: Option<Bulk> = None;
    integer!(Pair, pair, xor, or, is_zero);
    const STRLEN: Option<Strlen> = None;
    const COMPARE: Option<Compare> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6"],
        clock_gettime: "__vdso_clock_gettime64",
        clock_gettime_narrow: Some("__vdso_clock_gettime"),
        narrow_vouches_for_wide: false,
        getrandom: "__vdso_getrandom",
    };
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext, pc) + LOW_HALF,
        sp: offset_of!(Ucontext, r29) + LOW_HALF,
        fp: offset_of!(Ucontext, r30) + LOW_HALF,
        link: Some(offset_of!(Ucontext, r30) + 8 + LOW_HALF),
        registers: &[Registers {
            at: offset_of!(Ucontext, pc) + LOW_HALF,
            apart: 8,
            names: "pc zero at v0 v1 a0 a1 a2 a3 t0 t1 t2 t3 t4 t5 t6 t7 s0 s1 s2 s3 s4 s5 s6 s7 t8 t9 k0 k1 gp sp s8 \
                    ra",
        }],
    };
    // The ABI has no frame chain.
    const FRAMES: Option<Frames> = None;
    const STACK_PROBES: bool = false;
    const CREDENTIALS: Credentials = Credentials::PLAIN;

    syscall!(syscall0(), "move $v0, $a0");
    syscall!(syscall1(a), "move $v0, $a1");
    syscall!(syscall2(a, b), "move $v0, $a2");
    syscall!(syscall3(a, b, c), "move $v0, $a3");
    syscall!(syscall4(a, b, c, d), "lw $v0, 16($sp)");
    syscall!(syscall5(a, b, c, d, e), "lw $v0, 20($sp)");
    syscall!(syscall6(a, b, c, d, e, f), "lw $v0, 24($sp)");

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined $ra", // No caller: unwinders stop here.
            ".set push",
            ".set noreorder",
            "bal 3f",        // The address is unknown; $ra will point to the two words.
            "move $a0, $sp", // Delay slot: address of argc, argv, envp and auxv.
            "2:",
            ".gpword 2b", // This place and the target, relative to _gp: needs no relocation.
            ".gpword {start}",
            "3:",
            "lw $v0, 0($ra)",
            "lw $t9, 4($ra)",
            "subu $gp, $ra, $v0",
            "addu $t9, $gp, $t9",
            "li $v0, -16",
            "and $sp, $sp, $v0",   // The kernel aligns it; a loader may not.
            "addiu $sp, $sp, -16", // The callee may store its argument registers here.
            "move $fp, $zero",     // End of the frame chain,
            "jr $t9",
            "move $ra, $zero", // Delay slot: and of the return addresses.
            ".set pop",
            ".cfi_endproc",
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: 1. It only sets the thread pointer, and the caller guarantees the value.
        unsafe { Self::syscall1(k::__NR_set_thread_area as usize, tp.expose_provenance()) }
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // The instruction came with release 2. On older machines the kernel emulates it; for
        // exactly this form, with $v1, it does so fast and without destroying registers. Source:
        // arch/mips/kernel/genex.S, handle_ri_rdhwr.
        // SAFETY: 1. It reads a register, which is set.
        unsafe {
            asm!(
                ".set push",
                ".set mips32r2",
                "rdhwr $3, $29",
                ".set pop",
                out("$3") tp,
                options(nostack, pure, readonly, preserves_flags),
            )
        };
        tp
    }

    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        type Entry = unsafe extern "C" fn(*mut u8) -> !;

        /// `entry` is an argument so that the compiler computes its address as the code model
        /// requires.
        #[unsafe(naked)]
        unsafe extern "C" fn clone(args: *const CloneArgs, entry: Entry) -> isize {
            //   C: clone(args, entry)    kernel: clone(flags, stack, ptid, tls, ctid)
            //            $a0   $a1                     $a0    $a1    $a2   $a3  16($sp)
            naked_asm!(
                ".cfi_startproc",
                ".set push",
                ".set noreorder",
                "lw $v0, {stack}($a0)",
                "lw $v1, {start}($a0)",
                // Room for rust_clone's arguments, and the child's two words.
                "addiu $v0, $v0, -32",
                "sw $v1, 16($v0)",
                "sw $a1, 20($v0)",
                "move $a1, $v0",
                "lw $a2, {tid}($a0)",
                "lw $a3, {tls}($a0)",
                "lw $a0, {flags}($a0)",
                "addiu $sp, $sp, -32",
                ".cfi_def_cfa_offset 32",
                "sw $a2, 16($sp)",
                "li $v0, {nr}",
                "syscall",
                "beqz $v0, 2f",       // The child: the number of an error is not 0.
                "negu $v1, $v0",      // Delay slot, and of no use to the child.
                "movn $v0, $v1, $a3", // A failure becomes negative.
                "jr $ra",
                "addiu $sp, $sp, 32", // Delay slot.
                "2:",
                ".cfi_undefined $ra",
                "lw $a0, 16($sp)", // The word that the parent left at the stack pointer.
                "lw $t9, 20($sp)",
                "move $fp, $zero", // End of the frame chain,
                "jr $t9",
                "move $ra, $zero", // Delay slot: and of the return addresses.
                ".set pop",
                ".cfi_endproc",
                stack = const offset_of!(CloneArgs, stack),
                start = const offset_of!(CloneArgs, start),
                tid = const offset_of!(CloneArgs, tid),
                tls = const offset_of!(CloneArgs, tls),
                flags = const offset_of!(CloneArgs, flags),
                nr = const k::__NR_clone,
            )
        }
        // SAFETY: 1. to 4. The caller guarantees them.
        unsafe { clone(args, crate::sys::rust_clone) }
    }

    unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> ! {
        // SAFETY: 1. to 3. The caller guarantees them: the mapping may go, and nothing runs on it
        // afterwards. The second call needs nothing in it and does not return.
        unsafe {
            asm!(
                ".set push",
                ".set noreorder",
                "bal 2f",
                "li $v0, {munmap}", // Delay slot.
                "2:",
                // The kernel reads 16($sp) to 28($sp) on every call (since its commit 46e12c07),
                // and some versions fail with EFAULT if it cannot: exit(2) would return. So $sp
                // first moves to where these four words are the instructions from label 2 on. They
                // are readable, and never written, because signals are blocked.
                "addiu $sp, $ra, -16",
                "syscall", // munmap(base, len)
                "move $a0, $zero",
                "li $v0, {exit}",
                "syscall",
                "break",
                ".set pop",
                munmap = const k::__NR_munmap,
                exit = const k::__NR_exit,
                in("$4") base,
                in("$5") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(code: Range<usize>) -> isize {
        const BOTH_CACHES: usize = 3; // BCACHE of asm/cachectl.h; missing in linux-raw-sys.
        // Not `synci`, which reaches the caches of this processor alone.
        // SAFETY: 1. It changes no value.
        unsafe { Self::syscall3(k::__NR_cacheflush as usize, code.start, code.len(), BOTH_CACHES) }
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Restorer = Restorer::Kernels;

    type Sigaction = FlagsFirst;
}

/// A handler's third argument, as far as [`Arch::CONTEXT`] needs it: asm/ucontext.h, then `struct
/// sigcontext` of asm/sigcontext.h, which has room for registers of 64 bits.
#[repr(C)]
#[allow(dead_code)] // Only its offsets are used.
struct Ucontext {
    flags_and_link: [usize; 2],
    stack: k::sigaltstack,
    regmask_status: Halves,
    pc: u64,
    r0_to_r28: [u64; 29],
    r29: u64,
    r30: u64,
}

/// Two words, with the alignment of the 64-bit fields after them.
#[repr(C, align(8))]
#[allow(dead_code)]
struct Halves([u32; 2]);

/// Offset of the 32 bits that exist in a register's 64.
const LOW_HALF: usize = if cfg!(target_endian = "big") { 4 } else { 0 };
