//! Does nothing, for measurements of rt0's cost.
#![no_std]
#![no_main]

rt0::entry!(main);

fn main(_: rt0::Env) -> i32 {
    0
}
