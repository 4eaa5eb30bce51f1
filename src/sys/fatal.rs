//! The line of a fatal error, for programs that need no formatting otherwise.

use linux_raw_sys::general as k;

use super::{BorrowedFd, at, call, exit_group, getpid, gettid, tgkill, write};
use crate::arch::{Arch, Cpu};
use crate::errno::Errno;

/// Ends the process with a line on stderr and `SIGABRT`. For failures that only a fault of rt0's or
/// a system call filter causes. It needs no formatting and no thread pointer.
#[cold]
pub(crate) fn die(what: &str, errno: Errno) -> ! {
    #[inline(never)]
    fn say(text: &[u8]) {
        // SAFETY: 1. Standard error is for all code to write to.
        let stderr = unsafe { BorrowedFd::borrow_raw(2) };
        let _ = write(stderr, text); // A failure cannot be reported anywhere.
    }
    let mut end = [0; 21];
    let [number @ .., newline] = &mut end;
    let first = digits(errno.raw().into(), false, number);
    *newline = b'\n';
    say(b"rt0: fatal: ");
    say(what.as_bytes());
    say(b" failed with errno ");
    say(end.get(first..).unwrap_or_default());
    // Signals are blocked, because a handler could fork between reading the ids and using them.
    let mut blocked = k::kernel_sigset_t { sig: [!0; _] };
    let set_mask = |set: &k::kernel_sigset_t| {
        // Not `rt_sigprocmask`, which calls `die` if it is refused.
        // SAFETY: 1. The kernel reads the set. A handler for SIGABRT may run at any instruction.
        let _ = unsafe { call!(__NR_rt_sigprocmask, k::SIG_SETMASK as usize, at(set), 0, size_of_val(set)) };
    };
    set_mask(&blocked);
    let _ = tgkill(getpid(), gettid(), k::SIGABRT);
    blocked.sig[0] &= !(1 << (k::SIGABRT - 1));
    set_mask(&blocked);
    exit_group(128 + k::SIGABRT as i32) // Where the signal is caught.
}

/// Writes a number's digits, decimal or hexadecimal, at the end of `buf`, as far as they fit (20
/// are enough), and returns where they begin. It is for messages in programs that do not link
/// core's formatting, which takes 3 KiB.
pub(crate) fn digits(mut number: usize, hexadecimal: bool, buf: &mut [u8]) -> usize {
    let base = if hexadecimal { 16 } else { 10 };
    let mut first = buf.len();
    for digit in buf.iter_mut().rev() {
        *digit = (number % base) as u8;
        *digit += if *digit < 10 { b'0' } else { b'a' - 10 };
        number /= base;
        first -= 1;
        if number == 0 {
            break;
        }
    }
    first
}
