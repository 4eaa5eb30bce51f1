//! One function per Linux call that rt0 uses, with the names and argument order of section 2 of the
//! manual.
//!
//! This is the only caller of the machine's stubs. It hides the differences between machines in how
//! a call is made (mmap's forms, the two widths of a timespec). For a call that is missing here,
//! there is [`syscall`]. The numbers of calls and flags are the machine's, from the crate
//! `linux-raw-sys` (in `general`); rt0 uses it and does not export it.
//!
//! Every function returns the kernel's own [`Errno`]; the documentation names the errors that a
//! correct caller can get.

mod fatal;
mod fd;
mod file;
mod form;
mod futex;
mod memory;
mod process;
mod release;
mod signal;
mod thread;
mod time;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use release::fuzz;

use linux_raw_sys::general as k;

use crate::arch::{Arch, Cpu};
use crate::errno::{Errno, Result};

pub(crate) use fatal::{die, digits};
pub use fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
pub(crate) use file::*;
pub use file::{dup, flags, open, pipe, pread, read, write};
pub(crate) use futex::*;
pub(crate) use memory::*;
pub(crate) use process::*;
pub use signal::kill;
pub(crate) use signal::*;
pub(crate) use thread::*;
pub use thread::{exit_group, getpid, getppid, gettid, sched_getaffinity, sched_setaffinity, sched_yield, tgkill};
pub use time::Timespec;
pub(crate) use time::*;

/// A file descriptor's number.
pub type RawFd = i32;

/// `Errno::check` of a stub, chosen by the number of arguments.
macro_rules! call {
    ($nr:ident $(, $arg:expr)*) => { call!(@ k::$nr as usize $(, $arg)*) };
    (@ $nr:expr) => { Errno::check(Cpu::syscall0($nr)) };
    (@ $nr:expr, $a:expr) => { Errno::check(Cpu::syscall1($nr, $a)) };
    (@ $nr:expr, $a:expr, $b:expr) => { Errno::check(Cpu::syscall2($nr, $a, $b)) };
    (@ $nr:expr, $a:expr, $b:expr, $c:expr) => { Errno::check(Cpu::syscall3($nr, $a, $b, $c)) };
    (@ $nr:expr, $a:expr, $b:expr, $c:expr, $d:expr) => { Errno::check(Cpu::syscall4($nr, $a, $b, $c, $d)) };
    (@ $nr:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        Errno::check(Cpu::syscall5($nr, $a, $b, $c, $d, $e))
    };
    (@ $nr:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        Errno::check(Cpu::syscall6($nr, $a, $b, $c, $d, $e, $f))
    };
}
use call;

/// An address as the kernel takes it: the kernel reads or writes there, so its provenance is
/// exposed.
fn at<T: ?Sized>(pointer: *const T) -> usize {
    pointer.expose_provenance()
}

/// syscall(2): any call, by its number on this machine.
///
/// A result of the kernel in -4095..=-1 is an error. There is an exception on 32-bit machines:
/// getuid(2), geteuid(2), getgid(2), getegid(2), setfsuid(2) and setfsgid(2) cannot fail, and ids
/// from 2^32 - 4095 on look like errors. These are returned as ids, except 2^32 - 1, which is not
/// an id. (So for these calls, of the errors of a filter only `EPERM` is seen as one.)
///
/// In handlers: yes.
///
/// # Safety
///
/// 1. The call with these arguments is sound: it does nothing to memory or to the process that the
///    caller has no right to do.
pub unsafe fn syscall(nr: usize, args: [usize; 6]) -> Result<usize> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller guarantees 1.
    result_of(nr, unsafe { Cpu::syscall6(nr, a, b, c, d, e, f) })
}

/// What the raw result of a call means: see [`syscall`].
#[inline]
pub(crate) fn result_of(nr: usize, ret: isize) -> Result<usize> {
    const NO_ID: isize = -1;
    match Errno::check(ret) {
        Err(_) if usize::BITS == 32 && ret != NO_ID && Cpu::CREDENTIALS.ids.contains(&(nr as u32)) => Ok(ret as usize),
        done => done,
    }
}

/// getrandom(2): random bytes into the start of `buf`, and how many; all of up to 256, unless
/// interrupted while it waits for the generator to be seeded, once after boot. `EINTR`; `EAGAIN`
/// with `GRND_NONBLOCK` if it would wait; `ENOSYS` before Linux 3.17; `EINVAL` for unknown flags.
pub(crate) fn getrandom(buf: &mut [u8], flags: u32) -> Result<usize> {
    // SAFETY: 1. The kernel writes into `buf` only.
    unsafe { call!(__NR_getrandom, at(buf), buf.len(), flags as usize) }
}
