//! x86_64 (amd64), EM 62.
//!
//! - System call: `syscall`; number in rax; arguments in rdi rsi rdx r10 r8 r9; result in rax, a
//!   failure is -4095..=-1. The instruction destroys rcx and r11, nothing else. Source: syscall(2),
//!   arch/x86/entry/entry_64.S. When the kernel restarts a call, it may put another number into
//!   rax; the result overwrites it. Source: arch_do_signal_or_restart in arch/x86/kernel/signal.c.
//! - Entry: rsp is 16-aligned and points at argc; rdx is 0. Source: System V psABI, 3.4.
//! - Thread pointer: fs base, set by arch_prctl(2); TLS variant II; the word at fs:0 holds its own
//!   address.
//! - clone(2): flags, stack, ptid, ctid, tls.
//! - Signals: a restorer is mandatory, and debuggers recognise it by its bytes.
//! - Stack: 16-aligned before a call, a red zone of 128 bytes below rsp.

use core::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi64x, _mm_setzero_si128, _mm_xor_si128,
};
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;
use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

use linux_raw_sys::general as k;

use crate::arch::{
    Arch, Bulk, CloneArgs, Compare, Context, Credentials, Frames, Guard, Mmap, Registers, Restorer, Strlen, Timed, Tls,
    Vdso, WithRestorer,
};

pub(crate) struct Cpu;

const ARCH_SET_FS: u32 = 0x1002; // asm/prctl.h; missing in linux-raw-sys.

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller guarantees it; the instruction itself destroys only rax, rcx
            // and r11.
            unsafe {
                asm!(
                    "syscall",
                    inlateout("rax") nr => ret,
                    $(in($reg) $arg,)*
                    lateout("rcx") _,
                    lateout("r11") _,
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
    const TLS: Tls = Tls::Below;
    // The guard is at fs:0x28. At fs:0x70 code compiled by GCC with -fsplit-stack reads the end of
    // the stack.
    const GUARD: Guard = Guard::Word { at: 0x28, reserved: 0x78 };
    const UNALIGNED_WORDS: bool = true;
    // From these lengths on, `rep movsq` and `rep stosq` are faster than SSE2 loops on Zen 3. They
    // move words: old processors execute `rep movsb` and `rep stosb` byte by byte. A copy takes
    // three to six times as long if the destination is slightly above the source, modulo 4096.
    const BULK: Option<Bulk> =
        Some(Bulk { copy_from: 2048, set_from: 3072, apart: 64, copy: copy_words, set: set_words });
    // A vector: the compiler would keep an integer of two words in two registers.
    type Pair = __m128i;

    #[inline(always)]
    fn pair(word: usize) -> __m128i {
        // SAFETY: it needs SSE2, which every x86_64 processor has.
        unsafe { _mm_set1_epi64x(word as i64) }
    }

    #[inline(always)]
    fn xor(x: __m128i, y: __m128i) -> __m128i {
        // SAFETY: it needs SSE2, which every x86_64 processor has.
        unsafe { _mm_xor_si128(x, y) }
    }

    #[inline(always)]
    fn or(x: __m128i, y: __m128i) -> __m128i {
        // SAFETY: it needs SSE2, which every x86_64 processor has.
        unsafe { _mm_or_si128(x, y) }
    }

    #[inline(always)]
    fn is_zero(x: __m128i) -> bool {
        zeros(x) == 0xFFFF
    }

    const STRLEN: Option<Strlen> = Some(strlen);
    const COMPARE: Option<Compare> = None;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6"],
        clock_gettime: "__vdso_clock_gettime",
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__vdso_getrandom",
    };
    const CONTEXT: Context = Context {
        pc: offset_of!(Ucontext, rip),
        sp: offset_of!(Ucontext, rsp),
        fp: offset_of!(Ucontext, rbp),
        link: None,
        registers: &[Registers {
            at: offset_of!(Ucontext, r8_to_r15),
            apart: 8,
            names: "r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags",
        }],
    };
    const FRAMES: Option<Frames> =
        Some(Frames { caller: 0, return_address: 8, in_callers: false, past_call: 1, elsewhere: None });
    const STACK_PROBES: bool = true;
    const CREDENTIALS: Credentials = Credentials::PLAIN;

    syscall!(syscall0());
    syscall!(syscall1(a in "rdi"));
    syscall!(syscall2(a in "rdi", b in "rsi"));
    syscall!(syscall3(a in "rdi", b in "rsi", c in "rdx"));
    syscall!(syscall4(a in "rdi", b in "rsi", c in "rdx", d in "r10"));
    syscall!(syscall5(a in "rdi", b in "rsi", c in "rdx", d in "r10", e in "r8"));
    syscall!(syscall6(a in "rdi", b in "rsi", c in "rdx", d in "r10", e in "r8", f in "r9"));

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined rip", // No caller: unwinders stop here.
            "xor ebp, ebp",       // End of the frame chain.
            "mov rdi, rsp",       // Address of argc, argv, envp and auxv.
            "and rsp, -16",       // The kernel aligns it; a loader may not.
            "call {start}",
            "ud2", // Never returns.
            ".cfi_endproc",
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: 1. ARCH_SET_FS only sets the fs base, and the caller guarantees the value.
        unsafe { Self::syscall2(k::__NR_arch_prctl as usize, ARCH_SET_FS as usize, tp.expose_provenance()) }
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // SAFETY: 1. The thread pointer is set, and the word there holds its own address.
        unsafe { asm!("mov {}, fs:[0]", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    fn any_thread_pointer() -> *mut u8 {
        const ARCH_GET_FS: usize = 0x1003; // asm/prctl.h
        let mut base = 0usize;
        // SAFETY: 1. The kernel writes `base` and nothing else.
        let _ =
            unsafe { Self::syscall2(k::__NR_arch_prctl as usize, ARCH_GET_FS, (&raw mut base).expose_provenance()) };
        core::ptr::with_exposed_provenance_mut(base)
    }

    #[unsafe(naked)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        //   C: clone(args)    kernel: clone(flags, stack, ptid, ctid, tls)
        //            rdi                      rdi    rsi    rdx   r10   r8
        naked_asm!(
            ".cfi_startproc",
            "mov rsi, [rdi + {stack}]",
            "mov rax, [rdi + {start}]",
            "sub rsi, 16", // The child's first words, at its stack pointer; 16-aligned.
            "mov [rsi], rax",
            "mov rdx, [rdi + {tid}]",
            "mov r10, rdx",
            "mov r8, [rdi + {tls}]",
            "mov rdi, [rdi + {flags}]",
            "mov eax, {nr}",
            "syscall",
            "test eax, eax",
            "jz 2f",
            "ret", // Parent, or failure: the result is in rax.
            "2:",
            ".cfi_undefined rip",
            "xor ebp, ebp",   // Child: end of the frame chain.
            "mov rdi, [rsp]", // The word that the parent left at the stack pointer.
            "call {thread}",
            "ud2", // Never returns.
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
                "syscall", // munmap(base, len)
                "xor edi, edi",
                "mov eax, {exit}",
                "syscall",
                "ud2",
                exit = const k::__NR_exit,
                in("rax") k::__NR_munmap as usize,
                in("rdi") base,
                in("rsi") len,
                options(noreturn, nostack),
            )
        }
    }

    unsafe fn flush_instructions(_code: Range<usize>) -> isize {
        // The processor itself notices a store to instructions that it has fetched. Source: Intel's
        // manual, volume 3, "Self-modifying code".
        compiler_fence(SeqCst);
        0
    }

    vdso!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Restorer =
        Restorer::Field { flag: k::SA_RESTORER, with_info: sigaction_return, plain: sigaction_return };

    type Sigaction = WithRestorer;
}

