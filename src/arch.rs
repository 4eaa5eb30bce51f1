//! The contract between the portable code and a machine, and the only file that asks for which
//! machine it is compiled.
//!
//! Each file of `arch/` implements [`Arch`] for its `Cpu`, in the order of the trait, so that a
//! diff of two files shows the difference of the two ABIs. A missing member, a missing row of a
//! table and a missing machine are compile errors. The tables' types are in `arch/tables.rs`,
//! members that several machines have in one form in `arch/members.rs`, the forms of struct
//! sigaction in `arch/sigaction.rs`. `arch/README.md` is the guide to a new port.
//!
//! Assembly calls two Rust functions: [`crate::start::rust_start`] and [`crate::sys::rust_clone`].

use core::ffi::{c_int, c_long, c_void};
use core::ops::Range;

use linux_raw_sys::general as k;

#[macro_use]
mod members;
mod sigaction;
mod tables;

pub(crate) use sigaction::*;
pub(crate) use tables::*;

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
    /// affects only speed. Used by `intrinsics/unaligned.rs`, or `intrinsics/aligned.rs` without
    /// `UNALIGNED_WORDS`, for long copies and fills.
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

// The contract assumes ILP32 or LP64: pointers, longs and argument registers have one size.
const _: () = assert!(size_of::<c_long>() == size_of::<usize>() && size_of::<c_int>() == 4, "neither ILP32 nor LP64");
