//! The contract between the portable code and a machine, and the only file that asks for which
//! machine it is compiled.
//!
//! Each file of `arch/` implements [`Arch`] for its `Cpu`, in the order of the trait, so that a
//! diff of two files shows the difference of the two ABIs. A missing member, a missing row of a
//! table and a missing machine are compile errors. `arch/README.md` is the guide to a new port.
//!
//! Assembly calls two Rust functions: [`crate::start::rust_start`] and [`crate::sys::rust_clone`].

use core::ffi::{c_int, c_long, c_void};
use core::ops::Range;

use linux_raw_sys::general as k;

mod sigaction;

pub(crate) use sigaction::*;

/// Defines [`Arch::vdso_clock_gettime`] and [`Arch::vdso_getrandom`] for a machine whose vDSO
/// follows C's calling convention and returns `-errno`; or, with `by`, for one that calls the vDSO
/// through a function of its own.
#[allow(unused_macro_rules)] // A machine uses one of the two.
macro_rules! vdso {
    (vdso_clock_gettime, vdso_getrandom) => {
        #[inline(always)]
        unsafe fn vdso_clock_gettime(function: *const c_void, clock: c_int, time: *mut c_void) -> isize {
            type ClockGettime = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;
            // SAFETY: by 1, the function has this type.
            let function = unsafe { core::mem::transmute::<*const c_void, ClockGettime>(function) };
            // SAFETY: 1. By 2.
            unsafe { function(clock, time) as isize }
        }

        #[inline(always)]
        unsafe fn vdso_getrandom(
            function: *const c_void,
            buf: *mut u8,
            len: usize,
            flags: u32,
            state: *mut c_void,
            state_len: usize,
        ) -> isize {
            type Getrandom = unsafe extern "C" fn(*mut u8, usize, u32, *mut c_void, usize) -> isize;
            // SAFETY: by 1, the function has this type.
            let function = unsafe { core::mem::transmute::<*const c_void, Getrandom>(function) };
            // SAFETY: 1. By 2 and 3.
            unsafe { function(buf, len, flags, state, state_len) }
        }
    };
    (vdso_clock_gettime, vdso_getrandom by $call:ident) => {
        #[inline(always)]
        unsafe fn vdso_clock_gettime(function: *const c_void, clock: c_int, time: *mut c_void) -> isize {
            // SAFETY: 1. and 2. The caller guarantees them.
            unsafe { $call(function, clock as usize, time.expose_provenance(), 0, 0, 0) }
        }

        #[inline(always)]
        unsafe fn vdso_getrandom(
            function: *const c_void,
            buf: *mut u8,
            len: usize,
            flags: u32,
            state: *mut c_void,
            state_len: usize,
        ) -> isize {
            let (buf, state) = (buf.expose_provenance(), state.expose_provenance());
            // SAFETY: 1. to 3. The caller guarantees them.
            unsafe { $call(function, buf, len, flags as usize, state, state_len) }
        }
    };
}

