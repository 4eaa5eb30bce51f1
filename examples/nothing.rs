//! Does nothing, for those who measure what that costs.
#![no_std]
#![no_main]

rt0::entry!(main);

fn main(_: rt0::Env) -> i32 {
    0
}
