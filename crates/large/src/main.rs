//! Others' crates that take long to compile, and C code: each does what it is there for, and says
//! so in a line.
#![no_std]
#![no_main]

extern crate alloc;

mod c;
mod network;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use regex_automata::meta::Regex;
use rt0::adapters::allocator::Allocator;
use rt0::{Env, println};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::io::Read;
use wasmi::{Engine, Linker, Module, Store};

rt0::entry!(main);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

fn main(_: Env) -> i32 {
    for (name, works) in [
        ("regex-automata", search as fn() -> bool),
        ("ruzstd", decompression),
        ("smoltcp", network::a_connection_carries_data),
        ("wasmi", interpreter),
        ("C's constructor", c::constructor),
        ("C's __thread", c::variables_of_threads),
        ("C's stack protector", c::stack_protector),
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

fn search() -> bool {
    let Ok(regex) = Regex::new("([a-z]+)@([a-z]+)[.]org") else { return false };
    let text = "to: one@first.org, two@second.com, three@third.org";
    let found: Vec<_> = regex.find_iter(text).map(|found| &text[found.range()]).collect();
    found == ["one@first.org", "three@third.org"]
}

/// A file that the program zstd has made.
fn decompression() -> bool {
    let expected: String = (1..=99).rev().map(|n| format!("{n} green bottles hanging on the wall\n")).collect();
    let Ok(mut decoder) = StreamingDecoder::new(&include_bytes!("bottles.zst")[..]) else { return false };
    let mut text = Vec::new();
    decoder.read_to_end(&mut text).is_ok() && text == expected.as_bytes()
}

/// (func (export "fib") (param i32) (result i32)
///   local.get 0 i32.const 2 i32.lt_s
///   if (result i32) local.get 0
///   else local.get 0 i32.const 1 i32.sub call 0
///     local.get 0 i32.const 2 i32.sub call 0 i32.add end)
const FIB: &[u8] = &[
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x06, 0x01, 0x60, 0x01, 0x7f, 0x01, 0x7f, 0x03, 0x02, 0x01,
    0x00, 0x07, 0x07, 0x01, 0x03, 0x66, 0x69, 0x62, 0x00, 0x00, 0x0a, 0x1e, 0x01, 0x1c, 0x00, 0x20, 0x00, 0x41, 0x02,
    0x48, 0x04, 0x7f, 0x20, 0x00, 0x05, 0x20, 0x00, 0x41, 0x01, 0x6b, 0x10, 0x00, 0x20, 0x00, 0x41, 0x02, 0x6b, 0x10,
    0x00, 0x6a, 0x0b, 0x0b,
];

fn interpreter() -> bool {
    let run = || {
        let engine = Engine::default();
        let module = Module::new(&engine, FIB)?;
        let mut store = Store::new(&engine, ());
        let instance = Linker::new(&engine).instantiate_and_start(&mut store, &module)?;
        instance.get_typed_func::<i32, i32>(&store, "fib")?.call(&mut store, 15)
    };
    run().is_ok_and(|number: i32| number == 610)
}
