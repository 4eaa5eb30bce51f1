//! Two threads, a lock, a join and a line.
#![no_std]
#![no_main]

use rt0::sync::Mutex;
use rt0::{io, thread};

rt0::entry!(main);

static COUNT: Mutex<u32> = Mutex::new(0);

fn main(_: rt0::Env) -> i32 {
    let Ok(other) = thread::spawn(|| *COUNT.lock() += 1) else { return 1 };
    *COUNT.lock() += 1;
    other.join();
    (*COUNT.lock() != 2 || io::stdout().write_all(b"joined\n").is_err()).into()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    rt0::sys::exit_group(101)
}
