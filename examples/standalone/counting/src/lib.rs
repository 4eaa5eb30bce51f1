//! A library on rt0. Programs on rt0 use it, and programs on std: among these are its tests.
#![no_std]

use rt0::sync::Mutex;
use rt0::{Errno, println, thread};

/// A number that threads add to.
///
/// ```
/// let tally = counting::Tally::new();
/// tally.add(2);
/// assert_eq!(tally.total(), 2);
/// ```
#[derive(Default)]
pub struct Tally {
    total: Mutex<u64>,
}

impl Tally {
    /// Zero.
    pub const fn new() -> Tally {
        Tally { total: Mutex::new(0) }
    }

    /// Adds `n`, from any thread.
    pub fn add(&self, n: u64) {
        *self.total.lock() += n;
    }

    /// The sum of what was added so far.
    pub fn total(&self) -> u64 {
        *self.total.lock()
    }

    /// Writes the total to standard output.
    pub fn print(&self) {
        println!("counted to {}", self.total());
    }

    /// Adds 1 a thousand times on each of two threads of rt0's. For programs on rt0: on the host it
    /// is linked into no test, since none calls it.
    ///
    /// # Errors
    ///
    /// What clone(2) or mmap(2) says when there can be no second thread.
    pub fn count(&self) -> Result<(), Errno> {
        let thousand = || (0..1000).for_each(|_| self.add(1));
        thread::scope(|scope| {
            scope.spawn(thousand)?;
            thousand();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_tally_is_zero() {
        assert_eq!(Tally::new().total(), 0);
    }
}
