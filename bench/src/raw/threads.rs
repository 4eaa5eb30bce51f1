//! Two threads, a lock, a join and a line.
#![no_std]
#![no_main]
#![allow(dead_code)]

mod kernel;

use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU32;

use kernel::Lock;

#[repr(align(16))]
struct Shared {
    lock: Lock,
    count: UnsafeCell<u32>,
    stack: UnsafeCell<[usize; 512]>,
}

// SAFETY: the count is accessed under the lock, and the stack by one thread.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared { lock: Lock::new(), count: UnsafeCell::new(0), stack: UnsafeCell::new([0; 512]) };
static TID: AtomicU32 = AtomicU32::new(0);

fn add(number: usize) {
    SHARED.lock.lock();
    // SAFETY: the lock is held.
    unsafe { *SHARED.count.get() += number as u32 };
    SHARED.lock.unlock();
}

extern "C" fn main() -> i32 {
    let top = SHARED.stack.get().wrapping_add(1).cast();
    // SAFETY: 1. No other thread uses the static's stack.
    unsafe { kernel::spawn(top, &TID, add, 1) };
    add(1);
    kernel::join(&TID);
    // SAFETY: the other thread has ended.
    let count = unsafe { *SHARED.count.get() };
    (count != 2 || kernel::write(1, b"joined\n") != 7).into()
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "xor ebp, ebp", "and rsp, -16", "call {main}", "mov edi, eax", "mov eax, 231", "syscall", main = sym main
    )
}
