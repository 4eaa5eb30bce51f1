//! x86 (i386), EM 3.
//!
//! - System call: `int 0x80`; number in eax; arguments in ebx ecx edx esi edi ebp; result in eax, a
//!   failure is -4095..=-1. The kernel keeps all other registers. Source: syscall(2),
//!   arch/x86/entry/entry_32.S and entry_64_compat.S. When the kernel restarts a call, it may put
//!   another number into eax; the result overwrites it. Source: arch_do_signal_or_restart in
//!   arch/x86/kernel/signal.c. The compiler reserves esi and ebp, by which it may address the
//!   stack: an `asm!` cannot have them as operands.
//! - Entry: esp is 16-aligned and points at argc. Source: System V psABI for the Intel386, 2.3.
//! - Thread pointer: gs base, through a descriptor that set_thread_area(2) puts into the thread's
//!   part of the GDT; TLS variant II; the word at gs:0 holds its own address.
//! - clone(2): flags, stack, ptid, tls, ctid; tls is the address of a `struct user_desc`.
//! - Signals: a restorer is optional, else the vDSO has one; debuggers recognise both by their
//!   bytes. Two forms of frame, with and without `SA_SIGINFO`, and each has its own call to return.
//!   Source: arch/x86/kernel/signal_32.c.
//! - Stack: 16-aligned before a call, arguments on the stack; no red zone.

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