/// Defines the members for the calls that take a timespec. `plain`: the plain names have 64-bit
/// seconds. `both`: the calls with 64-bit seconds have names of their own. `time64`: only those
/// exist.
#[allow(unused_macro_rules)] // A machine uses one of the three.
macro_rules! timed {
    (plain FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME) => {
        const FUTEX: Timed = Timed::Wide(k::__NR_futex);
        const CLOCK_GETTIME: Timed = Timed::Wide(k::__NR_clock_gettime);
        const CLOCK_NANOSLEEP: Timed = Timed::Wide(k::__NR_clock_nanosleep);
        const PPOLL: Timed = Timed::Wide(k::__NR_ppoll);
        const SIGTIMEDWAIT: Timed = Timed::Wide(k::__NR_rt_sigtimedwait);
        const TIMER_SETTIME: Timed = Timed::Wide(k::__NR_timer_settime);
    };
    (both FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME) => {
        const FUTEX: Timed = Timed::Split { wide: k::__NR_futex_time64, narrow: k::__NR_futex };
        const CLOCK_GETTIME: Timed = Timed::Split { wide: k::__NR_clock_gettime64, narrow: k::__NR_clock_gettime };
        const CLOCK_NANOSLEEP: Timed =
            Timed::Split { wide: k::__NR_clock_nanosleep_time64, narrow: k::__NR_clock_nanosleep };
        const PPOLL: Timed = Timed::Split { wide: k::__NR_ppoll_time64, narrow: k::__NR_ppoll };
        const SIGTIMEDWAIT: Timed =
            Timed::Split { wide: k::__NR_rt_sigtimedwait_time64, narrow: k::__NR_rt_sigtimedwait };
        const TIMER_SETTIME: Timed = Timed::Split { wide: k::__NR_timer_settime64, narrow: k::__NR_timer_settime };
    };
    (time64 FUTEX, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, SIGTIMEDWAIT, TIMER_SETTIME) => {
        const FUTEX: Timed = Timed::Wide(k::__NR_futex_time64);
        const CLOCK_GETTIME: Timed = Timed::Wide(k::__NR_clock_gettime64);
        const CLOCK_NANOSLEEP: Timed = Timed::Wide(k::__NR_clock_nanosleep_time64);
        const PPOLL: Timed = Timed::Wide(k::__NR_ppoll_time64);
        const SIGTIMEDWAIT: Timed = Timed::Wide(k::__NR_rt_sigtimedwait_time64);
        const TIMER_SETTIME: Timed = Timed::Wide(k::__NR_timer_settime64);
    };
}

/// Defines [`Arch::Pair`] as an integer, and its operations.
#[allow(unused_macros)] // Unused where vectors are faster.
macro_rules! integer {
    (Pair, pair, xor, or, is_zero) => {
        type Pair = $crate::arch::TwoWords;

        #[inline(always)]
        fn pair(word: usize) -> Self::Pair {
            (word as Self::Pair) << usize::BITS | word as Self::Pair
        }

        #[inline(always)]
        fn xor(x: Self::Pair, y: Self::Pair) -> Self::Pair {
            x ^ y
        }

        #[inline(always)]
        fn or(x: Self::Pair, y: Self::Pair) -> Self::Pair {
            x | y
        }

        #[inline(always)]
        fn is_zero(x: Self::Pair) -> bool {
            x == 0
        }
    };
}

