//! Shared by the programs without a runtime: x86_64 system calls in assembly, a lock, a thread.
//! Callers must avoid all misuse, and calls that cannot fail here are not checked.

use core::arch::{asm, naked_asm};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// A system call without arguments.
#[inline(always)]
pub fn call0(nr: usize) -> isize {
    let result;
    // SAFETY: no call without arguments that is made here touches memory.
    unsafe { asm!("syscall", inlateout("rax") nr => result, lateout("rcx") _, lateout("r11") _, options(nostack)) };
    result
}

/// # Safety
///
/// 1. The caller may do everything that the call does to memory and to this process.
#[inline(always)]
pub unsafe fn call3(nr: usize, a: usize, b: usize, c: usize) -> isize {
    let result;
    // SAFETY: 1. The caller guarantees it.
    unsafe {
        asm!("syscall", inlateout("rax") nr => result, in("rdi") a, in("rsi") b, in("rdx") c,
             lateout("rcx") _, lateout("r11") _, options(nostack))
    };
    result
}

/// # Safety
///
/// 1. The caller may do everything that the call does to memory and to this process.
#[inline(always)]
pub unsafe fn call6(nr: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: 1. The caller guarantees it.
    unsafe {
        asm!("syscall", inlateout("rax") nr => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
             in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack))
    };
    result
}

pub fn write(fd: i32, text: &[u8]) -> isize {
    // SAFETY: 1. The kernel only reads the text.
    unsafe { call3(1, fd as usize, text.as_ptr().expose_provenance(), text.len()) }
}

pub fn exit_group(status: i32) -> ! {
    loop {
        // SAFETY: 1. It ends the process.
        unsafe { call3(231, status as usize, 0, 0) };
    }
}

/// FUTEX_WAIT_PRIVATE, and FUTEX_WAIT for a word that the kernel clears.
#[inline(always)]
pub fn futex_wait(word: &AtomicU32, expected: u32, private: bool) {
    let op = if private { 128 } else { 0 };
    // SAFETY: 1. The kernel reads the word.
    unsafe { call6(202, [word.as_ptr().expose_provenance(), op, expected as usize, 0, 0, 0]) };
}

/// FUTEX_WAKE_PRIVATE.
#[inline(always)]
pub fn futex_wake(word: &AtomicU32, count: u32) {
    // SAFETY: 1. It touches no memory.
    unsafe { call3(202, word.as_ptr().expose_provenance(), 129, count as usize) };
}

/// The three-state lock of Ulrich Drepper's *Futexes Are Tricky*, which does not spin: 0 is open, 1
/// locked, 2 locked while a thread may sleep.
pub struct Lock(AtomicU32);

impl Lock {
    pub const fn new() -> Lock {
        Lock(AtomicU32::new(0))
    }

    #[inline(always)]
    pub fn lock(&self) {
        if self.0.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            while self.0.swap(2, Acquire) != 0 {
                futex_wait(&self.0, 2, true);
            }
        }
    }

    #[inline(always)]
    pub fn unlock(&self) {
        if self.0.swap(0, Release) == 2 {
            futex_wake(&self.0, 1);
        }
    }
}

/// Starts a thread on a stack that ends at `top`, a multiple of 16. `tid` holds its id until it has
/// ended.
///
/// # Safety
///
/// 1. Only the new thread uses the stack and `tid` until `tid` is 0.
pub unsafe fn spawn(top: *mut usize, tid: &AtomicU32, f: fn(usize), argument: usize) {
    #[unsafe(naked)]
    unsafe extern "C" fn clone(stack: *mut usize, tid: *const AtomicU32) -> isize {
        //   C: clone(stack, tid)    kernel: clone(flags, stack, ptid, ctid)
        //            rdi    rsi                    rdi    rsi    rdx   r10
        naked_asm!(
            "mov rdx, rsi",
            "mov r10, rsi",
            "mov rsi, rdi",
            // VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, PARENT_SETTID, CHILD_CLEARTID.
            "mov edi, 0x350f00",
            "mov eax, 56",
            "syscall",
            "test eax, eax",
            "jz 2f",
            "ret",
            "2:",
            "xor ebp, ebp",
            "pop rax",
            "pop rdi",
            "call rax",
            "xor edi, edi",
            "mov eax, 60", // exit
            "syscall",
            "ud2", // Never returns.
        )
    }
    // SAFETY: 1. The two words below the top are within the stack.
    let words = unsafe { top.sub(2) };
    // SAFETY: 1. The two words below the top are within the stack.
    unsafe { words.cast::<(usize, usize)>().write((f as usize, argument)) };
    // SAFETY: 1. The caller guarantees it.
    if unsafe { clone(words, tid) } < 0 {
        exit_group(2);
    }
}

#[inline(always)]
pub fn join(tid: &AtomicU32) {
    loop {
        match tid.load(Acquire) {
            0 => return,
            running => futex_wait(tid, running, false),
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    exit_group(101)
}
