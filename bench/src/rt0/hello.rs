//! Greets.
#![no_std]
#![no_main]

use rt0::io;

rt0::entry!(main);

fn main(_: rt0::Env) -> i32 {
    io::stdout().write_all(b"hello, world\n").is_err().into()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    rt0::sys::exit_group(101)
}