core::cfg_select! {
    all(target_arch = "x86_64", target_pointer_width = "64") => { #[path = "../arch/x86_64.rs"] mod imp; }
    target_arch = "x86" => { #[path = "../arch/x86.rs"] mod imp; }
    all(target_arch = "aarch64", target_pointer_width = "64") => { #[path = "../arch/aarch64.rs"] mod imp; }
    target_arch = "arm" => { #[path = "../arch/arm.rs"] mod imp; }
    any(target_arch = "riscv64", target_arch = "riscv32") => { #[path = "../arch/riscv.rs"] mod imp; }
    target_arch = "loongarch64" => { #[path = "../arch/loongarch64.rs"] mod imp; }
    target_arch = "s390x" => { #[path = "../arch/s390x.rs"] mod imp; }
    target_arch = "mips" => { #[path = "../arch/mips.rs"] mod imp; }
    target_arch = "mips64" => { #[path = "../arch/mips64.rs"] mod imp; }
    target_arch = "powerpc64" => { #[path = "../arch/powerpc64.rs"] mod imp; }
    target_arch = "powerpc" => { #[path = "../arch/powerpc.rs"] mod imp; }
    target_arch = "sparc64" => { #[path = "../arch/sparc64.rs"] mod imp; }
    _ => { compile_error!("rt0 has no port for this machine: arch/README.md says how to write one, step by step"); }
}

pub(crate) use imp::Cpu;

/// The members that a machine must supply. The kernel's numbers, flags and structs come from
/// linux-raw-sys. Here are the other facts: instructions, registers, and facts that no header
/// states.
pub(crate) trait Arch {
    /// How the kernel maps memory here. Used by `sys/memory.rs` at each mmap(2).
    const MMAP: Mmap;
    /// futex(2). Used by `sys/futex.rs` at each wait and wake, and once by `sys/form.rs` if the
    /// kernel's version is unknown.
    const FUTEX: Timed;
    /// clock_gettime(2). Used by `sys/time.rs` where the vDSO has no clock.
    const CLOCK_GETTIME: Timed;
    /// clock_nanosleep(2). Used by `sys/time.rs` at each sleep.
    const CLOCK_NANOSLEEP: Timed;
    /// ppoll(2). Used by `sys/file.rs`, at the start for the standard descriptors and at each poll.
    const PPOLL: Timed;
    /// rt_sigtimedwait(2). Used by `sys/signal.rs` at each wait for a signal.
    const SIGTIMEDWAIT: Timed;
    /// timer_settime(2). Used by `sys/time.rs` when a profile sets a thread's timer.
    const TIMER_SETTIME: Timed;
    /// Whether a 64-bit argument, which takes two 32-bit registers, must start at an even one, so
    /// that the register before it may stay unused: syscall(2), "Architecture-specific
    /// requirements". The halves have the same order as in memory. 64-bit registers need no pairs.
    /// Used by `sys/file.rs` at each pread(2).
    const EVEN_PAIRS: bool;
    /// The thread pointer's place relative to the thread's TLS block. Used by `tls.rs` for each
    /// area and each access to a thread's own data, and by `thread/block.rs` for the block's
    /// layout.
    const TLS: Tls;
    /// The place of the guard for code compiled with `-fstack-protector`. Used by `thread/block.rs`
    /// for the block's layout.
    const GUARD: Guard;
    /// Whether loads and stores of words at any address are as fast as aligned ones: then memcpy
    /// and related functions use them. This affects only speed and size. Used by `intrinsics.rs` to
    /// choose between the two forms of its loops.
    const UNALIGNED_WORDS: bool;
    /// Instructions that copy and set many words, if they are at least as fast as a loop. This
    /// affects only speed. Used by `intrinsics/unaligned.rs` for long copies and fills.
    const BULK: Option<Bulk>;
    /// Two words in the form that this machine stores and compares fastest. Used by
    /// `intrinsics/unaligned.rs`, as are the four functions on it.
    type Pair: Copy;
    /// A pair with `word` in both places. Used by `intrinsics/unaligned.rs` to fill memory.
    fn pair(word: usize) -> Self::Pair;
    /// The bits in which two pairs differ. Used by `intrinsics/unaligned.rs` to compare memory.
    fn xor(x: Self::Pair, y: Self::Pair) -> Self::Pair;
    /// The bits that are set in one pair or the other. Used by `intrinsics/unaligned.rs` to compare
    /// memory.
    fn or(x: Self::Pair, y: Self::Pair) -> Self::Pair;
    /// Whether no bit is set. Used by `intrinsics/unaligned.rs` to compare memory.
    fn is_zero(x: Self::Pair) -> bool;
    /// strlen, if the machine has vectors for it; otherwise strlen reads words. Used by
    /// `intrinsics.rs` for strlen.
    const STRLEN: Option<Strlen>;
    /// memcmp, if the machine has an instruction for it; otherwise it compares words. Used by
    /// `intrinsics.rs` for memcmp and bcmp.
    const COMPARE: Option<Compare>;
    /// The vDSO's symbols. Used by `vdso.rs` when a function is looked up for the first time.
    const VDSO: Vdso;
    /// The place of the interrupted code's registers in a handler's argument. Used by
    /// `signal/info.rs` in handlers.
    const CONTEXT: Context;
    /// How frames are chained, from the register that [`Context::fp`] finds; `None` if compilers
    /// make no chain. Used by `profile/handler.rs` at each sample, and by `fault/frames.rs` for a
    /// report.
    const FRAMES: Option<Frames>;
    /// Whether the compiler has stack probes here: a function with a frame of more than a page
    /// accesses each of its pages on the way down. rustc's `stack-probes` in the target's
    /// specification. Used by `guard.rs` for the size of each guard.
    const STACK_PROBES: bool;
    /// The calls for a thread's users and groups. Used by `all_threads/rights.rs` for the process
    /// and by `sys/process.rs` for a child; `sys.rs` needs the calls that return ids.
    const CREDENTIALS: Credentials;

    /// System calls with 0 to 6 arguments. A failure is -4095..=-1 on every machine.
    ///
    /// The stub declares the number's register as changed: a kernel that restarts the call, or a
    /// tracer, may leave another number there.
    ///
    /// Used by `sys.rs` and the files of its folder, at each call.
    ///
    /// # Safety
    ///
    /// 1. The call with these arguments is sound: it does nothing to memory or to the process that
    ///    the caller has no right to do.
    unsafe fn syscall0(nr: usize) -> isize;
    /// See [`Arch::syscall0`].
    unsafe fn syscall1(nr: usize, a: usize) -> isize;
    /// See [`Arch::syscall0`].
    unsafe fn syscall2(nr: usize, a: usize, b: usize) -> isize;
    /// See [`Arch::syscall0`].
    unsafe fn syscall3(nr: usize, a: usize, b: usize, c: usize) -> isize;
    /// See [`Arch::syscall0`].
    unsafe fn syscall4(nr: usize, a: usize, b: usize, c: usize, d: usize) -> isize;
    /// See [`Arch::syscall0`].
    unsafe fn syscall5(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize;
    /// See [`Arch::syscall0`].
    unsafe fn syscall6(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize;

    /// The program's first instruction. Naked; exported as `_start`. Ends the frame chain (frame
    /// pointer, return address and back chain 0), sets up the state that the ABI requires at a call
    /// (a global pointer, a stack frame), and calls [`crate::start::rust_start`] with the kernel's
    /// stack pointer.
    ///
    /// Called by the kernel, at the start of the program.
    ///
    /// # Safety
    ///
    /// 1. Only the kernel enters here, once.
    unsafe extern "C" fn _start() -> !;

    /// Makes `tp` this thread's thread pointer. Returns the raw result of the system call, or 0 if
    /// none is needed.
    ///
    /// Used by `sys/thread.rs` once, at the start of the program.
    ///
    /// # Safety
    ///
    /// 1. `tp` has the place that [`Arch::TLS`] says, in a block that outlives the thread. In
    ///    variant II the word at `tp` holds its own address.
    unsafe fn set_thread_pointer(tp: *mut u8) -> isize;

    /// This thread's thread pointer, read by the fastest instruction.
    ///
    /// Used by `tls.rs` at each access to the thread's block and own data.
    ///
    /// # Safety
    ///
    /// 1. [`Arch::set_thread_pointer`] succeeded on this thread, or `clone` started it.
    unsafe fn thread_pointer() -> *mut u8;

    /// The thread pointer of any thread, including one that was not made by rt0: it may be null or
    /// any address. [`Arch::thread_pointer`] may read memory there; this function asks the kernel
    /// instead. Used by `tls.rs` in handlers.
    fn any_thread_pointer() -> *mut u8 {
        // SAFETY: 1. A machine that does not override this reads a register.
        unsafe { Self::thread_pointer() }
    }

    /// clone(2) of a thread or of a process, with the arguments in this machine's order. The parent
    /// gets the raw result. The child starts on `args.stack` with the frame chain ended, and calls
    /// [`crate::sys::rust_clone`] with `args.start`, which it reads at or above its stack pointer,
    /// never below. The stub also works if the child has a copy of the memory: it stores nothing
    /// for the child after the kernel has made the copy.
    ///
    /// Used by `sys/thread.rs` for each thread and for each child of `process`.
    ///
    /// # Safety
    ///
    /// 1. `args.stack` is the high end, 16-aligned, of a stack that no other thread uses, with at
    ///    least 256 bytes below it.
    /// 2. `args.tid` is null, or memory that the flags' writes may use, for as long as they may
    ///    happen.
    /// 3. With `CLONE_SETTLS`, `args.tls` is as for `set_thread_pointer` and outlives the child.
    /// 4. All signals are blocked.
    unsafe extern "C" fn clone(args: &CloneArgs) -> isize;

    /// clone(2) with `SIGCHLD` and no other flag, on the same stack, as fork(2). Returns the raw
    /// result, which is 0 in the child on every machine.
    ///
    /// Used by `sys/thread.rs` at each fork(2).
    ///
    /// # Safety
    ///
    /// 1. The child relies on no other thread, and on no data that another thread was changing.
    unsafe extern "C" fn fork() -> isize {
        // SAFETY: 1. The caller guarantees it.
        unsafe { Self::syscall5(k::__NR_clone as usize, k::SIGCHLD as usize, 0, 0, 0, 0) }
    }

    /// munmap(2) of the memory that contains this thread's stack, then exit(2) of the thread,
    /// without using a stack in between.
    ///
    /// Used by `sys/thread.rs` at the end of a detached thread whose stack is not kept.
    ///
    /// # Safety
    ///
    /// 1. `base..base + len` is one mapping, owned by this thread, and no code accesses it again.
    /// 2. All signals are blocked: a handler would run on the unmapped stack.
    /// 3. The word that the kernel clears at the thread's end (set_tid_address(2)) is not in it.
    unsafe fn unmap_and_exit(base: *mut u8, len: usize) -> !;

    /// Makes every processor fetch the instructions at `code` as they were last stored: what is in
    /// its instruction cache goes, and what this thread has prefetched. Returns the raw result of
    /// the system call, or 0 if none is needed.
    ///
    /// Used by `sys/memory.rs` for a program that writes code.
    ///
    /// # Safety
    ///
    /// 1. `code` is readable memory of this process, and not empty.
    unsafe fn flush_instructions(code: Range<usize>) -> isize;

    /// Calls the vDSO's clock_gettime, in the width of `function`. A failure is -4095..=-1 on every
    /// machine.
    ///
    /// Used by `vdso.rs` each time that a clock is read.
    ///
    /// # Safety
    ///
    /// 1. `function` is the vDSO's function with one of the names in [`Arch::VDSO`].
    /// 2. `time` points to memory of this thread for a timespec of that width.
    unsafe fn vdso_clock_gettime(function: *const c_void, clock: c_int, time: *mut c_void) -> isize;

    /// Calls the vDSO's getrandom. A failure is -4095..=-1 on every machine.
    ///
    /// Used by `vdso.rs` for each piece of random bytes, and once for the size of a state.
    ///
    /// # Safety
    ///
    /// 1. `function` is the vDSO's function with the name in [`Arch::VDSO`].
    /// 2. `buf..buf + len` is writable memory of this thread.
    /// 3. `state..state + state_len` is a state of the kind that the vDSO requires, which no other
    ///    thread uses meanwhile; or, with a `state_len` of `!0`, a writable
    ///    `vgetrandom_opaque_params`.
    unsafe fn vdso_getrandom(
        function: *const c_void,
        buf: *mut u8,
        len: usize,
        flags: u32,
        state: *mut c_void,
        state_len: usize,
    ) -> isize;

    /// The code to which handlers return. Used by `sys/signal.rs` and `arch/sigaction.rs` when an
    /// action is set.
    const RESTORER: Restorer;

    /// struct sigaction in the layout of this machine's kernel. Used by `sys/signal.rs` when an
    /// action is set or read.
    type Sigaction: Form;
}

/// Calls `f` with the start of each cache line that `code` touches; `line` is a power of two.
#[allow(dead_code)] // For machines whose caches are not coherent.
#[inline(always)]
pub(crate) fn each_line(code: Range<usize>, line: usize, f: impl Fn(usize)) {
    (code.start & !(line - 1)..code.end).step_by(line).for_each(f);
}

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

/// See [`Arch::BULK`].
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
    /// 1. `words` words are readable at `src` and writable at `dest`; neither need be aligned.
    /// 2. `dest` is not strictly inside the source; `dest == src` is allowed.
    pub copy: unsafe fn(dest: *mut u8, src: *const u8, words: usize),
    /// Stores `word` at `dest`, `words` times.
    ///
    /// # Safety
    ///
    /// 1. `words` words are writable at `dest`, which need not be aligned.
    pub set: unsafe fn(dest: *mut u8, word: usize, words: usize),
}

/// See [`Arch::STRLEN`]: the number of bytes from `s` on before the first NUL.
///
/// # Safety
///
/// 1. The bytes from `s` up to and including the first NUL are readable.
pub(crate) type Strlen = unsafe fn(s: *const u8) -> usize;

/// See [`Arch::COMPARE`].
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

// The contract assumes ILP32 or LP64: pointers, longs and argument registers have one size.
const _: () = assert!(size_of::<c_long>() == size_of::<usize>() && size_of::<c_int>() == 4, "neither ILP32 nor LP64");
