//! The types of the members of [`Arch`](super::Arch): what a machine says in a table, and the
//! arguments that assembly reads.

use core::ffi::c_int;
use core::ops::Range;

use linux_raw_sys::general as k;

/// How mmap(2) takes its arguments.
#[allow(dead_code)] // A machine uses one of the forms.
pub(crate) enum Mmap {
    /// Six arguments, the offset in bytes.
    Bytes(u32),
    /// Six arguments, the offset in units of 4096 bytes, regardless of the page size (`mmap2`).
    Units4096(u32),
    /// One argument: the address of the six.
    Block(u32),
}

/// A call that takes a timespec, which may have a 32-bit and a 64-bit form.
#[allow(dead_code)] // A machine uses one of the forms.
pub(crate) enum Timed {
    /// One call, and its timespec has 64-bit seconds.
    Wide(u32),
    /// The call with 64-bit seconds (since Linux 5.1) and the one with 32-bit seconds (missing if
    /// the kernel is configured without it).
    Split {
        /// The number of the call that takes `__kernel_timespec`.
        wide: u32,
        /// The number of the call that takes `__kernel_old_timespec`.
        narrow: u32,
    },
}

/// The place of the thread pointer (the psABI's "TLS variants"; Ulrich Drepper, *ELF Handling For
/// Thread-Local Storage*).
#[allow(dead_code)] // A machine uses one of the variants.
pub(crate) enum Tls {
    /// Variant I: the TLS block follows `tcb` bytes after `start`, and `thread pointer = start +
    /// bias`.
    Above {
        /// Bytes of the ABI's thread control block, between `start` and the TLS block.
        tcb: usize,
        /// The ABI adds this to the thread pointer, so that 16-bit offsets reach further.
        bias: usize,
    },
    /// Variant II: the TLS block is below and ends at the thread pointer; the word at the thread
    /// pointer holds its own address.
    Below,
}

/// The place where compilers expect the guard of `-fstack-protector`: LLVM's `LOAD_STACK_GUARD`,
/// GCC's `TARGET_THREAD_SSP_OFFSET`.
#[allow(dead_code)] // A machine uses one of the two.
pub(crate) enum Guard {
    /// In the variable `__stack_chk_guard`.
    Variable,
    /// In a word of each thread.
    Word {
        /// Its offset in bytes from the thread pointer without its bias: negative in variant I,
        /// positive in variant II.
        at: isize,
        /// Bytes on that side, from the thread pointer on, that the ABI reserves: compiled code may
        /// read them (glibc's `tcbhead_t` up to the last such word). All but the guard are 0.
        reserved: usize,
    },
}

/// The vDSO's functions (vdso(7)). If the running kernel lacks a symbol, rt0 uses the system call.
pub(crate) struct Vdso {
    /// The versions that its symbols may have.
    pub versions: &'static [&'static str],
    /// clock_gettime with 64-bit seconds.
    pub clock_gettime: &'static str,
    /// clock_gettime with 32-bit seconds, of kernels older than the wide one.
    pub clock_gettime_narrow: Option<&'static str>,
    /// Whether the wide clock_gettime may be used only if the narrow one exists. On Arm without a
    /// usable counter the kernel removes the narrow name. Until Linux 5.8 it kept the wide one,
    /// which then returns wrong times.
    pub narrow_vouches_for_wide: bool,
    /// getrandom.
    pub getrandom: &'static str,
}

/// An integer of two words.
#[allow(dead_code)] // Where a pair is a vector.
#[cfg(target_pointer_width = "64")]
pub(crate) type TwoWords = u128;
#[cfg(target_pointer_width = "32")]
pub(crate) type TwoWords = u64;

/// See [`Arch::BULK`](super::Arch::BULK).
#[allow(dead_code)] // Most machines have no such instructions.
#[derive(Clone, Copy)]
pub(crate) struct Bulk {
    /// The least number of bytes to copy by them.
    pub copy_from: usize,
    /// The least number of bytes to set by them.
    pub set_from: usize,
    /// Copying is slow if the destination's lowest 12 bits are above the source's by less than
    /// this, but not equal. The processor first compares only these bits to decide whether a load
    /// depends on an earlier store.
    pub apart: usize,
    /// Copies the words at `src` to `dest`, upward.
    ///
    /// # Safety
    ///
    /// 1. `words` words are readable at `src` and writable at `dest`. Both are aligned, unless
    ///    [`UNALIGNED_WORDS`](super::Arch::UNALIGNED_WORDS) is true.
    /// 2. `dest` is not strictly inside the source; `dest == src` is allowed.
    pub copy: unsafe fn(dest: *mut u8, src: *const u8, words: usize),
    /// Stores `word` at `dest`, `words` times.
    ///
    /// # Safety
    ///
    /// 1. `words` words are writable at `dest`, which is aligned, unless
    ///    [`UNALIGNED_WORDS`](super::Arch::UNALIGNED_WORDS) is true.
    pub set: unsafe fn(dest: *mut u8, word: usize, words: usize),
}

