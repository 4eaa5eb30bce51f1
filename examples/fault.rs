//! A program that reports its own death: `cargo xtask run fault -- fault` (or `panic`, or `quit`,
//! which is what Ctrl-\ does to it after `wait`). Without an argument it shows what all threads are
//! doing, and ends well.
//!
//! `cargo xtask symbolize PROGRAM` puts names, files and lines beside the addresses:
//!
//! ```sh
//! program=$(cargo xtask build fault)
//! $program fault 2>&1 | cargo xtask symbolize "$program"
//! ```
#![no_std]
#![no_main]

use core::hint::black_box;
use core::ptr::with_exposed_provenance;

use rt0::signal::{Signal, raise};
use rt0::sync::Semaphore;
use rt0::thread::{self, Builder};
use rt0::{Env, eprintln, fault, println};

rt0::entry!(main);

static READY: Semaphore = Semaphore::new(0);

fn main(env: Env) -> i32 {
    if let Err(errno) = fault::explain_all().and_then(|()| fault::dump_on(Signal::SIGQUIT)) {
        eprintln!("fault: no report of a death will be written: {errno}");
    }
    for name in ["first worker", "second worker"] {
        if let Err(errno) = Builder::new().name(name).spawn(wait_for_work) {
            eprintln!("fault: cannot start a thread: {errno}");
            return 1;
        }
        READY.acquire();
    }
    let done = match env.args().nth(1).map(|word| word.to_bytes()) {
        None => fault::dump_all(),
        Some(b"fault") => {
            black_box(read_the_list(black_box(8)));
            Ok(())
        }
        Some(b"panic") => panic!("as you wished"),
        Some(b"quit") => raise(Signal::SIGQUIT),
        Some(b"wait") => {
            println!("waiting");
            loop {
                thread::park();
            }
        }
        Some(_) => {
            eprintln!("usage: fault [fault|panic|quit|wait]");
            return 2;
        }
    };
    match done {
        Ok(()) => 0,
        Err(errno) => {
            eprintln!("fault: {errno}");
            1
        }
    }
}

#[inline(never)]
fn wait_for_work() {
    READY.release(1).unwrap_or(());
    loop {
        thread::park();
    }
}

/// A list whose head is a null pointer.
#[inline(never)]
fn read_the_list(offset: usize) -> u64 {
    black_box(read_at(black_box(offset))) + 1
}

#[inline(never)]
fn read_at(address: usize) -> u64 {
    // SAFETY: none: nothing is there, which is the point.
    unsafe { with_exposed_provenance::<u64>(address).read_volatile() }
}
