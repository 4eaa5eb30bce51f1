//! A static program without libc, on rt0.
#![no_std]
#![no_main]

use rt0::{Env, println, thread};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    let Ok(child) = thread::spawn(|| 6 * 7) else { return 1 };
    println!("hello with {} arguments; a thread says {}", env.args().len(), child.join());
    0
}
