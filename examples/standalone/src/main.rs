//! A package of its own on rt0: plain `cargo build` makes a static program, for any machine.
#![no_std]
#![no_main]

use counting::Tally;
use rt0::{Env, println};

rt0::entry!(main);

fn main(env: Env) -> i32 {
    static TALLY: Tally = Tally::new();
    match TALLY.count() {
        Ok(()) => {
            println!("standalone: {} arguments", env.args().len());
            TALLY.print();
            0
        }
        Err(errno) => {
            println!("standalone: no thread: {errno}");
            1
        }
    }
}
