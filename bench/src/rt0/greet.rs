//! Greets; with an argument it then sleeps.
#![no_std]
#![no_main]

use core::time::Duration;

use rt0::{Env, println, thread};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    println!("hello, world");
    if env.args().len() > 1 {
        thread::sleep(Duration::from_secs(60));
    }
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    rt0::sys::exit_group(101)
}
