//! Panics: prints a message to stderr and exits with status 101. Nothing unwinds.

use core::fmt::Write as _;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::io::Line;
use crate::{fault, sys, thread};

/// The exit status after a panic, as std's.
const STATUS: i32 = 101;

/// Called by a program's `#[panic_handler]`, which [`entry!`](crate::entry!) defines.
#[doc(hidden)]
pub fn panic(info: &PanicInfo<'_>) -> ! {
    // The thread that prints its message. A panic while it prints (a Display that panics) must not
    // recurse forever. A thread that panics meanwhile prints its own message; the first to finish
    // ends the process.
    static WRITING: AtomicU32 = AtomicU32::new(0);
    let tid = sys::gettid();
    let again = WRITING.swap(tid, Relaxed) == tid;
    let mut line = Line::new(2);
    // Errors, here and below, cannot be reported: stderr has failed.
    let _ = write!(line, "\nthread '{}' panicked at ", thread::name_for_messages());
    let _ = match info.location() {
        Some(location) => writeln!(line, "{location}:"),
        None => writeln!(line, "an unknown place:"),
    };
    let _ = match again {
        true => writeln!(line, "(while writing a panic's message)"),
        false => writeln!(line, "{}", info.message()),
    };
    let _ = line.finish();
    if !again {
        fault::after_panic();
    }
    sys::exit_group(STATUS)
}
