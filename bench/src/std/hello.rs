//! Greets.

fn main() {
    println!("hello, world");
}
