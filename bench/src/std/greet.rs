//! Greets; with an argument it then sleeps.

use std::env;
use std::thread;
use std::time::Duration;

fn main() {
    println!("hello, world");
    if env::args_os().len() > 1 {
        thread::sleep(Duration::from_secs(60));
    }
}
