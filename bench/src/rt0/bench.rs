//! The loops over rt0.
#![no_std]
#![no_main]

mod runtime;

rt0::entry!(main);

fn main(env: rt0::Env) -> i32 {
    rt0_bench::run::<runtime::Rt0>(env.args().skip(1).map(|argument| argument.to_str().unwrap_or("?")))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    rt0::sys::exit_group(101)
}
