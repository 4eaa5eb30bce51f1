//! Does nothing.
#![no_std]
#![no_main]

rt0::entry!(main);

fn main(_: rt0::Env) -> i32 {
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    rt0::sys::exit_group(101)
}
