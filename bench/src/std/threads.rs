//! Two threads, a lock, a join and a line.

#[cfg(feature = "parking_lot")]
use parking_lot::Mutex;
#[cfg(not(feature = "parking_lot"))]
use std::sync::Mutex;

static COUNT: Mutex<u32> = Mutex::new(0);

fn add(number: u32) -> u32 {
    #[cfg(feature = "parking_lot")]
    let mut count = COUNT.lock();
    #[cfg(not(feature = "parking_lot"))]
    let mut count = COUNT.lock().unwrap();
    *count += number;
    *count
}

fn main() {
    let other = std::thread::spawn(|| add(1));
    add(1);
    other.join().unwrap();
    assert!(add(0) == 2);
    println!("joined");
}