/// [`Bulk::copy`].
#[inline(always)]
unsafe fn copy_words(dest: *mut u8, src: *const u8, words: usize) {
    // SAFETY: 1. and 2. The caller guarantees them. The ABI keeps the direction flag clear.
    unsafe {
        asm!(
            "rep movsq",
            inout("rcx") words => _,
            inout("rdi") dest => _,
            inout("rsi") src => _,
            options(nostack, preserves_flags),
        )
    }
}

/// [`Bulk::set`].
#[inline(always)]
unsafe fn set_words(dest: *mut u8, word: usize, words: usize) {
    // SAFETY: 1. The caller guarantees it. The ABI keeps the direction flag clear.
    unsafe {
        asm!(
            "rep stosq",
            inout("rcx") words => _,
            inout("rdi") dest => _,
            in("rax") word,
            options(nostack, preserves_flags),
        )
    }
}

/// Which bytes of `x` are 0: a bit for each, the lowest for the first byte.
#[inline(always)]
fn zeros(x: __m128i) -> u32 {
    // SAFETY: it needs SSE2, which every x86_64 processor has.
    let zero = unsafe { _mm_setzero_si128() };
    // SAFETY: it needs SSE2, which every x86_64 processor has.
    let equal = unsafe { _mm_cmpeq_epi8(x, zero) };
    // SAFETY: it needs SSE2, which every x86_64 processor has.
    unsafe { _mm_movemask_epi8(equal) as u32 }
}

/// Loads the vector at `p + OFFSET`. It is assembly because the vector may contain bytes outside
/// any Rust object.
///
/// # Safety
///
/// 1. At least one byte in the page of the vector is readable.
/// 2. `p + OFFSET` is a multiple of 16.
#[inline(always)]
unsafe fn load_around<const OFFSET: usize>(p: *const u8) -> __m128i {
    let loaded;
    // SAFETY: By 1 and 2 the load does not fault; it changes nothing.
    unsafe {
        asm!(
            "movdqa {}, [{} + {}]",
            out(xmm_reg) loaded,
            in(reg) p,
            const OFFSET,
            options(pure, readonly, nostack, preserves_flags),
        )
    };
    loaded
}

