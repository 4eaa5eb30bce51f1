//! Others' crates in one program on rt0: each does what it is there for, and says so in a line.
#![no_std]
#![no_main]

extern crate alloc;

mod heaps;
mod start;
mod threads;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use rt0::adapters::allocator::Allocator;
use rt0::{Env, println};
use sha2::Digest;

rt0::entry!(main);
rt0::getrandom_02_backend!();

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

fn main(_: Env) -> i32 {
    for (name, works) in [
        ("crossbeam-epoch", threads::epochs as fn() -> bool),
        ("crossbeam-queue", threads::queue),
        ("ctor", start::constructor),
        ("dlmalloc", heaps::of_dlmalloc),
        ("embassy-executor", threads::executors),
        ("getrandom", random),
        ("hashbrown", heaps::map),
        ("heapless", heaps::without_a_heap),
        ("inventory", start::collected_by_constructors),
        ("linkme", start::collected_by_the_linker),
        ("miniz_oxide", compression),
        ("serde_json", json),
        ("sha2", digest),
        ("talc", heaps::of_talc),
    ] {
        if !works() {
            println!("{name} does not work");
            return 1;
        }
        println!("{name} works");
    }
    println!("all work");
    0
}

/// Version 0.2, which would call libc.
fn random() -> bool {
    let mut both = [[0; 32]; 2];
    both.iter_mut().all(|bytes| getrandom::getrandom(bytes).is_ok()) && both[0] != both[1]
}

fn compression() -> bool {
    let text: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
    let packed = miniz_oxide::deflate::compress_to_vec(&text, 6);
    packed.len() < text.len() / 10 && miniz_oxide::inflate::decompress_to_vec(&packed).is_ok_and(|back| back == text)
}

fn json() -> bool {
    let value: Result<serde_json::Value, _> = serde_json::from_str(r#"{ "n": [1, 2.5, "three"], "none": null }"#);
    value.is_ok_and(|value| value["n"][1] == 2.5 && format!("{}", value["n"]) == "[1,2.5,\"three\"]")
}

/// The digest of a million letters `a`: FIPS 180-2, B.3.
fn digest() -> bool {
    let mut hasher = sha2::Sha256::new();
    let part = vec![b'a'; 1000];
    (0..1000).for_each(|_| hasher.update(&part));
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hex == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
}