/// See [`Arch::STRLEN`](super::Arch::STRLEN): the number of bytes from `s` on before the first NUL.
///
/// # Safety
///
/// 1. The bytes from `s` up to and including the first NUL are readable.
pub(crate) type Strlen = unsafe fn(s: *const u8) -> usize;

/// See [`Arch::COMPARE`](super::Arch::COMPARE).
///
/// # Safety
///
/// 1. `a..a + n` and `b..b + n` are readable and initialised.
pub(crate) type Compare = unsafe fn(a: *const u8, b: *const u8, n: usize) -> c_int;

/// Offsets into the `ucontext` that a handler gets, each of a register as wide as a pointer.
/// (linux-raw-sys has no `ucontext`; the kernel's headers asm/ucontext.h and asm/sigcontext.h have
/// it.)
pub(crate) struct Context {
    /// Of the address of the next instruction, or of the one that faulted.
    pub pc: usize,
    /// Of the stack pointer.
    pub sp: usize,
    /// Of the register by which frames are chained; without a chain, of the register that functions
    /// use for their frame.
    pub fp: usize,
    /// Of the register in which a call stores its return address; `None` if that is a word on the
    /// stack.
    pub link: Option<usize>,
    /// The registers in a report of a fault, in the order of memory.
    pub registers: &'static [Registers],
}

/// Registers at equal distances in the `ucontext`, each as wide as a pointer.
pub(crate) struct Registers {
    /// Offset of the first one.
    pub at: usize,
    /// The distance between the starts of two.
    pub apart: usize,
    /// Their names, separated by blanks.
    pub names: &'static str,
}

/// The `ucontext` of newer machines, whose asm/ucontext.h are the same: the mask with room to grow,
/// then the registers. Only its offsets are used.
#[repr(C)]
#[allow(dead_code)]
pub(crate) struct Ucontext<Sigcontext> {
    flags_and_link: [usize; 2],
    stack: k::sigaltstack,
    sigmask: k::kernel_sigset_t,
    reserved: [u8; 1024 / 8 - size_of::<k::kernel_sigset_t>()],
    pub context: Sigcontext,
}

/// The places in a function's frame that lead to its caller, if the program was compiled with
/// frames.
pub(crate) struct Frames {
    /// Offset of the address of the caller's frame.
    pub caller: isize,
    /// Offset of the address that the function returns to.
    pub return_address: isize,
    /// Whether the return address lies in the caller's frame. Then its offset counts from there.
    pub in_callers: bool,
    /// A distance before the return address that is certainly within the call instruction.
    pub past_call: usize,
    /// For a machine with a stub that uses the frame pointer's register for something else: the
    /// frame's distance above the stack pointer if `pc` is in that part of the stub; `None` for
    /// every other `pc`.
    pub elsewhere: Option<fn(pc: usize) -> Option<usize>>,
}

/// The numbers of the calls with user and group ids of 32 bits: getuid(2), setuid(2), setgid(2),
/// setgroups(2), setresuid(2), setresgid(2). On the oldest machines the calls with plain names
/// truncate them to 16 bits.
pub(crate) struct Credentials {
    pub getuid: u32,
    pub setuid: u32,
    pub setgid: u32,
    pub setgroups: u32,
    pub setreuid: u32,
    pub setregid: u32,
    pub setresuid: u32,
    pub setresgid: u32,
    /// The calls that cannot fail and return an id: getuid(2), geteuid(2), getgid(2), getegid(2),
    /// setfsuid(2), setfsgid(2). On 32-bit machines a large id looks like an error.
    pub ids: [u32; 6],
}

impl Credentials {
    /// For machines whose plain names take 32 bits.
    #[allow(dead_code)] // Unused on the others.
    pub const PLAIN: Credentials = Credentials {
        getuid: k::__NR_getuid,
        setuid: k::__NR_setuid,
        setgid: k::__NR_setgid,
        setgroups: k::__NR_setgroups,
        setreuid: k::__NR_setreuid,
        setregid: k::__NR_setregid,
        setresuid: k::__NR_setresuid,
        setresgid: k::__NR_setresgid,
        ids: [k::__NR_getuid, k::__NR_geteuid, k::__NR_getgid, k::__NR_getegid, k::__NR_setfsuid, k::__NR_setfsgid],
    };
}

/// The arguments of `clone`; assembly reads them by `offset_of!`.
#[repr(C)]
pub(crate) struct CloneArgs {
    /// The `CLONE_*` flags.
    pub flags: usize,
    /// The high end of the child's stack.
    pub stack: *mut u8,
    /// The word that some flags write. For a thread, the kernel sets it to the tid now and clears
    /// it at the thread's end; with `CLONE_PIDFD` it gets the descriptor's number.
    pub tid: *mut u32,
    /// The child's thread pointer.
    pub tls: *mut u8,
    /// The child's argument for `rust_clone`.
    pub start: *mut u8,
}

/// Calls `f` with the start of each cache line that `code` touches; `line` is a power of two.
#[allow(dead_code)] // For machines whose caches are not coherent.
#[inline(always)]
pub(crate) fn each_line(code: Range<usize>, line: usize, f: impl Fn(usize)) {
    (code.start & !(line - 1)..code.end).step_by(line).for_each(f);
}