/// [`Arch::STRLEN`] by aligned vectors: the one in which the string begins, then the aligned 64
/// bytes in which it begins, then 64 bytes a round. Each of these lies in one page, which contains
/// a byte of the string.
#[inline(always)]
unsafe fn strlen(s: *const u8) -> usize {
    const VECTOR: usize = 16;
    let vector = s.map_addr(|address| address & !(VECTOR - 1));
    // SAFETY: 1. The byte at `s` is in that page, and readable by 1. 2. By the mask.
    let found = zeros(unsafe { load_around::<0>(vector) }) >> (s.addr() % VECTOR);
    if found != 0 {
        return found.trailing_zeros() as usize;
    }
    let mut at = s.map_addr(|address| address & !(ROUND - 1));
    // SAFETY: 1. The byte at `s` is in that page, and readable by 1. 2. By the mask.
    let found = unsafe { zeros_in_round(at) } >> (s.addr() % ROUND);
    if found != 0 {
        return found.trailing_zeros() as usize;
    }
    // SAFETY: 1. By 1: there is no NUL before. 2. `at` is a multiple of ROUND.
    at = unsafe { first_round_with_nul(at.wrapping_add(ROUND)) };
    // SAFETY: 1. It contains the NUL, which is readable by 1. 2. `at` is a multiple of ROUND.
    let found = unsafe { zeros_in_round(at) };
    at.addr() - s.addr() + found.trailing_zeros() as usize
}

/// The bytes that [`strlen`] examines at a time.
const ROUND: usize = 64;

/// Which bytes of a round are 0: a bit for each, the lowest for the first byte.
///
/// # Safety
///
/// 1. At least one byte in the page of the round is readable.
/// 2. `at` is a multiple of [`ROUND`].
#[inline(always)]
unsafe fn zeros_in_round(at: *const u8) -> u64 {
    // SAFETY: 1. By 1. 2. By 2.
    let first = zeros(unsafe { load_around::<0>(at) });
    // SAFETY: 1. By 1. 2. By 2, 16 bytes further.
    let second = zeros(unsafe { load_around::<16>(at) });
    // SAFETY: 1. By 1. 2. By 2, 32 bytes further.
    let third = zeros(unsafe { load_around::<32>(at) });
    // SAFETY: 1. By 1. 2. By 2, 48 bytes further.
    let fourth = zeros(unsafe { load_around::<48>(at) });
    u64::from(first | second << 16) | u64::from(third | fourth << 16) << 32
}

/// The first round from `at` on that contains a zero byte.
///
/// # Safety
///
/// 1. The bytes from `at` up to and including the first NUL are readable.
/// 2. `at` is a multiple of [`ROUND`].
#[inline(always)]
unsafe fn first_round_with_nul(mut at: *const u8) -> *const u8 {
    // SAFETY: Each round begins at a readable byte (1), and lies in the page of that byte (2).
    // Nothing is changed.
    unsafe {
        asm!(
            "pxor {zero}, {zero}",
            "2:",
            "movdqa {x}, [{at}]",
            "movdqa {y}, [{at} + 32]",
            "pminub {x}, [{at} + 16]", // The smaller of two unsigned bytes: 0 if either is 0.
            "pminub {y}, [{at} + 48]",
            "pminub {x}, {y}",
            "pcmpeqb {x}, {zero}",
            "pmovmskb {found:e}, {x}",
            "add {at}, {round}",
            "test {found:e}, {found:e}",
            "jz 2b",
            "sub {at}, {round}",
            round = const ROUND,
            at = inout(reg) at,
            found = out(reg) _,
            x = out(xmm_reg) _,
            y = out(xmm_reg) _,
            zero = out(xmm_reg) _,
            options(pure, readonly, nostack),
        )
    };
    at
}

/// A handler's third argument, as far as [`Arch::CONTEXT`] needs it: asm-generic/ucontext.h, then
/// `struct sigcontext` of asm/sigcontext.h.
#[repr(C)]
#[allow(dead_code)] // Only its offsets are used.
struct Ucontext {
    flags_and_link: [usize; 2],
    stack: k::sigaltstack,
    r8_to_r15: [u64; 8],
    rdi_rsi: [u64; 2],
    rbp: u64,
    rbx_rdx_rax_rcx: [u64; 4],
    rsp: u64,
    rip: u64,
}

/// A signal handler returns here. libgcc recognises the frame by exactly these nine bytes. Seven of
/// them are the long form of the move, which the assembler would not choose: hence `.byte`. gdb
/// also requires that the function's name contains `sigaction`.
#[unsafe(naked)]
unsafe extern "C" fn sigaction_return() {
    naked_asm!(
        ".byte 0x48, 0xc7, 0xc0", // mov rax, sign-extended imm32
        ".long {nr}",
        "syscall",
        "ud2", // Fails only by a seccomp filter; then the thread cannot go on.
        nr = const k::__NR_rt_sigreturn,
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_restorer_is_the_nine_bytes_that_debuggers_know() {
        // SAFETY: code is readable, and the function has nine bytes.
        let code = unsafe { core::slice::from_raw_parts(super::sigaction_return as *const u8, 9) };
        assert_eq!(code, [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05]);
    }
}
