//! A whole program: no libc, no std, no allocator.
#![no_std]
#![no_main]

use rt0::{Env, println, thread};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    let me = env.args().next().unwrap_or(c"?");
    let Ok(child) = thread::spawn(|| 6 * 7) else { return 1 };
    println!("hello from {me:?}; a thread says {}", child.join());
    0
}