macro_rules! syscall {
    ($name:ident($($arg:ident in $reg:tt),*)) => {
        #[inline(always)]
        unsafe fn $name(nr: usize $(, $arg: usize)*) -> isize {
            let ret;
            // SAFETY: 1. The caller guarantees it; the instruction itself destroys only eax.
            unsafe {
                asm!(
                    "int 0x80",
                    inlateout("eax") nr => ret,
                    $(in($reg) $arg,)*
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
    const EVEN_PAIRS: bool = false;
    const TLS: Tls = Tls::Below;
    // The guard is at gs:0x14. At gs:0x30 code compiled by GCC with -fsplit-stack reads the end of
    // the stack.
    const GUARD: Guard = Guard::Word { at: 0x14, reserved: 0x34 };
    const UNALIGNED_WORDS: bool = true;
    // The lengths are those of x86_64, whose processors execute this code too.
    const BULK: Option<Bulk> =
        Some(Bulk { copy_from: 2048, set_from: 3072, apart: 64, copy: copy_words, set: set_words });
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
        pc: offset_of!(Ucontext, eip),
        sp: offset_of!(Ucontext, esp),
        fp: offset_of!(Ucontext, ebp),
        link: None,
        registers: &[Registers {
            at: offset_of!(Ucontext, edi_esi),
            apart: 4,
            names: "edi esi ebp esp ebx edx ecx eax trapno err eip cs eflags",
        }],
    };
    const FRAMES: Option<Frames> =
        Some(Frames { caller: 0, return_address: 4, in_callers: false, past_call: 1, elsewhere: Some(frame_in_call6) });
    const STACK_PROBES: bool = true;
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
    syscall!(syscall1(a in "ebx"));
    syscall!(syscall2(a in "ebx", b in "ecx"));
    syscall!(syscall3(a in "ebx", b in "ecx", c in "edx"));

    #[inline(always)]
    unsafe fn syscall4(nr: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
        // SAFETY: 1. The caller guarantees it. The kernel does not read arguments that a call does
        // not have.
        unsafe { call5(nr, a, b, c, d, 0) }
    }

    #[inline(always)]
    unsafe fn syscall5(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
        // SAFETY: 1. The caller guarantees it.
        unsafe { call5(nr, a, b, c, d, e) }
    }

    #[inline(always)]
    unsafe fn syscall6(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
        // SAFETY: 1. The caller guarantees it.
        unsafe { call6(nr, a, b, c, d, e, f) }
    }

    #[unsafe(naked)]
    #[unsafe(export_name = "__rt0_start")]
    unsafe extern "C" fn _start() -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined eip", // No caller: unwinders stop here.
            "xor ebp, ebp",       // End of the frame chain.
            "mov eax, esp",       // Address of argc, argv, envp and auxv.
            "and esp, -16",       // The kernel aligns it; a loader may not.
            "sub esp, 12",        // So that it is aligned again with the argument below.
            "push eax",
            "call {start}",
            "ud2", // Never returns.
            ".cfi_endproc",
            start = sym crate::start::rust_start,
        )
    }

    unsafe fn set_thread_pointer(tp: *mut u8) -> isize {
        let mut descriptor = descriptor(ANY_ENTRY, tp);
        let at = (&raw mut descriptor).expose_provenance();
        // SAFETY: 1. The kernel fills a free entry of this thread's part of the GDT, and writes its
        // number to `descriptor`.
        let done = unsafe { Self::syscall1(k::__NR_set_thread_area as usize, at) };
        if done == 0 {
            let selector = descriptor.entry_number << 3 | 3; // In the GDT, for privilege level 3.
            // SAFETY: the entry is filled, with the value that the caller guarantees.
            unsafe { asm!("mov gs, {:x}", in(reg) selector, options(nostack, preserves_flags)) };
        }
        done
    }

    #[inline(always)]
    unsafe fn thread_pointer() -> *mut u8 {
        let tp;
        // SAFETY: 1. The thread pointer is set, and the word there holds its own address.
        unsafe { asm!("mov {}, gs:[0]", out(reg) tp, options(nostack, pure, readonly, preserves_flags)) };
        tp
    }

    fn any_thread_pointer() -> *mut u8 {
        let selector: u32;
        // SAFETY: reading it is always allowed.
        unsafe { asm!("mov {:e}, gs", out(reg) selector, options(nostack, nomem, preserves_flags)) };
        let mut found = descriptor((selector & 0xffff) >> 3, core::ptr::null_mut());
        // SAFETY: 1. The kernel reads the number and fills in the rest; it writes nothing if the
        // number is not of a TLS entry.
        let _ = unsafe { Self::syscall1(k::__NR_get_thread_area as usize, (&raw mut found).expose_provenance()) };
        core::ptr::with_exposed_provenance_mut(found.base_addr as usize)
    }

    #[inline(never)]
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize {
        #[unsafe(naked)]
        unsafe extern "C" fn clone(args: *const CloneArgs, tls: *const k::user_desc) -> isize {
            //   C: clone(args, tls)    kernel: clone(flags, stack, ptid, tls, ctid)
            //         esp + 4, + 8                     ebx    ecx   edx  esi   edi
            naked_asm!(
                ".cfi_startproc",
                "push ebx",
                ".cfi_def_cfa_offset 8",
                ".cfi_offset ebx, -8",
                "push esi",
                ".cfi_def_cfa_offset 12",
                ".cfi_offset esi, -12",
                "push edi",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset edi, -16",
                "mov eax, [esp + 16]",
                "mov esi, [esp + 20]",
                "mov ecx, [eax + {stack}]",
                "mov edx, [eax + {start}]",
                "sub ecx, 16", // The child's first words, at its stack pointer; 16-aligned.
                "mov [ecx], edx",
                "mov edx, [eax + {tid}]",
                "mov edi, edx",
                "mov ebx, [eax + {flags}]",
                "mov eax, {nr}",
                "int 0x80",
                "test eax, eax",
                "jz 2f",
                "pop edi", // Parent, or failure: the result is in eax.
                ".cfi_def_cfa_offset 12",
                "pop esi",
                ".cfi_def_cfa_offset 8",
                "pop ebx",
                ".cfi_def_cfa_offset 4",
                "ret",
                "2:",
                ".cfi_undefined eip",
                "xor ebp, ebp",  // Child: end of the frame chain.
                "call {thread}", // The argument is what the parent left above the stack pointer.
                "ud2",           // Never returns.
                ".cfi_endproc",
                stack = const offset_of!(CloneArgs, stack),
                start = const offset_of!(CloneArgs, start),
                tid = const offset_of!(CloneArgs, tid),
                flags = const offset_of!(CloneArgs, flags),
                nr = const k::__NR_clone,
                thread = sym crate::sys::rust_clone,
            )
        }
        let selector: u16;
        // SAFETY: reading a selector has no effect.
        unsafe { asm!("mov {:x}, gs", out(reg) selector, options(nomem, nostack, preserves_flags)) };
        // The child inherits this thread's selector, so its descriptor goes into the same entry of
        // its own part of the GDT.
        let tls = descriptor(u32::from(selector >> 3), args.tls);
        // SAFETY: 1. to 4. The caller guarantees them. The kernel reads `tls` before it returns
        // here.
        unsafe { clone(args, &tls) }
    }

    unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> ! {
        // SAFETY: 1. to 3. The caller guarantees them: the mapping may go, and nothing runs on it
        // afterwards. The second call needs no memory and does not return.
        unsafe {
            asm!(
                "int 0x80", // munmap(base, len)
                "xor ebx, ebx",
                "mov eax, {exit}",
                "int 0x80",
                "ud2",
                exit = const k::__NR_exit,
                in("eax") k::__NR_munmap,
                in("ebx") base,
                in("ecx") len,
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
        Restorer::Field { flag: k::SA_RESTORER, with_info: rt_sigaction_return, plain: sigaction_return };

    type Sigaction = WithRestorer;
}

/// [`Bulk::copy`].
#[inline(always)]
unsafe fn copy_words(dest: *mut u8, src: *const u8, words: usize) {
    // SAFETY: 1. and 2. The caller guarantees them. esi is restored, and the ABI keeps the
    // direction flag clear.
    unsafe {
        asm!(
            "xchg esi, eax", // The source belongs in esi, which the compiler reserves.
            "rep movsd",
            "mov esi, eax",
            inout("ecx") words => _,
            inout("edi") dest => _,
            inout("eax") src => _,
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
            "rep stosd",
            inout("ecx") words => _,
            inout("edi") dest => _,
            in("eax") word,
            options(nostack, preserves_flags),
        )
    }
}

/// A handler's third argument, as far as [`Arch::CONTEXT`] needs it: asm-generic/ucontext.h, then
/// `struct sigcontext` of asm/sigcontext.h.
#[repr(C)]
#[allow(dead_code)] // Only its offsets are used.
struct Ucontext {
    flags_and_link: [usize; 2],
    stack: k::sigaltstack,
    gs_fs_es_ds: [u32; 4],
    edi_esi: [u32; 2],
    ebp: u32,
    esp: u32,
    ebx_edx_ecx_eax: [u32; 4],
    trapno_err: [u32; 2],
    eip: u32,
}

/// A system call with at most five arguments. It is not inline: the compiler gives esi to no
/// `asm!`, and a debugger must learn where the caller's esi is during the call.
///
/// # Safety
///
/// 1. The call, with these arguments, does nothing to memory or to this process that the caller may
///    not do.
#[unsafe(naked)]
unsafe extern "C" fn call5(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    //   C: call5(nr, a, b, c, d, e)    kernel: eax, ebx, ecx, edx, esi, edi
    //          ebp + 8, + 12, …
    naked_asm!(
        ".cfi_startproc",
        "push ebp",
        ".cfi_def_cfa_offset 8",
        ".cfi_offset ebp, -8",
        "mov ebp, esp",
        ".cfi_def_cfa_register ebp",
        "push ebx",
        ".cfi_offset ebx, -12",
        "push esi",
        ".cfi_offset esi, -16",
        "push edi",
        ".cfi_offset edi, -20",
        "mov eax, [ebp + 8]",
        "mov ebx, [ebp + 12]",
        "mov ecx, [ebp + 16]",
        "mov edx, [ebp + 20]",
        "mov esi, [ebp + 24]",
        "mov edi, [ebp + 28]",
        "int 0x80",
        "pop edi",
        ".cfi_restore edi",
        "pop esi",
        ".cfi_restore esi",
        "pop ebx",
        ".cfi_restore ebx",
        "pop ebp",
        ".cfi_restore ebp",
        ".cfi_def_cfa esp, 4",
        "ret",
        ".cfi_endproc",
    )
}

/// A system call with six arguments. The last one goes into ebp, the register of the frame pointer;
/// during the call [`frame_in_call6`] tells the place of the frame.
///
/// # Safety
///
/// 1. The call, with these arguments, does nothing to memory or to this process that the caller may
///    not do.
#[unsafe(naked)]
unsafe extern "C" fn call6(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    //   C: call6(nr, a, b, c, d, e, f)    kernel: eax, ebx, ecx, edx, esi, edi, ebp
    //          ebp + 8, + 12, …
    naked_asm!(
        ".cfi_startproc",
        "push ebp",
        ".cfi_def_cfa_offset 8",
        ".cfi_offset ebp, -8",
        "mov ebp, esp",
        ".cfi_def_cfa_register ebp",
        "push ebx",
        ".cfi_offset ebx, -12",
        "push esi",
        ".cfi_offset esi, -16",
        "push edi",
        ".cfi_offset edi, -20",
        "mov eax, [ebp + 8]",
        "mov ebx, [ebp + 12]",
        "mov ecx, [ebp + 16]",
        "mov edx, [ebp + 20]",
        "mov esi, [ebp + 24]",
        "mov edi, [ebp + 28]",
        ".cfi_def_cfa esp, 20", // Three registers above esp, the caller's ebp, the return address.
        "mov ebp, [ebp + 32]",
        ".globl __rt0_call6_ebp_is_an_argument",
        ".hidden __rt0_call6_ebp_is_an_argument",
        "__rt0_call6_ebp_is_an_argument:",
        "int 0x80",
        "lea ebp, [esp + {registers}]",
        ".globl __rt0_call6_ebp_is_a_frame",
        ".hidden __rt0_call6_ebp_is_a_frame",
        "__rt0_call6_ebp_is_a_frame:",
        ".cfi_def_cfa ebp, 8",
        "pop edi",
        ".cfi_restore edi",
        "pop esi",
        ".cfi_restore esi",
        "pop ebx",
        ".cfi_restore ebx",
        "pop ebp",
        ".cfi_restore ebp",
        ".cfi_def_cfa esp, 4",
        "ret",
        ".cfi_endproc",
        registers = const CALL6_REGISTERS,
    )
}

/// The bytes between the stack pointer and the frame of `call6`: three saved registers.
const CALL6_REGISTERS: usize = 3 * size_of::<usize>();

/// [`Frames::elsewhere`].
fn frame_in_call6(pc: usize) -> Option<usize> {
    unsafe extern "C" {
        /// The first instruction that runs with the argument in ebp, and the first one that runs
        /// with the frame pointer there again.
        static __rt0_call6_ebp_is_an_argument: [u8; 0];
        static __rt0_call6_ebp_is_a_frame: [u8; 0];
    }
    let without = (&raw const __rt0_call6_ebp_is_an_argument).addr()..(&raw const __rt0_call6_ebp_is_a_frame).addr();
    without.contains(&pc).then_some(CALL6_REGISTERS)
}

/// Makes set_thread_area(2) choose an entry.
const ANY_ENTRY: u32 = !0;

/// A flat data segment of 4 GiB that starts at `base`; set_thread_area(2). Variables at negative
/// offsets wrap around.
fn descriptor(entry_number: u32, base: *mut u8) -> k::user_desc {
    k::user_desc {
        entry_number,
        base_addr: base.expose_provenance() as u32,
        limit: 0xf_ffff, // In pages.
        _bitfield_align_1: [],
        // seg_32bit, contents, read_exec_only, in_pages, not_present, useable
        _bitfield_1: k::user_desc::new_bitfield_1(1, 0, 0, 1, 0, 1),
        __bindgen_padding_0: [0; 3],
    }
}

/// A handler that was installed with `SA_SIGINFO` returns here. libgcc recognises the frame by
/// exactly these seven bytes; gdb also requires that the function's name contains `sigaction`.
#[unsafe(naked)]
unsafe extern "C" fn rt_sigaction_return() {
    naked_asm!(
        "mov eax, {nr}",
        "int 0x80",
        "ud2", // Fails only by a seccomp filter; then the thread cannot go on.
        nr = const k::__NR_rt_sigreturn,
    )
}

/// All other handlers return here. The kernel builds the older frame for them, and the signal's
/// number is still on the stack. libgcc recognises the frame by exactly these eight bytes; gdb also
/// requires that the function's name contains `sigaction`.
#[unsafe(naked)]
unsafe extern "C" fn sigaction_return() {
    naked_asm!(
        "pop eax",
        "mov eax, {nr}",
        "int 0x80",
        "ud2", // Fails only by a seccomp filter; then the thread cannot go on.
        nr = const k::__NR_sigreturn,
    )
}
