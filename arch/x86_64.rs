//! x86_64 (amd64), EM 62.
//!
//! - System call: `syscall`; number in rax; arguments in rdi rsi rdx r10 r8 r9; result in rax, a failure is -4095..=-1.
//!   The instruction destroys rcx and r11, nothing else. Source: syscall(2), arch/x86/entry/entry_64.S.
//! - Entry: rsp is 16-aligned and points at argc; rdx is 0. Source: System V psABI, 3.4.
//! - Thread pointer: fs base, set by arch_prctl(2); TLS variant II; the word at fs:0 holds its own address.
//! - clone(2): flags, stack, ptid, ctid, tls.
//! - Signals: a restorer is mandatory, and debuggers know it by its bytes.
//! - Stack: 16-aligned before a call, a red zone of 128 bytes below rsp.

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;

use linux_raw_sys::general as k;

use crate::arch::{Arch, CloneArgs, Context, Credentials, Frames, Mmap, RawAction, Timed, Tls, Vdso};

pub(crate) struct Cpu;

const ARCH_SET_FS: u32 = 0x1002; // asm/prctl.h, which linux-raw-sys leaves out.

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller vouches for the call; the instruction itself destroys only rax, rcx and r11.
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
    const FUTEX: Timed = Timed::Wide(k::__NR_futex);
    const CLOCK_GETTIME: Timed = Timed::Wide(k::__NR_clock_gettime);
    const CLOCK_NANOSLEEP: Timed = Timed::Wide(k::__NR_clock_nanosleep);
    const PPOLL: Timed = Timed::Wide(k::__NR_ppoll);
    const TIMER_SETTIME: Timed = Timed::Wide(k::__NR_timer_settime);
    const EVEN_PAIRS: bool = false;
    const TLS: Tls = Tls::Below;
    const UNALIGNED_WORDS: bool = true;
    const VDSO: Vdso = Vdso {
        versions: &["LINUX_2.6"],
        clock_gettime: "__vdso_clock_gettime",
        clock_gettime_narrow: None,
        narrow_vouches_for_wide: false,
        getrandom: "__vdso_getrandom",
    };
    const CONTEXT: Context =
        Context { pc: offset_of!(Ucontext, rip), sp: offset_of!(Ucontext, rsp), fp: offset_of!(Ucontext, rbp) };
    const FRAMES: Option<Frames> = Some(Frames { caller: 0, return_address: 8, in_callers: false });
    const CREDENTIALS: Credentials = Credentials {
        setuid: k::__NR_setuid,
        setgid: k::__NR_setgid,
        setgroups: k::__NR_setgroups,
        setresuid: k::__NR_setresuid,
        setresgid: k::__NR_setresgid,
    };

    syscall!(syscall0());
    syscall!(syscall1(a in "rdi"));
    syscall!(syscall2(a in "rdi", b in "rsi"));
    syscall!(syscall3(a in "rdi", b in "rsi", c in "rdx"));
    syscall!(syscall4(a in "rdi", b in "rsi", c in "rdx", d in "r10"));
    syscall!(syscall5(a in "rdi", b in "rsi", c in "rdx", d in "r10", e in "r8"));
    syscall!(syscall6(a in "rdi", b in "rsi", c in "rdx", d in "r10", e in "r8", f in "r9"));

    #[unsafe(naked)]
    #[cfg_attr(not(test), unsafe(no_mangle))]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined rip", // Nobody called us: unwinders stop here.
            "xor ebp, ebp",       // End of the frame chain.
            "mov rdi, rsp",       // Where argc, argv, envp and auxv lie.
            "and rsp, -16",       // The kernel aligns it; a loader may not.
            "call {start}",
            "ud2", // Never returns.
            ".cfi_endproc",
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        // SAFETY: 1. ARCH_SET_FS only sets the fs base, to what our caller vouches for.
        unsafe { Self::syscall2(k::__NR_arch_prctl as usize, ARCH_SET_FS as usize, tp.expose_provenance()) }
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // SAFETY: 1. The thread pointer is set, and the word there holds its own address.
        unsafe { asm!("mov {}, fs:[0]", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    #[inline(never)]
    unsafe fn clone_thread(args: &CloneArgs) -> isize {
        #[unsafe(naked)]
        unsafe extern "C" fn clone(args: *const CloneArgs) -> isize {
            //   C: clone(args)    kernel: clone(flags, stack, ptid, ctid, tls)
            //            rdi                      rdi    rsi    rdx   r10   r8
            naked_asm!(
                ".cfi_startproc",
                "mov rsi, [rdi + {stack}]",
                "mov rax, [rdi + {start}]",
                "sub rsi, 16", // The child's first words, above its stack pointer; still 16-aligned.
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
                "mov rdi, [rsp]", // What the parent left above the stack pointer.
                "call {thread}",
                "ud2", // Never returns.
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

    vdso_in_c!(vdso_clock_gettime, vdso_getrandom);

    const RESTORER: Option<unsafe extern "C" fn()> = None;

    type Sigaction = k::kernel_sigaction;

    fn sigaction(action: RawAction) -> k::kernel_sigaction {
        // SAFETY: both are pointers that the kernel only stores; its type for them is an optional function pointer,
        // whose None is SIG_DFL.
        let sa_handler_kernel = unsafe { core::mem::transmute::<usize, k::__kernel_sighandler_t>(action.handler) };
        k::kernel_sigaction {
            sa_handler_kernel,
            sa_flags: action.flags as u64 | k::SA_RESTORER as u64,
            sa_restorer: Some(sigaction_return),
            sa_mask: action.mask,
        }
    }

    fn raw_action(kernel: k::kernel_sigaction) -> RawAction {
        RawAction {
            handler: kernel.sa_handler_kernel.map_or(0, |f| f as usize),
            flags: (kernel.sa_flags & !(k::SA_RESTORER as u64)) as usize,
            mask: kernel.sa_mask,
        }
    }
}

/// What a handler gets, as far as [`Arch::CONTEXT`] needs it: asm-generic/ucontext.h, then `struct sigcontext` of
/// asm/sigcontext.h.
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

/// Where a signal handler returns to. libgcc knows the frame by exactly these nine bytes, so the move is the seven-byte
/// form, which the assembler would not choose; gdb asks besides that the function's name contains `sigaction`.
#[unsafe(naked)]
unsafe extern "C" fn sigaction_return() {
    naked_asm!(
        ".byte 0x48, 0xc7, 0xc0", // mov rax, sign-extended imm32
        ".long {nr}",
        "syscall",
        nr = const k::__NR_rt_sigreturn,
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_restorer_is_the_nine_bytes_that_debuggers_know() {
        // SAFETY: code can be read, and this much of it there is.
        let code = unsafe { core::slice::from_raw_parts(super::sigaction_return as *const u8, 9) };
        assert_eq!(code, [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05]);
    }
}
