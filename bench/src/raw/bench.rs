//! The loops over the bare kernel.
#![no_std]
#![no_main]

mod kernel;
mod memory;
mod runtime;
mod vdso;

use core::ffi::{CStr, c_char};

/// # Safety
///
/// 1. `sp` is the stack pointer at the program's first instruction.
unsafe extern "C" fn main(sp: *const usize) -> i32 {
    // SAFETY: 1. The stack holds the count, that many arguments, and a null.
    let arguments: &'static [*const c_char] = unsafe { core::slice::from_raw_parts(sp.add(1).cast(), *sp) };
    // SAFETY: 1. The environment and the vector follow the arguments.
    unsafe { vdso::find(sp.add(arguments.len() + 2)) };
    let text = |argument: &*const c_char| {
        // SAFETY: the kernel's strings end with NUL and stay.
        unsafe { CStr::from_ptr(*argument) }.to_str().unwrap_or("?")
    };
    rt0_bench::run::<runtime::Raw>(arguments.iter().skip(1).map(text))
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "xor ebp, ebp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {main}",
        "mov edi, eax",
        "mov eax, 231",
        "syscall",
        main = sym main,
    )
}
