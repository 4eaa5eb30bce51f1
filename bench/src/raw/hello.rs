//! Greets.
#![no_std]
#![no_main]

#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "mov eax, 1", // write
        "mov edi, eax",
        "lea rsi, [rip + 2f]",
        "mov edx, 13",
        "syscall",
        "mov eax, 231", // exit_group
        "xor edi, edi",
        "syscall",
        "2: .ascii \"hello, world\\n\"",
    )
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
