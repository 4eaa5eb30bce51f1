//! A crate of its own on rt0, built by plain `cargo build`.
#![no_std]
#![no_main]

use rt0::{Env, println, thread};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    let greeter = thread::Builder::new().name("greeter").spawn(|| thread::current().name().map(str::len));
    match greeter {
        Ok(greeter) => {
            println!("standalone: {} arguments, a name of {:?} bytes", env.args().len(), greeter.join());
            0
        }
        Err(errno) => {
            println!("standalone: no thread: {errno}");
            1
        }
    }
}
